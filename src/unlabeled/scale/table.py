"""A table of runs: what was trained (parameters, tokens, FLOPs) and what came out (loss), from CSV files or run folders."""

from __future__ import annotations

import csv
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unlabeled.core.errors import UserError, suggest
from unlabeled.engine.record import Run

__all__ = ["Excluded", "Table", "read"]

# Names that published tables use for the columns.
ALIASES: dict[str, tuple[str, ...]] = {
    "params": ("params", "n", "parameters", "num_params", "model_size", "non_embedding_params"),
    "tokens": ("tokens", "d", "train_tokens", "training_tokens"),
    "flops": ("flops", "flop", "c", "train_flop", "train_flops", "training_flop", "compute", "flops_6nd"),
    "loss": ("loss", "l", "val_loss", "eval_loss", "valid_loss", "validation_loss", "test_loss", "error"),
    "unique_tokens": ("unique_tokens", "unique", "u"),
    "steps": ("steps", "step", "s"),
    "batch_tokens": ("batch_tokens", "batch", "b"),
    "critical_batch": ("critical_batch", "b_crit"),
    "kept": ("kept", "fraction", "keep_fraction"),
    "examples": ("examples", "kept_examples", "n_examples"),
}
_TAIL = 0.05  # last share of a run's logged losses that are averaged where it was not evaluated


@dataclass(frozen=True)
class Excluded:
    """A run that is not used, and the reason in words."""

    run: str
    why: str


@dataclass(frozen=True)
class Table:
    """Runs as columns.

    columns: name -> (runs,) float64: params, tokens, flops, loss, ... in units of one (not millions), losses in nats per token
    unless the source says otherwise. labels: name -> (runs,) words, such as the data set or the modality. names: of the runs.
    convention: which parameters `params` counts. notes: what was worked out and not read.
    """

    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    convention: str = "what the table calls so (it does not say whether embeddings are in it)"
    notes: tuple[str, ...] = ()
    source: str = "the table"

    def __post_init__(self) -> None:
        columns = {k: np.asarray(v, np.float64) for k, v in self.columns.items()}
        notes = list(self.notes)
        if {"params", "tokens"} <= set(columns) and "flops" not in columns:
            columns["flops"] = 6 * columns["params"] * columns["tokens"]
            notes.append("flops are 6 x params x tokens: the table has none.")
        elif {"params", "flops"} <= set(columns) and "tokens" not in columns:
            columns["tokens"] = columns["flops"] / (6 * columns["params"])
            notes.append("tokens are flops / (6 x params): the table has none.")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "notes", tuple(notes))
        if not self.names:
            object.__setattr__(self, "names", tuple(f"row {i + 1}" for i in range(len(self))))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def rows(self, keep: np.ndarray) -> Table:
        """The runs of a mask or of indices; nothing is noted."""
        names = tuple(np.asarray(self.names, object)[keep])
        columns = {k: v[keep] for k, v in self.columns.items()}
        return replace(self, columns=columns, labels={k: v[keep] for k, v in self.labels.items()}, names=names)

    def without(self, mask: np.ndarray, why: str) -> Table:
        """Leave out the runs of the mask, for a reason that every result will show."""
        gone = tuple(Excluded(str(self.names[i]), why) for i in np.flatnonzero(mask))
        return replace(self.rows(~np.asarray(mask, bool)), excluded=(*self.excluded, *gone))

    def complete(self, *names: str) -> Table:
        """Leave out the runs that have no positive number in one of these columns."""
        table = self
        for name in names:
            if name in table:
                values = table[name]
                table = table.without(~(np.isfinite(values) & (values > 0)), f"{name} is not a positive number")
        return table

    def without_highest(self, count: int) -> Table:
        """Leave out the runs with the greatest losses: those hardly trained follow no law."""
        if not count:
            return self
        order = np.argsort(-self["loss"], kind="stable")[:count]
        return self.without(np.isin(np.arange(len(self)), order), f"one of the {count} greatest losses")

    def where(self, **wanted: str | float) -> Table:
        """The runs whose label, or number, is as wanted.

        Raises:
            UserError: where no run is.
        """
        keep = np.ones(len(self), bool)
        for name, value in wanted.items():
            if name not in self.labels and name not in self.columns:
                known = [*self.labels, *self.columns]
                raise UserError(f"{self.source} has no column {name}{suggest(name, known)}; it has {', '.join(known)}.")
            keep &= self.labels[name] == str(value) if name in self.labels else self.columns[name] == float(value)
        if not keep.any():
            asked = ", ".join(f"{k}={v}" for k, v in wanted.items())
            raise UserError(f"{self.source} has no run with {asked}; look for the values that it has.")
        return self.rows(keep)

    def need(self, inputs: Sequence[str], target: str = "loss", least: int = 3) -> None:
        """Refuse a table that a law with these inputs cannot be fitted to.

        Raises:
            UserError: where a column is missing, does not vary or is not positive, or there are too few runs.
        """
        missing = [c for c in (*inputs, target) if c not in self.columns]
        if missing:
            names = " and ".join(f"{m} (also read as {', '.join(ALIASES.get(m, (m,))[:4])})" for m in missing)
            raise UserError(
                f"{self.source} lacks the column {names}; it has {', '.join([*self.columns, *self.labels]) or 'none'}."
            )
        for name in (*inputs, target):
            bad = np.flatnonzero(~(np.isfinite(self.columns[name]) & (self.columns[name] > 0)))
            if len(bad):
                value = self.columns[name][bad[0]]
                said = "not a number" if not math.isfinite(value) else f"{value:g}"
                raise UserError(
                    f"{self.source}, {self.names[bad[0]]}: {name} is {said}; a law needs positive numbers; mend the row, or "
                    "leave out such rows (incomplete=True)."
                )
        if len(self) < least:
            raise UserError(
                f"{self.source} has {len(self)} runs that can be used; this law needs {least} at least, so add runs."
            )
        for name in inputs:
            if len(np.unique(self.columns[name])) < 2:
                what = {"params": "model size", "tokens": "number of tokens", "flops": "compute budget"}.get(name, name)
                raise UserError(
                    f"{self.source} has one {what} only ({self.columns[name][0]:g}); a law in {name} needs several, so add runs "
                    f"or fit a law without {name}."
                )

    def above_entropy(self, entropy: float) -> Table:
        """Refuse losses below what the data themselves allow, in the unit of the loss.

        Raises:
            UserError: where a loss is below.
        """
        low = np.flatnonzero(self["loss"] < entropy)
        if len(low):
            raise UserError(
                f"{self.source}, {self.names[low[0]]}: a loss of {self['loss'][low[0]]:g} is below the entropy {entropy:g} of "
                "the data; look whether the unit is another (bits, per byte) or test data were trained on."
            )
        return self


