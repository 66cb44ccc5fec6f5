"""``build --target cpu`` with operators of our own: compared, timed, recorded, and then used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="makes the graph")

from poyo_edge.artifact import ADAPT_ORT_CPU, Artifact, read_manifest
from poyo_edge.calibration.fit import adapter as adapter_module
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.errors import ArtifactError, BackendError, CheckFailedError
from poyo_edge.export.engines import native as building
from poyo_edge.export.engines.build import build_engines
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.runtime.backends import kernel_library, open_ort_cpu, ort_native
from poyo_edge.runtime.backends.kernel_library import KernelLibrary
from poyo_edge.runtime.backends.native_record import (
    ADAPT_GRAPH,
    ADAPT_RECORD,
    FOLDER,
    GRAPH,
    RECORD,
    NativeRecord,
)
from poyo_edge.runtime.backends.ort_native import OrtNativeBackend
from poyo_edge.runtime.checks.verify import verify
from poyo_edge.runtime.core import Core

CPU = BuildOptions(target="cpu")


@pytest.fixture
def built(kernels: KernelLibrary, tiny_copy: Path) -> Path:
    """An artifact with the graph and the record."""
    values = build_engines(tiny_copy, CPU)
    assert values["native"]["max_abs_error"] <= Artifact.open(tiny_copy).golden().tolerance
    assert values["native"]["instructions"] == kernels.instructions
    assert any("agree with the core to" in words for words in values["settled"])
    return tiny_copy


def changed(artifact: Path, name: str = RECORD, **changes: Any) -> None:
    """Its record says something else."""
    path = artifact / FOLDER / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def chosen(artifact: Path) -> str:
    """What ``auto`` takes."""
    return Core.open(Artifact.open(artifact)).backend.name


@pytest.mark.slow
def test_auto_takes_it_where_it_was_faster_on_this_machine(built: Path) -> None:
    changed(built, speedup=1.5)
    assert chosen(built) == "ort-native"
    changed(built, speedup=0.9)
    assert chosen(built) == "ort-cpu"


@pytest.mark.parametrize(
    "other", [{"cpu": "another"}, {"sources": "0"}, {"core_sha256": "0"}, {"instructions": "mmx"}]
)
def test_a_record_of_something_else_says_nothing(built: Path, other: dict[str, str]) -> None:
    changed(built, speedup=1.5, **other)
    assert chosen(built) == "ort-cpu"


def test_verify_holds_it_to_the_tolerance_of_the_export(built: Path) -> None:
    checks = {check.name: check for check in verify(built)}
    assert checks["golden windows on ort-native"].ok
    tolerance = Artifact.open(built).golden().tolerance
    assert f"tolerance {tolerance:.2e}" in checks["golden windows on ort-native"].detail


def test_the_manifest_and_its_files_stay_as_they_were(built: Path, tiny: Path) -> None:
    assert read_manifest(built) == read_manifest(tiny)
    assert {path.name for path in (built / FOLDER).iterdir()} == {
        *(GRAPH, RECORD),
        *(ADAPT_GRAPH, ADAPT_RECORD),
    }


def test_calibration_takes_both_graphs_where_they_were_faster_on_this_machine(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def noted(graph: bytes, *, what: str, **more: Any) -> Any:
        opened.append(what)
        return open_ort_cpu(graph, what=what, **more)

    for module in (adapter_module, ort_native):
        monkeypatch.setattr(module, "open_ort_cpu", noted)

    def graphs() -> list[str]:
        opened.clear()
        backend = Adapter(Artifact.open(built)).core.backend.name
        return [backend, opened[-1]]

    changed(built, speedup=1.5)
    changed(built, ADAPT_RECORD, speedup=1.5)
    assert graphs() == ["ort-native", ADAPT_GRAPH]
    changed(built, ADAPT_RECORD, speedup=0.9)
    assert graphs() == ["ort-native", ADAPT_ORT_CPU]
    changed(built, ADAPT_RECORD, speedup=1.5, sources="0")
    assert graphs() == ["ort-native", ADAPT_ORT_CPU]
    changed(built, ADAPT_RECORD, sources=kernel_library.sources_hash())
    changed(built, cpu="another")
    assert graphs() == ["ort-cpu", ADAPT_ORT_CPU]


def test_gradients_of_both_graphs_are_the_same_in_a_fit(built: Path, tiny: Path) -> None:
    changed(built, speedup=1.5)
    changed(built, ADAPT_RECORD, speedup=1.5)
    assert any(
        check.name == "golden gradients on ort-native" and check.ok for check in verify(built)
    )
    golden = Artifact.open(tiny).golden().gradients
    feeds = {name: v for name, v in golden.feeds.items() if not name.endswith("embedding")}
    tables = {name: v for name, v in golden.feeds.items() if name.endswith("embedding")}
    ours, theirs = (Adapter(Artifact.open(path)) for path in (built, tiny))
    found, want = (one.gradients_of(feeds, tables) for one in (ours, theirs))
    assert found[0] == pytest.approx(want[0], rel=1e-5)
    for name, gradient in want[1].items():
        assert np.abs(found[1][name] - gradient).max() <= 1e-5 * np.abs(gradient).max()


def test_a_damaged_graph_of_gradients_is_refused(built: Path) -> None:
    changed(built, speedup=1.5)
    changed(built, ADAPT_RECORD, speedup=1.5)
    graph = built / FOLDER / ADAPT_GRAPH
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"adapt\.cpu\.onnx.*sha256"):
        Adapter(Artifact.open(built))


def test_a_damaged_graph_is_refused_and_auto_decodes_without_it(built: Path) -> None:
    graph = built / FOLDER / GRAPH
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    changed(built, speedup=1.5)
    with pytest.raises(ArtifactError, match=r"core\.cpu\.onnx.*sha256"):
        Core.open(Artifact.open(built), backend="ort-native")
    assert chosen(built) == "ort-cpu"


def test_a_damaged_record_is_refused(built: Path) -> None:
    (built / FOLDER / RECORD).write_text("{")
    with pytest.raises(ArtifactError, match="build again"):
        Core.open(Artifact.open(built), backend="ort-native")


def test_without_the_object_everything_works_and_says_what_is_left(
    tiny_copy: Path, built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed(built, speedup=1.5)
    monkeypatch.setattr(kernel_library, "cache_folder", lambda: tmp_path / "nothing")
    kernel_library.look_again()
    assert chosen(built) == "ort-cpu"
    with pytest.raises(BackendError, match="until then use ort-cpu"):
        Core.open(Artifact.open(built), backend="ort-native")
    values = build_engines(tiny_copy, CPU)
    assert values["native"] is None
    assert any("operators of our own, which are faster" in words for words in values["unsettled"])


def test_an_artifact_without_a_graph_says_what_makes_one(
    kernels: KernelLibrary, tiny_copy: Path
) -> None:
    with pytest.raises(BackendError, match=r"run: poyo-edge build .* --target cpu"):
        Core.open(Artifact.open(tiny_copy), backend="ort-native")
    assert "golden windows on ort-native" not in {check.name for check in verify(tiny_copy)}


def test_operators_that_disagree_are_not_recorded(
    kernels: KernelLibrary, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(OrtNativeBackend):
        def run(self, feeds: Any) -> Any:
            return super().run(feeds) + np.float32(1e-3)

    monkeypatch.setattr(building, "OrtNativeBackend", Wrong)
    with pytest.raises(CheckFailedError, match="ort-native: expected an error of at most"):
        build_engines(tiny_copy, CPU)
    assert not (tiny_copy / FOLDER).exists()


def test_gradients_that_disagree_stay_unsettled_and_no_older_record_speaks_for_them(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one may have been made on another machine."""
    assert (built / FOLDER / ADAPT_RECORD).exists()

    class Wrong:
        def __init__(self, session: Any) -> None:
            self.session = session

        def run(self, names: Any, feeds: Any) -> Any:
            return [value + 1 for value in self.session.run(names, feeds)]

    def opened(*args: Any, **more: Any) -> Any:
        session = open_ort_cpu(*args, **more)
        return Wrong(session) if more.get("operators") else session

    monkeypatch.setattr(building, "open_ort_cpu", opened)
    values = build_engines(built, CPU)
    assert values["native"] is not None
    assert any("gradients of ort-native: expected" in words for words in values["unsettled"])
    assert not (built / FOLDER / ADAPT_RECORD).exists()
    kept = NativeRecord.from_json(json.loads((built / FOLDER / RECORD).read_text()))
    assert ort_native.open_gradients(built, kept.core_sha256) is None


def test_the_record_is_written_with_what_it_was_made_from(built: Path) -> None:
    record = json.loads((built / FOLDER / RECORD).read_text())
    assert {*record} == {field.name for field in dataclasses.fields(NativeRecord)}
