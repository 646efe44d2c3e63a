"""What methods find in their metrics reaches the tables and the headline."""

import pytest

from tests.engine.toys import Uneven, images
from unlabeled.core.method import Finding
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.engine.loop import Settings
from unlabeled.engine.recipe import train
from unlabeled.evaluate import Evaluation, health
from unlabeled.model import Model, load


class Feverish(Uneven):
    """Ill where the last loss it logged is above its limit."""

    limit = 0.0

    def diagnose(self, history):
        last = history[-1]["loss"]
        ill = last > self.limit
        return [Finding("loss", last, not ill, "The loss is too high; train longer." if ill else "The loss is low.")]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "feverish.py"
    file.write_text('from tests.evaluate.test_health import Feverish\n__all__ = ["Feverish"]\n')
    return train(str(file), SOURCE, settings=Settings(budget="3steps", precision="float32"), out=tmp_path / "run")


SOURCE = ImagesInMemory(images())


def test_ill_findings_are_quoted_and_well_ones_only_listed(run, monkeypatch):
    model = load(run.path, SOURCE)
    found = Evaluation()
    health.measure(model, found)
    loss = run.metrics()[-1]["loss"]
    assert found.tables[0].rows == [["loss", float(f"{loss:.4g}"), "ill", "The loss is too high; train longer."]]
    assert found.headline == ["Something is wrong: The loss is too high; train longer."]
    assert found.diagnostics["ill"] == ["loss"]
    monkeypatch.setattr(type(model.method), "limit", loss + 1)
    found = Evaluation()
    health.measure(model, found)
    assert found.headline == [] and found.tables[0].rows[0][2] == "well" and found.diagnostics["ill"] == []


def test_without_a_run_there_is_nothing_to_say(run):
    model = load(run.path, SOURCE)
    found = Evaluation()
    health.measure(Model("feverish", model.method, None, SOURCE), found)
    assert not found.tables and not found.headline
