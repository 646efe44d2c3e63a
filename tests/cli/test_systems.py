"""What a person does with a system, from data to report, with every system there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.contract.made import source_for
from unlabeled.cli.__main__ import main
from unlabeled.core import catalogue
from unlabeled.core.method import capabilities

SYSTEMS = catalogue.methods()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of images, texts and sound in two classes, by the field that a method takes."""
    import soundfile
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    found = {}
    for field, example in (("image", "simclr"), ("text", "gpt2"), ("wave", "wav2vec2")):
        source = source_for(catalogue.method(example))
        found[field] = folder / field
        for index in range(len(source)):
            fields = source[index].fields
            path = found[field] / ("even" if index % 2 == 0 else "odd") / str(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            if field == "image":
                Image.fromarray(np.asarray(fields["image"])[..., 0]).save(path.with_suffix(".png"))
            elif field == "text":
                for part in range(4):  # so that both classes have files on both sides of the split
                    path.with_name(f"{index}-{part}.txt").write_text(fields["text"][250 * part : 250 * part + 250])
            else:
                soundfile.write(path.with_suffix(".wav"), fields["wave"], fields["rate"])
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_from_data_to_report(
    system: str,
    data: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    kind = catalogue.method(system)
    field = next(f for f in ("image", "text", "wave") if f in kind.takes)
    run, pile, offers = str(tmp_path / "run"), str(data[field]), capabilities(kind)

    def said(*words: str) -> dict:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0, words
        return json.loads(capsys.readouterr().out)

    trained = said("train", system, pile, "--variant", "tiny", "--budget", "4steps", "--out", run)
    assert trained["status"]["state"] == "finished"
    found = said("evaluate", run, "--quick")
    assert found["headline"] and not any("could not be measured" in line for line in found["headline"]), found[
        "headline"
    ]
    assert found["tables"]
    report = Path(said("report", run)["report"])
    assert report.stat().st_size > 5000 and "<html" in report.read_text()
    if "embed" in offers:
        rows = said("embed", run, pile, "--out", str(tmp_path / "rows.npz"))
        with np.load(tmp_path / "rows.npz") as held:
            assert held["features"].shape == (rows["rows"], rows["width"]) and np.isfinite(held["features"]).all()
            assert set(held["label"].tolist()) == {0, 1}
    for give, capability in (("codes", "encode"), ("scores", "score")):
        if capability in offers and field != "text":
            assert said("embed", run, pile, "--give", give, "--out", str(tmp_path / "rows.npy"))["rows"] > 0
            assert np.isfinite(np.load(tmp_path / "rows.npy")).all()
    if "sample" in offers:
        drawn = said(
            "sample", run, "-n", "3", "--steps", "2", "--out", str(tmp_path / ("s.png" if field == "image" else "s"))
        )
        assert Path(drawn["out"]).stat().st_size > 0


def test_a_stage_can_be_trained_on_a_run_of_another(data: dict[str, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    tiny = ["--variant", "tiny", "--budget", "2steps"]
    codes, prior = str(tmp_path / "codes"), str(tmp_path / "prior")
    assert main(["train", "vqvae.codes", str(data["image"]), *tiny, "--out", codes]) == 0
    assert main(["train", "vqvae.prior", str(data["image"]), *tiny, "--given", codes, "--out", prior]) == 0
    assert main(["sample", prior, "-n", "2", "--out", str(tmp_path / "grid.png")]) == 0
    capsys.readouterr()
    assert main(["train", "vqvae.prior", str(data["image"]), *tiny, "--out", str(tmp_path / "alone")]) == 2
    assert "builds on vqvae.codes: name a run of it with --given" in capsys.readouterr().err


def test_what_is_exported_to_hugging_face_is_opened_there(data: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    for system, field, auto in (
        ("bert", "text", "AutoModelForMaskedLM"),
        ("wav2vec2", "wave", "Wav2Vec2ForPreTraining"),
    ):
        run, out = str(tmp_path / system), str(tmp_path / f"{system}-hf")
        assert main(["train", system, str(data[field]), "--variant", "tiny", "--budget", "2steps", "--out", run]) == 0
        assert main(["export", run, out, "--to", "hf"]) == 0
        model, told = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
        assert not told["missing_keys"] and model.num_parameters() > 0
