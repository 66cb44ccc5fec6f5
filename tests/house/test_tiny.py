"""The committed artifact is what its recipe makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import TESTS

from poyo_edge.artifact import Artifact
from poyo_edge.runtime.constants import constant_shapes

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = importlib.util.spec_from_file_location("make_tiny", TESTS / "make_tiny.py")
    assert spec is not None
    assert spec.loader is not None
    make_tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tiny)
    out = tmp_path_factory.mktemp("rebuilt") / "tiny.poyo"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make_tiny.make_tiny(out)
    finally:
        torch.set_num_threads(threads)
    return Artifact.open(out)


def test_rebuilding_gives_the_same_core(tiny: Path, rebuilt: Artifact) -> None:
    ours, theirs = Artifact.open(tiny).manifest, rebuilt.manifest
    assert ours.core_hash == theirs.core_hash
    assert ours.spec == theirs.spec
    assert ours.output == theirs.output
    assert ours.max_spikes == theirs.max_spikes
    assert set(ours.files) == set(theirs.files)


def test_rebuilding_gives_the_same_golden_windows(tiny: Path, rebuilt: Artifact) -> None:
    ours, theirs = Artifact.open(tiny).golden(), rebuilt.golden()
    assert len(ours.windows) == len(theirs.windows)
    for one, other in zip(ours.windows, theirs.windows, strict=True):
        assert np.array_equal(one["spike_time"], other["spike_time"])
        assert np.array_equal(one["spike_unit"], other["spike_unit"])
        assert np.array_equal(one["query_time"], other["query_time"])
        # Another machine may sum in another order.
        assert np.abs(one["prediction"] - other["prediction"]).max() <= ours.tolerance


def test_rebuilding_gives_the_same_weights_and_sessions(tiny: Path, rebuilt: Artifact) -> None:
    ours = Artifact.open(tiny)
    shapes = constant_shapes(ours.manifest.spec)
    one, other = ours.weights(shapes), rebuilt.weights(shapes)
    for name in shapes:
        assert one[name] == pytest.approx(other[name], rel=1e-6, abs=1e-7)
    for session_id in ("tiny_a", "tiny_b"):
        assert ours.session(session_id).header == rebuilt.session(session_id).header
