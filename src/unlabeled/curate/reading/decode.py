"""Bytes to text: what a name promises, byte-order marks, declared encodings of pages, and lines of JSON."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from unlabeled.core.errors import BadRecord
from unlabeled.curate.reading.unpack import broken
from unlabeled.data.sources.text import TEXT_FIELDS, checked_text, read_text

__all__ = [
    "CUTTABLE", "DOCUMENT_BYTES", "FIELD_ROWS", "FORMATS", "LANGUAGES", "describes", "html_of", "is_document_a_line",
    "is_object_a_line", "kind_of", "known", "lines_of", "row_of", "sample_of", "short", "text_field", "text_of", "utf8",
    "wide",
]  # fmt: skip

DOCUMENT_BYTES = 32 << 20  # of one document, unpacked; more is a container or a mistake
FIELD_ROWS = 100  # rows that decide which field holds the text

_ABOUT_CHARACTERS = 2048  # of a scalar field; longer ones are content beside the text, not a description of it
_MOST_OPENINGS = 2_000_000  # brackets in one line of JSON: each becomes an object of about 64 bytes
_LONG_LINES = 200  # mean bytes of the lines of a file that has one document a line

_CODECS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd", "bz2": "bzip2", "xz": "xz", "lzma": "xz"}
_TARS = {"tgz": "tar.gz", "tbz2": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}
FORMATS = {
    **dict.fromkeys(("txt", "text", "log", "tex", "org", "adoc", "csv", "tsv", "eml", "mbox", "mbx"), "text"),
    **dict.fromkeys(("md", "markdown"), "markdown"),
    "rst": "rst",
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
}
CUTTABLE = ("txt", "text", "log")  # whose lines may be documents if there are too many for one
_ENDINGS = {
    "python": "py pyi pyx", "notebook": "ipynb", "c": "c h", "c++": "cc cpp cxx hh hpp", "cuda": "cu", "java": "java",
    "kotlin": "kt", "scala": "scala", "javascript": "js jsx mjs", "typescript": "ts tsx", "go": "go", "rust": "rs",
    "ruby": "rb", "php": "php", "perl": "pl pm", "lua": "lua", "r": "r", "julia": "jl", "swift": "swift",
    "haskell": "hs", "ocaml": "ml mli", "f#": "fs", "c#": "cs", "visual basic": "vb", "sql": "sql",
    "shell": "sh bash zsh fish", "powershell": "ps1", "batch": "bat", "lisp": "el lisp", "clojure": "clj",
    "erlang": "erl", "elixir": "ex exs", "fortran": "f f90", "objective-c": "m mm", "dart": "dart", "assembly": "asm s",
    "verilog": "v", "vhdl": "vhd", "protobuf": "proto", "cmake": "cmake", "json": "json", "xml": "xml", "yaml": "yaml yml",
    "toml": "toml", "ini": "ini cfg conf", "css": "css", "makefile": "makefile mk", "dockerfile": "dockerfile",
}  # fmt: skip
LANGUAGES = {ending: language for language, endings in _ENDINGS.items() for ending in endings.split()}


_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


def wide(head: bytes) -> str:
    """ "utf-16-le", ... where a byte-order mark says so."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "")


