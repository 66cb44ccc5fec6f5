"""The builder on a double of each version: what it asks for, and how each failure ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.trt.double import MAGIC, Double

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.export.engines.builder import MIB, BuildSettings, build_engine
from poyo_edge.export.engines.static_shapes import fix_axes

VERSIONS = ("10.1.0", "10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


@pytest.fixture(scope="module")
def graph(tiny: Path) -> bytes:
    axes = {"batch": 1, "n_spikes": 64, "n_units": 16, "n_queries": 1}
    return fix_axes(Artifact.open(tiny).read(CORE), axes)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_asked_by_name_for_the_same(graph: bytes, version: str) -> None:
    double = Double(version)
    built = build_engine(double.trt, graph, BuildSettings(workspace_mib=128))
    assert built.data == MAGIC + graph
    assert built.n_layers == 42
    strong = 1 << int(double.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert double.calls == [
        f"network {strong}", f"workspace {128 * MIB}", "clear TF32", "cache of 0 bytes"
    ]  # fmt: skip


def test_the_timing_cache_is_taken_up_and_given_back(graph: bytes) -> None:
    double = Double()
    built = build_engine(double.trt, graph, BuildSettings(), timing_cache=b"old")
    assert built.timing_cache == b"old+timings"


def test_a_timing_cache_of_another_machine_is_put_aside(graph: bytes) -> None:
    double = Double(fail="cache")
    built = build_engine(double.trt, graph, BuildSettings(), timing_cache=b"old")
    assert built.timing_cache == b"+timings"
    assert double.calls[-2:] == ["cache of 3 bytes", "cache of 0 bytes"]


def test_progress_is_told_where_there_is_a_monitor(graph: bytes) -> None:
    told: list[Any] = []
    double = Double()
    build_engine(double.trt, graph, BuildSettings(), progress=lambda *a: told.append(a))
    assert told == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 0)]
    del double.trt.IProgressMonitor
    build_engine(double.trt, graph, BuildSettings(), progress=lambda *a: told.append(a))
    assert len(told) == 3


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("builder", r"^TensorRT: expected a builder, got none: it gave no reason$"),
        ("parse", r"its parser takes, got: layer0.attention.qkv: Assertion failed: like types; pl"),
        ("build", r"expected an engine, got none: Could not find any implementation .* too little"),
        ("memory", r"GPU memory could not be allocated\.; there may be too little memory: close"),
    ],
)
def test_each_failure_gives_tensorrts_own_words(graph: bytes, failure: str, words: str) -> None:
    with pytest.raises(BackendError, match=words) as failed:
        build_engine(Double(fail=failure).trt, graph, BuildSettings())
    assert failed.value.exit_code == 4


def test_open_axes_are_refused(tiny: Path) -> None:
    with pytest.raises(BackendError, match=r"expected fixed shapes, got \(-1, -1\) for 'spike_un"):
        build_engine(Double().trt, Artifact.open(tiny).read(CORE), BuildSettings())


def test_weak_typing_exists_on_10_3_alone(graph: bytes) -> None:
    double = Double("10.3.0")
    build_engine(double.trt, graph, BuildSettings(weak_fp16=True))
    assert double.calls[0] == "network 0"
    assert "set FP16" in double.calls
    for version in ("10.7.0", "11.4.0.106"):
        with pytest.raises(BackendError, match=r"^weak typing: expected TensorRT 10.3, .* got 1"):
            build_engine(Double(version).trt, graph, BuildSettings(weak_fp16=True))


def test_rtx_is_told_what_to_compile_for_and_needs_no_timing_cache(graph: bytes) -> None:
    double = Double("rtx-1.7.1")
    settings = BuildSettings(compute_capabilities=("SM86", "SM89"))
    assert build_engine(double.trt, graph, settings).timing_cache == b""
    assert double.calls[-2:] == ["capability SM86", "capability SM89"]


def test_the_double_has_nothing_that_is_not_listed(graph: bytes) -> None:
    double = Double("11.4.0")
    config = double.trt.Builder(object()).create_builder_config()
    with pytest.raises(AssertionError, match=r"IBuilderConfig.set_flag is not in trt.api"):
        config.set_flag(1)
    with pytest.raises(AssertionError, match=r"set_memory_pool_limit is listed with 2 arguments"):
        config.set_memory_pool_limit(1)
    with pytest.raises(AttributeError):
        config.no_such_thing()
