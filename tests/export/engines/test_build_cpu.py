"""``build --target cpu --precision bf16``: measured on a recording, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.arrays import written_again

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError, CheckFailedError, MissingExtraError, UsageError
from poyo_edge.export.engines import cpu as build_cpu
from poyo_edge.export.engines.build import build_engines as build
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ov.precision import FILE, read_precision
from poyo_edge.runtime.core import Core
from poyo_edge.simulation.recordings import Simulation, simulate_study


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A simulated recording of the units of session tiny_a."""
    folder = tmp_path_factory.mktemp("recordings")
    simulation = Simulation(duration_s=40.0, n_units=12)
    (made,) = simulate_study(folder, n_sessions=1, simulation=simulation)
    units = Artifact.open(tiny).session("tiny_a").header.unit_ids
    return written_again(made, folder / "tiny_a.h5", unit_ids=units)


def double(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenVINO whose BF16 is the core with noise of this size."""

    class Noisy:
        name = "openvino"

        def __init__(self, core: bytes, *, threads: int, precision: str, ranges: Any) -> None:
            self.core, self.rng = OrtCpuBackend(core, threads=threads), np.random.default_rng(0)

        def run(self, feeds: Any) -> Any:
            exact = self.core.run(feeds)
            return exact + np.float32(error) * self.rng.normal(size=exact.shape).astype(np.float32)

    monkeypatch.setattr(build_cpu, "OpenVinoBackend", Noisy)
    monkeypatch.setattr(build_cpu, "openvino_version", lambda: "2026.1.0")


def options(recording: Path | None, precision: str = "bf16") -> BuildOptions:
    return BuildOptions(
        target="cpu",
        precision=precision,
        session="tiny_a",
        recording=recording,
        behavior="cursor.vel" if recording else "",
    )


@pytest.mark.slow
def test_a_precision_that_costs_little_is_recorded_and_can_be_taken_back(
    tiny_copy: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double(1e-5, monkeypatch)
    values = build(tiny_copy, options(recording))
    record = read_precision(tiny_copy)
    assert record is not None
    assert record.core_sha256 == Artifact.open(tiny_copy).manifest.files[CORE].sha256
    assert (record.precision, record.version) == ("bf16", "2026.1.0")
    assert record.r2_fp32 == pytest.approx(record.r2, abs=1e-3)
    assert record.speedup > 0
    assert values["parity"]["r2_core"] == record.r2_fp32
    build(tiny_copy, options(None, "fp32"))
    assert read_precision(tiny_copy) is None


def test_a_precision_that_costs_much_is_refused_with_the_figures(
    tiny_copy: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double(1.0, monkeypatch)
    refused = r"bf16 on openvino: expected R² lower by at most 0.002 on tiny_a.h5, got \d.*fp32"
    with pytest.raises(CheckFailedError, match=refused):
        build(tiny_copy, options(recording))
    assert not (tiny_copy / FILE).exists()


def test_without_a_recording_or_openvino_nothing_is_allowed(
    tiny_copy: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="expected --recording beside --precision bf16"):
        build(tiny_copy, options(None))
    monkeypatch.setattr(build_cpu, "openvino_version", lambda: "")
    with pytest.raises(MissingExtraError, match="pip install openvino"):
        build(tiny_copy, options(recording))
    with pytest.raises(
        UsageError, match=r"expected one of \['fp32', 'bf16', 'int8'\] for cpu, got 'fp16'"
    ):
        build(tiny_copy, options(recording, "fp16"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_openvino_itself_passes_or_says_that_this_processor_cannot(
    tiny_copy: Path, recording: Path, precision: str
) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    try:
        build(tiny_copy, options(recording, precision))
    except BackendError as problem:
        assert f"expected a processor that computes {precision.upper()}" in str(problem)
        return
    except CheckFailedError as problem:  # random weights: R² is no measure of them
        assert "expected R² lower by at most" in str(problem)
        return
    record = read_precision(tiny_copy)
    assert record is not None
    assert bool(record.ranges) == (precision == "int8")
    assert Core.open(Artifact.open(tiny_copy), backend="openvino").backend.name == "openvino"
