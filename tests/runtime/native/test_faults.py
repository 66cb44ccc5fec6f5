"""What only shows under a sanitizer, a counter of allocations or many windows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers.native import building

from poyo_edge.artifact import Session

pytestmark = building.once_is_enough

SECONDS = float(os.environ.get("POYOEDGE_THREADS_S", "1"))
"""That threads run for; ``just native-faults`` runs them for longer, and decodes 10⁶ windows."""
WINDOWS = int(os.environ.get("POYOEDGE_SOAK_WINDOWS", "20000"))
MORE_KIB = 1024
"""That memory may grow by after half of them: ONNX Runtime's arena grows in steps, seen to 640."""


def program(name: str, out: Path, *flags: str) -> Path:
    """A test program with the library in it."""
    if building.CC is None:
        pytest.skip(building.NO_COMPILER)
    building.run([
        building.CC, *building.DIALECT, "-O1", "-g", *flags, *building.SOURCES,
        building.STAND_INS / f"{name}.c", "-o", out, *building.LIBRARIES,
    ])  # fmt: skip
    return out


def has(sanitizer: str, folder: Path) -> bool:
    """Whether the compiler has it, and it runs here."""
    if building.CC is None:
        return False
    source, out = folder / "empty.c", folder / "empty"
    source.write_text("int main(void) { return 0; }\n")
    command = [building.CC, f"-fsanitize={sanitizer}", str(source), "-o", str(out)]
    compiled = subprocess.run(command, capture_output=True, check=False)
    return compiled.returncode == 0 and subprocess.run([out], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_threads_that_push_decode_swap_and_look_do_not_disturb_each_other(
    sanitizer: str, native_sessions: dict[Path, Session], tmp_path: Path
) -> None:
    if not has(sanitizer, tmp_path):
        pytest.skip(f"the compiler has no {sanitizer} sanitizer that runs here")
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    threads = program("threads", tmp_path / "threads", *flags)
    stand_in = building.build_stand_in(tmp_path / "stand_in.so", *flags, "-DSTAND_IN_SLEEP_US=200")
    said = building.run([threads, stand_in, *native_sessions, str(SECONDS)])
    counts = [int(word) for word in said.split() if word.isdigit()]
    decodes, pushes, swaps, refused, wrong = counts
    print(f"{sanitizer}, {SECONDS:g} s: {said}")
    assert min(decodes, pushes, swaps, refused) > 0
    assert wrong == 0


@pytest.mark.slow
def test_push_and_decode_ask_for_no_memory(
    native_file: Path, stand_in: Path, tmp_path: Path
) -> None:
    counter = program("allocations", tmp_path / "allocations")
    opened, by_push, by_decode = building.run([counter, stand_in, native_file]).split()
    assert (opened, by_push, by_decode) == ("1", "0", "0")


@pytest.mark.slow
def test_memory_stays_as_it_is(
    native_sessions: dict[Path, Session], onnxruntime_so: Path, tmp_path: Path
) -> None:
    soak = program("soak", tmp_path / "soak", "-O2")
    said = building.run(
        [soak, onnxruntime_so, *native_sessions, str(WINDOWS), "0", "0"], timeout=60 + WINDOWS / 200
    )
    first, last, decodes, *_ = map(int, said.split())
    print(f"{decodes} windows: {first} KiB after half of them, {last} KiB at the end")
    assert decodes == WINDOWS
    assert last - first < MORE_KIB
