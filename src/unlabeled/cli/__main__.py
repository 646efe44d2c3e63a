"""The command `unlabeled`: find the command that is asked for, run it, end well.

A command is a module of this package with `main(words) -> mapping | None`; what it returns is printed as one JSON
object where `--json` was said. It is imported only once it has been named, so that help answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unlabeled.core.errors import UserError

COMMANDS = {
    "fit": "look at data, choose a system, train within a budget, evaluate, report",
    "train": "train a named system on data",
    "resume": "go on with a run that was stopped",
    "evaluate": "measure a run against named baselines",
    "embed": "turn data into features with a trained run",
    "sample": "draw new examples from a trained run",
    "export": "write a trained model for other tools: hf, onnx",
    "report": "write the page of a run again",
    "curate": "clean, deduplicate and mix raw text by published rules, with a ledger",
    "scale": "fit scaling laws; plan and run sweeps; count parameters and FLOPs",
    "methods": "list the systems, or describe one",
    "data": "list, fetch and look at data",
    "doctor": "say what this machine has and what to fix",
}

HELP = """\
usage: unlabeled COMMAND ...

A pile of unlabeled data and a budget in, a model and an honest report out.

{commands}

  unlabeled fit photos/ --budget 10m         the whole way in one command
  unlabeled train gpt2 book.txt --budget 2000steps
  unlabeled COMMAND --help                   options and an example of each command

--debug, anywhere, shows the traceback of a mistake; --version says the version.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (open until the process ends)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        if debug:
            raise
        if os.environ.get("RANK", "0") == "0":  # under torchrun every process meets the same mistake
            print(f"unlabeled: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        if debug:
            raise
        print("unlabeled: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `unlabeled methods | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        listed = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(HELP.format(commands=listed), end="")
        return 0
    if words[0] in ("--version", "version"):
        from importlib.metadata import version

        print(version("unlabeled"))
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean `unlabeled {near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}."
        raise UserError(f"There is no command {name!r}; {hint}")
    command = importlib.import_module(f"unlabeled.cli.{name}")
    if "--json" not in rest or "--help" in rest or "-h" in rest:
        command.main(rest)
        return 0
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the one object
        result = command.main(rest)
    from unlabeled.cli.say import as_json

    print(as_json(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
