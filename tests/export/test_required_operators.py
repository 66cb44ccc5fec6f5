"""What a reduced ONNX Runtime must have: all that the graphs hold, also after it opened them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import run

from poyo_edge.artifact import CORE, CORE_ORT_CPU
from poyo_edge.errors import UsageError
from poyo_edge.export.operators import operators_of, write_operators


def test_every_operator_of_core_and_frozen_session_is_listed(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "ops.config"
    count = write_operators(tiny, out)
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    listed = {
        (domain, name)
        for domain, _, names in (line.split(";") for line in lines)
        for name in names.split(",")
    }
    assert len(listed) == count
    assert {("ai.onnx", "Where"), ("com.microsoft", "MultiHeadAttention")} <= listed
    found = operators_of([(tiny / name).read_bytes() for name in (CORE, CORE_ORT_CPU)])
    assert {(d or "ai.onnx", name) for (d, _), names in found.items() for name in names} <= listed


def test_operators_are_those_that_onnx_reads(tiny: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="it reads the graph another way")
    model = onnx.load(tiny / CORE)
    (opset,) = (one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    expected = {node.op_type for node in model.graph.node}
    assert operators_of([(tiny / CORE).read_bytes()]) == {("", opset): expected}


def test_a_folder_that_is_not_there_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_operators(tiny, tmp_path / "absent" / "ops.config")


def test_a_dry_run_that_is_to_write_operators_is_refused(tmp_path: Path) -> None:
    checkpoint, operators = tmp_path / "x.ckpt", tmp_path / "operators.config"
    checkpoint.write_bytes(b"")
    done = run("export", checkpoint, "--dry-run", "--minimal", operators)
    assert done.returncode == 2
    assert "--minimal: expected no --dry-run with it" in done.stderr
    assert not operators.exists()
