"""Calls in a process of their own: results and errors come back, limits end the child alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.paths import TESTS
from helpers.recordings import small
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.converting import confined_convert
from poyo_edge.errors import MissingExtraError, RecordingError
from poyo_edge.files.confined import BeyondLimitsError, call_confined
from poyo_edge.recording.confined import beyond_limits


@pytest.fixture(autouse=True)
def _found_by_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def call(name: str, **arguments: Any) -> Any:
    return call_confined(f"helpers.confined_calls:{name}", arguments, seconds=1, memory=1 << 28)


def test_a_result_comes_back_without_what_libraries_print() -> None:
    assert call("returns", n=3) == [3, 4]


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(RecordingError) as refused:
        call("refuses")
    assert str(refused.value) == "a.h5: units/id: expected one, got two; mend it"
    assert (refused.value.field, refused.value.do) == ("units/id", "mend it")
    with pytest.raises(MissingExtraError, match="pip install pynwb"):
        call("lacks")
    with pytest.raises(RuntimeError, match="KeyError: 'nobody meant this'"):
        call("fails")


@pytest.mark.parametrize(
    ("name", "how"), [("runs_on", "time"), ("takes_all", "memory"), ("crashes", "crash")]
)
def test_limits_end_the_child_alone(name: str, how: str) -> None:
    with pytest.raises(BeyondLimitsError) as ended:
        call(name)
    assert ended.value.how == how


def test_a_child_that_cannot_begin_says_why() -> None:
    """As while its packages are being installed: that is no fault of the file."""
    with pytest.raises(RuntimeError, match=r"No module named 'helpers\.half_installed'"):
        call_confined("helpers.half_installed:name", {}, seconds=1, memory=1 << 28)


def test_waiting_on_a_busy_machine_is_no_fault_of_the_file() -> None:
    said = str(beyond_limits("a.nwb", "a file with spikes", "waiting"))
    assert "took little of a processor" in said
    assert "try again" in said
    assert "do not use" not in said


def test_convert_reads_in_a_confined_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = small(tmp_path / "s.h5")
    words = ["convert", str(sound), "-o", "x.h5", "--split", "0.5,0.2,0.3", "--behavior"]
    done = CliRunner().invoke(app, [*words, "a.b=cursor.vel"])
    assert done.exit_code == 0, done.output
    assert "a.b" in done.output
    monkeypatch.setattr(confined_convert, "TIME_LIMIT_S", 0)
    for more in (["--list"], ["-o", "y.h5"]):
        done = CliRunner().invoke(app, ["convert", str(sound), *more])
        assert done.exit_code == 5
        assert "limits of memory and time" in done.output
    assert not (tmp_path / "y.h5").exists()
