"""Refusals say what a file is, and which files belong together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import run
from helpers.lab_files import csv_files, nev_file, npz_file, nwb_file, torch_brain_recording
from helpers.labs.sorted_files import phy_folder
from helpers.paths import TINY

from poyo_edge.artifact import Artifact
from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.inspecting import inspect_path
from poyo_edge.recording import Recording, write_recording
from poyo_edge.recording.other_files import other_kind


def of(data: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def without(folder: Path, name: str) -> Path:
    phy_folder(folder)
    (folder / name).unlink()
    return folder


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "got text, not an HDF5/NWB file as its ending .nwb says": (
        of(b"notes of a day\n", "a.nwb"), "give the file itself, or copy it again"),
    "got an empty file, not an HDF5/NWB file": (of(b"", "a.nwb"), "copy it again"),
    "got a pointer of Git LFS and not the file itself": (
        of(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a.nwb"), "git lfs pull"),
    "got arrays of numpy (.npz), not a MATLAB file": (
        lambda d: renamed(npz_file(d / "a.npz"), "a.mat"), "its own ending: a.npz"),
    "got bytes of an unknown kind, not a MATLAB file": (of(b"\0\1\2\3" * 50, "a.mat"), "copy it"),
    "got text, not arrays of numpy (.npz)": (of(b"1,2\n", "a.npz"), "copy it"),
    "got something packed with gzip, not an HDF5/NWB file": (of(b"\x1f\x8b" * 9, "a.nwb"), "copy"),
    "got a folder of Kilosort and Phy without spike_times.npy": (
        lambda d: without(d / "ks", "spike_times.npy"), "the whole folder, with spike_times.npy"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_file_is_named_by_its_bytes(tmp_path: Path, name: str) -> None:
    make, do = WRONG[name]
    path = make(tmp_path)
    readers = (inspect_path, Recording.open, *([describe] if path.suffix != ".npz" else []))
    for opened in readers:
        with pytest.raises(RecordingError) as caught:
            opened(path)
        assert name in str(caught.value)
        assert do in caught.value.do
        assert "scipy" not in str(caught.value)


def test_what_its_ending_says_passes(tmp_path: Path) -> None:
    for path in (nev_file(tmp_path / "a.nev"), npz_file(tmp_path / "a.npz")):
        kind = other_kind(path)
        assert kind is not None
        assert kind.readable
    nwb = renamed(nwb_file(tmp_path / "a.nwb"), "a.mat")  # readers go by what is in it
    assert describe(nwb)["format"] == "NWB"


def test_one_array_of_a_sorted_folder_leads_to_the_folder(tmp_path: Path) -> None:
    phy_folder(tmp_path / "ks")
    with pytest.raises(RecordingError, match=r"give the whole folder, with spike_times\.npy") as no:
        describe(tmp_path / "ks" / "spike_times.npy")
    assert no.value.do.endswith(f"run: poyo-edge convert {tmp_path}/ks -o ks.h5")
    np.save(tmp_path / "v.npy", np.zeros(3))
    with pytest.raises(RecordingError, match="got one array of numpy"):
        describe(tmp_path / "v.npy")


def test_an_nwb_file_is_answered_with_its_velocity(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with pytest.raises(RecordingError) as caught:
        Recording.open(path)
    command = f"run: poyo-edge convert {path} -o a.h5 --behavior cursor.vel=cursor_vel"
    assert caught.value.do == command
    words = caught.value.do.rpartition(" ")[2]
    values = convert(path, tmp_path / "a.h5", ConvertOptions(behaviors=(words,)))
    assert values["behaviors"] == ["cursor.vel"]


def test_what_cannot_be_seen_at_a_glance_is_listed_first(tmp_path: Path) -> None:
    kind = other_kind(nev_file(tmp_path / "a.nev"))
    assert kind is not None
    assert kind.do.startswith("see with --list what it holds, and choose with --behavior; run: ")


def test_files_in_the_wrong_order_are_turned_round(tmp_path: Path) -> None:
    _, behavior = csv_files(tmp_path)
    spikes = nev_file(tmp_path / "a.nev")
    with pytest.raises(UsageError, match="with spikes first and behaviour") as caught:
        describe(behavior, spikes)
    assert str(caught.value).endswith(f"run: poyo-edge convert {spikes} {behavior}")
    with pytest.raises(UsageError, match="with spikes first and behaviour"):
        convert(behavior, tmp_path / "b.h5", behavior_file=spikes)
    with pytest.raises(RecordingError, match="if this is behaviour, name the file with the spikes"):
        describe(behavior)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["calibrate", "replay"])
def test_a_recording_before_its_artifact_is_told_the_order(tmp_path: Path, command: str) -> None:
    shutil.copytree(TINY, tmp_path / "model.poyo")
    recording = torch_brain_recording(tmp_path / "s.h5")
    done = run(command, recording, tmp_path / "model.poyo")
    assert done.returncode == 5
    assert "got an artifact" in done.stderr
    assert "the artifact comes first and the recording behind it" in done.stderr


def test_a_session_file_that_is_not_there_is_no_such_file() -> None:
    with pytest.raises(UsageError, match=r"got 'no\.session', which is no such file"):
        Artifact.open(TINY).session("no.session")
    with pytest.raises(UsageError, match="got 'nobody'; name one"):
        Artifact.open(TINY).session("nobody")


def test_a_recording_without_behavior_is_to_be_converted_with_one(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_recording(
        path, session_id="s", subject_id="m", unit_ids=["a"], spike_times=np.arange(40) / 3,
        spike_units=np.zeros(40, int), behaviors={}, domains={"train": [(0.0, 9.0)]},
    )  # fmt: skip
    with pytest.raises(RecordingError, match="a recording with behaviour, got one without") as no:
        Recording.open(path).behavior("cursor.vel")
    _, behavior = csv_files(tmp_path)
    command = no.value.do.partition("poyo-edge ")[2]
    assert command == f"convert {path} BEHAVIOR.csv -o s.converted.h5 --behavior cursor.vel"
    values = convert(path, tmp_path / "c.h5", behavior_file=behavior)
    assert values["behaviors"] == ["cursor.vel"]
