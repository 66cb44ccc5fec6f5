"""Labelled data that is refused, or that looks as if it should be."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.pieces import IDS, Piece, T, collected, recording, same

from poyo_edge.calibration.fit.labels import LabelCollector
from poyo_edge.errors import UsageError

TWO = np.zeros((2, 2))
NAN, INF = float("nan"), float("inf")
REFUSED: dict[str, tuple[Piece, str]] = {
    "NaN in the behaviour": (
        Piece([0.5], [0], [0.4, 0.6], [[0, 1], [NAN, 1]]),
        "behavior: expected finite values, got 1 samples with NaN or Inf, the first at index 1; "
        "leave these samples out or interpolate them",
    ),
    "Inf in the behaviour": (
        Piece([0.5], [0], [0.4, 0.6], [[0, INF], [NAN, 1]]),
        "behavior: expected finite values, got 2 samples with NaN or Inf, the first at index 0; ",
    ),
    "NaN in the times": (
        Piece([0.5], [0], [0.4, NAN], TWO),
        "behavior_times: expected finite seconds, got 1 NaN or infinite, the first at index 1; "
        "leave them out",
    ),
    "Inf in the spikes": (
        Piece([0.5, -INF, NAN], [0, 0, 0], [0.4, 0.6], TWO),
        "spike_times: expected finite seconds, got 2 NaN or infinite, the first at index 1; ",
    ),
    "a table of spikes": (
        Piece([[0.5, 0.6]], [0, 1], [0.4, 0.6], TWO),
        "spike_times: expected a list of seconds, got shape (1, 2), dtype float64",
    ),
    "times that are names": (
        Piece([0.5], [0], ["0.4", "0.6"], TWO),
        "behavior_times: expected a list of seconds, got shape (2,), dtype <U3",
    ),
    "times that are complex": (
        Piece([0.5j], [0], [0.4, 0.6], TWO),
        "spike_times: expected a list of seconds, got shape (1,), dtype complex128",
    ),
    "more units than spikes": (
        Piece([0.5, 0.6], [0, 1, 2], [0.4, 0.6], TWO),
        "spike_units: expected one for each of 2 spike times, got 3",
    ),
    "units between rows": (
        Piece([0.5], [0.5], [0.4, 0.6], TWO),
        "units: expected integer rows or string ids, got float64",
    ),
    "one value too few": (
        Piece([0.5], [0], [0.4, 0.6, 0.7], TWO),
        "behavior: expected shape (3, 2), one row for each time and one column for each output "
        "of the model, got (2, 2)",
    ),
    "a dimension too many": (
        Piece([0.5], [0], [0.4, 0.6], np.zeros((2, 3))),
        "behavior: expected shape (2, 2), one row for each time and one column for each output "
        "of the model, got (2, 3)",
    ),
    "values that are names": (
        Piece([0.5], [0], [0.4, 0.6], [["x", "y"], ["x", "y"]]),
        "behavior: expected shape (2, 2), ",
    ),
    "times that go back": (
        Piece([0.5], [0], [0.4, 0.6, 0.5], np.zeros((3, 2))),
        "behavior_times: expected ascending seconds, got 0.500000 after 0.600000; sort the "
        "samples and leave repeated ones out",
    ),
    "times that repeat": (
        Piece([0.5], [0], [0.4, 0.6, 0.6], np.zeros((3, 2))),
        "behavior_times: expected ascending seconds, got 0.600000 after 0.600000; ",
    ),
    "labels long before the spikes": (
        Piece([100.0, 101.5], [0, 1], [0.4, 0.6], TWO),
        "labels: expected spikes and behaviour of the same time, got spikes from 100.000 to "
        "101.500 s and behaviour from 0.400 to 0.600 s; give both on one clock",
    ),
    "labels long after the spikes": (
        Piece([0.4, 0.6], [0, 1], [1.7, 1.8], TWO),
        "labels: expected spikes and behaviour of the same time, got spikes from 0.400 to "
        "0.600 s and behaviour from 1.700 to 1.800 s; give both on one clock",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_piece_changes_nothing(what: str) -> None:
    piece, message = REFUSED[what]
    collector = collected([recording()])
    before, pieces = collector.labels(), collector.n_pieces
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        collector.add(*piece)
    assert same(collector.labels(), before)
    assert (collector.n_pieces, collector.unknown_spikes) == (pieces, 0)


def test_a_refused_piece_leaves_no_count_of_its_strangers() -> None:
    collector = collected([recording()])
    with pytest.raises(UsageError, match=r"^behavior_times: "):
        collector.add([0.5, 0.6], [99, 99], [0.6, 0.5], TWO)
    with pytest.raises(UsageError, match=r"^labels: "):
        collector.add([100.5, 100.6], [99, 99], [0.5, 0.6], TWO)
    assert collector.unknown_spikes == 0


UNUSUAL: dict[str, Piece] = {
    "no behaviour at all": Piece([0.5], [0], [], []),
    "half a sample": Piece([0.5], [0], [0.6], [1.0]),
    "samples of different lengths": Piece([0.5], [0], [0.6, 0.7], [[1.0, 2.0], [3.0]]),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_shapes_are_taken_or_refused_in_our_words(what: str) -> None:
    collector = LabelCollector(IDS, 2, T)
    try:
        collector.add(*UNUSUAL[what])
    except UsageError as problem:
        assert str(problem).startswith("behavior: expected ")
    else:
        assert what == "no behaviour at all"


def test_a_piece_may_lack_spikes_or_labels() -> None:
    collector = LabelCollector(IDS, 2, T)
    collector.add([], [], [0.0, 0.5], TWO)
    collector.add([0.25, 1.4], [0, 1], [], np.empty((0, 2)))
    collector.add([], [], [1.0, 1.5], TWO)
    assert collector.labels().times.tolist() == [1.0, 1.5]


def test_one_output_may_be_a_plain_list() -> None:
    collector = LabelCollector(IDS, 1, T)
    collector.add([0.5], [0], [0.0, 0.5, 1.0], [1, 2, 3])
    assert collector.labels().values.tolist() == [[3.0]]


BAD_IDS: dict[str, tuple[list[Any], str]] = {
    "none": ([], "unit_ids: expected at least one unit, got none"),
    "twice": (
        ["b", "a", "c", "b", "a"],
        "unit_ids: expected unique ids, got 'a' more than once; name each unit differently",
    ),
    "empty": (["a", ""], "unit_ids: expected non-empty strings, got ''"),
    "a number": (["a", 3], "unit_ids: expected non-empty strings, got 3"),
    "bytes": ([b"a"], "unit_ids: expected non-empty strings, got b'a'"),
}


@pytest.mark.parametrize("what", BAD_IDS)
def test_unit_ids_that_name_no_units_are_refused(what: str) -> None:
    ids, message = BAD_IDS[what]
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        LabelCollector(ids, 2, T)
