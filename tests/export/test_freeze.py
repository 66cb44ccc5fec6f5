"""Frozen sessions: they decode as the artifact does, say what they are, and notice damage."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Rig
from helpers.commands import run_json, run_python

from poyo_edge.artifact import Activity, Artifact
from poyo_edge.artifact.frozen import PREFIX, metadata_of, open_frozen, sealed
from poyo_edge.errors import ArtifactError, CheckFailedError, UsageError
from poyo_edge.export import freeze, freeze_session
from poyo_edge.export.frozen_graph import frozen_graph
from poyo_edge.files import wire
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.inspecting import inspect_path
from poyo_edge.runtime import Decoder

SESSION = "tiny_a"


@pytest.fixture(scope="module", params=["fused", "plain"])
def frozen(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Read only."""
    path = tmp_path_factory.mktemp(request.param) / "today.onnx"
    freeze_session(tiny, SESSION, path, plain=request.param == "plain")
    return path


@pytest.fixture
def copied(frozen: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copy(frozen, tmp_path / "copy.onnx"))


@functools.cache
def opened(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def decode(path: Path, units: npt.NDArray[np.int32], times: npt.NDArray[np.float32]) -> object:
    """As any user of ONNX Runtime would."""
    return opened(path).run(None, {"spike_unit": units[None], "spike_time": times[None]})[0]


@pytest.mark.slow
@pytest.mark.parametrize("n_spikes", [0, 1, 7, 300])
def test_it_decodes_as_the_artifact_does(tiny: Path, frozen: Path, rig: Rig, n_spikes: int) -> None:
    rng = np.random.default_rng(n_spikes)
    times = rng.random(n_spikes, np.float32)
    units = rng.integers(0, 12, n_spikes).astype(np.int32)
    manifest = Artifact.open(tiny).manifest
    scale, offset = manifest.output.arrays(manifest.spec.dim_out)
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    query = np.full(1, manifest.spec.window_seconds, np.float32)
    wanted = rig.core.predict(constants, times, units, query) * scale + offset
    value = np.asarray(decode(frozen, units, times))
    assert value.shape == (1, 1, manifest.spec.dim_out)
    np.testing.assert_allclose(value[0], wanted, atol=1e-5 * scale.max(), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_a_mixed_filter_is_frozen_too(tiny: Path, tmp_path: Path, rig: Rig, *, plain: bool) -> None:
    rng = np.random.default_rng(4)
    mixed = MixedFilter(
        share=0.4,
        weights=rng.normal(size=(12, 10, 2)).astype(np.float32),
        bias=np.array([3.0, -2.0], np.float32),
    )
    session = dataclasses.replace(rig.a, wiener=mixed)
    report = freeze_session(tiny, session, tmp_path / "mixed.onnx", plain=plain)
    assert report.max_abs_error <= report.tolerance
    decoder = Decoder.open(tiny, session=session)
    for n in (0, 1, 200):
        times = np.sort(rng.random(n, np.float32))
        units = rng.integers(0, 12, n).astype(np.int32)
        padding = np.array([-1, 12], np.int32), np.full(2, 0.5, np.float32)
        padded = np.append(units, padding[0]), np.append(times, padding[1])
        decoder.reset()
        decoder.push(times.astype(np.float64), units)
        wanted = decoder.decode(1.0).value
        (found,) = np.asarray(decode(tmp_path / "mixed.onnx", *padded))
        np.testing.assert_allclose(found[0], wanted, atol=1e-4)


def test_the_order_of_spikes_does_not_matter(frozen: Path) -> None:
    rng = np.random.default_rng(0)
    times, units = rng.random(50, np.float32), rng.integers(0, 12, 50).astype(np.int32)
    order = rng.permutation(50)
    first, second = decode(frozen, units, times), decode(frozen, units[order], times[order])
    np.testing.assert_allclose(np.asarray(first), np.asarray(second), atol=1e-5)


@pytest.mark.parametrize("unit", [-1, -12, 12, 13, 14, 2**31 - 1, -(2**31)])
def test_a_unit_that_it_does_not_know_is_left_out(frozen: Path, unit: int) -> None:
    times, units = np.array([0.2, 0.4], np.float32), np.array([3, 5], np.int32)
    alone = decode(frozen, units, times)
    more = decode(frozen, np.array([3, unit, 5], np.int32), np.array([0.2, 0.3, 0.4], np.float32))
    np.testing.assert_allclose(np.asarray(more), np.asarray(alone), atol=1e-5)


@pytest.mark.parametrize("time", [np.nan, np.inf, -np.inf, -1e-6, 1.0, 7.5])
def test_a_spike_outside_the_window_is_left_out(frozen: Path, time: float) -> None:
    times, units = np.array([0.2, 0.4], np.float32), np.array([3, 5], np.int32)
    alone = decode(frozen, units, times)
    more = decode(frozen, np.array([3, 4, 5], np.int32), np.array([0.2, time, 0.4], np.float32))
    np.testing.assert_allclose(np.asarray(more), np.asarray(alone), atol=1e-5)


def test_its_metadata_says_what_it_is(tiny: Path, frozen: Path, rig: Rig) -> None:
    values = opened(frozen).get_modelmeta().custom_metadata_map
    manifest = Artifact.open(tiny).manifest
    assert values["poyo_edge.schema"] == "poyo-edge/frozen/1"
    assert values["poyo_edge.session_id"] == SESSION
    assert tuple(json.loads(values["poyo_edge.unit_ids"])) == rig.a.header.unit_ids
    assert values["poyo_edge.core_hash"] == manifest.core_hash
    assert float(values["poyo_edge.window_s"]) == manifest.spec.window_seconds
    assert values["poyo_edge.unit"] == manifest.output.unit
    assert int(values["poyo_edge.max_spikes"]) == manifest.max_spikes
    assert "poyo_edge.activity" in values
    data = frozen.read_bytes()
    digest = values["poyo_edge.sha256"]
    assert sha256_bytes(data.replace(digest.encode(), b"0" * 64)) == digest


def test_activity_goes_with_it(tiny: Path, tmp_path: Path, rig: Rig) -> None:
    activity = Activity(
        rate_hz=np.arange(12, dtype=np.float32),
        rate_sd_hz=np.ones(12, np.float32),
        output_low=np.full(2, -3, np.float32),
        output_high=np.full(2, 3, np.float32),
    )
    freeze_session(tiny, dataclasses.replace(rig.a, activity=activity), tmp_path / "x.onnx")
    found = open_frozen(tmp_path / "x.onnx").header.activity
    assert found is not None
    np.testing.assert_array_equal(found.rate_hz, activity.rate_hz)


def test_the_same_session_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    one = freeze_session(tiny, SESSION, tmp_path / "1.onnx")
    two = freeze_session(tiny, SESSION, tmp_path / "2.onnx")
    assert one.sha256 == two.sha256
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_the_standard_checker_accepts_the_plain_file(tiny: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    freeze_session(tiny, SESSION, tmp_path / "x.onnx", plain=True)
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.input] == ["spike_unit", "spike_time"]
    assert [one.name for one in model.graph.output] == ["value"]
    assert {node.domain for node in model.graph.node} == {""}


def test_neither_torch_nor_onnx_is_loaded(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom poyo_edge.export import freeze_session\n"
        f"freeze_session({str(tiny)!r}, {SESSION!r}, {str(tmp_path / 'x.onnx')!r})\n"
        "print(sorted({'torch', 'onnx', 'typer'} & set(sys.modules)))"
    )
    done = run_python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_flipped_byte_is_noticed(copied: Path) -> None:
    data = copied.read_bytes()
    places = np.random.default_rng(1).integers(0, len(data), 40).tolist()
    for place in [*places, 0, len(data) - 1]:
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        copied.write_bytes(bytes(broken))
        with pytest.raises(ArtifactError, match="^" + re.escape(f"{copied}: ")):
            open_frozen(copied)


@pytest.mark.parametrize("length", [0, 1, 100, 5000])
def test_a_file_that_was_cut_short_is_noticed(copied: Path, length: int) -> None:
    copied.write_bytes(copied.read_bytes()[:length])
    with pytest.raises(ArtifactError):
        open_frozen(copied)


def test_an_onnx_file_of_others_is_refused_by_name(tiny: Path) -> None:
    with pytest.raises(ArtifactError, match=r"poyo_edge\.schema.*poyo-edge freeze"):
        open_frozen(tiny / "core.onnx")


def again(path: Path, key: str, value: str) -> None:
    """The file with another value in its metadata, and the right digest."""
    frozen = open_frozen(path)
    kept = [bytes(f.whole) for f in wire.fields(memoryview(frozen.data)) if f.number != 14]
    header = type("Header", (), {"metadata": lambda _: {**frozen.header.metadata(), key: value}})()
    path.write_bytes(sealed(b"".join(kept), header))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "poyo-edge/frozen/2"),
        ("unit_ids", '["a", "a"]'),
        ("unit_ids", "no JSON"),
        ("unit_ids", "[" * 2000),
        ("window_s", "nan"),
        ("max_spikes", "0"),
        ("max_spikes", "1e3"),
        ("activity", '{"rate_hz": [1.0]}'),
        ("activity", "[]"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(copied: Path, key: str, value: str) -> None:
    again(copied, PREFIX + key, value)
    with pytest.raises(ArtifactError, match="expected"):
        open_frozen(copied)


def test_a_key_that_occurs_twice_is_refused(copied: Path) -> None:
    entry = wire.block(14, [wire.block(1, "poyo_edge.unit"), wire.block(2, "m/s")])
    data = entry + copied.read_bytes()
    with pytest.raises(ArtifactError, match="twice"):
        metadata_of(data, copied)


def test_inspect_describes_it(frozen: Path) -> None:
    about = inspect_path(frozen)
    assert (about["kind"], about["session_id"], about["n_units"]) == ("frozen session", SESSION, 12)


def test_a_file_that_is_there_stays_unless_told(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="expected no such file yet"):
        freeze_session(tiny, SESSION, path)
    assert path.read_bytes() == b"mine"
    freeze_session(tiny, SESSION, path, overwrite=True)
    assert open_frozen(path).header.session_id == SESSION


def test_one_that_decodes_otherwise_is_not_written(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def wrong(core, path, constants, scale, *rest):  # type: ignore[no-untyped-def]
        return frozen_graph(core, path, constants, scale * np.float32(1.01), *rest)

    monkeypatch.setattr(freeze, "frozen_graph", wrong)
    with pytest.raises(CheckFailedError, match="nothing was written"):
        freeze_session(tiny, SESSION, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_session_of_another_core_is_refused(tiny: Path, tmp_path: Path, rig: Rig) -> None:
    header = dataclasses.replace(rig.a.header, core_hash="0" * 64)
    with pytest.raises(UsageError, match="made for core"):
        freeze_session(tiny, dataclasses.replace(rig.a, header=header), tmp_path / "x.onnx")


@pytest.mark.slow
def test_the_command_prints_where_and_how_far(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="typer is not installed")
    path = tmp_path / "x.onnx"
    values = run_json("freeze", tiny, "--session", SESSION, "-o", path)
    assert values["out"] == str(path)
    assert 0 <= float(str(values["max_abs_error"])) <= float(str(values["tolerance"]))
