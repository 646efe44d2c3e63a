"""Tables of runs: what is read, and the one sentence that bad input ends in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unlabeled.core.errors import UserError
from unlabeled.scale.fit import fit
from unlabeled.scale.table import Table, read


def csv(folder: Path, text: str) -> Path:
    path = folder / "runs.csv"
    path.write_text(text)
    return path


def test_names_of_columns_and_what_follows_from_them(tmp_path: Path) -> None:
    table = read(csv(tmp_path, "name,N,Training FLOP,val_loss\nfirst,10,600,3\nsecond,20,2400,2.5\n"))
    assert table["params"].tolist() == [10, 20]
    assert table["tokens"].tolist() == [10, 20]
    assert "tokens are flops / (6 x params)" in table.notes[0]
    assert table.names == ("first (line 2)", "second (line 3)")
    made = read(
        csv(tmp_path, "params,tokens,loss_c4\n10,20,3\n"), columns={"loss": "loss_c4"}, convention="no embeddings"
    )
    assert made["flops"].tolist() == [1200] and made["loss"].tolist() == [3] and made.convention == "no embeddings"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("params,loss\n1,2\n2,3\n3,4\n", "lacks the column tokens"),
        ("params,tokens,loss\n" + "".join(f"5,{i},3\n" for i in range(1, 9)), "one model size only"),
        (
            "params,tokens,loss\n" + "".join(f"{i},{i},3\n" for i in range(1, 9)) + "9,9,nan\n",
            "line 10: loss is not a number",
        ),
        ("params,tokens,loss\n" + "".join(f"{i},{i},{3 - i}\n" for i in range(1, 9)), "line 4: loss is 0"),
        ("params,tokens,loss\n1,2,3\n2,3,abc\n", "line 3: loss is 'abc'"),
        ("params,tokens,loss\n1,2,3\n2,3\n", "line 3: 2 values under 3 names"),
        ("params,tokens,loss\n", "holds no runs"),
        ("", "holds no runs"),
        ("params,tokens,loss\n1,1,3\n2,2,2\n", "2 runs that can be used"),
    ],
)
def test_bad_tables_end_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        fit(read(csv(tmp_path, text)), "chinchilla")
    assert "\n" not in str(caught.value)


def test_losses_below_the_entropy_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "params,tokens,loss\n1,2,3\n2,3,0.5\n")
    assert len(read(path)) == 2
    with pytest.raises(UserError, match=r"line 3: a loss of 0\.5 is below the entropy 0\.9"):
        read(path, entropy=0.9)


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="holds no run folders"):
        read(tmp_path)
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read as text"):
        read(tmp_path / "picture")
    with pytest.raises(UserError, match="no column losss"):
        read(csv(tmp_path, "params,tokens,loss\n1,2,3\n"), columns={"loss": "losss"})
    with pytest.raises(UserError, match="There is no law chinchila; did you mean chinchilla"):
        fit(Table({"params": [1.0, 2], "tokens": [1.0, 2], "loss": [2.0, 1]}), "chinchila")


def test_rows_are_left_out_with_a_reason() -> None:
    table = Table({"params": [1.0, 2, np.nan, 4], "loss": [4.0, np.inf, 2, 1]})
    left = table.complete("params", "loss")
    assert left["params"].tolist() == [1, 4]
    assert [(e.run, e.why) for e in left.excluded] == [
        ("row 3", "params is not a positive number"),
        ("row 2", "loss is not a positive number"),
    ]
    assert [e.run for e in left.without_highest(1).excluded][-1] == "row 1"
    with pytest.raises(UserError, match="no run with params=7"):
        table.where(params=7)
    with pytest.raises(UserError, match="did you mean params"):
        table.where(parms=7)


def run_folder(path: Path, width: int, state: str = "finished", nan: bool = False, loss: float = 2.0) -> Path:
    (path / "model").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"system": "gpt2", "data": {"name": "books"}}))
    (path / "status.json").write_text(json.dumps({"state": state, "step": 100, "flops": 1e6}))
    rows = [{"step": s, "tokens": 10 * s, "loss": float("nan") if nan else loss + 1 / s} for s in range(1, 101)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    save_file({"w": torch.zeros(width, 3), "b": torch.zeros(width)}, path / "model" / "model.safetensors")
    return path


def test_run_folders_are_read(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", 2)
    run_folder(tmp_path / "b", 4)
    run_folder(tmp_path / "c", 4, state="interrupted")
    run_folder(tmp_path / "d", 4, nan=True)
    table = read(tmp_path)
    assert table["params"].tolist() == [8, 16] and table["tokens"].tolist() == [1000, 1000]
    assert table["flops"].tolist() == [1e6, 1e6]
    assert table["loss"][0] == pytest.approx(2 + np.mean(1 / np.arange(96, 101)))
    assert table.labels["run"].tolist() == ["a", "b"] and table.labels["data"].tolist() == ["books", "books"]
    assert [(e.run, e.why) for e in table.excluded] == [
        ("c", "the run is interrupted, not finished"),
        ("d", "the loss is not finite at step 1"),
    ]
    curves = read([tmp_path / "a", tmp_path / "b"], curves=True, count=lambda run: 5.0)
    assert len(curves) == 200 and set(curves["params"]) == {5.0}
    with pytest.raises(UserError, match="holds no run that can be used"):
        read(tmp_path / "c")


def test_the_table_of_a_sweep_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"survey": {"convention": "non_embedding"}}))
    (tmp_path / "runs.csv").write_text("name,params,tokens,examples,flops,loss,seed\na,1,0,7,9,3,\nb,2,0,8,9,2,\n")
    table = read(tmp_path)
    assert "non_embedding" in table.convention
    assert table["tokens"].tolist() == [7, 8] and "tokens are examples" in table.notes[0]
