"""Systems of several stages, on a toy of two."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest
import torch

from tests.engine.toys import images
from unlabeled.core import catalogue
from unlabeled.core.errors import UserError
from unlabeled.data.sources.memory import ImagesInMemory
from unlabeled.engine import launch
from unlabeled.engine.loop import Settings
from unlabeled.engine.recipe import resume, system_of, train
from unlabeled.engine.record import Run
from unlabeled.model import load
from unlabeled.report.page import again

SYSTEM = """
    from dataclasses import dataclass

    from torch import nn

    from tests.engine.toys import Toy, ToyConfig
    from unlabeled.core.method import Outcome

    __all__ = ["Means", "Rest"]


    @dataclass(frozen=True, kw_only=True)
    class RestConfig(ToyConfig):
        scale: float = 1.0


    class Means(Toy):
        share = 3

        def __init__(self, config, spec, given=None):
            super().__init__(config, spec, given)
            self.net = nn.Linear(16, 1)

        def loss(self, batch, part, clock):
            x = self.flat(batch)
            return Outcome((self.net(x)[:, 0] - x.mean(1)).square().mean())


    class Rest(Toy):
        Config = RestConfig
        needs = ("means",)

        def __init__(self, config, spec, given=None):
            super().__init__(config, spec, given)
            self.net = nn.Linear(16, 16)

        def loss(self, batch, part, clock):
            x = self.flat(batch)
            return Outcome((self.net(x) - self.config.scale * (x - self.given["means"].net(x))).square().mean())

        def embed(self, batch):
            return self.net(self.flat(batch))


    STAGES = {"means": Means, "rest": Rest}
"""


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """A system `twofold` in the catalogue."""
    monkeypatch.setenv("UNLABELED_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "twofold.py"
    file.write_text(textwrap.dedent(SYSTEM))
    stages = catalogue.stages(str(file))
    known = {name.replace(str(file), "twofold"): kind for name, kind in stages.items()}
    monkeypatch.setattr(catalogue, "methods", lambda: ["twofold"])
    monkeypatch.setattr(catalogue, "stages", lambda system: known)


def settings(budget="8steps"):
    return Settings(budget=budget, precision="float32", save_every="1000steps")


SOURCE = ImagesInMemory(images())


def test_stages_are_trained_in_order_and_the_budget_is_shared_out(tmp_path):
    run = train("twofold", SOURCE, settings=settings(), out=tmp_path / "both", overrides={"scale": 2.0})
    means, rest = Run(tmp_path / "both" / "means"), Run(tmp_path / "both" / "rest")
    assert (
        run.path == rest.path and Run(tmp_path / "both").path == rest.path and system_of(tmp_path / "both") == "twofold"
    )
    assert (means.status["step"], rest.status["step"]) == (6, 2)
    assert rest.config["config"]["scale"] == 2.0 and "scale" not in means.config["config"]


def test_what_a_stage_was_given_is_the_trained_model_and_is_saved_with_it(tmp_path):
    train("twofold", SOURCE, settings=settings(), out=tmp_path / "both")
    trained = load(tmp_path / "both" / "means", SOURCE).method.state_dict()
    (tmp_path / "both" / "means").rename(tmp_path / "elsewhere")  # what comes after does not need it any more
    model = load(tmp_path / "both", SOURCE)
    for method in (model.method, launch.at_checkpoint(Run(tmp_path / "both")), model.fresh()):
        inside = method.given["means"].state_dict()
        assert all(torch.equal(v, inside[k]) for k, v in trained.items())
    assert model.embed(np.zeros((3, 4, 4, 1), np.uint8)).shape == (3, 16)


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    out = tmp_path / "both"
    train("twofold", SOURCE, settings=settings(), out=out)
    before = {s: (out / s / "model" / "model.safetensors").stat().st_mtime_ns for s in ("means", "rest")}
    train("twofold", SOURCE, settings=settings(), out=out)
    assert before == {s: (out / s / "model" / "model.safetensors").stat().st_mtime_ns for s in before}
    train("twofold", SOURCE, settings=settings(), out=out, overrides={"scale": 3.0})
    assert before["means"] == (out / "means" / "model" / "model.safetensors").stat().st_mtime_ns
    assert Run(out / "rest").config["config"]["scale"] == 3.0
    assert Run(out / "rest-before-1").config["config"]["scale"] == 1.0


def test_a_new_first_stage_makes_the_second_anew(tmp_path):
    out = tmp_path / "both"
    train("twofold", SOURCE, settings=settings(), out=out)
    train("twofold", SOURCE, settings=settings("16steps"), out=out)
    assert Run(out / "means").status["step"] == 12 and not (out / "means-before-1").exists()  # gone on with
    assert Run(out / "rest").status["step"] == 4 and (out / "rest-before-1").exists()


def test_a_recipe_is_gone_on_with_where_it_was_stopped(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train("twofold", SOURCE, settings=settings(), out=whole)

    def killed(row):
        if row.get("step") == 1 and (cut / "rest").exists():
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(
            "twofold",
            SOURCE,
            settings=Settings(**{**vars(settings()), "log_every": "1steps"}),
            out=cut,
            observers=[killed],
        )
    resume(cut, source=SOURCE)
    one, two = (load(path, SOURCE).method.state_dict() for path in (whole, cut))
    assert all(torch.equal(v, two[k]) for k, v in one.items())


def test_a_stage_alone_names_what_it_needs(tmp_path):
    with pytest.raises(UserError, match=r"builds on twofold\.means: name a run of it with --given"):
        train("twofold.rest", SOURCE, settings=settings(), out=tmp_path / "rest")
    means = train("twofold.means", SOURCE, settings=settings(), out=tmp_path / "means")
    run = train("twofold.rest", SOURCE, settings=settings(), out=tmp_path / "rest", given=[means.path])
    assert run.status["state"] == "finished" and again(run.config).endswith(f"--given {means.path}")
    with pytest.raises(UserError, match="needs no earlier stage; leave out means"):
        train("twofold.means", SOURCE, settings=settings(), out=tmp_path / "more", given=[means.path])
    means.set_status("interrupted")
    with pytest.raises(UserError, match="not trained to its end"):
        train("twofold.rest", SOURCE, settings=settings(), out=tmp_path / "again", given=[means.path])


def test_mistakes_end_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no variant 'huge'"):
        train("twofold", SOURCE, variant="huge", out=tmp_path / "x")
    with pytest.raises(UserError, match=r"'scal' is no setting of twofold\.means, twofold\.rest; did you mean scale"):
        train("twofold", SOURCE, overrides={"scal": 1}, out=tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.doc").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        train("twofold", SOURCE, out=tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "recipe.json").write_text(json.dumps({"system": "twofold", "stages": ["means", "rest"]}))
    with pytest.raises(UserError, match=r"last stage of .* is not begun"):
        Run(tmp_path / "y")
