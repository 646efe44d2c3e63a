"""One process and two give the same losses; what two saved, one goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.test_loop import losses, trainer
from tests.engine.toys import TOYS, ToyConfig
from tests.parallel.processes import on_processes
from unlabeled.engine.record import Run

ALGORITHMS = ("adamw", "sgd", "lars", "muon")


def _all(folder: Path) -> None:
    """Every toy, every optimiser, and a run of which one process takes the second half."""
    for name, kind in TOYS.items():
        trainer(folder / name, kind, ToyConfig(average=0.9)).train()
    for algorithm in ALGORITHMS:
        trainer(folder / algorithm, TOYS["FromData"], ToyConfig(algorithm=algorithm)).train()
    trainer(folder / "pieces", TOYS["Uneven"], microbatches=2).train()
    trainer(folder / "half", TOYS["Teacher"], ToyConfig(average=0.9), budget="6steps").train()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    patch = pytest.MonkeyPatch()
    patch.setenv("UNLABELED_CACHE", str(folder / "cache"))
    _all(folder / "1")
    on_processes(2, _all, folder / "2")
    yield folder
    patch.undo()


@pytest.mark.parametrize("name", [*TOYS, "pieces"])
def test_two_processes_give_the_losses_of_one(runs, name):
    one, two = losses(runs / "1" / name), losses(runs / "2" / name)
    assert len(one) == len(two) == 12
    for a, b in zip(one, two):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_optimisers_on_shards_give_the_losses_of_one(runs, algorithm):
    # Muon orthogonalises in bfloat16, whose rounding depends on how the matrix is cut.
    tolerance = 1e-2 if algorithm == "muon" else 1e-4
    for a, b in zip(losses(runs / "1" / algorithm), losses(runs / "2" / algorithm)):
        assert a == pytest.approx(b, rel=tolerance, abs=1e-5)


def test_gradient_norms_agree(runs):
    for a, b in zip(Run(runs / "1" / "Uneven").metrics(), Run(runs / "2" / "Uneven").metrics()):
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
        assert a["examples"] == b["examples"]


def test_one_process_goes_on_with_what_two_saved(runs):
    for processes in ("1", "2"):
        again = trainer(runs / processes / "half", TOYS["Teacher"], ToyConfig(average=0.9))
        again.train()
        assert again.clock.step == 12
    one, two = losses(runs / "1" / "half"), losses(runs / "2" / "half")
    for a, b in zip(one, two):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
