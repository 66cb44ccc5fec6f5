"""Two processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import TESTS

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")

from helpers.commands import WITH_HELPERS  # noqa: E402
from helpers.training.ddp_gradients import STEPS, gradients, recipe  # noqa: E402
from helpers.training.tiny_run import tiny_study  # noqa: E402

from poyo_edge.training.sources import open_sessions  # noqa: E402
from poyo_edge.training.windows import StepBatches  # noqa: E402

LIMIT = 1e-6


def test_devices_share_the_windows_of_a_step(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    sessions, wanted = open_sessions(tmp_path, recipe(2)), recipe(2)
    alone = list(StepBatches(sessions, wanted, 5))
    shares = [list(StepBatches(sessions, wanted, 5, rank=r, world=2)) for r in range(2)]
    for step, first, second in zip(alone, *shares, strict=True):
        assert len(first) == len(second) == wanted.batch_size // 2
        assert sorted(first + second) == sorted(step)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [
            *command,
            str(TESTS / "helpers" / "training" / "ddp_gradients.py"),
            str(tmp_path),
            str(tmp_path / "two.pt"),
        ],
        env={**os.environ, **WITH_HELPERS, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two, one = torch.load(tmp_path / "two.pt"), gradients(tmp_path, 1)
    assert len(two) == len(one) == STEPS
    for ours, theirs in zip(one, two, strict=True):
        assert max(float(g.abs().max()) for g in ours.values()) > 1e-2
        for name, gradient in ours.items():
            assert float((gradient - theirs[name]).abs().max()) <= LIMIT, name
