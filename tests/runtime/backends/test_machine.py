"""What a machine is asked, and what it may answer."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from poyo_edge.runtime.backends.machine import (
    Machine,
    _ask,
    l4t_version,
    module_version,
    tegra_board,
    this_machine,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic", "36.4.0"),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", "38.2.0"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", "35.4.1"),
        ("", ""),
        ("Ubuntu 22.04", ""),
    ],
)
def test_the_release_file_gives_the_version(text: str, version: str) -> None:
    assert l4t_version(text) == version


class Driver:
    """The driver's library: an answer or an error code for each question."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 100
            values = {"cuDriverGetVersion": 12060, "cuDeviceGet": 0}
            if name == "cuDeviceGetAttribute":
                values[name] = {75: 8, 76: 7, 16: 8}[arguments[1]]
            if name == "cuDeviceGetName":
                arguments[0].value = b"Orin"
                return 0
            if name != "cuInit":
                pointer = ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int))
                pointer[0] = values[name]
            return 0

        return call


@pytest.mark.parametrize(
    ("failing", "answer"),
    [
        ("", ("87", "12.6", "Orin, 8 SMs")),
        ("cuInit", ("", "", "")),
        ("cuDriverGetVersion", ("", "", "")),
        ("cuDeviceGet", ("", "12.6", "")),
        ("cuDeviceGetAttribute", ("", "12.6", "")),
        ("cuDeviceGetName", ("87", "12.6", "")),
    ],
)
def test_the_driver_says_what_the_gpu_is_or_nothing(failing: str, answer: tuple[str, ...]) -> None:
    assert _ask(Driver(failing)) == answer


def test_a_package_without_metadata_says_its_version_and_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stand_in_a").mkdir()
    (tmp_path / "stand_in_a" / "__init__.py").write_text(
        'from .native import *\n\n__version__ = "10.3.0"\n'
    )
    (tmp_path / "stand_in_b.py").write_text("__version__ = compute()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert module_version("stand_in_a") == "10.3.0"
    assert module_version("stand_in_b") == ""
    assert module_version("no_such_module_at_all") == ""
    assert not {"stand_in_a", "stand_in_b"} & set(sys.modules)


def test_a_tegra_is_known_by_its_device_tree_and_a_jetson_by_its_gpu_too(tmp_path: Path) -> None:
    assert tegra_board(tmp_path) == ""
    (tmp_path / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    board = tegra_board(tmp_path)
    assert board == "NVIDIA Jetson Orin Nano Developer Kit"
    (tmp_path / "compatible").write_bytes(b"raspberrypi,5-model-b\0")
    assert tegra_board(tmp_path) == ""
    assert Machine(sm="87", board=board).jetson
    assert Machine(l4t="36.4.3").jetson
    assert not Machine(sm="86", board=board).jetson
    assert not Machine(sm="87").jetson


def test_this_machine_can_be_asked_whatever_it_is() -> None:
    assert isinstance(this_machine(), Machine)
    assert this_machine() is this_machine()
