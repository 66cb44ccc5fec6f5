"""A backend is added by its own file and a row: nothing else has to know it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from helpers.commands import WIDE, run_python

from poyo_edge.runtime.backends import BACKENDS, BEHIND, list_backends

TOY = """
import numpy as np
from poyo_edge.runtime.backends.base import Backend, BackendInfo
from poyo_edge.runtime.backends.opening import BACKENDS, BackendRow


class Toy(Backend):
    name = "toy"

    def run(self, feeds):
        return np.zeros((*feeds["query_time"].shape, 2), np.float32)


def look(machine):
    return BackendInfo(name="toy", present=True, reason="toys 1.0")


BACKENDS["toy"] = BackendRow(
    help="play",
    extra="toys",
    package="no-such-toys",
    look=look,
    open=lambda given: Toy(),
    auto=lambda given: False,
)
from poyo_edge.cli import main

main()
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """A command of a program that has the toy."""
    return run_python(TOY, *words, environment=WIDE)


def test_a_toy_backend_decodes_and_is_verified(tiny: Path) -> None:
    done = run("bench", tiny, "--backend", "toy", "--repeats", 1, "--spikes", 3, "--json")
    assert json.loads(done.stdout)["backend"] == "toy", done.stderr
    checks = json.loads(run("verify", tiny, "--json").stdout)["checks"]
    (check,) = [check for check in checks if check["name"] == "golden windows on toy"]
    assert not check["ok"]  # zeros are not what the model says
    done = run("bench", tiny, "--repeats", 1, "--spikes", 3, "--json")
    assert json.loads(done.stdout)["backend"] == next(
        info.name for info in list_backends() if info.present
    )  # its row keeps it from auto


def test_a_toy_backend_is_in_help_doctor_and_errors(tiny: Path) -> None:
    assert "toy" in run("replay", "--help").stdout.partition("--backend")[2]
    examined = json.loads(run("doctor", "--json").stdout)
    assert {"name": "toy", "present": True, "reason": "toys 1.0"} in examined["backends"]
    assert any("pip install no-such-toys  # to play" in line for line in examined["install"])
    refused = run("bench", tiny, "--backend", "abacus")
    assert refused.returncode == 2
    assert ", 'toy']" in refused.stderr


def test_the_one_that_stands_behind_needs_nothing_of_the_machine() -> None:
    assert not BACKENDS[BEHIND].gpu
    assert not BACKENDS[BEHIND].built
    assert [info.name for info in list_backends()] == list(BACKENDS)
