"""``build`` where no engine runs: for a Jetson, for the CPU, for RTX, each on a workstation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.trt.machines import HERE, on

from poyo_edge.artifact import Artifact
from poyo_edge.cli.commands.build_text import build_screen, build_text
from poyo_edge.errors import ArtifactError
from poyo_edge.export.engines.build import build_engines as build
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.export.engines.plan import read_plan
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends.machine import Machine

RTX = "NVIDIA's wheels are missing: pip install tensorrt_rtx_cu13_bindings"


@pytest.mark.slow
def test_off_device_nothing_is_pretended(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx_ir")
    on(HERE, None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="jetson"))
    assert values["engines"] == []
    assert not (tiny_copy / "engines").exists()
    assert any("TensorRT-RTX is not installed" in words for words in values["unsettled"])
    text = build_text(values, "poyo-edge")
    for words in (
        "No Jetson engine exists yet",
        "settled: every operator, type and attribute is one that TensorRT 10.3, 10.13, 10.15, 11.1",
        "settled: fp16 rounding costs",
        "not settled: accuracy on its GPU",
        "copy the folder tiny.poyo to the Jetson, and there run:",
        "    poyo-edge build tiny.poyo --target jetson\n",
    ):
        assert words in text
    assert Artifact.open(tiny_copy)  # what was added disturbs nobody


@pytest.mark.slow
def test_off_device_the_very_graphs_are_compiled_by_nvidias_builder(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=RTX)
    on(Machine(rtx=rtx.__version__), None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="jetson-orin", systemd="/home/rig/tiny.poyo"))
    assert [line["n_spikes"] for line in values["gate"]] == values["buckets"] == [511, 1023]
    assert any("compiled the graph of every bucket" in words for words in values["settled"])
    assert any("every attention is one kernel" in words for words in values["settled"])
    plan = read_plan(tiny_copy)
    assert plan is not None
    assert plan.kernel_plan == values["kernel_plan"]
    assert list(plan.kernel_plan) == ["511", "1023"]
    for kernels in plan.kernel_plan.values():
        assert (kernels["fused_attentions"], kernels["copies"], kernels["waits"]) == (3, 0, 0)
        assert kernels["kernels"] == len(kernels["layers"]) > 20
        assert set(kernels["layers"][0]) == {"kernel", "nodes", "precision"}
    assert "3 of 3 attentions fused, 0 copies, 0 waits" in build_text(values, "poyo-edge")
    unit = (tiny_copy / "build" / "poyo-edge-build.service").read_text()
    command = "/home/rig/poyo/bin/poyo-edge build /home/rig/tiny.poyo --target jetson-orin"
    assert "User=rig\n" in unit
    assert "After=local-fs.target nvpmodel.service\n" in unit  # engines are timed while built
    assert f"ExecStart={command}\n" in unit
    assert "  sudo systemctl enable --now poyo-edge-build.service" in values["next"]


@pytest.mark.slow
def test_the_table_of_islands_says_why_each_stays(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    on(HERE, None, monkeypatch)
    text = build_text(build(tiny_copy, BuildOptions(target="jetson")), "poyo-edge")
    assert "error if it were in FP16 too" in text
    for name, words in (
        ("time", "angles reach 62,832 rad"),
        ("norm", "sums of squares overflow inside the operator"),
        ("residual", "errors add up along the layers"),
        ("readout", "its rounding is the output's"),
    ):
        assert f"  {name}: {words}" in text


def widest(lines: list[str]) -> int:
    """Columns of what is not a path or a command with its reason."""
    return max(len(line) for line in lines if "/" not in line and "  #" not in line)


@pytest.mark.slow
def test_the_command_fits_one_screen_and_the_tables_are_in_a_file(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    on(HERE, None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="jetson"))
    lines = build_screen(values, "poyo-edge").splitlines()
    assert len(lines) <= 45
    assert widest(lines) <= 98
    narrow = build_screen(values, "poyo-edge", 80).splitlines()
    assert widest(narrow) <= 80
    assert len(narrow) <= 48
    screen = "\n".join(lines)
    for words in ("No Jetson engine exists yet", "settled: fp16 rounding costs", "Next:",
                  "    poyo-edge build tiny.poyo --target jetson", "build/report.txt"):  # fmt: skip
        assert words in screen
    whole = build_text(values, "poyo-edge")
    for words in ("kept in FP32", "rounding, emulated", "Its operators were checked by"):
        assert words in whole
        assert words not in screen


def test_the_cpu_needs_no_engine(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(HERE, None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="cpu"))
    assert (values["engines"], values["precision"]) == ([], "fp32")
    assert values["parity"]["worst"] < 2e-6
    assert "ort-cpu runs the core as it is" in build_text(values, "poyo-edge")


@pytest.mark.slow
def test_rtx_engines_are_compiled_without_a_gpu(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=RTX)
    on(Machine(rtx=rtx.__version__), None, monkeypatch)
    for precision in ("fp32", "fp16"):
        values = build(tiny_copy, BuildOptions(target="rtx", precision=precision))
        assert [line["n_spikes"] for line in values["engines"]] == [511, 1023]
        assert all(line["size"] > 10_000 and not line["kept"] for line in values["engines"])
        assert values["parity"] is None
        assert any("this machine has none" in words for words in values["unsettled"])
        plan = read_plan(tiny_copy)
        assert plan is not None
        assert (plan.target, plan.precision) == ("rtx", precision)
        assert plan.kernel_plan == values["kernel_plan"]
        assert list(plan.kernel_plan) == ["511", "1023"]
    again = build(tiny_copy, BuildOptions(target="rtx", precision="fp16"))
    assert all(line["kept"] for line in again["engines"])
    assert again["kernel_plan"] == values["kernel_plan"]  # as when they were built


@pytest.mark.slow
def test_a_build_for_rtx_adds_its_kernels_to_a_jetsons_plan_and_leaves_the_rest(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=RTX)
    on(HERE, None, monkeypatch)
    build(tiny_copy, BuildOptions(target="jetson"))
    before = read_plan(tiny_copy)
    on(Machine(rtx=rtx.__version__), None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="rtx"))
    after = read_plan(tiny_copy)
    assert before is not None
    assert after is not None
    assert before.kernel_plan == {}
    assert after == dataclasses.replace(before, kernel_plan=values["kernel_plan"])
    values = build(tiny_copy, BuildOptions(target="rtx", precision="fp32"))
    assert read_plan(tiny_copy) == after
    assert any("build/plan.json stays that of jetson, fp16" in w for w in values["warnings"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graphs", [1]),
        ("graphs", {"511": 5}),
        ("core_sha256", 5),
        ("precision", "../../x"),
        ("n_units", "5"),
        ("prepared", []),
        ("settled", [5]),
    ],
)
def test_a_plan_of_other_types_is_refused_behind_a_checksum_that_holds(
    tmp_path: Path, field: str, value: Any
) -> None:
    values = {
        "core_sha256": "0", "precision": "fp16", "graph_sha256": "1", "graphs": {"511": "2"},
        "n_units": 9, "target": "jetson", "prepared": {}, "settled": [], "unsettled": [],
    }  # fmt: skip
    file = tmp_path / "build" / "plan.json"
    file.parent.mkdir()

    def written(plan: dict[str, Any]) -> None:
        checksum = sha256_bytes(json.dumps(plan, sort_keys=True).encode())
        text = json.dumps({"schema": "poyo-edge/build-plan/1", **plan, "checksum": checksum})
        file.write_text(text)

    written(values)
    assert read_plan(tmp_path) is not None
    written({**values, field: value})
    with pytest.raises(ArtifactError, match=r"plan\.json: contents: expected a build plan, got"):
        read_plan(tmp_path)
