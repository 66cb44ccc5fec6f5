"""``verify`` finds what no longer is as it was exported, and says what."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trt.engines import installed
from helpers.vouched import planted

from poyo_edge.artifact import GOLDEN, Artifact, Golden
from poyo_edge.errors import ArtifactError
from poyo_edge.runtime.backends import BEHIND
from poyo_edge.runtime.checks.verify import Check, verify

GOLDEN_CHECK = "golden windows on ort-cpu"
OPENVINO_CHECK = "golden windows on openvino"
"""There where it is installed."""
GRADIENT_CHECK = "golden gradients on ort-cpu"
GRADIENT_CHECKS = [GRADIENT_CHECK, f"{GRADIENT_CHECK}, adapt.ort-cpu.onnx"]


def named(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def with_golden(folder: Path, **changes: Any) -> Path:
    """The artifact with other golden windows, as if it had been exported with them."""
    golden: Golden = dataclasses.replace(Artifact.open(folder).golden(), **changes)
    return planted(folder, GOLDEN, golden.to_bytes())


def test_an_intact_artifact_passes_every_check(tiny: Path) -> None:
    checks = verify(tiny)
    assert all(check.ok for check in checks)
    other = re.compile(rf"golden windows on (?!{BEHIND}$)")  # backends that some machines have
    on_every_machine = [check.name for check in checks if not other.match(check.name)]
    assert on_every_machine == [
        "files",
        "session tiny_a.session",
        "session tiny_b.session",
        *GRADIENT_CHECKS,
        GOLDEN_CHECK,
    ]
    assert named(checks)["session tiny_b.session"].detail == "10 units"
    detail = r"7 windows, max error \d\.\d\de-\d\d, tolerance \d\.\d\de-\d\d"
    assert re.fullmatch(detail, named(checks)[GOLDEN_CHECK].detail)


def test_golden_windows_vary_so_that_a_wrong_core_would_show(tiny: Path) -> None:
    golden = Artifact.open(tiny).golden()
    outputs = np.concatenate([window["prediction"] for window in golden.windows])
    assert outputs.std(0).min() > 1e4 * golden.tolerance
    assert {len(window["spike_time"]) for window in golden.windows} >= {0, 1, 1000}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1e-3, float("nan"), float("inf")])
def test_a_prediction_that_differs_fails(tiny_copy: Path, wrong: float) -> None:
    windows = Artifact.open(tiny_copy).golden().windows
    changed = [dict(window) for window in windows]
    changed[3]["prediction"] = changed[3]["prediction"] + np.float32(wrong)
    checks = named(verify(with_golden(tiny_copy, windows=tuple(changed))))
    assert not checks[GOLDEN_CHECK].ok
    assert f"max error {wrong:.2e}" in checks[GOLDEN_CHECK].detail
    others = checks.keys() - {GOLDEN_CHECK, OPENVINO_CHECK}
    assert all(checks[name].ok for name in others)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_gradient_that_differs_fails(tiny_copy: Path, wrong: float) -> None:
    golden = Artifact.open(tiny_copy).golden().gradients
    name = "session_embedding_gradient"
    expected = {**golden.expected, name: golden.expected[name] * np.float32(1 + wrong)}
    changed = dataclasses.replace(golden, expected=expected)
    checks = named(verify(with_golden(tiny_copy, gradients=changed)))
    assert [name for name, check in checks.items() if not check.ok] == GRADIENT_CHECKS


@pytest.mark.slow
def test_embeddings_that_are_not_finite_fail(tiny_copy: Path) -> None:
    embedding = np.full(16, np.nan, np.float32)
    checks = named(verify(with_golden(tiny_copy, session_embedding=embedding)))
    assert not checks[GOLDEN_CHECK].ok
    assert checks[GOLDEN_CHECK].detail == (
        "session_embedding: expected finite values, got NaN or Inf"
    )


def test_no_golden_windows_are_no_proof(tiny_copy: Path) -> None:
    with pytest.raises(ArtifactError, match="contents: expected golden windows, got KeyError"):
        verify(with_golden(tiny_copy, windows=()))


def test_a_damaged_listed_file_ends_the_check(tiny_copy: Path) -> None:
    with (tiny_copy / GOLDEN).open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match="sha256"):
        verify(tiny_copy)


@pytest.mark.parametrize("content", [b"", b"not a session", b"\xff" * 400])
def test_a_damaged_session_that_was_added_later_is_named(tiny_copy: Path, content: bytes) -> None:
    (tiny_copy / "sessions" / "later.session").write_bytes(content)
    checks = named(verify(tiny_copy))
    assert not checks.pop("session later.session").ok
    checks.pop(OPENVINO_CHECK, None)
    assert len(checks) == 6
    assert all(check.ok for check in checks.values())


@pytest.mark.slow
def test_engines_are_looked_at_wherever_they_are_for(tiny_copy: Path) -> None:
    store, _ = installed(tiny_copy, b"an engine")
    (path,) = store.folder.glob("*.engine")
    name = f"engine {path.name}"
    check = named(verify(tiny_copy))[name]
    assert check.ok
    assert "bytes unchanged; built for something else: TensorRT: expected 10.3.0" in check.detail
    path.write_bytes(b"an enginE")
    checks = named(verify(tiny_copy))
    assert [name for name, check in checks.items() if not check.ok] == [name]
    assert "changed bytes: " in checks[name].detail
    assert f"poyo-edge build {tiny_copy} --target jetson" in checks[name].detail


def test_without_a_backend_nothing_is_proved(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check = named(verify(tiny))["backend ort-cpu"]
    assert (check.ok, check.detail) == (
        False,
        "onnxruntime is not installed; run: pip install onnxruntime",
    )
