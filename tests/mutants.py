"""Takes away what guards each promise, and sees the promise's test fail.

``python tests/mutants.py`` copies the source into a temporary folder, changes one text there for
each promise in turn, runs that promise's test and prints a table; exit code 1 if a test passes
without its guard. ``tests/house/test_mutants.py`` holds the texts to the source.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("poyo_edge", "runtime", "calibration", "export", "tests")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One guard, and what is there without it."""

    promise: str
    file: str
    """A pattern that one file with the text matches."""
    old: str
    new: str
    without: str
    """What the change takes away, for the table."""

    def path(self, root: Path) -> Path:
        """The one file that holds the text, once."""
        found = [path for path in sorted(root.glob(self.file)) if self.old in path.read_text()]
        if len(found) != 1 or found[0].read_text().count(self.old) != 1:
            raise LookupError(f"{self.promise}: {self.file}: expected {self.old!r} once")
        return found[0]


_CORE_LOG = '        _log.info("decoding with %s, session %s"'
MUTANTS = (
    Mutant(
        "R01",
        "runtime/feeds/wire/parsing.py",
        "except (ValueError, RecursionError):",
        "except MemoryError:",
        "the parser's refusal of what is no JSON",
    ),
    Mutant(
        "R02",
        "runtime/ring.py",
        "if len(self) and times[0] < self._times[self._end - 1]:",
        "if False:",
        "merging older spikes into their place",
    ),
    Mutant(
        "R03",
        "runtime/intake.py",
        "late = keep & (times < self.decoded_until - self.window)",
        "late = keep & (times < -1e300)",
        "the rule for late spikes",
    ),
    Mutant(
        "R04",
        "runtime/decoder.py",
        "return bool(now < last or now - heard_until > self._window)",
        "return False",
        "noticing that the clock jumped",
    ),
    Mutant(
        "R05",
        "runtime/decoder.py",
        "failed = not bool(np.isfinite(value).all())",
        "failed = False",
        "looking for NaN in the output",
    ),
    Mutant(
        "R06",
        "runtime/decoder.py",
        "times, rows = times[-budget:], rows[-budget:]",
        "pass",
        "cutting a window to its budget",
    ),
    Mutant(
        "R07",
        "runtime/rig/loop.py",
        "newest = math.floor(device_now / self._period)",
        "newest = due",
        "going to the newest window",
    ),
    Mutant("R08", "runtime/decoder.py", 'flags.append("silent")', "pass", "the flag of silence"),
    Mutant(
        "R09",
        "runtime/intake.py",
        "known = bool(rows.view(np.uint32).max() < n_units)",
        "known = True",
        "sifting out unknown units",
    ),
    Mutant(
        "R10",
        "runtime/backends/fallback.py",
        "except Exception as problem:  # Whatever it is, this window still has a second chance.",
        "except ZeroDivisionError as problem:",
        "the second chance after a failure",
    ),
    Mutant(
        "R11",
        "runtime/checks/verify.py",
        "    # A NaN compares false and so fails.\n    ok = bool(worst <= tolerance)",
        "    ok = True",
        "comparing golden windows",
    ),
    Mutant(
        "R12",
        "poyo_edge/files/writing.py",
        "    with atomic_path(path) as temporary:\n        temporary.write_bytes(data)",
        "    Path(path).write_bytes(data)",
        "writing under a temporary name",
    ),
    Mutant(
        "R13",
        "poyo_edge/artifact/artifact.py",
        "if digest != record.sha256:",
        "if False:",
        "SHA-256 of files",
    ),
    Mutant(
        "R14",
        "poyo_edge/artifact/session.py",
        "if core_hash is not None and header.core_hash != core_hash:",
        "if False:",
        "comparing a session's core",
    ),
    Mutant(
        "R15",
        "calibration/refusing.py",
        "if not new.r2_heldout > 0:",
        "if False:",
        "refusing a fit worse than the mean",
    ),
    Mutant(
        "R16",
        "calibration/background.py",
        "        self._thread.start()",
        "        self._run()",
        "the fit's own thread",
    ),
    Mutant(
        "R17",
        "poyo_edge/checkpoint/*.py",
        "torch.load(io.BytesIO(data), weights_only=True",
        "torch.load(io.BytesIO(data), weights_only=False",
        "the restricted unpickler",
    ),
    Mutant(
        "R18",
        "runtime/backends/trt/engines.py",
        "        if digest != record.sha256:",
        "        if False:",
        "SHA-256 of an engine",
    ),
    Mutant(
        "R19",
        "poyo_edge/artifact/artifact.py",
        "                require_plain_onnx(data, artifact.path / name)",
        "                pass",
        "the look into a graph before ONNX Runtime sees it",
    ),
    Mutant(
        "R20",
        "runtime/decoder.py",
        _CORE_LOG,
        '        Path(artifact).with_name("log.txt").write_text("opened")\n' + _CORE_LOG,
        "silence (a log file beside the artifact)",
    ),
    Mutant(
        "R21",
        "runtime/decoder.py",
        "            self._latency.add(result.latency_ns)",
        '            self.__dict__.setdefault("kept", []).append(times.copy())\n'
        "            self._latency.add(result.latency_ns)",
        "forgetting (each window's spikes are kept)",
    ),
    Mutant(
        "R22",
        "runtime/decoder.py",
        "self._budget.add(result.latency_ns)",
        "pass",
        "counting decodes over budget",
    ),
    Mutant("R23", "runtime/health.py", "found.append(DRIFT)", "pass", "the flag of drift"),
    Mutant(
        "R24",
        "runtime/ring.py",
        "first, last = live.searchsorted([start, end])",
        'first, last = live.searchsorted([start, end], side="right")',
        "the half-open window",
    ),
    Mutant(
        "R25",
        "runtime/intake.py",
        "if isinstance(units, SessionRows) and units.table not in (None, self):",
        "if False:",
        "looking rows of another session up again",
    ),
    Mutant(
        "R26",
        "runtime/failsafe.py",
        "if lost or self._too_long(float(now - last) * self._unit_s):",
        "if False:",
        "calling a silence that is too long a loss",
    ),
    Mutant(
        "R27",
        "poyo_edge/files/locks.py",
        "    fcntl.flock(file, fcntl.LOCK_UN)\n    return False",
        "    fcntl.flock(file, fcntl.LOCK_UN)\n    return True",
        "noticing that the writer has died",
    ),
    Mutant(
        "R28",
        "runtime/session_check.py",
        "self.state = WRONG_SESSION\n\n",
        "self.state = VERIFIED\n\n",
        "refusing what does not fit the record",
    ),
    Mutant(
        "R29",
        "runtime/rig/packets.py",
        "            if now_ns() >= until:\n                break",
        "            pass",
        "ending in time for the next window",
    ),
    Mutant(
        "R30",
        "runtime/feeds/sockets.py",
        "self.lost(dropped, host_ns=now)",
        "pass",
        "telling of what the kernel dropped",
    ),
)  # fmt: skip


