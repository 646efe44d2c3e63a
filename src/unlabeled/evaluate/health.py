"""What the logged quantities of a run say about its health, as a table and, where something is wrong, in the headline."""

from __future__ import annotations

from unlabeled.core.errors import UserError
from unlabeled.core.method import Finding, Method
from unlabeled.engine.record import Run
from unlabeled.evaluate.result import Evaluation, Table
from unlabeled.model import Model

__all__ = ["measure"]


def measure(model: Model, into: Evaluation) -> None:
    """Add the findings of the method, and of the earlier stages that were trained beside it."""
    if model.run is None:
        return
    found = [*_earlier(model.run, model.method), *model.method.diagnose(model.run.metrics())]
    if not found:
        return
    rows = [[f.name, float(f"{f.value:.4g}"), "well" if f.healthy else "ill", f.meaning] for f in found]
    note = "From what was logged while training; `ill` is a reason to change what the sentence names before trusting the rest."
    into.tables.append(
        Table("Health of the training", ["quantity", "value", "is", "what it means"], rows, note, own=None)
    )
    into.diagnostics["ill"] = [f.name for f in found if not f.healthy]
    into.headline += [f"Something is wrong: {f.meaning}" for f in found if not f.healthy]


def _earlier(run: Run, method: Method) -> list[Finding]:
    found: list[Finding] = []
    for stage, one in method.given.items():
        try:
            found += one.diagnose(Run(run.path.parent / stage).metrics())
        except UserError:  # it was trained somewhere else
            continue
    return found
