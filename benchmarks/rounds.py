"""Contenders in turns, each round in a process of its own, so that none inherits another's threads or memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["compare", "counted", "on_one_batch"]

ROUNDS, WARM_UP, SECONDS = 5, 3, 4.0
Contender = Callable[[], Callable[[], int]]  # makes a step; the step returns how many items it worked on


def compare(script: str, contenders: Mapping[str, Contender], unit: str, about: Mapping[str, Any]) -> None:
    """Called as the script's main. With a contender's name in the arguments: print its items per second. Without: run
    each of them ROUNDS times, in turns, and print medians and ratios of the first to the others as JSON."""
    if len(sys.argv) > 1:
        print(_rate(contenders[sys.argv[1]]()))
        return
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name in contenders:
            done = subprocess.run([sys.executable, script, name], check=True, stdout=subprocess.PIPE, text=True)
            rates[name].append(float(done.stdout.strip().splitlines()[-1]))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    first, *others = contenders
    figures = {
        "unit": unit,
        "about": dict(about),
        "rounds": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "medians": {name: round(value, 1) for name, value in middle.items()},
        "ratios": {f"{first} / {name}": round(middle[first] / middle[name], 2) for name in others},
    }
    print(json.dumps(figures))


def on_one_batch(make: Callable[[], Callable[[Any], object]], batch: Callable[[], Any], items: int) -> Contender:
    """A contender that takes its step on the same batch, of so many items, again and again."""

    def contender() -> Callable[[], int]:
        step, same = make(), batch()

        def counted() -> int:
            step(same)
            return items

        return counted

    return contender


def counted(make: Callable[[], Iterator[None]], items: int) -> Contender:
    """A contender out of an iterator of steps, each of so many items."""

    def contender() -> Callable[[], int]:
        steps = make()

        def step() -> int:
            next(steps)
            return items

        return step

    return contender


def _rate(step: Callable[[], int]) -> float:
    for _ in range(WARM_UP):  # kernels are chosen, workers start
        step()
    items, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        items += step()
    return items / (time.perf_counter() - start)
