"""What labs have is named as what it is, with a command that can be pasted."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.commands import run
from helpers.lab_files import csv_files, nev_file, npz_file, torch_brain_recording
from helpers.labs.matlab_files import mat5_file, mat73_file
from helpers.labs.open_ephys_files import open_ephys_folder
from helpers.labs.sorted_files import nsx_file, phy_folder

from poyo_edge.converting import describe
from poyo_edge.errors import CheckpointError, RecordingError, UsageError
from poyo_edge.inspecting import inspect_path
from poyo_edge.recording import Recording


def nwb(path: Path, version: str = "2.7.0") -> Path:
    """As much of an NWB file as tells its kind."""
    with h5py.File(path, "w") as file:
        if version.startswith("2"):
            file.attrs["nwb_version"] = version
        else:
            file["nwb_version"] = version
    return path


def sorted_folder(path: Path) -> Path:
    phy_folder(path)
    return path


def zarr(path: Path, **attributes: str) -> Path:
    path.mkdir()
    (path / ".zgroup").write_text("{}")
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


def some_bytes(path: Path) -> Path:
    path.write_bytes(bytes(1000))
    return path


SPIKES = {"Electrode 1": (np.arange(1, 9), np.zeros(8))}
READABLE: dict[str, Callable[[Path], Path]] = {
    "an NWB file": lambda d: nwb(d / "day 1.nwb"),
    "Blackrock's events": lambda d: nev_file(d / "a.nev"),
    "a folder of Kilosort and Phy": lambda d: sorted_folder(d / "ks4"),
    "arrays of numpy": lambda d: npz_file(d / "a.npz"),
    "a MATLAB file (5)": lambda d: mat5_file(d / "a.mat", {"spikes": [np.ones(3)]}),
    "a MATLAB file (7.3)": lambda d: mat73_file(d / "a.mat", {"spikes": [np.ones(3)]}),
    "a folder of Open Ephys with spikes": lambda d: open_ephys_folder(d / "2025", SPIKES),
    "a table": lambda d: csv_files(d)[0],
}
UNREADABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an NWB 1 file (NWB-1.0.6)": (lambda d: nwb(d / "a.nwb", "NWB-1.0.6"), "as NWB 2"),
    "a zarr store": (lambda d: zarr(d / "a.zarr"), "save its spikes"),
    "an NWB file in zarr": (lambda d: zarr(d / "a.nwb", nwb_version="2.7.0"), "NWBZarrIO"),
    "raw data of Blackrock": (lambda d: nsx_file(d / "a.ns6"), "sort it"),
    "raw data (.dat)": (lambda d: some_bytes(d / "continuous.dat"), "sort it"),
    "raw data (.bin)": (lambda d: some_bytes(d / "g0.ap.bin"), "sort it"),
    "a folder of Open Ephys": (lambda d: open_ephys_folder(d / "2025", {}), "sort it"),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_converted_comes_with_the_whole_command(tmp_path: Path, name: str) -> None:
    path = READABLE[name](tmp_path)
    out = shlex.quote(path.with_suffix(".h5").name)
    command = f"; run: poyo-edge convert {shlex.quote(str(path))} -o {out}"
    for opened in (inspect_path, Recording.open):
        with pytest.raises(Exception, match="expected a recording, got") as caught:
            opened(path)
        assert name in str(caught.value)
        assert str(caught.value).endswith(command)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_converted_says_what_to_do(tmp_path: Path, name: str) -> None:
    make, do = UNREADABLE[name]
    path = make(tmp_path)
    for opened in (inspect_path, Recording.open, describe):
        with pytest.raises(RecordingError) as caught:
            opened(path)
        assert f"got {name}" in str(caught.value)
        assert do in caught.value.do


def test_raw_data_beside_detected_spikes_leads_to_them(tmp_path: Path) -> None:
    nev_file(tmp_path / "a.nev")
    with pytest.raises(RecordingError, match=r"convert .*a\.nev -o a\.h5"):
        describe(nsx_file(tmp_path / "a.ns6"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [("replay", "none.poyo"), ("calibrate", "none.poyo")])
def test_commands_that_take_recordings_say_it_too(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(*command, sorted_folder(tmp_path / "ks"))
    assert done.returncode == 5
    assert done.stderr.endswith("-o ks.h5\n")


def test_another_layout_of_hdf5_gets_the_command(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        del file["session"].attrs["id"]
    with pytest.raises(RecordingError, match=r"convert .*s\.h5 -o s\.converted\.h5"):
        Recording.open(path)


def test_a_checkpoint_is_not_taken_for_raw_data(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        inspect_path(tmp_path / "pytorch_model.bin")


def test_a_folder_of_a_recipe_with_other_files_gets_the_command(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs it")
    pytest.importorskip("lightning", reason="training needs it")
    sources = importlib.import_module("poyo_edge.training.sources")
    nwb(tmp_path / "a.nwb")
    np.save(tmp_path / "x.npy", np.zeros(1))
    source = type("S", (), {"recordings": ("*",)})()
    with pytest.raises(UsageError, match=r"like: poyo-edge convert .*a\.nwb -o a\.h5"):
        sources._matching("d", source, tmp_path)
