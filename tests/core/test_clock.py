import pytest

from unlabeled.core.clock import Clock, Duration, Schedule
from unlabeled.core.errors import UserError


@pytest.mark.parametrize(
    "text, amount, unit",
    [
        ("90s", 90, "seconds"),
        ("10m", 600, "seconds"),
        ("1.5h", 5400, "seconds"),
        ("2000steps", 2000, "steps"),
        ("1 step", 1, "steps"),
        ("1e6examples", 1e6, "examples"),
        ("3e8tokens", 3e8, "tokens"),
        ("1e15flops", 1e15, "flops"),
    ],
)
def test_durations_are_read(text, amount, unit):
    assert Duration.parse(text) == Duration(amount, unit)
    assert Duration.parse(str(Duration(amount, unit))) == Duration(amount, unit)


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-5s", "1e999s", "5 parsecs", "1.2.3s", "nan s"])
def test_other_durations_are_refused_in_one_sentence(text):
    with pytest.raises(UserError, match="A budget is a number above zero with its unit"):
        Duration.parse(text)


def at(step: int, steps: int = 100, batch: int = 1) -> Clock:
    return Clock(step=step, steps=steps, examples=step * batch, progress=step / steps)


@pytest.mark.parametrize("unit, warmup", [("share", 0.1), ("examples", 10)])
def test_warm_up_and_cosine_pass_through_the_golden_values(unit, warmup):
    schedule = Schedule(1.0, warmup=warmup, unit=unit)
    assert schedule(at(10)) == pytest.approx(1.0)
    assert schedule(at(55)) == pytest.approx(0.5)
    assert schedule(at(99)) == pytest.approx(0.0003045865)
    assert schedule(at(100)) == pytest.approx(0.0, abs=1e-12)
    # Within the warm-up the value is that of the middle of the step about to be taken, so that none is zero.
    assert schedule(at(5)) == pytest.approx(0.55)
    values = [schedule(at(s)) for s in range(11)]
    assert 0 < values[0] < values[1] and values == sorted(values)


def test_decay_shapes_and_floor():
    assert Schedule(2.0, decay="constant")(at(70)) == 2.0
    assert Schedule(2.0, decay="linear")(at(75)) == pytest.approx(0.5)
    assert Schedule(2.0, floor=0.1)(at(100)) == pytest.approx(0.2)


def test_a_warm_up_in_examples_does_not_depend_on_the_batch():
    schedule = Schedule(1.0, warmup=1000, unit="examples", decay="constant")
    small, large = at(20, batch=25), at(5, batch=100)
    assert schedule(small) == pytest.approx(0.5, abs=0.02)
    assert schedule(large) == pytest.approx(0.5, abs=0.06)


def test_ramps():
    clock = at(50)
    assert clock.ramp(0, 10) == 5
    assert clock.cosine(0.996, 1) == pytest.approx(0.998)
    assert at(25).cosine(0.996, 1) == pytest.approx(0.9965857864)
