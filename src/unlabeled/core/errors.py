"""What a user may see: every error here ends in one sentence, never in a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["BadRecord", "Interrupted", "UserError", "suggest"]


class UserError(Exception):
    """A mistake the user can mend; the message is one sentence that says what to do.

    The command line prints the message alone and leaves with `code`.
    """

    code = 2


class Interrupted(UserError):
    """The run was stopped by Ctrl-C or SIGTERM and has saved; the message says how to go on."""

    code = 130


class BadRecord(Exception):
    """One record cannot be used; the message is the reason that goes into `quarantine.jsonl`."""

    id = ""  # of the record, set where it cannot even be read


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known name nearest to a misspelt one, or an empty string."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
