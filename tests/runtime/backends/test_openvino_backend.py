"""OpenVINO: the same predictions in FP32, and BF16 only with a record that allows it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poyo_edge.artifact import CORE, CORE_ORT_CPU, Artifact
from poyo_edge.errors import BackendError, MissingExtraError
from poyo_edge.runtime.backends import Backend, Beside, list_backends, open_backend
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ov.backend import STEP, OpenVinoBackend
from poyo_edge.runtime.backends.ov.precision import CpuPrecision
from poyo_edge.runtime.core import Core

if TYPE_CHECKING:
    from conftest import Rig

HAS = "openvino is not installed: pip install openvino"


def feeds(rig: Rig, batch: int, n_spikes: int, n_queries: int) -> dict[str, Any]:
    rng = np.random.default_rng(n_spikes)
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    return {
        "spike_unit": rng.integers(0, rig.n_units, (batch, n_spikes)).astype(np.int32),
        "spike_time": rng.uniform(0, 1, (batch, n_spikes)).astype(np.float32),
        "spike_mask": rng.uniform(size=(batch, n_spikes)) < 0.9,
        "query_time": rng.uniform(0, 1, (batch, n_queries)).astype(np.float32),
        **constants.feeds(),
    }


@pytest.fixture(scope="module")
def backend(rig: Rig) -> OpenVinoBackend:
    pytest.importorskip("openvino", reason=HAS)
    return OpenVinoBackend(rig.core.artifact.read(CORE), threads=1)


@pytest.mark.parametrize(
    ("batch", "n_spikes", "n_queries"), [(1, 0, 1), (1, 50, 1), (1, STEP, 3), (3, STEP + 1, 2)]
)
def test_it_says_what_onnx_runtime_says(
    rig: Rig, backend: OpenVinoBackend, batch: int, n_spikes: int, n_queries: int
) -> None:
    window = feeds(rig, batch, n_spikes, n_queries)
    want = OrtCpuBackend(rig.core.artifact.read(CORE), threads=1).run(window)
    got = backend.run(window)
    assert got.dtype == np.float32
    assert got == pytest.approx(want, abs=3e-6)


def test_inputs_that_do_not_fit_end_as_a_backend_error(rig: Rig, backend: OpenVinoBackend) -> None:
    window = feeds(rig, 1, 5, 1)
    for name, value in {
        "spike_time": window["spike_time"].astype(np.float64),
        "spike_unit": window["spike_unit"][:, :3],
        "boundary_lse": np.zeros(3, np.float32),
    }.items():
        with pytest.raises(BackendError, match=r"^openvino: "):
            backend.run({**window, name: value})
    with pytest.raises(BackendError, match=r"^openvino: the core cannot be opened"):
        OpenVinoBackend(b"not a core", threads=1)


def test_what_the_last_window_left_behind_does_not_enter_the_next(
    rig: Rig, backend: OpenVinoBackend
) -> None:
    reference = OrtCpuBackend(rig.core.artifact.read(CORE), threads=1)
    longest = feeds(rig, 1, 3 * STEP, 1)
    other = {
        **longest,
        "boundary_value": longest["boundary_value"] + 1,
        "session_query": -longest["session_query"],
    }
    for n_spikes in (3 * STEP, 0, STEP - 1, STEP, 5):
        for window in (feeds(rig, 1, n_spikes, 1), other, longest):
            assert backend.run(window) == pytest.approx(reference.run(window), abs=3e-6)


def test_int8_is_near_with_the_ranges_of_its_core_and_refused_without(rig: Rig) -> None:
    pytest.importorskip("openvino", reason=HAS)
    core = rig.core.artifact.read(CORE)
    windows = [feeds(rig, 1, n, 1) for n in (0, 20, 100)]
    ranges = OpenVinoBackend.calibrate(core, windows)
    assert len(ranges) == 5 * rig.core.artifact.manifest.spec.depth
    assert min(ranges.values()) > 0
    low = OpenVinoBackend(core, threads=1, precision="int8", ranges=ranges)
    reference = OrtCpuBackend(core, threads=1)
    exact, coarse = ([run.run(one)[0, 0] for one in windows] for run in (reference, low))
    error = np.abs(np.subtract(exact, coarse)).max()
    assert 1e-6 < error < 0.1 * np.std(exact)
    wrong = {**ranges, "layer9.attention.qkv.w": 1.0}
    for given in (None, wrong):
        with pytest.raises(BackendError, match=r"of another core; build again"):
            OpenVinoBackend(core, threads=1, precision="int8", ranges=given)


@pytest.mark.parametrize(
    ("speedup", "auto"), [(None, "ort-cpu"), (0.8, "ort-cpu"), (1.3, "openvino")]
)
def test_auto_takes_it_only_where_bf16_is_allowed_and_was_faster(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, speedup: float | None, auto: str
) -> None:
    opened = list[str]()

    class Double(Backend):
        name = "openvino"

        def __init__(self, core: bytes, *, threads: int, precision: str, ranges: Any) -> None:
            opened.append(precision)

        def run(self, feeds: Any) -> Any:
            raise AssertionError("nothing is decoded here")

    monkeypatch.setattr("poyo_edge.runtime.backends.ov.backend.OpenVinoBackend", Double)
    monkeypatch.setattr(
        "poyo_edge.runtime.backends.ov.backend.openvino_version", lambda: "2026.1.0"
    )
    artifact = Artifact.open(tiny_copy)
    if speedup is not None:
        CpuPrecision(
            core_sha256=artifact.manifest.files[CORE].sha256,
            backend="openvino",
            version="2026.1.0",
            precision="bf16",
            recording="day.h5",
            n_windows=9,
            r2_fp32=0.5,
            r2=0.5,
            speedup=speedup,
        ).save(tiny_copy)
    assert Core.open(artifact).backend.name == auto
    assert Core.open(artifact, backend="openvino").backend.name == "openvino"
    assert opened[-1] == ("fp32" if speedup is None else "bf16")


def test_without_the_package_the_message_is_the_command_to_type(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poyo_edge.runtime.backends.ov.backend.openvino_version", lambda: "")
    monkeypatch.setitem(sys.modules, "openvino", None)
    (info,) = [info for info in list_backends() if info.name == "openvino"]
    assert not info.present
    assert info.reason.endswith("run: pip install openvino")
    with pytest.raises(MissingExtraError, match="run: pip install openvino"):
        open_backend("openvino", rig.core.artifact.read(CORE))


def test_a_graph_for_onnx_runtime_that_does_not_open_leaves_the_core(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    core = rig.core.artifact.read(CORE)
    opened = open_backend("ort-cpu", core, beside=Beside(fused=b"none"))
    window = feeds(rig, 1, 20, 1)
    assert opened.run(window) == pytest.approx(open_backend("ort-cpu", core).run(window), abs=0)
    assert "using the core" in caplog.text


def test_an_artifact_without_that_graph_runs_its_core(tiny_copy: Path) -> None:
    artifact = Artifact.open(tiny_copy)
    files = {k: v for k, v in artifact.manifest.files.items() if k != CORE_ORT_CPU}
    older = dataclasses.replace(
        artifact, manifest=dataclasses.replace(artifact.manifest, files=files)
    )
    assert Core.open(older, backend="ort-cpu").backend.name == "ort-cpu"
