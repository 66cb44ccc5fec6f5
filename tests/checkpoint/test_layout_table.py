"""A layout is a row of the table and, where its keys have other names, a file that it loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run

from poyo_edge.checkpoint import layouts
from poyo_edge.errors import CheckpointError
from poyo_edge.spec import ModelSpec

ROWS = """
from poyo_edge.checkpoint import layouts

TOY = layouts.Layout(
    help="toys, with keys that begin with toy.",
    mark=lambda file: "a toy's key" if "toy.latent_emb.weight" in file.keys else "",
    load="toy_layout:renamed",
)
WOUND = layouts.Layout(
    help="toys that are wound up",
    mark=lambda file: "the spring among its hyper-parameters" if "spring" in file.hyper else "",
    refused="a toy that is wound up",
    do="let it run down",
)
layouts.LAYOUTS = {"X0": WOUND, "X1": TOY, **layouts.LAYOUTS}
"""
FILE = """
def renamed(path, state):
    return {key.removeprefix("toy."): value for key, value in state.items()}
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rows at the front of the table; where the file that one of them loads lies."""
    (tmp_path / "toy_layout.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_layout", raising=False)
    monkeypatch.setattr(layouts, "LAYOUTS", layouts.LAYOUTS)
    exec(ROWS)
    return tmp_path


def toy_checkpoint(path: Path, **hyper: Any) -> Path:
    torch = pytest.importorskip("torch", reason="checkpoints are read with torch")
    from poyo_edge.model import POYO

    spec = ModelSpec(
        dim=4, depth=1, dim_head=4, cross_heads=1, self_heads=1, latents_per_step=1, dim_out=1,
        ffn_mult=1, rotating_pairs=1,
    )  # fmt: skip
    state = POYO(spec, ["a/u0"], ["a"]).state_dict()
    renamed = {f"toy.{key}": value for key, value in state.items()}
    torch.save({"state_dict": renamed, "hyper_parameters": hyper}, path)
    return path


def test_a_layout_is_added_by_its_row_and_its_file(toy: Path) -> None:
    file = toy_checkpoint(toy / "toy.ckpt")
    from poyo_edge.checkpoint import open_checkpoint
    from poyo_edge.inspecting import inspect_path

    opened = open_checkpoint(file)
    why = "Recognised layout X1 by a toy's key: weights under 'state_dict'; no prefix."
    assert (opened.layout, opened.why) == ("X1", why)
    assert opened.load().spec.dim == 4
    about = inspect_path(file)
    assert (about["layout"], about["notes"][0]) == ("X1", why)


def test_without_its_row_it_is_no_poyo(tmp_path: Path) -> None:
    file = toy_checkpoint(tmp_path / "toy.ckpt")
    from poyo_edge.checkpoint import load_checkpoint

    with pytest.raises(CheckpointError, match=r"toy\.unit_emb\.vocab: expected"):
        load_checkpoint(file)


def test_a_row_that_refuses_gives_its_own_reason(toy: Path) -> None:
    file = toy_checkpoint(toy / "toy.ckpt", spring="tense")
    from poyo_edge.checkpoint import open_checkpoint

    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(file)
    assert layouts.what_is_read().endswith("X)")  # beside A to C
    assert str(caught.value) == (
        f"{file}: layout: expected {layouts.what_is_read()}, got a toy that is wound up, by the "
        "spring among its hyper-parameters; let it run down"
    )


@pytest.mark.slow
def test_export_names_every_layout_that_is_read_in_its_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    read = [name for name, row in layouts.LAYOUTS.items() if not row.refused]
    for name in read:
        assert re.search(rf"[ ,]{name}[,. ]", run("export", "--help").stdout), name
    code = f"{ROWS}\nfrom poyo_edge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "--help"], capture_output=True, text=True, check=True
    )
    assert " or X1." in done.stdout


@pytest.mark.parametrize(
    ("hyper", "name"),
    [
        ({"model": {"num_latents": 4}}, "B0"),
        ({"sequence_length": 1.0}, "B0"),
        ({"dataset": [{"config": {"readout": {"normalize_std": 2.0}}}]}, "B1"),
        ({"model": {"sequence_length": 1.0}, "sequence_length": 1.0}, "B2"),
        ({}, "B3"),
    ],
)
def test_flat_keys_are_told_by_the_hyper_parameters(hyper: dict[str, Any], name: str) -> None:
    file = layouts.Evidence(keys=["unit_emb.weight"], container="lightning", hyper=hyper)
    assert [found.name for found in layouts.recognise(file)] == [name]


def test_what_goes_around_other_keys_names_those_too() -> None:
    keys = ["perceiver_io.rotary_emb.omega", "task_emb.weight"]
    file = layouts.Evidence(keys=keys, container="model_state_dict", hyper={})
    assert [found.name for found in layouts.recognise(file)] == ["F", "A2"]


def test_rows_that_refuse_say_what_to_do_and_others_do_not() -> None:
    for name, row in layouts.LAYOUTS.items():
        assert bool(row.refused) == bool(row.do), name
    assert all(layouts.LAYOUTS[name].refused for name in ("D", "E", "LoRA"))
