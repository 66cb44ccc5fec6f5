"""``build`` on a Jetson and for one: what it does there, what it keeps, what it refuses.

The Jetson is a machine that says that it is one, with the double for TensorRT and CUDA.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.arrays import written_again
from helpers.damage import flip_bit
from helpers.paths import DATA, TINY
from helpers.trt.double import Double
from helpers.trt.engines import installed
from helpers.trt.machines import HERE, ORIN, on

from poyo_edge.artifact import Artifact
from poyo_edge.cli.commands.build_text import build_text
from poyo_edge.errors import (
    ArtifactError,
    BackendError,
    CheckFailedError,
    UsageError,
)
from poyo_edge.export.engines.build import build_engines as build
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.export.precision.operator_table import VERSIONS
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.engines import EngineStore
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.simulation.recordings import Simulation, simulate_study
from poyo_edge.targets import TARGETS


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact after ``build --target jetson`` on a workstation. Read only."""
    pytest.importorskip("onnx_ir")
    artifact = tmp_path_factory.mktemp("prepared") / "tiny.poyo"
    shutil.copytree(TINY, artifact)
    with pytest.MonkeyPatch.context() as patch:
        on(HERE, None, patch)
        build(artifact, BuildOptions(target="jetson"))
    return artifact


@pytest.fixture
def prepared(prepared_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, on the workstation still."""
    on(HERE, None, monkeypatch)
    return Path(shutil.copytree(prepared_once, tmp_path / "tiny.poyo"))


def test_on_the_device_engines_are_built_compared_and_installed(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double()
    on(ORIN, double, monkeypatch)
    for module in ("onnx", "onnx_ir", "torch"):  # the device has none of them
        monkeypatch.setitem(sys.modules, module, None)
    values = build(prepared)
    assert values["target"] == "jetson-orin"
    assert [line["n_spikes"] for line in values["engines"]] == [511, 1023]
    assert values["parity"]["worst"] < 0.05 * values["parity"]["output_sd"]
    assert "these are the graphs that were checked on the workstation" in values["settled"]
    assert "every engine agrees with the FP32 core on this device" in values["settled"]
    assert [w for w in values["warnings"] if "issues/4419" in w]
    assert values["layers"] == {511: '{"Layers": ["myelin"]}', 1023: '{"Layers": ["myelin"]}'}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (prepared / "engines").iterdir()}
    assert modes == {0o600}
    assert Decoder.open(prepared, "tiny_a").backend == "tensorrt"
    assert "against the FP32 core" in build_text(values, "poyo-edge")


def test_a_plan_of_an_older_version_still_builds_and_its_engines_give_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made when buckets were 512 and 1024 spikes: the graph holds, its hashes are of others."""
    artifact = tmp_path / "tiny.poyo"
    shutil.copytree(DATA / "0.1.0" / "tiny.poyo", artifact)
    core = (artifact / "core.onnx").read_bytes()
    store, old = installed(artifact, b"engine", core_sha256=sha256_bytes(core), n_units=64)
    on(ORIN, Double(), monkeypatch)
    for module in ("onnx", "onnx_ir", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    values = build(artifact)
    assert [line["n_spikes"] for line in values["engines"]] == [511, 1023]
    assert not [words for words in values["settled"] if "checked on the workstation" in words]
    assert f"removed an engine of an earlier version: {old.key.name}" in values["notes"]
    assert [record.key.n_spikes for record in store.records()] == [511, 1023]


@pytest.mark.slow
def test_a_build_that_is_interrupted_leaves_nothing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(prepared.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        build(prepared, on_progress=interrupted)
    assert sorted(prepared.rglob("*")) == before


@pytest.mark.slow
def test_boards_of_one_compute_capability_share_no_engines(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano, agx = (
        dataclasses.replace(ORIN, gpu=f"NVIDIA Jetson {name}, {n} SMs")
        for name, n in (("Orin Nano", 8), ("AGX Orin", 16))
    )
    on(nano, Double(), monkeypatch)
    build(prepared)
    store = EngineStore(prepared / "engines")
    core = sha256_bytes((prepared / "core.onnx").read_bytes())
    assert len(store.fitting("tensorrt", core, nano)) == 2
    with pytest.raises(BackendError, match=r"device: expected NVIDIA Jetson AGX Orin, 16 SMs, got"):
        store.fitting("tensorrt", core, agx)
    on(agx, Double(), monkeypatch)
    words = "the device was NVIDIA Jetson Orin Nano, 8 SMs, is NVIDIA Jetson AGX Orin, 16 SMs"
    assert [line["why"] for line in build(prepared)["engines"]] == [words] * 2


@pytest.mark.slow
def test_in_a_container_that_hides_the_release_it_is_a_jetson_all_the_same(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = dataclasses.replace(ORIN, l4t="", board="NVIDIA Jetson AGX Orin Developer Kit")
    on(hidden, Double(), monkeypatch)
    values = build(prepared)
    assert (values["target"], values["on_device"]) == ("jetson-orin", True)
    assert len(values["engines"]) == 2


@pytest.mark.slow
def test_engines_that_fit_are_kept_until_something_differs(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    build(prepared)

    def why(options: BuildOptions | None = None) -> list[str]:
        """Of each engine, why it was built; "" where it was kept."""
        values = build(prepared, options)
        for line in values["engines"]:
            assert line["kept"] == (line["why"] == "")
            assert line["why"] in build_text(values, "poyo-edge")
        return [line["why"] for line in values["engines"]]

    assert why() == ["", ""]
    assert why(BuildOptions(rebuild=True)) == ["--rebuild was given"] * 2
    assert why(BuildOptions(precision="fp32")) == ["the precision was fp16, is fp32"] * 2
    for change, words in (
        ({"driver": "12.8"}, "the driver's CUDA was 12.6, is 12.8"),
        ({"l4t": "36.4.4"}, "the driver's CUDA was 12.8, is 12.6; L4T was 36.4.3, is 36.4.4"),
        ({"tensorrt": "10.7.0"}, "TensorRT was 10.3.0, is 10.7.0; L4T was 36.4.4, is 36.4.3"),
    ):
        on(dataclasses.replace(ORIN, **change), Double(), monkeypatch)
        assert why() == [words] * 2
        assert len(list((prepared / "engines").glob("*.engine"))) == 2  # the old ones are gone
    on(ORIN, Double(), monkeypatch)
    assert why() == ["TensorRT was 10.7.0, is 10.3.0"] * 2
    engine = next((prepared / "engines").glob("fp16-0000511*.engine"))
    engine.write_bytes(b"tampered")
    changed, other = why()
    assert changed.startswith(f"bytes changed: the size of {engine.name} was expected to be ")
    assert other == ""


@pytest.mark.slow
def test_a_record_that_cannot_be_read_is_removed_and_stops_nothing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    build(prepared)
    strange = prepared / "engines" / "strange.json"
    strange.write_text("{}")
    values = build(prepared)
    assert [line["kept"] for line in values["engines"]] == [True, True]
    assert any("removed" in note and "strange.json" in note for note in values["notes"])
    assert not strange.exists()


@pytest.mark.slow
def test_a_second_plan_says_what_it_replaces(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(HERE, None, monkeypatch)
    assert build(prepared, BuildOptions(target="jetson"))["warnings"] == []
    (told,) = build(prepared, BuildOptions(target="jetson-thor", precision="fp32"))["warnings"]
    assert told == (
        "build/plan.json replaces an earlier plan (target was jetson, is jetson-thor; precision "
        "was fp16, is fp32): an artifact holds one, the last"
    )
    (prepared / "build" / "plan.json").write_text("{}")
    (told,) = build(prepared, BuildOptions(target="jetson", precision="fp32"))["warnings"]
    assert told == "build/plan.json was damaged and has been replaced"


@pytest.mark.slow
def test_every_tensorrt_of_a_jetson_has_a_table_that_stands_for_it(prepared: Path) -> None:
    values = build(prepared, BuildOptions(target="jetson", precision="fp32"))
    found = {source["tensorrt"]: source for source in values["operator_tables"]}
    assert set(found) == {
        version
        for release in TARGETS["jetson"].releases
        for version in (release.tensorrt, *release.upgrades)
    }
    assert {source["table"] for source in found.values()} <= set(VERSIONS)
    assert [version for version, source in found.items() if not source["settles"]] == ["11.4"]
    assert any(words.startswith("that TensorRT 11.4 takes") for words in values["unsettled"])
    text = build_text(values, "poyo-edge")
    assert "  TensorRT 10.16: table 10.15; no table of its own is published: " in text
    assert "  TensorRT 11.4: table 11.1, which does not settle it; no table after 11.1" in text


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, float("nan")])
def test_an_engine_that_is_wrong_is_not_installed(
    prepared: Path, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double("10.13.3.9")
    double.noise = noise
    on(dataclasses.replace(ORIN, tensorrt="10.13.3.9"), double, monkeypatch)
    with pytest.raises(
        CheckFailedError, match=r"rms error: expected at most .*; no engine was in"
    ) as failed:
        build(prepared)
    assert str(failed.value).startswith(f"{prepared}: TensorRT 10.13.3.9, fp16: ")
    assert f"poyo-edge build {prepared} --target jetson --precision fp32" in str(failed.value)
    assert not list((prepared / "engines").glob("*.engine"))


@pytest.mark.slow
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
    module = sys.modules["poyo_edge.export.engines.engine_build"]
    compare = module.EngineBuild._compare

    def first_wrong(self: Any, *arguments: Any) -> Any:
        double.noise = wrong.pop(0) if not self.settings.weak_fp16 else 0.0
        return compare(self, *arguments)

    monkeypatch.setattr(module.EngineBuild, "_compare", first_wrong)
    values = build(prepared)
    assert any("built with weak typing" in note for note in values["notes"])
    record = json.loads(next((prepared / "engines").glob("*.json")).read_text())
    assert "weak-fp16" in record["key"]["flags"]


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["parse", "build", "memory", "deserialize", "malloc"])
def test_each_failure_on_the_device_leaves_no_engine(
    prepared: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(fail=failure), monkeypatch)
    with pytest.raises(BackendError) as failed:
        build(prepared)
    assert failed.value.exit_code == 4
    if failure != "malloc":  # which is CUDA's own
        assert f"poyo-edge build {prepared} --target jetson-orin" in str(failed.value)
    assert not list((prepared / "engines").glob("*.engine"))


def test_a_device_without_a_prepared_graph_says_where_to_make_one(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(UsageError, match=r"expected a graph made ready on a workstation, got none"):
        build(tiny_copy)
    assert build(tiny_copy, BuildOptions(precision="fp32"))["parity"]["precision"] == "fp32"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["core.fp16.onnx", "plan.json"])
def test_a_prepared_graph_that_was_changed_is_refused(
    prepared: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(ORIN, Double(), monkeypatch)
    flip_bit(prepared / "build" / name)
    with pytest.raises(ArtifactError, match="again on the workstation, and copy the whole"):
        build(prepared)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "options", "error", "words"),
    [
        (HERE, BuildOptions(), UsageError,
         r"^target: expected one of .* got none; name it with --target"),
        (HERE, BuildOptions(target="nano"), UsageError,
         r"^target: expected one of .* got 'nano'; did you mean 'jetson-orin'"),
        (HERE, BuildOptions(target="cpu", precision="fp16"), UsageError,
         r"^precision: expected one of \['fp32', 'bf16', 'int8'\] for cpu, got 'fp16'$"),
        (HERE, BuildOptions(target="rtx", precision="int8"), UsageError,
         r"^precision: expected one of \['fp32', 'fp16', 'bf16'\] for rtx, got 'int8'$"),
        (ORIN, BuildOptions(target="jetson-thor"), UsageError,
         r"^target: expected 'jetson-orin', which this machine is, got 'jetson-thor'"),
        (dataclasses.replace(ORIN, sm="72"), BuildOptions(), BackendError,
         r"expected a Jetson Orin or Thor, got a GPU of SM 72"),
        (dataclasses.replace(ORIN, l4t="35.4.1"), BuildOptions(), BackendError,
         r"expected JetPack 6\.1 or newer, got L4T 35\.4\.1; update JetPack"),
        (HERE, BuildOptions(target="cuda"), BackendError, r"CUDAExecutionProvider"),
        (dataclasses.replace(ORIN, sm=""), BuildOptions(), BackendError,
         r"expected a Jetson Orin or Thor, got no GPU that the driver shows; run"),
        (HERE, BuildOptions(target="cpu", max_spikes=2000), UsageError,
         r"^max_spikes: expected at most 600, the artifact's largest window, got 2000; leave"),
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
    with pytest.raises(error, match=words):
        build(tiny_copy, options)


@pytest.mark.slow
def test_old_and_new_tensorrt(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(dataclasses.replace(ORIN, tensorrt="8.6.2"), Double("8.6.2"), monkeypatch)
    with pytest.raises(BackendError, match=r"^TensorRT: expected 10\.1 or newer, got 8\.6\.2"):
        build(prepared)
    on(dataclasses.replace(ORIN, tensorrt="11.9.0"), Double("11.9.0"), monkeypatch)
    assert any("newer than 11.4" in words for words in build(prepared)["warnings"])


@pytest.mark.slow
def test_a_missing_tensorrt_is_named(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(ORIN, Double(), monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"sudo apt install nvidia-jetpack"):
        build(prepared)


@pytest.mark.slow
def test_a_recording_adds_its_r2(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(duration_s=20.0, n_units=6)
    (strange,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    units = Artifact.open(prepared).session("tiny_a").header.unit_ids[:6]
    recording = written_again(strange, tmp_path / "known.h5", unit_ids=units)
    on(ORIN, Double(), monkeypatch)
    options = BuildOptions(precision="fp32", recording=recording, behavior="cursor.vel")
    parity = build(prepared, options)["parity"]
    assert parity["r2_engine"] == pytest.approx(parity["r2_core"], abs=1e-4)
    assert parity["r2_core"] != 0.0
    assert build(prepared, options)["session"] == "tiny_a"  # of two, the recording's own
    with pytest.raises(UsageError, match=r"strange.*expected one of \['tiny_a', 'tiny_b'\]"):
        build(
            prepared,
            dataclasses.replace(options, recording=strange.rename(tmp_path / "strange.h5")),
        )
    strange = tmp_path / "strange.h5"
    with pytest.raises(UsageError, match=r"units/id: expected units of session 'tiny_b', got none"):
        build(prepared, dataclasses.replace(options, recording=strange, session="tiny_b"))
    only = {"tiny_a": prepared / "sessions" / "tiny_a.session"}
    monkeypatch.setattr(Artifact, "session_files", lambda self: only)
    with pytest.raises(UsageError, match=r"units/id: expected units of session 'tiny_a', got none"):
        build(prepared, dataclasses.replace(options, recording=strange))  # the only one there is
