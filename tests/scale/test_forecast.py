"""Forecasts against laws that are known, since runs were made up by them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.scale.forecast import PRIOR, SCALES, Forecast, Point, effective, posterior

PLACES = [
    (1e5, 2e5),
    (3e5, 1e5),
    (1e6, 4e4),
    (1e5, 4e5),
    (3e5, 2e5),
    (1e5, 8e5),
    (3e5, 4e5),
]  # as pilots lie: equal times
TARGET = (1e6, 5e6)


def law(params: float, items: float, floor=1.5, size=40.0, alpha=0.35, length=300.0, beta=0.4) -> float:
    return floor + size / params**alpha + length / items**beta


def runs(noise: float, seed: int, places=PLACES, **of) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [Point(n, d, law(n, d, **of) * (1 + noise * rng.standard_normal())) for n, d in places]


def test_forecasts_cover_what_is_reached() -> None:
    """Laws with exponents and shares all over the prior, runs with noise: nine in ten intervals hold what comes out."""
    held, widths = [], []
    for seed in range(150):
        rng = np.random.default_rng(1000 + seed)
        alpha, beta = 0.5 * np.exp(0.4 * rng.standard_normal(2))
        floor, size, length = 3 * np.abs(rng.normal([0.7, 0.15, 0.15], [0.2, 0.12, 0.12]))
        n, d = TARGET
        of = {"floor": floor, "size": size * n**alpha, "alpha": alpha, "length": length * d**beta, "beta": beta}
        found = posterior(runs(0.015, seed, **of), *TARGET, seed=seed)
        assert found is not None
        told = found.forecast(*TARGET)
        held.append(told.holds(law(*TARGET, **of) * (1 + 0.015 * rng.standard_normal())))
        widths.append((told.high - told.low) / told.value)
    # 150 draws of a Bernoulli of 0.9 lie above 0.82 in all but a thousandth of cases.
    assert np.mean(held) > 0.82
    assert np.median(widths) < 0.5  # and not because they hold everything


def test_the_closed_form_agrees_with_weighing_draws_of_the_prior() -> None:
    """Importance sampling knows nothing of normal algebra, grids or where draws are thrown away."""
    loud = replace(PRIOR, noise=(0.15, 0.3))  # enough draws of the prior come near the runs
    points, (n, d) = runs(0.1, 3, PLACES[:3]), TARGET
    found = posterior(points, n, d, prior=loud, scales=np.array([2.5]))
    assert found is not None
    rng, many = np.random.default_rng(0), 1_000_000
    # The grid ends 2.5 deviations out.
    alpha, beta, noise = (
        of[0] * np.exp(of[1] * np.clip(rng.standard_normal(many), -2.5, 2.5))
        for of in (loud.alpha, loud.beta, loud.noise)
    )
    floor, size, length = (of[0] + of[1] * rng.standard_normal(many) for of in (loud.floor, loud.size, loud.length))
    logs = np.zeros(many)
    for p in points:
        told = 2.5 * (floor + size * (p.params / n) ** -alpha + length * (p.items / d) ** -beta)
        logs -= 0.5 * ((told / p.loss - 1) / noise) ** 2 + np.log(noise)
    weight = np.exp(logs - logs.max()) * ((floor > 0) & (size > 0) & (length > 0))
    assert weight.sum() ** 2 / (weight**2).sum() > 2000  # as many equal draws
    told = 2.5 * (floor + size + length)
    order = np.argsort(told)
    below = np.cumsum(weight[order]) / weight.sum()
    expected = told[order][np.searchsorted(below, [0.05, 0.25, 0.5, 0.75, 0.95])]
    own = np.quantile(found.losses(*TARGET)[:, 0], [0.05, 0.25, 0.5, 0.75, 0.95])
    assert own == pytest.approx(expected, rel=0.03)


def width(points: list[Point], **of) -> float:
    found = posterior(points, *TARGET, **of)
    assert found is not None
    told = found.forecast(*TARGET)
    return (told.high - told.low) / told.value


def test_the_prior_alone_says_little_and_pilots_narrow_it() -> None:
    scales = SCALES * law(*PLACES[0])
    alone, few = width([], scales=scales), np.mean([width(runs(0.01, s, PLACES[:2])) for s in range(10)])
    more = np.mean([width(runs(0.01, s)) for s in range(10)])
    longer = np.mean([width(runs(0.01, s, [*PLACES, (3e5, 3e6), (1e6, 1e6)])) for s in range(10)])
    assert alone > 1
    assert alone > few > more > longer
    assert longer < 0.25


def test_one_size_has_no_term_in_its_parameters() -> None:
    points = runs(0.005, 0, [(3e5, d) for d in (1e5, 2e5, 4e5, 1e6)])
    found = posterior(points, 3e5, 1e7)
    assert found is not None
    assert (found.terms[:, 1] == 0).all()
    assert found.forecast(3e5, 1e7).holds(law(3e5, 1e7))
    assert found.forecast(3e5, 1e7).value == found.forecast(9e5, 1e7).value
    other = posterior(points, 3e5, 1e7, sized=True)  # unless other sizes are to be foretold, as the prior has them
    assert other is not None and other.forecast(3e6, 1e7).value < other.forecast(3e5, 1e7).value


def test_losses_that_rise_with_length_are_no_law() -> None:
    rising = [Point(3e5, d, loss) for d, loss in ((1e5, 1.0), (2e5, 2.0), (4e5, 4.0), (8e5, 8.0))]
    found = posterior(rising, *TARGET)
    # Either there is no such law, or it knows that it does not know: noise as large as the prior lets it be.
    assert found is None or np.median(found.noise) > 0.05


def test_what_was_drawn_is_a_law() -> None:
    found = posterior(runs(0.02, 5), *TARGET)
    assert found is not None
    assert (found.terms >= 0).all() and len(found.terms) == 4000
    told = found.losses([1e5, 1e6], [1e6, 1e6])
    assert told.shape == (4000, 2)
    assert (told[:, 0] > told[:, 1]).all()  # the smaller model of the same length is never foretold to be better
    again = posterior(runs(0.02, 5), *TARGET)
    assert again is not None and again.forecast(*TARGET) == found.forecast(*TARGET)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_what_is_no_loss_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        posterior([Point(1e5, 1e5, bad)], *TARGET)
    with pytest.raises(ValueError, match="needs a run"):
        posterior([], *TARGET)


def test_an_interval_holds_its_ends() -> None:
    told = Forecast(1.5, 1.4, 1.6)
    assert told.holds(1.4) and told.holds(1.6) and not told.holds(1.601)
    assert told.to_dict() == {"value": 1.5, "low": 1.4, "high": 1.6, "level": 0.9}


@given(st.floats(1, 1e12), st.floats(1, 1e12))
def test_repeated_items_are_worth_less_and_never_nothing(items: float, unique: float) -> None:
    worth = effective(items, unique)
    assert min(items, unique) * (1 - 1e-12) <= worth <= items * (1 + 1e-12)
    assert worth <= 16.4 * unique
    assert effective(2 * items, unique) >= worth


def test_repetition_as_published() -> None:
    # Muennighoff et al. 2023, section 5: up to four epochs are almost as good as new data, forty are worth little more.
    assert effective(4e6, 1e6) == pytest.approx(4e6, rel=0.1)
    assert effective(60e6, 1e6) < 0.28 * 60e6