def main() -> None:
    """Run each mutant, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="these promises, like R07")
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if not options.only or one.promise in options.only]
    survived = 0
    print("| promise | without | in | its test | s |\n| --- | --- | --- | --- | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        if not passes(root, "promises", dry=True):
            raise SystemExit("the copy of the source is not what the tests import")
        for one in chosen:
            began = time.monotonic()
            failed = fails_without(root, one)
            survived += not failed
            said = "fails" if failed else "PASSES"
            took = time.monotonic() - began
            print(f"| {one.promise} | {one.without} | `{one.file}` | {said} | {took:.0f} |",
                  flush=True)  # fmt: skip
    raise SystemExit(bool(survived))


def copied(folder: Path) -> Path:
    """The source and its tests, with the links between their folders."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def fails_without(root: Path, mutant: Mutant) -> bool:
    """Whether the promise's test fails with the change, and passes again after it."""
    path = mutant.path(root)
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        return not passes(root, mutant.promise)
    finally:
        path.write_text(source)


def passes(root: Path, promise: str, *, dry: bool = False) -> bool:
    """Whether the promise's test passes; with ``dry``, whether the copy is what is imported."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    if dry:
        code = "import poyo_edge.runtime.ring as r, sys; sys.exit(not r.__file__.startswith(%r))"
        command = [sys.executable, "-c", code % str(root)]
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                   "tests/promises", "-k", promise]  # fmt: skip
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if not dry and done.returncode not in (0, 1):
        raise SystemExit(f"{promise}: expected a test that passes or fails, got:\n{done.stdout}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
