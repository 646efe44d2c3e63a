"""E-mail addresses, IPv4 addresses and telephone numbers: replaced, counted, and never all of them.

Two published ways. "replace" (FineWeb, arXiv 2406.17557, section 3.6 and datatrove's `PIIFormatter`, 0.10.1): e-mail
addresses and public IPv4 addresses give way to a few reserved ones, in rotation, so that the text stays natural. "mask"
(Dolma, arXiv 2402.00159, and the tagger `pii_regex_with_counts_fast_v2` with the mixer's marks): e-mail addresses, US
telephone numbers and any IPv4 address become |||EMAIL_ADDRESS||| and the like, and a document with more than 5 of them
goes.

Where we differ. The rotation begins anew with every document (datatrove's goes on from one to the next, so that a text
depends on which worker saw what before). Dolma's address of an e-mail is cut at 320 characters on either side of the @
(longer is none, RFC 5321), which bounds the time; its mixer loses the mark of a span at the very end of a text, ours
does not; its test whether an IP address lies in a URL never holds (the pattern has a backspace for a word boundary) and
is left out.

Not complete, and not meant to be: names, postal addresses, IPv6, obfuscated mail ("name at host") and telephone numbers
outside the United States stay. Nor exact. Of 40 public IPv4 addresses drawn from the kernel's documentation 23 were
numbers of sections and versions ("2.6.8.1"), of 40 from the bodies of SpamAssassin's mails 3; of 25 telephone numbers
drawn from the former none was one (hexadecimal dumps), of 25 from the latter all but one: mask prose, not code.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

from unlabeled.curate.document import Document
from unlabeled.curate.recipe import Drop, Edited, Outcome

__all__ = ["EMAILS", "IPV4S", "PII", "masked", "replaced"]

# Reserved names (RFC 2606) and addresses that answered nobody when datatrove chose them (its `formatters/pii.py`).
EMAILS = ("email@example.com", "firstname.lastname@example.org")
IPV4S = ("22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168")

_BYTE = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IPV4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")
_MAYBE_IPV4 = re.compile(
    r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
)  # begins with a fixed character, hence fast; every IPv4 has it

# The parts of datatrove's pattern before and after the @. From the left it costs the square of a long run of letters.
_ATOM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+/=?^_`{|}~-"
_ATOM_BEGINS = re.compile(rf"\b[{re.escape(_ATOM)}]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_AT_DOMAIN = re.compile(rf"@(?:(?:{_LABEL}\.)+{_LABEL}|\[(?:{_BYTE}\.){{3}}(?:{_BYTE}|[A-Za-z0-9-]*[A-Za-z0-9]:)])")

# Dolma's pattern, before (backwards) and after the @; the marks around an address go with it.
_MARKS = ".@,?!;:)("
_DOLMA_BEFORE = re.compile(rf"([^\s@]+)[\s{_MARKS}]*")
_DOLMA_AT_DOMAIN = re.compile(rf"@([^\s{_MARKS[1:]}]+?)[\s{_MARKS}]?\s")
_DOLMA_PHONE = re.compile(r"(?<=[^\S\n])\(?\d{3}\)?[-. ]*\d{3}[-. ]?\d{4}")
_LONGEST_EMAIL = 320  # characters on a side
_MANY_QUESTIONS = 10_000  # question marks; Dolma leaves such a document alone


@dataclass(frozen=True)
class PII:
    """An edit that replaces or masks what looks like an e-mail address, an IPv4 address or (mask) a telephone number.

    style: "replace" as datatrove, "mask" as Dolma. most: "mask" drops a document with more hits than this.
    emails, ipv4s: leave out a kind ("replace"). public: only IPv4 addresses that are reachable from anywhere
    (`ipaddress.is_global`, whose list of exceptions grows with Python's versions) ("replace").

    The counts of the edit are by kind; what was hit is not kept.
    """

    style: Literal["replace", "mask"] = "replace"
    emails: bool = True
    ipv4s: bool = True
    public: bool = True
    most: int = 5
    name: str = "pii"

    def __call__(self, document: Document) -> Outcome:
        text = document.text
        if self.style == "mask":
            new, counts = masked(text)
            if (hits := sum(counts.values())) > self.most:
                return Drop(f"more than {self.most} addresses and numbers of persons", hits)
        else:
            new, counts = replaced(text, self.emails, self.ipv4s, self.public)
        return Edited(new, counts) if new != text else None


def replaced(text: str, emails: bool = True, ipv4s: bool = True, public: bool = True) -> tuple[str, dict[str, int]]:
    """The text with reserved addresses for those in it, and how many by kind; as datatrove's `PIIFormatter.format`."""
    counts: dict[str, int] = {}
    if emails and "@" in text:
        spans, names = list(_emails(text)), cycle(EMAILS)
        text = _with(text, [(start, end, next(names)) for start, end in spans])
        counts |= {"e-mail address": len(spans)} if spans else {}
    if ipv4s and _MAYBE_IPV4.search(text):
        spans = [m.span() for m in _IPV4.finditer(text) if _is_address(m.group(), public)]
        numbers = cycle(IPV4S)
        text = _with(text, [(start, end, next(numbers)) for start, end in spans])
        counts |= {"IPv4 address": len(spans)} if spans else {}
    return text, counts


def masked(text: str) -> tuple[str, dict[str, int]]:
    """The text with Dolma's marks, and how many hits by kind, overlapping ones included, as Dolma counts them."""
    if text.count("?") > _MANY_QUESTIONS:
        return text, {}
    kinds = {
        "e-mail address": (" |||EMAIL_ADDRESS||| ", list(_dolma_emails(text)) if "@" in text else []),
        "telephone number": (" |||PHONE_NUMBER||| ", list(_dolma_phones(text))),
        "IPv4 address": (
            " |||IP_ADDRESS||| ",
            [m.span() for m in _IPV4.finditer(text)] if _MAYBE_IPV4.search(text) else [],
        ),
    }
    hits = sorted(
        ((start, end, mark) for mark, spans in kinds.values() for start, end in spans), key=lambda hit: hit[0]
    )
    return _with(text, hits), {kind: len(spans) for kind, (_, spans) in kinds.items() if spans}


def _with(text: str, hits: list[tuple[int, int, str]]) -> str:
    """The text with other words in the place of some spans, in order; of overlapping spans the first counts."""
    parts, at = [], 0
    for start, end, new in hits:
        if start >= at:
            parts += [text[at:start], new]
            at = end
    return "".join([*parts, text[at:]])


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Spans that datatrove's pattern finds, looked for from each @ outwards."""
    done = 0  # nothing before it can be part of another
    at = text.find("@")
    while at >= 0:
        start = -1
        if (domain := _AT_DOMAIN.match(text, at)) and text[at - 1 : at] not in ("", "."):
            before = text[done:at]
            run = before[len(before.rstrip(_ATOM + ".")) :]  # all that may stand before an @
            run = run[run.rfind("..") + 2 :] if ".." in run else run
            if found := _ATOM_BEGINS.search(text, at - len(run), at):
                start = found.start()
        if domain and start >= 0:
            done = domain.end()
            yield start, done
        else:
            done = at + 1
        at = text.find("@", done)


def _is_address(number: str, public: bool) -> bool:
    try:
        address = ipaddress.ip_address(number)
    except ValueError:  # a leading zero
        return False
    return address.is_global or not public


def _dolma_emails(text: str) -> Iterator[tuple[int, int]]:
    """Spans with the marks and the white space around an address, line by line, as Dolma's tagger."""
    done = 0
    at = text.find("@")
    while at >= 0:
        begin = max(done, text.rfind("\n", 0, at) + 1, at - 2 * _LONGEST_EMAIL)
        newline = text.find("\n", at, at + _LONGEST_EMAIL)
        end = newline + 1 if newline >= 0 else min(len(text), at + _LONGEST_EMAIL)
        after = at + 1
        before = _DOLMA_BEFORE.match(text[begin:at][::-1])
        if before and (domain := _DOLMA_AT_DOMAIN.match(text, at, end)):
            after = done = domain.end()
            if "." in domain[1] and (before[1][0] != "(" or before[1].strip(_MARKS)):
                yield at - before.end(), after
        at = text.find("@", after)


def _dolma_phones(text: str) -> Iterator[tuple[int, int]]:
    """Spans with the white space before them."""
    for match in _DOLMA_PHONE.finditer(text):
        start = match.start()
        while start and text[start - 1].isspace() and text[start - 1] != "\n":
            start -= 1
        yield start, match.end()
