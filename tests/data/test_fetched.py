"""How fetched speech is read: made files in the layout of the packages."""

import numpy as np
import pytest
import soundfile

from unlabeled.core.errors import UserError
from unlabeled.data.source import Subset
from unlabeled.data.sources import source


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path))
    return tmp_path / "data"


def wave(path, rate_hz, samples=800):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(samples), rate_hz, subtype="PCM_16")


def test_russian_sentences_have_text_and_phone_times(cached):
    folder = cached / "festvox-ru"
    for n, samples in (("ru_0002", 900), ("ru_0001", 800)):
        wave(folder / "wav" / f"{n}.wav", 16_000, samples)
    (folder / "etc").mkdir()
    lines = '( ru_0001 "Он+а, вошла." )\n( ru_0002 "Да." )\n'
    (folder / "etc/txt.done.data").write_text(lines, encoding="utf-8")
    (folder / "lab").mkdir()
    for n in ("ru_0001", "ru_0002"):
        (folder / f"lab/{n}.lab").write_text("separator ;\n#\n0.01500 125 pau\n0.03000 125 nn\n0.05000 125 aa\n")
    found = source("festvox-ru")
    assert len(found) == 2 and found.spec().longest == 900 and found.spec().sample_rate_hz == 16_000
    assert found.transcript(0) == "Она, вошла." and found[1].fields["caption"] == "Да."
    assert found.alignment(0) == [(0.0, 0.015, "pau"), (0.015, 0.03, "nn"), (0.03, 0.05, "aa")]
    part = Subset(found, np.array([1]), "test")
    assert part.transcript(0) == "Да." and part.alignment(0) == found.alignment(1)


def test_prompts_have_text_voices_and_the_same_prompt_together(cached):
    folder = cached / "asterisk"
    texts = {
        "en_US_f_Allison": "; sounds\n\nadded: Added: yes.\ndigits/7: seven\nbeep: [a beep]\nsilence/1: (quiet)\n",
        "es_MX_f_Allison": "added: A\u00f1adido.\n",
        "it_IT_m_Carlo": "\ufeffadded: Aggiunto.\ndigits/7: sette\n",
    }
    for sounds, text in texts.items():
        language = sounds[:2]
        for prompt in ("added", "digits/7", "beep", "silence/1"):
            wave(folder / "asterisk/sounds" / sounds / f"{prompt}.wav", 8_000)
        about = folder / f"doc/asterisk-core-sounds-{language}"
        about.mkdir(parents=True)
        (about / f"core-sounds-{language}.txt").write_text(text, encoding="utf-8")
    found = source("asterisk")
    said = [(found.transcript(i), found.classes[found.labels[i]], found.group(i)) for i in range(len(found))]
    assert said == [
        ("Added: yes.", "en, Allison", "added"),
        ("seven", "en, Allison", "digits/7"),
        ("Añadido.", "es, Allison", "added"),
        ("Aggiunto.", "it, Carlo", "added"),
        ("sette", "it, Carlo", "digits/7"),
    ]
    assert found.alignment(0) is None and found.spec().sample_rate_hz == 8_000 and found.spec().longest == 800
    assert found[1].id == "asterisk/sounds/en_US_f_Allison/digits/7.wav"
    train, test = (found.split(part) for part in ("train", "test"))
    assert not {train.group(i) for i in range(len(train))} & {test.group(i) for i in range(len(test))}


def test_what_is_not_fetched_says_how(cached):
    with pytest.raises(UserError, match="unlabeled data get asterisk"):
        source("asterisk")


def test_a_picture_has_no_transcript():
    drawings = source("clipart")
    assert drawings[0].fields["caption"] and drawings.transcript(0) is None and drawings.alignment(0) is None
    assert source("speech").transcript(0) and source("clips").transcript(0) is None
