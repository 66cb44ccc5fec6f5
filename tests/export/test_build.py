"""``build`` for every target: what it does here, what it does on a Jetson, what it says of both.

The Jetson is a machine that says that it is one, with the double for TensorRT and CUDA.
"""

from __future__ import annotations

import dataclasses
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from trt_double import Double

from poyo_edge.artifact import Artifact
from poyo_edge.console_build import build_text
from poyo_edge.errors import (
    ArtifactError,
    BackendError,
    CheckFailedError,
    UsageError,
)
from poyo_edge.export import build as build_module
from poyo_edge.export.build import build
from poyo_edge.export.build_options import BuildOptions
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime import backends
from poyo_edge.runtime.cuda import Cuda
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.machine import Machine
from poyo_edge.simulate import Simulation, simulate_study

HERE = Machine()
ORIN = Machine(sm="87", driver="12.6", l4t="36.4.3", tensorrt="10.3.0")
RTX = 'NVIDIA\'s wheels are missing: pip install "poyo-edge[rtx]"'


def on(machine: Machine, double: Double | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (build_module, backends):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    if double is not None:
        monkeypatch.setitem(sys.modules, "tensorrt", double.trt)
        monkeypatch.setattr(Cuda, "open", lambda: Cuda(double.cuda))


@pytest.fixture
def prepared(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny artifact after ``build --target jetson`` on a workstation."""
    pytest.importorskip("onnx_ir")
    on(HERE, None, monkeypatch)
    build(tiny_copy, BuildOptions(target="jetson"))
    return tiny_copy


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


def test_off_device_the_very_graphs_are_compiled_by_nvidias_builder(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=RTX)
    on(Machine(rtx=rtx.__version__), None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="jetson-orin", systemd="/home/rig/tiny.poyo"))
    assert [line["n_spikes"] for line in values["gate"]] == values["buckets"] == [512, 1024]
    assert any("compiled the graph of every bucket" in words for words in values["settled"])
    unit = (tiny_copy / "build" / "poyo-edge-build.service").read_text()
    command = "/home/rig/poyo/bin/poyo-edge build /home/rig/tiny.poyo --target jetson-orin"
    assert "User=rig\n" in unit
    assert f"ExecStart={command}\n" in unit
    assert "  sudo systemctl enable --now poyo-edge-build.service" in values["next"]


def test_on_the_device_engines_are_built_compared_and_installed(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double()
    on(ORIN, double, monkeypatch)
    for module in ("onnx", "onnx_ir", "torch"):  # the device has none of them
        monkeypatch.setitem(sys.modules, module, None)
    values = build(prepared)
    assert values["target"] == "jetson-orin"
    assert [line["n_spikes"] for line in values["engines"]] == [512, 1024]
    assert values["parity"]["worst"] < 0.05 * values["parity"]["output_sd"]
    assert "these are the graphs that were checked on the workstation" in values["settled"]
    assert "every engine agrees with the FP32 core on this device" in values["settled"]
    assert [w for w in values["warnings"] if "issues/4419" in w]
    assert values["layers"] == {512: '{"Layers": ["myelin"]}', 1024: '{"Layers": ["myelin"]}'}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (prepared / "engines").iterdir()}
    assert modes == {0o600}
    assert Decoder.open(prepared, "tiny_a").backend == "tensorrt"
    assert "against the FP32 core" in build_text(values, "poyo-edge")


def test_engines_that_fit_are_kept_until_something_differs(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    build(prepared)

    def kept(options: BuildOptions | None = None) -> list[bool]:
        return [line["kept"] for line in build(prepared, options)["engines"]]

    assert kept() == [True, True]
    assert kept(BuildOptions(rebuild=True)) == [False, False]
    assert kept(BuildOptions(precision="fp32")) == [False, False]
    for change in ({"driver": "12.8"}, {"l4t": "36.4.4"}, {"tensorrt": "10.7.0"}):
        on(dataclasses.replace(ORIN, **change), Double(), monkeypatch)
        assert kept() == [False, False]
        assert len(list((prepared / "engines").glob("*.engine"))) == 2  # the old ones are gone
    on(ORIN, Double(), monkeypatch)
    assert kept() == [False, False]
    engine = next((prepared / "engines").glob("fp16-0000512*.engine"))
    engine.write_bytes(b"tampered")
    values = build(prepared)
    assert [line["kept"] for line in values["engines"]] == [False, True]
    assert any("built again" in note for note in values["notes"])


@pytest.mark.parametrize("noise", [1.0, float("nan")])
def test_an_engine_that_is_wrong_is_not_installed(
    prepared: Path, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double("10.13.3.9")
    double.noise = noise
    on(dataclasses.replace(ORIN, tensorrt="10.13.3.9"), double, monkeypatch)
    with pytest.raises(CheckFailedError, match=r"rms error: expected at most .*; no engine was in"):
        build(prepared)
    assert not list((prepared / "engines").glob("*.engine"))


def test_on_10_3_a_wrong_fp16_engine_is_built_once_more_with_weak_typing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double()
    double.noise = 1.0
    on(ORIN, double, monkeypatch)
    with pytest.raises(CheckFailedError):
        build(prepared)
    assert "set FP16" in double.calls
    assert "network 0" in double.calls
    double = Double()
    wrong = [1.0] * 2 + [0.0] * 2  # what each engine of the two builds adds

    on(ORIN, double, monkeypatch)
    module = sys.modules["poyo_edge.export.engine_build"]
    compare = module.EngineBuild._compare

    def first_wrong(self: Any, *arguments: Any) -> Any:
        double.noise = wrong.pop(0) if not self.settings.weak_fp16 else 0.0
        return compare(self, *arguments)

    monkeypatch.setattr(module.EngineBuild, "_compare", first_wrong)
    values = build(prepared)
    assert any("built with weak typing" in note for note in values["notes"])
    record = json.loads(next((prepared / "engines").glob("*.json")).read_text())
    assert "weak-fp16" in record["key"]["flags"]


@pytest.mark.parametrize("failure", ["parse", "build", "memory", "deserialize", "malloc"])
def test_each_failure_on_the_device_leaves_no_engine(
    prepared: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(fail=failure), monkeypatch)
    with pytest.raises(BackendError) as failed:
        build(prepared)
    assert failed.value.exit_code == 4
    assert not list((prepared / "engines").glob("*.engine"))


def test_a_device_without_a_prepared_graph_says_where_to_make_one(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(UsageError, match=r"expected a graph made ready on a workstation, got none"):
        build(tiny_copy)
    assert build(tiny_copy, BuildOptions(precision="fp32"))["parity"]["precision"] == "fp32"


@pytest.mark.parametrize("name", ["core.fp16.onnx", "plan.json"])
def test_a_prepared_graph_that_was_changed_is_refused(
    prepared: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    path = prepared / "build" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="again on the workstation, and copy the whole"):
        build(prepared)


@pytest.mark.parametrize(
    ("machine", "options", "error", "words"),
    [
        (HERE, BuildOptions(), UsageError, r"^target: expected one of .* got none; name it: --ta"),
        (HERE, BuildOptions(target="nano"), UsageError, r"^target: expected one of .* got 'nano'$"),
        (HERE, BuildOptions(target="cpu", precision="fp16"), UsageError,
         r"^precision: expected one of \['fp32', 'bf16'\] for cpu, got 'fp16'$"),
        (HERE, BuildOptions(target="rtx", precision="int8"), UsageError,
         r"^precision: expected one of \['fp32', 'fp16', 'bf16'\] for rtx, got 'int8'$"),
        (ORIN, BuildOptions(target="jetson-thor"), UsageError,
         r"^target: expected 'jetson-orin', which this machine is, got 'jetson-thor'"),
        (dataclasses.replace(ORIN, sm="72"), BuildOptions(), BackendError,
         r"expected a Jetson Orin or Thor, got a GPU of SM 72"),
        (dataclasses.replace(ORIN, l4t="35.4.1"), BuildOptions(), BackendError,
         r"expected JetPack 6\.1 or newer, got L4T 35\.4\.1; update JetPack"),
        (HERE, BuildOptions(target="cuda"), BackendError, r"CUDAExecutionProvider"),
        (HERE, BuildOptions(target="cpu", max_spikes=2**21), UsageError, r"max_spikes|expected"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    tiny_copy: Path,
    machine: Machine,
    options: BuildOptions,
    error: type[Exception],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(machine, Double(), monkeypatch)
    if options.max_spikes:  # more than the artifact allows is cut to that, silently right
        assert build(tiny_copy, options)["buckets"] == [512, 1024]
        return
    with pytest.raises(error, match=words):
        build(tiny_copy, options)


def test_old_and_new_tensorrt(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(dataclasses.replace(ORIN, tensorrt="8.6.2"), Double("8.6.2"), monkeypatch)
    with pytest.raises(BackendError, match=r"^TensorRT: expected 10\.1 or newer, got 8\.6\.2"):
        build(prepared)
    on(dataclasses.replace(ORIN, tensorrt="11.9.0"), Double("11.9.0"), monkeypatch)
    assert any("newer than 11.4" in words for words in build(prepared)["warnings"])


def test_a_missing_tensorrt_is_named(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(ORIN, Double(), monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"sudo apt install nvidia-jetpack"):
        build(prepared)


def test_the_cpu_needs_no_engine(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(HERE, None, monkeypatch)
    values = build(tiny_copy, BuildOptions(target="cpu"))
    assert (values["engines"], values["precision"]) == ([], "fp32")
    assert values["parity"]["worst"] < 2e-6
    assert "ort-cpu runs the core as it is" in build_text(values, "poyo-edge")


def test_a_recording_adds_its_r2(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(duration_s=20.0, n_units=6)
    (strange,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    source = Recording.open(strange)
    behavior = source.behavior("cursor.vel")
    recording = write_recording(
        tmp_path / "known.h5",
        session_id="tiny_a",
        subject_id="nobody",
        unit_ids=Artifact.open(prepared).session("tiny_a").header.unit_ids[:6],
        spike_times=source.spike_times,
        spike_units=source.spike_units,
        behaviors={"cursor.vel": (behavior.times, behavior.values)},
        domains=source.domains,
    )
    on(ORIN, Double(), monkeypatch)
    options = BuildOptions(precision="fp32", recording=recording, behavior="cursor.vel")
    parity = build(prepared, options)["parity"]
    assert parity["r2_engine"] == pytest.approx(parity["r2_core"], abs=1e-4)
    assert parity["r2_core"] != 0.0
    with pytest.raises(UsageError, match=r"units/id: expected units of session 'tiny_a', got none"):
        build(prepared, dataclasses.replace(options, recording=strange))


def test_rtx_engines_are_compiled_without_a_gpu(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx_ir")
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=RTX)
    on(Machine(rtx=rtx.__version__), None, monkeypatch)
    for precision in ("fp32", "fp16"):
        values = build(tiny_copy, BuildOptions(target="rtx", precision=precision))
        assert [line["n_spikes"] for line in values["engines"]] == [512, 1024]
        assert all(line["size"] > 10_000 and not line["kept"] for line in values["engines"])
        assert values["parity"] is None
        assert any("this machine has none" in words for words in values["unsettled"])
    again = build(tiny_copy, BuildOptions(target="rtx", precision="fp16"))
    assert all(line["kept"] for line in again["engines"])
