"""Operators of our own in C++: random shapes against plain loops, under sanitizers, on Arm too."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from helpers.native import building
from helpers.native.kernels import HARNESS, KERNELS, build_harness

from poyo_edge.artifact.onnx_guard import OWN_OPERATORS

pytestmark = building.once_is_enough
OPERATORS = len(OWN_OPERATORS)
sanitized = pytest.mark.skipif(
    "POYOEDGE_THREADS_S" not in os.environ,
    reason="compiling with sanitizers takes minutes: just native-faults",
)


def answers(program: Path, *words: object, through: str = "") -> dict[str, list[str]]:
    """Instruction set → the operators that were tried; all answers were right."""
    command = [*([through] if through else []), str(program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for name, operator in re.findall(r"^(\w+) (\w+): \d+ cases", done.stdout, re.M):
        found.setdefault(name, []).append(operator)
    return found


@pytest.fixture(scope="module")
def harness(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness, optimised as the object is."""
    return build_harness(compiler, tmp_path_factory.mktemp("harness") / "harness")


def test_every_instruction_set_answers_as_plain_loops_do(harness: Path) -> None:
    found = answers(harness, 1, 200)
    assert {*found} <= {"sse2", "avx2", "avx512", "neon"}
    assert found
    assert all({*operators} == {*OWN_OPERATORS} for operators in found.values())


def test_threads_change_nothing(harness: Path) -> None:
    assert answers(harness, 2, 60, 3)


@sanitized
def test_many_random_shapes_for_a_while(harness: Path) -> None:
    """A fuzzer over shapes: another seed each time, for POYOEDGE_THREADS_S seconds."""
    ends = time.monotonic() + float(os.environ["POYOEDGE_THREADS_S"])
    seed = first = time.time_ns() % 1_000_000
    while seed == first or time.monotonic() < ends:
        answers(harness, seed, 100, 1 + seed % 3)  # a failure shows the seed
        seed += 1
    print(f"seeds {first} to {seed - 1}")


@sanitized
def test_addresses_and_behaviour_are_defined(compiler: str, tmp_path: Path) -> None:
    """On the narrowest vectors, where most rows and latents are left over."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    answers(build_harness(compiler, tmp_path / "harness", *flags), 3, 100)


@sanitized
def test_threads_do_not_disturb_each_other(compiler: str, tmp_path: Path) -> None:
    flags = ("-O1", "-g", "-fsanitize=thread")
    answers(build_harness(compiler, tmp_path / "harness", *flags), 4, 20, 3)


@pytest.mark.slow
def test_a_wrong_kernel_is_noticed(compiler: str, tmp_path: Path) -> None:
    """The comparison above can fail: here GELU is another one."""
    sources = tmp_path / "runtime" / "native" / "kernels"
    shutil.copytree(KERNELS, sources)
    shutil.copytree(KERNELS.parent / "src", sources.parent / "src")
    vector = sources / "vector.h"
    text = vector.read_text()
    vector.write_text(text.replace("1.15111105f", "1.15211105f"))
    assert vector.read_text() != text
    tests = tmp_path / "tests" / "runtime" / "native" / "c"
    tests.mkdir(parents=True)
    for path in (HARNESS, HARNESS.with_name("kernels_plain.h")):
        shutil.copy(path, tests)
    out = tmp_path / "harness"
    files = [tests / HARNESS.name, *sorted(sources.glob("*.cpp"))]
    building.run([compiler, "-std=c++17", "-O0", *files, "-o", out, "-lpthread"])
    done = subprocess.run([out, "1", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FeedForward case 0" in done.stdout


def test_an_emulated_aarch64_gives_the_same_answers(tmp_path: Path) -> None:
    cross = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if platform.machine() == "aarch64":
        pytest.skip("this machine is one: the tests above ran on it")
    if cross is None or emulator is None:
        pytest.skip("no aarch64-linux-gnu-g++, or no qemu-aarch64")
    program = build_harness(cross, tmp_path / "harness", "-static")
    assert answers(program, 1, 40, through=emulator) == {"neon": [*answers_in_order()]}


def answers_in_order() -> list[str]:
    """The operators in the order that they are registered in."""
    forward = ["LatentAttention", "FeedForward", "SpikeAttention", "QueryAttention"]
    return [*forward, *(f"{name}Gradient" for name in forward[:3])]


def test_the_object_shows_three_functions_and_needs_no_library_of_c_plus_plus(
    compiled: Path,
) -> None:
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("no nm, or no readelf")
    (path,) = compiled.glob("*.so")
    names = {
        line.split()[-1] for line in building.run(["nm", "-D", "--defined-only", path]).splitlines()
    }
    assert names == {
        "RegisterCustomOps", "poyo_edge_kernels_version", "poyo_edge_kernels_choose",
    }  # fmt: skip
    needed = re.findall(r"NEEDED.*\[(.*)\]", building.run(["readelf", "-d", path]))
    assert {name.split(".so")[0] for name in needed} <= {"libc", "libm", "ld-linux-aarch64"}
