"""Fixtures of the tests of checkpoints; torch is loaded when the first is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def oracle() -> Any:
    """torch_brain's POYO, small, with weights that make a difference."""
    from helpers.checkpoints.files import small_oracle

    return small_oracle()


@pytest.fixture
def state(oracle: Any) -> dict[str, Any]:
    """Its ``state_dict``."""
    return dict(oracle.state_dict())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where to write a checkpoint."""
    return tmp_path / "model.ckpt"