def read(
    source: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    convention: str = "",
    entropy: float | None = None,
    curves: bool = False,
    count: Callable[[Run], float] | None = None,
) -> Table:
    """Read a CSV with a header, a sweep, a run folder, a folder of runs, or several run folders.

    columns: our name -> the name in the file, where it is none of ALIASES. convention: what `params` counts. entropy: below which
    no loss can lie. curves: of run folders, a row for each logged step and not for each run. count: parameters of a run;
    by default every saved weight.

    Raises:
        UserError: where there is nothing to read, or a number is none.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if (path / "runs.csv").is_file() and not curves:  # a sweep
            table = _of_sweep(path, columns or {})
        elif path.is_file():
            table = _of_csv(path, columns or {})
        else:
            table = _of_runs(_runs_under(path), curves, count, str(path))
    else:
        runs = [run for path in source for run in _runs_under(Path(path))]
        table = _of_runs(runs, curves, count, f"{len(runs)} runs")
    table = replace(table, convention=convention or table.convention)
    return table if entropy is None or "loss" not in table else table.above_entropy(entropy)


def _of_sweep(folder: Path, given: Mapping[str, str]) -> Table:
    table = _of_csv(folder / "runs.csv", given)
    try:
        said = json.loads((folder / "plan.json").read_text())["survey"]["convention"]
    except (OSError, ValueError, KeyError, TypeError):
        said = None
    return replace(table, convention=f"what the plan's convention {said!r} counts") if said else table


def _of_csv(path: Path, given: Mapping[str, str]) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read as text; give a CSV file with a header, or run folders.") from None
    rows = list(csv.reader(text.splitlines()))
    if len(rows) < 2:
        raise UserError(f"{path} holds no runs; a CSV needs a header and a line for each run.")
    header = [h.strip() for h in rows[0]]
    lines = [(number, row) for number, row in enumerate(rows[1:], 2) if any(cell.strip() for cell in row)]
    for number, row in lines:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} values under {len(header)} names; mend the line.")
    for ours, theirs in given.items():
        if theirs not in header:
            raise UserError(f"{path} has no column {theirs} (for {ours}){suggest(theirs, header)}; name one it has.")
    ours = _named(header, given)
    columns: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for place, name in enumerate(header):
        cells = [row[place].strip() for _, row in lines]
        numbers = [_number(cell) for cell in cells]
        known = ours.get(name)
        if known:
            for (number, _), cell, value in zip(lines, cells, numbers):
                if value is None:
                    raise UserError(
                        f"{path}, line {number}: {name} is {cell or 'empty'!r}, not a number; mend the line or leave it out."
                    )
        if known or all(v is not None for v in numbers):
            columns[known or name] = np.array(numbers, np.float64)
        else:
            labels[name] = np.array(cells)
    notes: tuple[str, ...] = ()
    if "examples" in columns and not columns.get("tokens", np.zeros(1)).any():
        columns["tokens"], notes = columns["examples"], ("tokens are examples: the runs have no tokens.",)
    names = [f"line {number}" for number, _ in lines]
    if "name" in labels:
        names = [f"{said} ({line})" for said, line in zip(labels["name"], names)]
    return Table(columns, labels, tuple(names), notes=notes, source=str(path))


def _named(header: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The header's name -> our name; the first alias of a list that the header has."""
    named = {theirs: ours for ours, theirs in given.items()}
    plain = {h.lower().replace(" ", "_"): h for h in reversed(header)}
    for ours, aliases in ALIASES.items():
        found = next((plain[a] for a in aliases if a in plain), None)
        if ours not in given and found is not None and found not in named:
            named[found] = ours
    return named


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _runs_under(path: Path) -> list[Run]:
    if not path.exists():
        raise UserError(f"{path} does not exist; give a CSV file or run folders.")
    if (path / "config.json").exists() or (path / "recipe.json").exists():
        return [Run(path)]
    found = sorted(p.parent for p in path.glob("*/config.json"))
    if not found:
        raise UserError(f"{path} holds no run folders; give a CSV file, a run folder or a folder of runs.")
    return [Run(p) for p in found]


