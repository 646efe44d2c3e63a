import gzip
import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from unlabeled.core.errors import UserError
from unlabeled.data import fetch
from unlabeled.data.fetch import FETCHED, Fetched, Package, checksum, get


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_tar(members: dict[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return out.getvalue()


def make_wheel(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
    return out.getvalue()


class Runner:
    """Stands for the three package tools: puts an archive where it runs.

    `dpkg-deb` puts the contents, and links to elsewhere beside them.
    """

    def __init__(self, file: str = "", data: bytes = b"", contents: dict[str, bytes] | None = None) -> None:
        self.file, self.data, self.contents, self.commands = file, data, contents or {}, []

    def __call__(self, command, folder: Path) -> None:
        self.commands.append(list(command))
        if command[0] == "dpkg-deb":
            for name, data in self.contents.items():
                path = Path(command[3]) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                if not (link := path.with_name("link.txt")).is_symlink():
                    link.symlink_to("/etc/passwd")
        else:
            (folder / self.file).write_bytes(self.data)


@pytest.fixture
def offer(monkeypatch):
    def add(name: str, package: Package, root: str, keep: dict[str, str]) -> None:
        monkeypatch.setitem(FETCHED, name, Fetched("a test", "CC0", package, root, keep))

    return add


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_debian_package_is_unpacked_opened_checked_and_kept(tmp_path, offer):
    offer("birds", Package("apt", "bird-data"), "usr/share/birds", {"*.txt": "", "deep/song": sha(b"la la")})
    run = Runner("bird-data_1-1_all.deb", b"!", {
        "usr/share/birds/owl.txt.gz": gzip.compress(b"hoo"),
        "usr/share/birds/jay.txt": b"chack",
        "usr/share/birds/deep/song.gz": gzip.compress(b"la la"),
        "usr/share/birds/deep/no.txt": b"not asked for",
        "usr/share/doc/birds/readme.txt": b"elsewhere",
    })  # fmt: skip
    said: list[str] = []
    folder = get("birds", tmp_path, said.append, run)
    assert folder == tmp_path / "birds"
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"owl.txt": b"hoo", "jay.txt": b"chack", "deep/song": b"la la"}
    assert run.commands[0][0] == "apt-get" and run.commands[0][-2:] == ["download", "bird-data"]
    assert "bird-data" in said[0] and str(folder) in said[-1]
    assert leftovers(tmp_path) == ["birds"]

    again = Runner()
    assert get("birds", tmp_path, run=again) == folder and not again.commands


def test_further_packages_are_unpacked_into_the_same_place(tmp_path, monkeypatch):
    also = (Package("apt", "bird-text"),)
    keep = {"song/*.wav": sha(b"tweet"), "text/*": sha(b"a bird")}
    monkeypatch.setitem(FETCHED, "birds", Fetched("a test", "CC0", Package("apt", "bird"), "usr/share", keep, also))
    sound = Runner("bird_1_all.deb", b"!", {"usr/share/song/owl.wav": b"tweet"})
    text = Runner("bird-text_1_all.deb", b"!", {"usr/share/text/owl.txt.gz": gzip.compress(b"a bird")})

    def run(command, folder):
        (text if any("bird-text" in word for word in command) else sound)(command, folder)

    folder = get("birds", tmp_path, run=run)
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"song/owl.wav": b"tweet", "text/owl.txt": b"a bird"}
    assert leftovers(tmp_path) == ["birds"]


def test_wheel_and_npm_packages_and_what_they_try_outside(tmp_path, offer):
    wheel = make_wheel({"deer/data/one.json": b"{}", "deer/data/more/two.json": b"[]", "../outside.json": b"no"})
    offer("deer", Package("pip", "deer-data", "2.0", sha(wheel)), "deer/data", {"**/*.json": ""})
    run = Runner("deer_data-2.0-py3-none-any.whl", wheel)
    folder = get("deer", tmp_path, run=run)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.json")) == ["more/two.json", "one.json"]
    assert run.commands[0][-1] == "deer-data==2.0" and "--no-deps" in run.commands[0]

    members = {"package/x/a.txt": b"a", "package/x/../../../../b.txt": b"b", "/abs.txt": b"c"}
    packed = make_tar(members, link="package/x/link.txt")
    offer("elk", Package("npm", "@herd/elk", "0.1.0", sha(packed)), "package/x", {"*.txt": sha(b"a")})
    run = Runner("herd-elk-0.1.0.tgz", packed)
    folder = get("elk", tmp_path, run=run)
    assert [p.name for p in folder.iterdir()] == ["a.txt"]
    assert run.commands[0][:2] == ["npm", "pack"] and run.commands[0][-1] == "@herd/elk@0.1.0"
    assert leftovers(tmp_path) == ["deer", "elk"]  # no b.txt: it was aimed at this folder


def test_wrong_contents_name_both_sums_and_leave_nothing(tmp_path, offer):
    wanted = sha(b"as it was")
    offer("fox", Package("apt", "fox"), "usr/share/fox", {"den": wanted})
    with pytest.raises(UserError) as caught:
        get("fox", tmp_path, run=Runner("fox_2_all.deb", b"!", {"usr/share/fox/den": b"changed"}))
    assert wanted in str(caught.value) and sha(b"changed") in str(caught.value)
    assert leftovers(tmp_path) == []


def test_wrong_archive_is_not_even_unpacked(tmp_path, offer):
    offer("gnu", Package("pip", "gnu", "1", sha(b"original")), "gnu", {"*": ""})
    with pytest.raises(UserError) as caught:
        get("gnu", tmp_path, run=Runner("gnu-1.tar.gz", b"tampered"))
    assert sha(b"original") in str(caught.value) and sha(b"tampered") in str(caught.value)
    assert leftovers(tmp_path) == []


def test_package_without_the_files_is_refused(tmp_path, offer):
    offer("hare", Package("apt", "hare"), "usr/share/hare", {"*.txt": ""})
    with pytest.raises(UserError, match=r"holds no usr/share/hare/\*\.txt"):
        get("hare", tmp_path, run=Runner("hare_1_all.deb", b"!", {"usr/share/hare/other": b""}))
    assert leftovers(tmp_path) == []


def test_damaged_archive_is_one_sentence(tmp_path, offer):
    offer("ibex", Package("pip", "ibex", "1"), "ibex", {"*": ""})
    for file, data in [
        ("ibex-1-py3-none-any.whl", b"PK garbage"),
        ("ibex-1.tar.gz", make_tar({"ibex/a": b"a" * 999})[:60]),
    ]:
        with pytest.raises(UserError, match="cannot be unpacked"):
            get("ibex", tmp_path, run=Runner(file, data))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("package", "by_hand"),
    [
        (Package("apt", "kite"), "apt-get download kite"),
        (Package("pip", "kite", "3"), "pip download --no-deps kite==3"),
        (Package("npm", "@air/kite", "3"), "npm pack @air/kite@3"),
    ],
)
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (subprocess.CalledProcessError(1, "x", stderr="W: a warning\nE: Temporary failure resolving\n"), "resolving"),
        (FileNotFoundError(2, "No such file", "apt-get"), "apt-get is not installed"),
    ],
)
def test_without_network_it_says_which_one_command_to_run(tmp_path, offer, package, by_hand, failure, reason):
    offer("kite", package, "x", {"*": ""})

    def run(command, folder):
        raise failure

    with pytest.raises(UserError) as caught:
        get("kite", tmp_path, run=run)
    assert f"`cd {tmp_path} && {by_hand}`" in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value) and leftovers(tmp_path) == []


