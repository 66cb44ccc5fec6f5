"""Tables as spreadsheets and pandas write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poyo_edge.converting import convert, describe
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording

SPIKES = "time,unit\n0.25,a\n0.5,b\n1.5,a\n2.0,b\n"
BEHAVIOR = "time,cursor.vel.x,cursor.vel.y\n0.5,-1.5,2\n1.0,,3e-1\n1.5,0.25,4\n"


def of_a_spreadsheet(text: str) -> str:
    return text.replace(",", ";").replace(".", ",").replace("cursor,vel,", "cursor.vel.")


def with_rows_counted(text: str, name: str = "") -> str:
    head, *rows = text.splitlines()
    return "\n".join([f"{name},{head}", *(f"{i},{row}" for i, row in enumerate(rows))])


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        of_a_spreadsheet,
        lambda text: "\ufeff" + of_a_spreadsheet(text),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        with_rows_counted,
        lambda text: with_rows_counted(text, "Unnamed: 0"),
    ],
)
def test_tables_of_spreadsheets_and_pandas_are_read(tmp_path: Path, written: object) -> None:
    assert callable(written)
    (tmp_path / "s.csv").write_text(written(SPIKES), encoding="utf-8")
    (tmp_path / "b.csv").write_text(written(BEHAVIOR), encoding="utf-8")
    convert(tmp_path / "s.csv", tmp_path / "o.h5", behavior_file=tmp_path / "b.csv")
    recording = Recording.open(tmp_path / "o.h5")
    assert recording.unit_ids == ("a", "b")
    np.testing.assert_array_equal(recording.spike_times, [0.25, 0.5, 1.5, 2.0])
    velocity = recording.behavior("cursor.vel", allow_nan=True)
    np.testing.assert_array_equal(velocity.times, [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(velocity.values, [[-1.5, 2], [np.nan, 0.3], [0.25, 4]])


def test_what_was_mended_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(with_rows_counted(SPIKES))
    assert describe(tmp_path / "s.csv")["notes"] == [
        "the first column only counts the rows: left out"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time;unit,x\n1;a\n", "header: expected names with commas between them, got both"),
        (",time,unit\n5,1,a\n6,2,b\n", "a first column named '' that does not count the rows"),
        ("time;unit\n1.234,5;a\n2.234,5;b\n", "time: expected numbers"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(RecordingError, match=message):
        describe(tmp_path / "s.csv")