def utf8(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same text in UTF-8 without a byte-order mark; all but declared UTF-16 and UTF-32 goes through as it is.

    Raises:
        BadRecord: behind the last block that can be decoded.
    """
    blocks = iter(blocks)
    first = b""
    while len(first) < 4 and (block := next(blocks, b"")):
        first += block
    name = wide(first)
    if not name:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(name)()
    first = first[4 if "32" in name else 2 :]
    for block, last in itertools.chain(((b, False) for b in itertools.chain([first], blocks)), [(b"", True)]):
        try:
            yield decoder.decode(block, last).encode()
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(name).encode()
            raise BadRecord(f"is not {name[:6].upper()} text from a certain place on, as its mark says") from error


def lines_of(blocks: Iterable[bytes], first: int) -> Iterator[tuple[int, bytes | int]]:
    """(number, line) of all lines that are not blank; of one longer than a document may be, its length in bytes."""
    number, length = first, 0
    held: list[bytes] = []
    for block in blocks:
        head, *rest = block.split(b"\n")
        length += len(head)
        if length > DOCUMENT_BYTES:
            held.clear()
        else:
            held.append(head)
        if not rest:
            continue
        for line in (length if length > DOCUMENT_BYTES else b"".join(held), *rest[:-1]):
            if isinstance(line, int) or (line and not line.isspace()):
                yield number, line
            number += 1
        held, length = [rest[-1]], len(rest[-1])
    if length > DOCUMENT_BYTES:
        yield number, length
    elif (line := b"".join(held)) and not line.isspace():
        yield number, line


_Lines = Iterable[tuple[int, bytes | int]]


def sample_of(lines: Iterator[tuple[int, bytes | int]]) -> tuple[_Lines, _Lines]:
    """The first lines, and all lines."""
    sample: list[tuple[int, bytes | int]] = []
    room = DOCUMENT_BYTES
    rest: Iterator[Any] = lines
    try:
        for number, line in lines:
            sample.append((number, line))
            room -= len(line) if isinstance(line, bytes) else 0
            if len(sample) == FIELD_ROWS or room <= 0:
                break
    except BadRecord as error:
        rest = broken(str(error))
    every: Iterable[Any] = itertools.chain(sample, rest)
    return sample, iter(every)


def text_field(rows: Iterable[dict[str, Any]]) -> str:
    """The name of the field of text: of `TEXT_FIELDS` the first that any row has, else the one with most text."""
    lengths: dict[str, int] = {}
    for row in rows:
        if isinstance(row.get(TEXT_FIELDS[0]), str):
            return TEXT_FIELDS[0]
        for key, value in row.items():
            if isinstance(value, str):
                lengths[key] = lengths.get(key, 0) + len(value)
    known = [name for name in TEXT_FIELDS if name in lengths]
    return known[0] if known else max(lengths, key=lambda key: lengths[key], default="")


def short(line: bytes | int) -> bytes:
    length = line if isinstance(line, int) else len(line)
    if isinstance(line, int) or length > DOCUMENT_BYTES:
        raise BadRecord(f"is a line of {length:,} bytes, more than one document may have ({DOCUMENT_BYTES:,})")
    return line


def row_of(line: bytes | int) -> dict[str, Any] | str:
    """The JSON object of a line, or why it has none."""
    try:
        content = short(line)
        if len(content) > _MOST_OPENINGS and content.count(b"{") + content.count(b"[") > _MOST_OPENINGS:
            return "has too many values"
        row = json.loads(content.decode())
    except BadRecord as error:
        return str(error)
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    except (ValueError, RecursionError):
        return "is not JSON"
    return row if isinstance(row, dict) else "is not a JSON object"


def is_object_a_line(content: bytes) -> bool:
    """Whether a .json file holds one object a line: the first line is one, and the next begins one or it has text."""
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n", 2)
    if not lines[0].startswith(b"{") or isinstance(row := row_of(lines[0]), str):
        return False
    if len(lines) > 1 and lines[1].strip():
        return lines[1].startswith(b"{")
    return any(isinstance(row.get(name), str) for name in TEXT_FIELDS)


def is_document_a_line(head: bytes) -> bool:
    """Whether a long text looks like one document a line."""
    *whole, _ = lines = head.split(b"\n")
    return all(line and not line.isspace() for line in whole) and len(head) > _LONG_LINES * len(lines)


def describes(value: object) -> bool:
    """Whether the value of a field can stand in `about`: a scalar, not too long, that can be written again."""
    if isinstance(value, str):
        return len(value) <= _ABOUT_CHARACTERS and (value.isascii() or not re.search("[\ud800-\udfff]", value))
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor NaN
    return isinstance(value, int) and -(1 << 63) <= value < 1 << 63


def text_of(content: bytes, kind: str) -> str:
    """The text of a whole file.

    Raises:
        BadRecord: where it has none.
    """
    if not content:
        raise BadRecord("is empty")
    if FORMATS.get(kind) == "html":
        text = html_of(content, "")
    elif name := wide(content):
        try:
            text = checked_text(content[4 if "32" in name else 2 :].decode(name))
        except UnicodeDecodeError as error:
            raise BadRecord(f"is not {name[:6].upper()} text, as its mark says") from error
    else:
        text = read_text(content)
    if text.isspace():
        raise BadRecord("is blank")
    return text


def known(kind: str) -> bool:
    return kind in FORMATS or kind in LANGUAGES


_CHARSET = re.compile(rb"""<meta[^>]{1,500}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
# What the names mean on the web (Encoding Standard of the WHATWG), where Python takes them at their word.
_ON_THE_WEB = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs",
}  # fmt: skip
_NOT_OF_PAGES = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs", "oem")


def _encoding(label: str) -> str:
    """A name of Python's for an encoding that a page declares; empty where it is none for text."""
    try:
        info = codecs.lookup(label.strip().strip("\"'"))
    except (LookupError, ValueError):
        return ""
    name = info.name.lower()
    if not getattr(info, "_is_text_encoding", True) or name.replace("-", "_") in map(_underscored, _NOT_OF_PAGES):
        return ""
    return _ON_THE_WEB.get(name, name)


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def html_of(content: bytes, charset: str) -> str:
    """A page as text, decoded as browsers do: byte-order mark, declared charset, <meta>; else it must be UTF-8.

    Bytes that a declared encoding lacks become U+FFFD, up to one in a hundred characters.

    Raises:
        BadRecord: where it cannot be decoded, is empty or holds NUL.
    """
    if name := wide(content):
        content, encoding = content[4 if "32" in name else 2 :], name
    elif content.startswith(codecs.BOM_UTF8):
        content, encoding = content.removeprefix(codecs.BOM_UTF8), "utf-8"
    else:
        found = _CHARSET.search(content[:1024])
        encoding = _encoding(charset) or _encoding(found[1].decode("ascii", "replace") if found else "")
        if encoding.startswith(("utf-16", "utf-32")) and not charset:
            encoding = "utf-8"  # such a declaration could not have been read
    if not encoding:
        return read_text(content)
    try:
        text = content.decode(encoding, "replace")
    except (UnicodeError, LookupError) as error:
        raise BadRecord(f"is not {encoding} text, as it declares") from error
    if text.count("\ufffd") > content.count(b"\xef\xbf\xbd") + len(text) // 100:
        raise BadRecord(f"is not {encoding} text, as it declares")
    return checked_text(text)


def kind_of(path: str) -> tuple[str, str]:
    """(ending in lower case, what it is packed with) of a name: ("jsonl", "gzip"), ("py", ""), ("tar", "xz")."""
    base = path.rpartition("/")[2].lower()
    stem, dot, ending = base.rpartition(".")
    if not dot:
        return {"makefile": "makefile", "dockerfile": "dockerfile"}.get(base, ""), ""
    if ending in _TARS:
        stem, ending = stem + ".tar", _TARS[ending].partition(".")[2]
    codec = _CODECS.get(ending, "")
    if codec:
        ending = stem.rpartition(".")[2] if "." in stem else ""
    return ("jsonl" if ending in ("ndjson", "jsonlines") else ending), codec