def test_a_package_brought_by_hand_needs_no_network(tmp_path, offer):
    wheel = make_wheel({"lynx/a.txt": b"a"})
    offer("lynx", Package("pip", "lynx", "1.2", sha(wheel)), "lynx", {"*.txt": sha(b"a")})
    (tmp_path / "lynx-1.2-py3-none-any.whl").write_bytes(wheel)
    (tmp_path / "lynx-1.20-py3-none-any.whl").write_bytes(b"another version")
    run = Runner()
    assert (get("lynx", tmp_path, run=run) / "a.txt").read_bytes() == b"a"
    assert not run.commands


def test_unknown_name_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="did you mean shakespeare"):
        get("shakespear", tmp_path)


def test_cache_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="UNLABELED_CACHE"):
        get("sotu", tmp_path / "file" / "below")


def test_the_real_runner_reports_what_a_command_said(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        fetch._run(["sh", "-c", "echo E: broken >&2; exit 3"], tmp_path)
    assert fetch._reason(caught.value) == "E: broken"
    fetch._run(["sh", "-c", "touch here"], tmp_path)
    assert (tmp_path / "here").exists()


def test_checksum_is_that_of_the_command_line_tool(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"b")
    (tmp_path / "a.txt").write_bytes(b"a")
    assert checksum(tmp_path, "a.txt") == sha(b"a")
    assert checksum(tmp_path, "*.txt") == sha(f"{sha(b'a')}  a.txt\n{sha(b'b')}  b.txt\n".encode())


def test_the_table_is_complete():
    from unlabeled.data.sources.fetched import _READERS

    assert set(FETCHED) - set(_READERS) == {"minilm", "naughty-words"} and set(_READERS) <= set(FETCHED)
    for data in FETCHED.values():
        assert data.about and data.licence and data.keep
        assert all(len(wanted) == 64 or data.package.manager == "apt" for wanted in data.keep.values())