def _of_runs(runs: Iterable[Run], curves: bool, count: Callable[[Run], float] | None, source: str) -> Table:
    rows: list[dict[str, float]] = []
    names: list[str] = []
    labels: list[tuple[str, str, str]] = []
    excluded: list[Excluded] = []
    for run in runs:
        found, why = _rows_of(run, count)
        if why:
            excluded.append(Excluded(run.path.name, why))
            continue
        kept = found if curves else [_last(found)]
        rows += kept
        names += [run.path.name if len(kept) == 1 else f"{run.path.name} step {r['steps']:.0f}" for r in kept]
        labels += [(run.path.name, str(run.config["system"]), str(run.config.get("data", {}).get("name", "")))] * len(
            kept
        )
    if not rows:
        reasons = "; ".join(f"{e.run}: {e.why}" for e in excluded[:3])
        raise UserError(f"{source} holds no run that can be used ({reasons}); finish the runs first.")
    shared = [k for k in rows[0] if all(k in r for r in rows)]
    kinds = dict(zip(("run", "system", "data"), (np.array(c) for c in zip(*labels))))
    return Table(
        {k: np.array([r[k] for r in rows]) for k in shared},
        kinds,
        tuple(names),
        tuple(excluded),
        "every saved weight, embeddings included" if count is None else "what the caller counts",
        ("tokens are examples where a run has no tokens.",),
        source,
    )


def _rows_of(run: Run, count: Callable[[Run], float] | None) -> tuple[list[dict[str, float]], str]:
    """A row for each logged step with a loss, or why the run cannot be used."""
    state = run.status.get("state", "unknown")
    if state != "finished":
        return [], f"the run is {state}, not finished"
    params = float(count(run)) if count else _saved_weights(run.path / "model")
    if not params:
        return [], "the run has no saved model to count"
    total = float(run.status.get("flops", 0.0))
    last = max(float(run.status.get("step", 0)), 1.0)
    rows = []
    for row in run.metrics():
        loss = row.get("val_loss", row.get("loss"))
        if not isinstance(loss, int | float) or "step" not in row:
            continue
        if not math.isfinite(loss):
            return [], f"the loss is not finite at step {row['step']}"
        # a resumed or evaluated-only row may lack what later rows have
        seen = float(row.get("tokens") or row.get("examples") or 0)
        made = {"params": params, "tokens": seen, "steps": float(row["step"]), "loss": float(loss)}
        made |= {"flops": total * row["step"] / last} if total else {}
        made |= {"evaluated": 1.0 if "val_loss" in row else 0.0}
        rows.append(made)
    return (rows, "") if rows else ([], "the run logged no loss")


def _last(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The end of a run: the last evaluation, or the mean of the last training losses."""
    evaluated = [r for r in rows if r["evaluated"]]
    if evaluated:
        return evaluated[-1]
    tail = rows[-max(1, round(_TAIL * len(rows))) :]
    return {**rows[-1], "loss": sum(r["loss"] for r in tail) / len(tail)}


def _saved_weights(folder: Path) -> float:
    """Numbers in the safetensors files of a model, from their headers (an 8-byte length, then JSON of shapes)."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return float(total)
