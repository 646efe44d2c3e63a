"""Advice in words: sentences to begin with, what speaks against them, and tables as `report.text_of` prints them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unlabeled.scale.answers import Best, Estimate

if TYPE_CHECKING:
    from unlabeled.scale.advise import Advice

__all__ = ["amount", "cautions", "flops", "headline", "tables"]

_WIDE = 4.0  # high over low of a best size, from which on a sentence says so


def flops(value: float) -> str:
    """2e15, as people write it."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "no end"
    mantissa, _, power = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def amount(value: float) -> str:
    """1.23M, 4.5B (10^9), 6T (10^12); beyond, as FLOPs."""
    if not math.isfinite(value) or abs(value) >= 1e15:
        return flops(value)
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}" if value < 999.5 * size else f"{value / size:.0f}{letter}"
    return f"{value:.3g}"


def loss(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else flops(value)


def short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else flops(value)


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def told(found: Estimate, form: Callable[[float], str] = amount) -> str:
    """Value and interval."""
    if math.isnan(found.low):
        return form(found.value)
    return f"{form(found.value)} ({form(found.low)} to {form(found.high)})"


def headline(advice: Advice) -> list[str]:
    said = [_trust(advice), *(_best(advice, row) for row in advice.compute)]
    said += _apart(advice)
    said += _margin(advice)
    item, unit = advice.item, f" {advice.unit}" if advice.unit else ""
    if advice.data:
        found = advice.data
        said.append(
            f"{amount(found.unique)} {item}, seen once, are compute-optimal for {told(found.params)} parameters: that takes "
            f"{told(found.compute, flops)} FLOPs and comes to a loss of {told(found.loss, loss)}{unit}."
        )
        for row in found.beyond:
            said.append(
                f"With {flops(row.compute)} FLOPs, train {told(row.params)} parameters for {told(row.epochs, short)} epochs: "
                f"{told(row.loss, loss)}{unit}, where new {item} all along would give {loss(row.fresh.value)}; ten times "
                f"the {item} give {loss(row.more['10'].value)}."
            )
        if not found.beyond:
            said.append(f"None of the compute budgets is beyond that: the {item} do not limit them.")
    for row in advice.served[:1]:  # the others are in the table
        said.append(
            f"With {amount(row.served)} {item} to serve, the loss {loss(row.loss.value)} of the best model for "
            f"{flops(row.compute)} FLOPs of training is had for the least in all by {told(row.params)} parameters and "
            f"{told(row.tokens)} {item}: that saves {told(row.saved, _share)} of {told(row.total, flops)} FLOPs."
        )
    for row in ([r for r in advice.largest if r.binds] or advice.largest)[:1]:
        if not row.binds:
            said.append(
                f"The best model for {flops(row.compute)} FLOPs has no more than {amount(row.largest)} parameters anyway."
            )
            continue
        extra = told(row.extra, short)
        same = (
            f"the loss of the unlimited best, {loss(row.unlimited.value)}, takes {extra} times the compute"
            if math.isfinite(row.extra.value)
            else f"the loss of the unlimited best, {loss(row.unlimited.value)}, is out of its reach"
        )
        said.append(
            f"With {amount(row.largest)} parameters at most, {flops(row.compute)} FLOPs buy {amount(row.tokens)} {item} and a "
            f"loss of {told(row.loss, loss)}{unit}; {same}."
        )
    return [_named(advice, sentence) for sentence in said + _reached(advice)]


def _named(advice: Advice, sentence: str) -> str:
    """Where runs were measured by something else than a loss, its name."""
    return sentence if advice.measure == "loss" else sentence.replace("loss", advice.measure)


def _trust(advice: Advice) -> str:
    fit, check = advice.fit, advice.fit.heldout
    foretold = f", foretells the largest {check.runs} with a mean error of {check.mean_error:.2%}" if check else ""
    count = len(fit.verdict)
    reasons = "1 reason not to trust it follows" if count == 1 else f"{count} reasons not to trust it follow"
    against = reasons if count else "nothing in the fit speaks against it"
    warned = " It is degenerate: the sizes that follow are no advice yet." if fit.degenerate else ""
    return f"The law {fit.law}, fitted to {fit.rows_used} runs{foretold}; {against}.{warned}"


def _best(advice: Advice, row: Best) -> str:
    unit = f" {advice.unit}" if advice.unit else ""
    return (
        f"For {flops(row.compute)} FLOPs train {told(row.params)} parameters on {told(row.tokens)} {advice.item}, "
        f"{amount(row.ratio.value)} for each; the loss will be {told(Estimate(row.loss.value, *row.run), loss)}{unit}. Sizes "
        f"from {amount(row.near[0])} to {amount(row.near[1])} cost at most 1% of the loss."
    )


def _apart(advice: Advice) -> list[str]:
    """Whether law and minima agree."""
    rows = [row for row in advice.compute if row.isoflop]
    if not rows:
        return []
    apart = [row for row in rows if row.apart]
    if apart:
        return [
            f"The isoFLOP minima disagree with the law beyond both intervals: for {flops(row.compute)} FLOPs they say "
            f"{told(row.isoflop)} parameters."
            for row in apart
            if row.isoflop
        ]
    if math.isnan(rows[0].params.low):
        return []
    return ["The isoFLOP minima, which know no law, do not contradict these sizes: the intervals overlap."]


def _margin(advice: Advice) -> list[str]:
    at, item = advice.margin, advice.item
    after = {(what, factor): loss for what, factor, _, loss in at.after}
    said = (
        f"At {amount(at.params)} parameters and {amount(at.tokens)} {item} ({flops(at.compute)} FLOPs) the loss is "
        f"{told(at.loss, loss)}; twice the parameters make it {told(after['params', 2.0], loss)}, twice the {item} "
        f"{told(after['tokens', 2.0], loss)}, and twice the compute, well spent, {told(after['compute', 2.0], loss)}."
    )
    sure = "" if math.isnan(at.params_first) else f" (parameters, in {at.params_first:.0%} of the bootstrap)"
    first = {
        "either": f"A FLOP buys as much through parameters as through {item} there: raise both.",
        "unknown": f"The runs do not tell whether a FLOP buys more there through parameters or through {item}{sure}.",
        "params": f"A FLOP buys more there through parameters than through {item}: buy these first{sure}.",
        "tokens": f"A FLOP buys more there through {item} than through parameters: buy these first{sure}.",
    }[at.first]
    return [said, first]


def _reached(advice: Advice) -> list[str]:
    found, item = advice.reach, advice.item
    if not found:
        return []
    if not found.possible:
        floor = f": its floor E is {told(found.floor, loss)}" if found.floor else " within any size and length"
        hope = f", though in {1 - found.share:.0%} of the bootstrap one does" if found.share < 0.995 else ""
        return [f"No budget comes to a loss of {loss(found.loss)} by this law{floor}{hope}."]
    said = (
        f"A loss of {loss(found.loss)} takes {told(found.compute, flops)} FLOPs: {told(found.params)} parameters and "
        f"{told(found.tokens)} {item}."
    )
    if found.share >= 0.005:
        said += f" In {found.share:.0%} of the bootstrap no budget reaches it, for the floor lies above."
    return [said]


def cautions(advice: Advice) -> list[str]:
    """What speaks against the advice: the fit's verdict, how it foretold the largest runs, how far this reaches."""
    fit = advice.fit
    said = list(fit.verdict)
    if check := fit.heldout:
        others = ", ".join(f"{name} {error:.2%}" for name, error in check.baselines.items())
        said.append(
            f"Fitted without the largest {check.runs} of {check.runs + check.fitted} runs, the law foretells them with a mean "
            f"error of {check.mean_error:.2%}, at most {check.largest_error:.2%} (baselines: {others})"
            + (
                "."
                if check.reach >= 1.5
                else "; they are no larger than the others, so this says nothing of extrapolation."
            )
        )
    wide = [row for row in advice.compute if row.params.factor > _WIDE]
    if wide:
        rows = ", ".join(
            f"{amount(r.params.low)} to {amount(r.params.high)} for {flops(r.compute)} FLOPs" for r in wide
        )
        said.append(
            f"The best size is not known within a factor of {_WIDE:g}: {rows}; more budgets, and sizes on both sides of "
            "the best, narrow it."
        )
    budgets = advice.table["flops"]
    if budgets.max() < 1.5 * budgets.min():
        said.append("All runs have one compute budget: what holds at another is extrapolation, so add a second budget.")
    if advice.why_no_isoflop:
        said.append(f"Nothing stands beside the law: {advice.why_no_isoflop}")
    if advice.isoflop:
        said += [f"Of the isoFLOP minima: {' '.join(advice.isoflop.verdict)}"] if advice.isoflop.verdict else []
    epochs = advice.table.columns.get("epochs")
    if epochs is None and "unique_tokens" in advice.table:
        epochs = advice.table["tokens"] / advice.table["unique_tokens"]
    if epochs is not None and advice.fit.law != "data-constrained" and (epochs > 1.01).any():
        said.append(
            f"{int((epochs > 1.01).sum())} runs saw their data more than once, up to {epochs.max():.3g} times; the law counts "
            "that as new."
        )
    ratio = float((advice.table["tokens"] / advice.table["params"]).max())
    longest = max(
        [r.tokens.value / r.params.value for r in advice.served] + [r.tokens / r.params for r in advice.largest],
        default=0.0,
    )
    if longest > 2 * ratio:
        said.append(
            f"A small model has up to {longest:.3g} {advice.item} for each parameter here, and the runs no more than "
            f"{ratio:.3g}: laws from usual ratios overrate what more of them bring (Sardana et al. 2023)."
        )
    if advice.cost.error > 0.1:
        said.append(
            f"The cost rule {advice.cost.formula} misses the FLOPs of a run by {advice.cost.error:.0%}: shapes "
            "differ at the same size."
        )
    furthest = max(advice.compute, key=lambda row: row.compute)
    notes = [furthest.note, advice.margin.note, advice.reach.note if advice.reach else ""]
    said += [note for note in dict.fromkeys(notes) if note]
    if not len(fit.samples):
        said.append("There are no intervals, for no bootstrap was drawn.")
    return said


def tables(advice: Advice) -> list[Mapping[str, Any]]:
    item, unit = advice.item, f" ({advice.unit})" if advice.unit else ""
    level = f"Intervals: {advice.level:.0%}, over a bootstrap of runs."
    cost = f"Training costs {advice.cost.formula}" + (
        f", which meets the table's FLOPs within {advice.cost.error:.1%}." if advice.cost.error else "."
    )
    made = [
        _table(
            "The best model for a compute budget",
            ["FLOPs", "parameters", item, f"{item} per parameter", f"loss{unit}", "of a run", "by isoFLOP minima"],
            [
                [
                    flops(r.compute), told(r.params), told(r.tokens), told(r.ratio), told(r.loss, loss),
                    f"{loss(r.run[0])} to {loss(r.run[1])}", told(r.isoflop) if r.isoflop else "–",
                ]
                for r in advice.compute
            ],
            f"{cost} {level} The loss is the law's; a run scatters around it as the table's runs do. params "
            f"counts {advice.fit.convention}.",
        )
    ]  # fmt: skip
    made += _scarce(advice) + _serving(advice) + _limited(advice)
    at = advice.margin
    rows = [
        ["one per cent more parameters", "–", f"{told(at.by_params, _plainly)} per cent"],
        [f"one per cent more {item}", "–", f"{told(at.by_tokens, _plainly)} per cent"],
        ["one per cent more compute, best spent", "–", f"{told(at.by_compute, _plainly)} per cent"],
    ]
    words = {"params": "parameters", "tokens": item, "compute": "compute, best spent"}
    rows += [
        [f"{factor:g} times the {words[what]}", f"{cost:.3g}", told(value, loss)]
        for what, factor, cost, value in at.after
    ]
    made.append(
        _table(
            f"What more would bring, at {amount(at.params)} parameters and {amount(at.tokens)} {item}",
            ["with", "times the FLOPs", f"loss{unit}"],
            rows,
            f"Now the loss is {told(at.loss, loss)} at {flops(at.compute)} FLOPs. Per cent: by how much the loss changes. "
            "Compute is best spent on the best size for it, whatever the size now.",
        )
    )
    if advice.reach and advice.reach.possible:
        r = advice.reach
        cells = [
            loss(r.loss),
            told(r.compute, flops),
            told(r.params),
            told(r.tokens),
            told(r.floor, loss) if r.floor else "–",
        ]
        made.append(_table("What comes to a loss", ["loss", "FLOPs", "parameters", item, "floor E"], [cells], level))
    if advice.measure == "loss":
        return made

    def named(value: Any) -> Any:
        return _named(advice, value) if isinstance(value, str) else [named(v) for v in value]

    return [{key: named(value) for key, value in table.items()} for table in made]


def _plainly(value: float) -> str:
    return f"{value:.3f}"


def _scarce(advice: Advice) -> list[Mapping[str, Any]]:
    found, item = advice.data, advice.item
    if not found or not found.beyond:
        return []
    return [
        _table(
            f"The best model with {amount(found.unique)} unique {item}",
            ["FLOPs", "parameters", "epochs", "loss", f"if all {item} were new", f"twice the {item}", f"10 times the {item}"],
            [
                [
                    flops(r.compute), told(r.params), told(r.epochs, short), told(r.loss, loss), told(r.fresh, loss),
                    told(r.more["2"], loss), told(r.more["10"], loss),
                ]
                for r in found.beyond
            ],
            f"{found.source}.",
        )
    ]  # fmt: skip


def _serving(advice: Advice) -> list[Mapping[str, Any]]:
    item = advice.item
    if not advice.served:
        return []
    return [
        _table(
            f"The best model to serve {amount(advice.served[0].served)} {item}",
            [
                "FLOPs of training alone", "with serving", "least for the same loss", "parameters", item,
                "least loss for as much", "parameters", item,
            ],
            [
                [
                    flops(r.compute), told(r.total, flops), told(r.least, flops), told(r.params), told(r.tokens),
                    told(r.equal_loss, loss), told(r.equal_params), told(r.equal_tokens),
                ]
                for r in advice.served
            ],
            "A served token costs a third of a trained one (2 N where training costs 6 N D; Sardana et al. 2023, arXiv "
            "2401.00448).",
        )
    ]  # fmt: skip


def _limited(advice: Advice) -> list[Mapping[str, Any]]:
    rows = [r for r in advice.largest if r.binds]
    if not rows:
        return []
    return [
        _table(
            f"The best model of {amount(rows[0].largest)} parameters at most",
            ["FLOPs", advice.item, "loss", "loss without the limit", f"{advice.item} for that", "times the FLOPs"],
            [
                [
                    flops(r.compute), amount(r.tokens), told(r.loss, loss), told(r.unlimited, loss), told(r.same_tokens),
                    told(r.extra, short),
                ]
                for r in rows
            ],
            "",
        )
    ]  # fmt: skip


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> dict[str, Any]:
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "note": note}
