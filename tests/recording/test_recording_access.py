"""Recordings that lead out of their file, declare more than they hold, or break the library."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.paths import DATA
from helpers.recordings import small
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.errors import RecordingError
from poyo_edge.inspecting import inspect_path
from poyo_edge.recording import Recording
from poyo_edge.recording.confined import require_readable

CRASHERS = DATA / "crashers"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small(tmp_path / "s.h5")


def read_all(path: Path) -> None:
    recording = Recording.open(path)
    for key in recording.behaviors:
        recording.behavior(key)


def external(file: Any) -> None:
    del file["spikes/timestamps"]
    file["spikes"].create_dataset("timestamps", (3,), "f8", external=[("canary", 0, 24)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("canary", "x", (3,))
    del file["spikes/timestamps"]
    file["spikes"].create_virtual_dataset("timestamps", layout)


def linked(link: Any, name: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = link

    return change


def bomb(file: Any) -> None:
    del file["spikes/timestamps"]
    file["spikes"].create_dataset("timestamps", (1 << 40,), "f8", chunks=(1 << 20,))


def large_attribute(file: Any) -> None:
    del file["session"].attrs["id"]
    file["session"].attrs["id"] = np.zeros(7000)


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "values in another file": (external, "timestamps: expected values in the file, got a path to"),
    "values of another file": (virtual, "timestamps: expected values in the file, got a path to"),
    "a link to another file": (
        linked(h5py.ExternalLink("canary", "/x"), "spikes/timestamps"),
        "/spikes/timestamps: expected no link, got a link elsewhere",
    ),
    "a group in another file": (
        linked(h5py.ExternalLink("canary", "/x"), "cursor"),
        "/cursor: expected no link, got a link elsewhere",
    ),
    "a soft link": (
        linked(h5py.SoftLink("/spikes"), "units"),
        "/units: expected no link, got a link elsewhere",
    ),
    "a link in circles": (
        linked(h5py.SoftLink("/cursor"), "cursor"),
        "/cursor: expected no link, got a link elsewhere",
    ),
    "terabytes in a few bytes": (bomb, "timestamps: expected values of at most"),
    "an attribute that is no id": (large_attribute, "session: expected a group with the attribute"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recording_is_one_file_and_no_larger_than_it(path: Path, name: str) -> None:
    canary = path.with_name("canary")
    canary.mkdir()  # whoever opens it as a file fails with other words
    change, message = HOSTILE[name]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(RecordingError, match=message) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_the_library_would_read_the_other_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    np.array([0.1, 0.2, 0.3]).tofile(path.with_name("canary"))
    with h5py.File(path, "r+") as file:
        external(file)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["spikes/timestamps"][()], [0.1, 0.2, 0.3])


def test_ids_that_repeat_a_hundred_thousand_times_are_refused_at_once(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["units/id"]
        file["units/id"] = np.full(100_000, b"u")
    with pytest.raises(RecordingError, match=r"units/id: .* got 'u' twice"):
        Recording.open(path)


def test_ids_that_would_fill_the_memory_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["units/id"]
        names = ["u", "u" * ((1 << 25) + 1)]
        file["units"].create_dataset("id", data=names, dtype=h5py.string_dtype())
    with pytest.raises(RecordingError, match=r"units/id: .* got 2 names of up to 33554433 letters"):
        Recording.open(path)


@pytest.mark.parametrize("name", ["huge-attribute", "odd-float"])
def test_what_crashed_the_reader_once_is_refused(name: str) -> None:
    file = CRASHERS / f"recording-{name}.h5"
    for read in (require_readable, inspect_path):
        with pytest.raises(RecordingError, match="^" + re.escape(f"{file}: ")):
            read(file)


@pytest.mark.slow
def test_a_file_on_which_the_library_never_ends_is_refused() -> None:
    with pytest.raises(RecordingError, match="got one on which the library that reads it runs on"):
        require_readable(CRASHERS / "recording-endless.h5", time_limit_s=2)


def test_a_recording_that_is_not_there_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="expected an HDF5 recording, got no such file"):
        require_readable(tmp_path / "no.h5")


def test_a_sound_recording_passes_the_confined_reader(path: Path) -> None:
    require_readable(path)
    assert inspect_path(path)["behaviors"] == ["cursor.vel"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("replay",), ("calibrate", "-o", "x.session")])
def test_commands_look_at_a_recording_in_a_confined_process_first(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(require_readable, "__kwdefaults__", {"time_limit_s": 2})
    monkeypatch.chdir(tmp_path)
    recording = str(CRASHERS / "recording-endless.h5")
    done = CliRunner().invoke(app, [words[0], str(DATA / "tiny.poyo"), recording, *words[1:]])
    assert done.exit_code == 5
    assert "limits of memory and time" in done.output


def test_a_reader_that_dies_is_a_refusal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RecordingError, match="got one that makes the library that reads it crash"):
        require_readable(path)


NAMES = ("units/id", "spikes/timestamps", "spikes/unit_index", "cursor/timestamps", "cursor/vel",
         "train_domain/start", "domain/end", "cursor", "units", "session", "domain")  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([np.nan, np.inf, -1, 0, 3, b"x", "x", True, 1j, 1 << 63, h5py.Empty("f8")]),
    st.builds(
        lambda shape, kind: np.zeros(shape, kind),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
        st.sampled_from(["f4", "f8", "i1", "u8", "S3", "c16", "?", "f2", "V4"]),
    ),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True)
@given(changes=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3),
       attributes=st.dictionaries(st.sampled_from(["cursor", "session"]), VALUES),
       regular=st.booleans())  # fmt: skip
def test_any_content_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    changes: dict[str, Any],
    attributes: dict[str, Any],
    regular: bool,
) -> None:
    path = small(tmp_path_factory.mktemp("any") / "s.h5")
    with h5py.File(path, "r+") as file:
        if regular:
            del file["cursor/timestamps"]
            if "domain" in file["cursor"]:
                del file["cursor/domain"]
            file["cursor"].attrs["object"] = "RegularTimeSeries"
            file["cursor"].attrs["sampling_rate"] = 10.0
            file["cursor/domain/start"], file["cursor/domain/end"] = [0.1, 0.2], [0.15, 0.3]
        for name, value in attributes.items():
            file[name].attrs["sampling_rate" if name == "cursor" else "id"] = value
        for name, value in changes.items():
            if name in file:
                del file[name]
            if name.rpartition("/")[0] in file and isinstance(
                file[name.rpartition("/")[0] or "/"], h5py.Group
            ):
                file[name] = value
    try:
        read_all(path)
    except RecordingError as refused:
        assert "\n" not in str(refused)
