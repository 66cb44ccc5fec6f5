"""``poyo-edge`` and other programs, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.paths import TESTS

LIMIT_S = 900.0
"""For what ends by itself."""
WIDE = {"COLUMNS": "200"}
"""For a command whose lines are not to be broken."""
WITH_HELPERS = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
}
"""For a program that imports these helpers too."""
_PROGRAM = """
import signal
from poyo_edge.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Ctrl-C counts even where the tests run in the background of a shell, which ignores it."""
_MANY = """
import contextlib, io, json, sys
from poyo_edge.cli import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["poyo-edge", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
_FULL_DISK = """
import pathlib, resource, signal, sys
{imports}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    {write}
except OSError as error:
    sys.exit(pathlib.Path(sys.argv[1]).name not in str(error))
sys.exit(2)
"""


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, ended."""
    return run_python(_PROGRAM, *arguments, environment={**WIDE, **environment})


def run_json(*arguments: object) -> dict[str, object]:
    """What a command prints with ``--json``."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    values: dict[str, object] = json.loads(done.stdout)
    return values


def run_many(
    commands: Sequence[Sequence[object]], cwd: Path | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Commands that end soon, ended, in one process: most of their time is Python's start."""
    words = [list(map(str, command)) for command in commands]
    done = run_python(_MANY, stdin=json.dumps(words), cwd=cwd, environment=WIDE)
    assert done.returncode == 0, done.stderr
    ends = map(json.loads, done.stdout.splitlines())
    return [
        subprocess.CompletedProcess(command, *end) for command, end in zip(words, ends, strict=True)
    ]


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A command, running."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **WIDE},
        cwd=cwd,
    )


def run_python(
    code: str,
    *arguments: object,
    cwd: Path | None = None,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A program in Python, ended."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        timeout=LIMIT_S,
        check=False,
    )


def write_to_full_disk(imports: str, write: str, path: Path, most_bytes: int) -> None:
    """Run code that writes ``sys.argv[1]`` where files end early: its error must name the file."""
    done = run_python(_FULL_DISK.format(imports=imports, write=write), path, most_bytes)
    assert done.returncode == 0, done.stderr
