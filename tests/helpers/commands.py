"""``poyo-edge`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from poyo_edge.cli import main; main()"]
    return subprocess.run(
        [*words, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=900,
        check=False,
    )


def run_json(*arguments: object) -> dict[str, object]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    values: dict[str, object] = json.loads(done.stdout)
    return values
