"""The doctor on a Jetson: parsers on samples of each file's format, and what it advises.

No Jetson was at hand: the samples are written after the formats that NVIDIA and users publish.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.trt.machines import ORIN

from poyo_edge.cli.commands.doctor import doctor_text
from poyo_edge.doctor import examine
from poyo_edge.doctor import jetson as doctor_jetson
from poyo_edge.doctor.jetson import cuda_version, examine_jetson, installed, power_mode, power_modes
from poyo_edge.runtime.backends.machine import Machine

NVPMODEL = """\
# Copyright (c) 2022-2023, NVIDIA CORPORATION.  All rights reserved.
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
# MAXN is the NONE power model to release all constraints
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=MODE_15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MODE_30W >
# mandatory section to configure the default mode
< PM_CONFIG DEFAULT=2 >
"""

DPKG = """\
Package: nvidia-jetpack
Status: install ok installed
Priority: standard
Section: metapackages
Version: 6.2+b77
Description: NVIDIA Jetpack Meta Package

Package: libnvinfer10
Status: install ok installed
Architecture: arm64
Version: 10.3.0.30-1+cuda12.5

Package: python3-libnvinfer
Status: deinstall ok config-files
Version: 10.3.0.30-1+cuda12.5

Package: zlib1g
Status: install ok installed
Version: 1:1.2.11
"""

FILES = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
    "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "etc/nvpmodel.conf": NVPMODEL,
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "var/lib/dpkg/status": DPKG,
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_every_file_gives_its_value(root: Path) -> None:
    jetson = examine_jetson(ORIN, root)
    assert jetson is not None
    assert (jetson.model, jetson.l4t) == ("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3")
    assert jetson.release == "JetPack 6.1 to 6.2.1"
    assert jetson.packages == {"nvidia-jetpack": "6.2+b77", "libnvinfer10": "10.3.0.30-1+cuda12.5"}
    assert (jetson.cuda, jetson.power_mode) == ("12.6.68", "MODE_30W")
    (clock,) = jetson.clocks
    assert (clock.low, clock.high, clock.now, clock.fixed) == (306.0, 1300.5, 306.0, False)
    assert (jetson.cpu_governor, jetson.target) == ("schedutil", "jetson-orin")


def test_it_says_what_to_fix_and_with_which_command(root: Path) -> None:
    jetson = examine_jetson(Machine(), root)
    assert jetson is not None
    commands = [words.partition("  #")[0] for words in jetson.fix]
    assert commands[0] == "sudo apt install nvidia-jetpack"
    assert not [words for words in commands if "pip" in words]  # CUDA is JetPack's own
    assert commands[-2:] == ["sudo nvpmodel -m 0", "sudo jetson_clocks"]


def fixes(root: Path, machine: Machine) -> list[str]:
    jetson = examine_jetson(machine, root)
    assert jetson is not None
    return jetson.fix


def test_a_package_that_is_there_is_not_to_be_installed_again(root: Path) -> None:
    status = root / "var/lib/dpkg/status"
    status.write_text(DPKG.replace("deinstall ok config-files", "install ok installed"))
    first = fixes(root, Machine(sm="87"))[0]
    assert first.startswith("make the virtual environment again, with /usr/bin/python3 -m venv --")
    assert not [words for words in fixes(root, Machine(sm="87")) if "apt install" in words]


@pytest.mark.parametrize(
    ("release", "sm", "said"),
    [
        ("# R35 (release), REVISION: 4.1", "87", "update JetPack to 6.1 or newer  # L4T 35.4.1"),
        ("# R36 (release), REVISION: 3.0", "87", "update JetPack to 6.1 or newer  # L4T 36.3.0"),
        ("# R40 (release), REVISION: 1.0", "87", "run poyo-edge build, verify and bench before"),
        ("# R35 (release), REVISION: 4.1", "72", "take a Jetson Orin or Thor  # JetPack 6 and 7"),
    ],
)
def test_a_release_that_is_not_known_is_older_or_newer(
    root: Path, release: str, sm: str, said: str
) -> None:
    (root / "etc/nv_tegra_release").write_text(release)
    machine = Machine(sm=sm, tensorrt="10.3.0")
    assert fixes(root, machine)[0].startswith(said)


def test_without_a_gpu_the_user_joins_both_groups_of_its_devices(root: Path) -> None:
    assert [words for words in fixes(root, Machine()) if "usermod -aG video,render $USER" in words]
    assert not [words for words in fixes(root, ORIN) if "usermod" in words]


def fast(root: Path) -> None:
    (root / "var/lib/nvpmodel/status").write_text("pmode:0000")
    low = root / "sys/class/devfreq/17000000.gpu/min_freq"
    low.write_text("1300500000\n")


def test_nothing_is_left_to_fix_when_all_is_well(root: Path) -> None:
    fast(root)
    jetson = examine_jetson(ORIN, root)
    assert jetson is not None
    assert jetson.fix == []
    assert jetson.clocks[0].fixed


def test_without_a_mode_that_has_no_limit_the_one_of_most_watts_is_advised(root: Path) -> None:
    """As on an Orin Nano that was flashed without its super modes."""
    modes = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"
    (root / "etc/nvpmodel.conf").write_text(modes)
    for status, advised in (("pmode:0001", True), ("pmode:0000", False)):
        (root / "var/lib/nvpmodel/status").write_text(status)
        jetson = examine_jetson(ORIN, root)
        assert jetson is not None
        said = [words for words in jetson.fix if "nvpmodel" in words]
        assert said == ["sudo nvpmodel -m 0  # 7W limits the clocks"] * advised


def test_in_a_container_that_hides_its_release_it_is_examined_too(root: Path) -> None:
    for name in ("etc/nv_tegra_release", "etc/nvpmodel.conf", "proc/device-tree/model"):
        (root / name).write_text("")
    machine = Machine(sm="87", board="NVIDIA Jetson Orin NX")
    jetson = examine_jetson(machine, root)
    assert jetson is not None
    assert (jetson.l4t, jetson.release, jetson.model) == ("", "", "NVIDIA Jetson Orin NX")
    assert jetson.fix == [
        "start from an image with TensorRT's Python package  # Python finds none in this container",
        "on the Jetson, outside of the container: sudo jetson_clocks  # clocks that fall when idle "
        "make the next window late",
    ]
    assert examine_jetson(Machine(sm="86"), root) is None


def test_an_old_release_and_an_old_tensorrt_are_named(root: Path) -> None:
    (root / "etc/nv_tegra_release").write_text("# R35 (release), REVISION: 4.1, GCID: 1")
    jetson = examine_jetson(Machine(sm="87", tensorrt="8.5.2"), root)
    assert jetson is not None
    assert jetson.release == ""
    assert jetson.fix[0].startswith("update JetPack to 6.1 or newer  # L4T 35.4.1")
    assert jetson.fix[1].startswith("install TensorRT 10.1 to 11.4  # 8.5.2")


def test_a_machine_that_is_no_jetson_is_none(tmp_path: Path) -> None:
    assert examine_jetson(Machine(), tmp_path) is None


@pytest.mark.parametrize("name", [name for name in FILES if name != "etc/nv_tegra_release"])
def test_a_missing_or_broken_file_leaves_a_gap_and_nothing_else(root: Path, name: str) -> None:
    whole = examine_jetson(ORIN, root)
    (root / name).write_text("\x00rubbish {{{ \n\n")
    broken = examine_jetson(ORIN, root)
    (root / name).unlink()
    without = examine_jetson(ORIN, root)
    for found in (broken, without):
        assert found is not None
        assert found != whole
        assert found.l4t == "36.4.3"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (power_mode, "pmode:0000", "0"),
        (power_mode, "", ""),
        (power_modes, "< POWER_MODEL ID=0 NAME=MAXN_SUPER >", {"0": "MAXN_SUPER"}),
        (power_modes, "#< POWER_MODEL ID=0 NAME=OFF >", {}),
        (cuda_version, "[]", ""),
        (cuda_version, '{"cuda": {"version": "13.0.1"}}', "13.0.1"),
    ],
)
def test_parsers_take_text_and_nothing_for_granted(
    parse: Callable[[str], object], text: str, value: object
) -> None:
    assert parse(text) == value


def test_only_installed_packages_count() -> None:
    assert installed(DPKG, ("python3-libnvinfer", "zlib1g")) == {"zlib1g": "1:1.2.11"}


def test_the_doctors_words_on_a_jetson(root: Path) -> None:
    jetson = examine_jetson(ORIN, root)
    assert jetson is not None
    values = examine()
    values |= {"accelerator": ORIN.to_json(), "remarks": doctor_jetson.remarks(ORIN)}
    values["jetson_state"] = {**jetson.to_json(), "clocks": [c.to_json() for c in jetson.clocks]}
    text = doctor_text(values)
    for words in (
        "TensorRT      10.3.0",
        "power mode    MODE_30W",
        "17000000.gpu 306 of 1300 MHz, free to fall",
        "build target  jetson-orin",
        "sudo jetson_clocks",
        "note: TensorRT 10.3.0: silently wrong output of transformers with dynamic shapes",
    ):
        assert words in text
