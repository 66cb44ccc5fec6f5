"""The table of targets: what is looked up, and that what it says is complete."""

from __future__ import annotations

import re

import pytest

from poyo_edge.errors import UsageError
from poyo_edge.targets import (
    KNOWN_BAD,
    TARGETS,
    build_command,
    find_jetson,
    find_release,
    find_target,
    known_faults,
    supported_tensorrt,
    version_numbers,
)


def test_the_names_are_the_ones_that_build_takes() -> None:
    assert set(TARGETS) == {"jetson", "jetson-orin", "jetson-thor", "rtx", "cuda", "cpu"}
    with pytest.raises(UsageError, match=r"^target: expected one of \['jetson', .* got 'windows'$"):
        find_target("windows")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("jetson-oren", "jetson-orin"), ("Jetson_Orin", "jetson-orin"), ("orin", "jetson-orin"),
     ("nano", "jetson-orin"), ("thor", "jetson-thor"), ("jetsn", "jetson"), ("rtx4090", "rtx"),
     ("jetson-nano", "jetson-orin"), ("jetson-orin-nx", "jetson-orin"),
     ("agx_thor", "jetson-thor")],
)  # fmt: skip
def test_a_mistyped_target_is_told_which_one_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"got {typed!r}; did you mean {meant!r}\\?$"):
        find_target(typed)


def test_a_board_that_is_no_target_is_not_taken_for_one() -> None:
    with pytest.raises(UsageError, match=r"got 'jetson-xavier'$"):
        find_target("jetson-xavier")


def test_every_jetson_is_set_up_in_one_way_with_jetpacks_own_cuda() -> None:
    jetsons = [target for target in TARGETS.values() if target.built_on_device]
    assert len({target.install for target in jetsons}) == 1
    assert all("pip install '.[ort]'" in target.install[-1] for target in jetsons)
    words = [line for target in TARGETS.values() for line in target.install]
    assert not [line for line in words if "cuda-" in line]  # no second CUDA beside the driver's


def test_the_command_that_builds_again_is_whole() -> None:
    assert build_command("m.poyo", "tensorrt") == "poyo-edge build m.poyo --target jetson"
    words = build_command("m.poyo", "tensorrt-rtx", "--precision fp32")
    assert words == "poyo-edge build m.poyo --target rtx --precision fp32"


@pytest.mark.parametrize(
    ("l4t", "tensorrt"),
    [("36.4.0", "10.3"), ("36.4.3", "10.3"), ("36.5", "10.3"), ("38.2", "10.13"),
     ("38.4.0", "10.13"), ("39.2.0", "10.16")],
)  # fmt: skip
def test_a_release_is_found_by_its_l4t(l4t: str, tensorrt: str) -> None:
    release = find_release(l4t)
    assert release is not None
    assert release.tensorrt == tensorrt


@pytest.mark.parametrize("l4t", ["35.4.1", "36.3", "40.1", "", "R36"])
def test_other_releases_are_not_taken_for_one_of_ours(l4t: str) -> None:
    assert find_release(l4t) is None


def test_a_jetson_is_known_by_its_compute_capability() -> None:
    names = {sm: target and target.name for sm in ("87", "110", "101", "72", "86")
             for target in [find_jetson(sm)]}  # fmt: skip
    assert names == {
        "87": "jetson-orin", "110": "jetson-thor", "101": "jetson-thor", "72": None, "86": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "faults"), [("10.3.0.30", 2), ("10.5.0", 1), ("10.7.0", 2), ("10.8", 0),
                            ("10.13.3.9", 0), ("11.4.1", 0)]
)  # fmt: skip
def test_known_faults_are_those_of_the_version(version: str, faults: int) -> None:
    assert len(known_faults(version)) == faults


def test_every_known_fault_links_to_its_report_and_says_what_is_done() -> None:
    for bad in KNOWN_BAD:
        assert bad.issues
        assert all(re.fullmatch(r"https://github\.com/.+/\d+", link) for link in bad.issues)
        assert bad.answer


def test_every_target_says_what_to_install_and_what_runs_it() -> None:
    for target in TARGETS.values():
        assert target.install
        assert target.backend in {"tensorrt", "tensorrt-rtx", "ort-cuda", "ort-cpu"}
        assert bool(target.releases) == target.built_on_device


@pytest.mark.parametrize(
    ("version", "supported"),
    [("10.0.1", False), ("10.1.0", True), ("10.3.0.30", True), ("11.4.1", True), ("11.5", False),
     ("8.6.2", False), ("rubbish", False)],
)  # fmt: skip
def test_the_builder_is_written_for_a_range_of_versions(version: str, supported: bool) -> None:
    assert supported_tensorrt(version) is supported


def test_versions_are_compared_as_numbers() -> None:
    assert version_numbers("10.13.3.9") > version_numbers("10.3")
    assert version_numbers("10.3.0+cuda12") == (10, 3, 0)
