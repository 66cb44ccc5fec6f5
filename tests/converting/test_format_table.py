"""The table of formats: each row holds, and a new one is all that a new format needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import run, run_json
from helpers.lab_files import csv_files, nev_file, npz_file, nwb_file, torch_brain_recording
from helpers.labs.matlab_files import mat73_file
from helpers.labs.open_ephys_files import open_ephys_folder
from helpers.labs.sorted_files import phy_folder
from helpers.paths import ROOT

from poyo_edge.converting import FORMATS, describe
from poyo_edge.journal import JournalHeader, JournalWriter


def journal_file(path: Path) -> Path:
    header = JournalHeader(session_id="s", unit_ids=("u",), tick_rate_hz=1000.0)
    writer = JournalWriter(path, header)
    writer.spikes(0, 0, np.array([1, 2], np.int64), np.zeros(2, np.int32))
    writer.close()
    return path


def sorted_folder(folder: Path) -> Path:
    phy_folder(folder / "a.nev")
    return folder / "a.nev"


def through_neo(folder: Path) -> Path:
    pytest.importorskip("neo", reason="neo is not installed")
    return nev_file(folder / "a.nev")


FILES: dict[str, Callable[[Path], Path]] = {
    "NWB": lambda folder: nwb_file(folder / "a.nwb").rename(folder / "a.h5"),
    "MATLAB": lambda folder: mat73_file(folder / "a.nwb", {"spikes": [np.ones(3)]}),
    "torch_brain HDF5": lambda folder: torch_brain_recording(folder / "a.nwb"),
    "journal": lambda folder: journal_file(folder / "a.csv"),
    "csv": lambda folder: csv_files(folder)[0].rename(folder / "a.CSV"),
    "npz": lambda folder: npz_file(folder / "a.npz"),
    "Phy": sorted_folder,
    "Open Ephys": lambda folder: open_ephys_folder(
        folder / "a.nwb", {"Electrode 1": (np.arange(1, 9), np.zeros(8))}
    ),
    "neo": through_neo,
}
"""A file of each format; an ending that is wrong does no harm where the contents are known."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_in_its_format_and_says_so(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path)
    assert next(other for other, row in FORMATS.items() if row.recognises(path)) == name
    assert describe(path)["format"] == name


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_has_a_line_for_each_format(name: str) -> None:
    row = FORMATS[name]
    page = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {re.escape(name)}\b.*$", page, flags=re.MULTILINE)
    for suffix in row.suffixes:
        assert f"`{suffix}`" in line
    needs = line.split("|")[2].strip()
    assert needs == (f'`pip install ".[{row.extra}]"`' if row.extra else "–")


@pytest.mark.slow
def test_the_table_recognises_files_without_the_libraries_that_read_them(tmp_path: Path) -> None:
    paths = [str(torch_brain_recording(tmp_path / "s.h5")), *map(str, csv_files(tmp_path))]
    code = (
        "import sys, json, pathlib\n"
        "from poyo_edge.converting import FORMATS\n"
        f"for path in map(pathlib.Path, {paths!r}):\n"
        "    assert any(row.recognises(path) for row in FORMATS.values())\n"
        "print(json.dumps([row.package for row in FORMATS.values() if row.package in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


TOY = '''
import contextlib

import numpy as np

from poyo_edge.converting.formats import FORMATS, Format
from poyo_edge.converting.source import NO_INTERVALS, Series, Source


def numbers(path):
    return np.array(path.read_text().split(), dtype=np.float64)


@contextlib.contextmanager
def open_toy(path):
    """All spikes of one unit."""
    times = numbers(path)
    yield Source(path=path, format="toy", session_id="plaything", subject_id="t", unit_ids=("u",),
                 spike_times=times, spike_units=np.zeros(len(times), np.int64), series=(),
                 observed=NO_INTERVALS, trials=NO_INTERVALS)


def toy_behavior(path):
    """The times themselves."""
    times = numbers(path)
    return [Series(key="clock.hand", where="toy", n_samples=len(times), n_dims=1,
                   read=lambda: (times, times))]


neo = FORMATS.pop("neo")
FORMATS["toy"] = Format(help="a plaything of tests", load="toy:open_toy", extra="toys",
                        package=PACKAGE, suffixes=(".toy",), behavior="toy:toy_behavior")
FORMATS["neo"] = neo
'''


def known(folder: Path, package: str = "numpy") -> dict[str, str]:
    """An environment in which every process, confined ones too, begins with a row for toys."""
    (folder / "toy.py").write_text(TOY.replace("PACKAGE", repr(package)))
    (folder / "sitecustomize.py").write_text("import toy\n")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), before]))}


def toy_file(path: Path) -> Path:
    path.write_text(" ".join(str(i / 10) for i in range(1, 60)))
    return path


@pytest.mark.slow
def test_a_row_is_all_that_a_new_format_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in known(tmp_path).items():
        monkeypatch.setenv(name, value)
    spikes, behavior = toy_file(tmp_path / "a.toy"), toy_file(tmp_path / "b.toy")
    found = run_json("convert", spikes, behavior, "--list")
    assert (found["format"], found["session_id"], found["n_spikes"]) == ("toy", "plaything", 59)
    written = run_json("convert", spikes, behavior, "-o", tmp_path / "a.h5")
    assert (written["n_units"], written["behaviors"]) == (1, ["clock.hand"])
    assert run_json("inspect", tmp_path / "a.h5")["session_id"] == "plaything"


def in_one_line(printed: str) -> str:
    return re.sub(r"[│\s]+", " ", printed)


def test_help_names_every_format_and_new_ones_too(tmp_path: Path) -> None:
    page = in_one_line(run("convert", "--help").stdout)
    for name, row in FORMATS.items():
        assert f"{name}: {row.help}" in page
    assert "as .csv or .npz." in page
    page = in_one_line(run("convert", "--help", **known(tmp_path)).stdout)
    assert "toy: a plaything of tests" in page
    assert "as .csv or .npz or .toy." in page


@pytest.mark.slow
def test_the_refusal_of_an_unknown_file_names_every_format_and_new_ones_too(
    tmp_path: Path,
) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    (tmp_path / "a.xyz").write_bytes(b"?" * 100)
    done = run("convert", tmp_path / "a.xyz", **known(tmp_path))
    assert done.returncode == 5
    assert "expected a file that neo reads, got one that it does not" in done.stderr
    names = ", ".join([*(name for name in FORMATS if name != "neo"), "toy", "neo"])
    assert done.stderr.endswith(f"name a file in one of the formats {names}\n")


@pytest.mark.slow
def test_a_format_without_its_library_is_the_command_that_brings_it(tmp_path: Path) -> None:
    toy = toy_file(tmp_path / "a.toy")
    done = run("convert", toy, **known(tmp_path, "no_such_package"))
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        f"error: reading {toy} (toy) needs the package 'no_such_package', which is not installed; "
        "run: pip install no_such_package"
    )
