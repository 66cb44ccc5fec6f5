"""Fuzz one reader, guided by coverage: ``python fuzz/run.py TARGET --minutes 3``.

It needs ``pip install atheris`` (3.0, Python 3.11 to 3.13) beside the package. A crash ends the run
and leaves the bytes in ``fuzz/crashes/TARGET/``; what was found so far stays in
``fuzz/corpus/TARGET/`` and is where the next run begins.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

with atheris.instrument_imports(
    include=["poyo_edge", "targets", "pickletools", "zipfile", "torch._weights_only_unpickler"]
):
    import targets


def main() -> None:
    """Parse the arguments and fuzz until the time is over or something breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(targets.TARGETS))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--timeout", type=int, default=20, help="seconds for one input")
    parser.add_argument("--go-on", action="store_true", help="start again after a crash")
    arguments = parser.parse_args()
    if arguments.go_on:
        start_again(arguments)
    else:
        fuzz(arguments)


def fuzz(arguments: argparse.Namespace) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    target = targets.TARGETS[arguments.target]
    if arguments.target == "checkpoint":
        targets.read_pickles_here()
    if arguments.target == "recording":  # beyond it the HDF5 library is told that there is no more
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    corpus, crashes = (HERE / name / arguments.target for name in ("corpus", "crashes"))
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(targets.seeds(arguments.target)):
        (corpus / f"seed-{i}").write_bytes(seed)
    options = [
        str(corpus),
        f"-artifact_prefix={crashes}/",
        f"-max_total_time={int(60 * arguments.minutes)}",
        f"-timeout={arguments.timeout}",
        "-rss_limit_mb=4096",
        "-max_len=200000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def start_again(arguments: argparse.Namespace) -> None:
    """For readers whose library can hang or crash: a new process after each, and what was done."""
    end, executed, ends = time.monotonic() + 60 * arguments.minutes, 0, Counter[int]()
    while (left := min(end - time.monotonic(), 60)) > 1:
        command = [sys.executable, __file__, arguments.target, f"--minutes={left / 60}"]
        command.append(f"--timeout={arguments.timeout}")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        try:
            said = process.communicate(timeout=left + 15)[1]
        except subprocess.TimeoutExpired:  # the library hangs and takes the fuzzer with it
            process.kill()
            said = process.communicate()[1]
        counts = re.findall(r"number_of_executed_units:\s*(\d+)|^#(\d+)\t", said, re.MULTILINE)
        executed += max((int(a or b) for a, b in counts), default=0)
        ends[process.returncode] += 1
    print(f"{executed} executions; exit codes (0 time over, 70 hang, 71 memory): {dict(ends)}")


if __name__ == "__main__":
    main()
