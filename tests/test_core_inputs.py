"""The table of the core's inputs says what is in the graph, in the code and in the documents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.paths import ROOT, TINY

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.core_inputs import (
    INPUTS,
    OUTPUTS,
    PER_SESSION,
    PER_WINDOW,
    SPIKES,
    CoreArray,
    no_spikes,
    one_window,
)
from poyo_edge.runtime.constants import SessionConstants


def test_the_exported_core_has_these_names_dtypes_and_axes() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    spec = Artifact.open(TINY).manifest.spec
    session = onnxruntime.InferenceSession(TINY / CORE, providers=["CPUExecutionProvider"])
    kinds = {np.float32: "tensor(float)", np.int32: "tensor(int32)", np.bool_: "tensor(bool)"}
    for nodes, table in ((session.get_inputs(), INPUTS), (session.get_outputs(), OUTPUTS)):
        found = [(node.name, node.type, node.shape) for node in nodes]
        assert found == [(name, kinds[a.dtype], a.shape(spec)) for name, a in table.items()]


def test_inputs_are_given_for_each_window_or_for_each_session() -> None:
    assert (*SPIKES, "query_time") == PER_WINDOW == (
        "spike_unit", "spike_time", "spike_mask", "query_time",
    )  # fmt: skip
    assert PER_SESSION == ("unit_kv", "boundary_lse", "boundary_value", "session_query")
    assert {*PER_WINDOW, *PER_SESSION} == {*INPUTS}


def test_the_constants_of_a_session_are_its_inputs() -> None:
    assert tuple(f.name for f in dataclasses.fields(SessionConstants)) == PER_SESSION


def test_every_free_axis_has_a_size_in_one_window() -> None:
    spec = Artifact.open(TINY).manifest.spec
    shapes = [array.shape(spec) for array in (*INPUTS.values(), *OUTPUTS.values())]
    free = {axis for shape in shapes for axis in shape if isinstance(axis, str)}
    assert free == {*one_window(512, 9)}
    assert one_window(512, 9) == {"batch": 1, "n_spikes": 512, "n_units": 9, "n_queries": 1}


def test_padding_belongs_to_no_spike() -> None:
    empty = no_spikes(2, 3)
    assert tuple(empty) == SPIKES
    for name, array in empty.items():
        assert array.shape == (2, 3)
        assert array.dtype == INPUTS[name].dtype
        assert not array.any()


def row(name: str, array: CoreArray) -> str:
    """How documents write a name, its axes and its dtype."""
    axes = ", ".join(array.axes) + ("," if len(array.axes) == 1 else "")
    kind = np.dtype(array.dtype).name
    return f"`{name}` | ({axes}) {kind} |" if name in INPUTS else f"`{name}` ({axes}) {kind}"


def test_the_design_has_the_same_table() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name, array in {**INPUTS, **OUTPUTS}.items():
        assert row(name, array) in text
