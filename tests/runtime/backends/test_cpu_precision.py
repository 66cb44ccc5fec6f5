"""A precision below FP32 counts only with the measurement that allows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from poyo_edge.errors import ArtifactError
from poyo_edge.runtime.backends.ov.precision import (
    FILE,
    CpuPrecision,
    approved_precision,
    forget_precision,
    read_precision,
)

RECORD = CpuPrecision(
    core_sha256="c" * 64,
    backend="openvino",
    version="2026.1.0",
    precision="bf16",
    recording="day.h5",
    n_windows=512,
    r2_fp32=0.5,
    r2=0.499,
    speedup=1.4,
)


def test_what_was_saved_is_read_again_and_can_be_forgotten(tmp_path: Path) -> None:
    assert read_precision(tmp_path) is None
    RECORD.save(tmp_path)
    assert read_precision(tmp_path) == RECORD
    assert forget_precision(tmp_path)
    assert not forget_precision(tmp_path)
    assert read_precision(tmp_path) is None


def test_it_counts_for_its_core_and_its_openvino_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RECORD.save(tmp_path)
    assert approved_precision(tmp_path, RECORD.core_sha256, RECORD.version) == RECORD
    assert approved_precision(tmp_path, "d" * 64, RECORD.version) is None
    assert approved_precision(tmp_path, RECORD.core_sha256, "2027.0.0") is None
    assert "using fp32" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r2": 0.4}, "expected a loss of at most 0.002, got 0.10000"),
        ({"r2": float("nan")}, "expected a loss of at most 0.002, got nan"),
        ({"precision": 3}, "precision: expected str, got 3"),
        (
            {"ranges": {"layer0.attention.qkv.w": "wide"}},
            r"ranges: layer0.*number >= 0, got 'wide'",
        ),
        ({"ranges": [1.0]}, "ranges: expected dict"),
        ({"more": 1}, r"unknown keys \['more'\]"),
    ],
)
def test_a_record_that_allows_nothing_is_an_error_and_not_fp32(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    RECORD.save(tmp_path)
    values = {**dataclasses.asdict(RECORD), **change}
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=message):
        read_precision(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ArtifactError, match="remove it, or build again"):
        read_precision(tmp_path)
