"""Engines on disk: whatever is wrong with one, it is refused before TensorRT is imported."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run_python
from helpers.trt.machines import ORIN

from poyo_edge.errors import ArtifactError, BackendError, UsageError
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.engine_key import EngineKey
from poyo_edge.runtime.backends.trt.engines import EngineRecord, EngineState, EngineStore

DATA = bytes(range(256)) * 8
KEY = EngineKey(
    flavour="tensorrt",
    core_sha256="c" * 64,
    graph_sha256="d" * 64,
    precision="fp16",
    n_spikes=512,
    n_units=128,
    version="10.3.0",
    sm=("87",),
    driver="12.6",
    l4t="36.4.3",
    flags=("strongly-typed",),
)


def record(key: EngineKey = KEY, data: bytes = DATA, created: str = "2025") -> EngineRecord:
    return EngineRecord(
        key=key, sha256=sha256_bytes(data), size=len(data), build_s=1.5, parity=None,
        created=created,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    store = EngineStore(tmp_path / "engines")
    store.write(record(), DATA)
    return store


def engine(store: EngineStore) -> Path:
    return store.folder / f"{KEY.name}.engine"


def test_what_was_written_comes_back(store: EngineStore) -> None:
    (found,) = store.fitting("tensorrt", "c" * 64, ORIN)
    assert found == record()
    assert store.read(found, ORIN) == DATA


def test_only_the_owner_may_touch_an_engine(store: EngineStore) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def truncated(path: Path) -> None:
    path.write_bytes(DATA[:-1])


def flipped(path: Path) -> None:
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])


def removed(path: Path) -> None:
    path.unlink()


def opened_to_the_group(path: Path) -> None:
    path.chmod(0o660)


def in_an_open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def linked(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, r"size: expected 2048 bytes, got 2047; build it again"),
        (flipped, r"sha256: expected \w{12}, got \w{12}; build it again on this machine"),
        (removed, r"file: expected an engine, got nothing there"),
        (opened_to_the_group, r"permissions: expected one that its owner alone may write, got 0o6"),
        (in_an_open_folder, r"permissions: expected one that its owner alone may write, got 0o777"),
        (linked, r"kind: expected a file of its own, got a link"),
    ],
)
def test_a_damaged_engine_is_refused_by_what_is_wrong(
    store: EngineStore, damage: Callable[[Path], None], words: str
) -> None:
    damage(engine(store))
    with pytest.raises(ArtifactError, match=words) as refused:
        store.read(record(), ORIN)
    assert refused.value.exit_code == 5


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_an_engine_of_someone_else_is_refused(store: EngineStore) -> None:
    os.chown(engine(store), 12345, -1)
    with pytest.raises(ArtifactError, match=r"owner: expected user 0 or root, got user 12345"):
        store.read(record(), ORIN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensorrt": "10.7.0"}, "TensorRT: expected 10.7.0, got an engine for 10.3.0"),
        ({"sm": "110"}, "GPU: expected SM 110, got an engine for SM 87"),
        ({"sm": ""}, "GPU: expected SM 87, which the engine is for, got none on this machine"),
        ({"driver": "13.0"}, "CUDA of the driver: expected 13.0, got an engine for 12.6"),
        ({"l4t": "36.4.4"}, "L4T: expected 36.4.4, got an engine for 36.4.3"),
        ({"tensorrt": ""}, "TensorRT: expected 10.3.0, which the engine is for, got none on this"),
    ],
)
def test_a_foreign_engine_is_refused_by_what_differs(
    store: EngineStore, change: dict[str, str], words: str
) -> None:
    machine = dataclasses.replace(ORIN, **change)
    with pytest.raises(BackendError, match=words):
        store.read(record(), machine)
    with pytest.raises(BackendError, match=words) as refused:
        store.fitting("tensorrt", "c" * 64, machine)
    assert refused.value.exit_code == 4
    command = f"poyo-edge build {store.folder.parent} --target jetson"
    assert str(refused.value).endswith(f"build it again on this machine: {command}")


def test_engines_made_ahead_of_time_depend_on_gpu_and_version_only(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    key = dataclasses.replace(
        KEY, flavour="tensorrt-rtx", version="1.7.1", sm=("86", "89"), driver="", l4t=""
    )
    store.write(record(key), DATA)
    rig = Machine(sm="89", driver="13.1", rtx="1.7.1")
    assert store.fitting("tensorrt-rtx", "c" * 64, rig) == [record(key)]
    with pytest.raises(BackendError, match="GPU: expected SM 75, got an engine for SM 86, 89"):
        store.fitting("tensorrt-rtx", "c" * 64, dataclasses.replace(rig, sm="75"))


def test_an_engine_of_another_core_is_not_taken(store: EngineStore) -> None:
    with pytest.raises(BackendError, match="got another core; build it again"):
        store.fitting("tensorrt", "e" * 64, ORIN)
    with pytest.raises(BackendError, match="got none built; build it again"):
        store.fitting("tensorrt-rtx", "c" * 64, ORIN)


def test_anything_that_differs_gives_another_name() -> None:
    changes: dict[str, Any] = {
        "flavour": "tensorrt-rtx", "core_sha256": "0", "graph_sha256": "0", "precision": "fp32",
        "n_spikes": 1024, "n_units": 256, "version": "10.7", "sm": ("86",), "driver": "13",
        "l4t": "39", "flags": (), "gpu": "Orin, 8 SMs",
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(EngineKey)}
    names = {dataclasses.replace(KEY, **{name: value}).name for name, value in changes.items()}
    assert len(names | {KEY.name}) == len(changes) + 1


def test_buckets_come_in_order_and_from_the_precision_built_last(store: EngineStore) -> None:
    for n_spikes, precision, created in ((2048, "fp32", "2026"), (1024, "fp32", "2026")):
        key = dataclasses.replace(KEY, n_spikes=n_spikes, precision=precision)
        store.write(record(key, created=created), DATA)
    found = store.fitting("tensorrt", "c" * 64, ORIN)
    assert [(r.key.n_spikes, r.key.precision) for r in found] == [(1024, "fp32"), (2048, "fp32")]


@pytest.mark.parametrize("where", ["sha256", "version", "size"])
def test_a_record_that_was_changed_is_refused(store: EngineStore, where: str) -> None:
    path = engine(store).with_suffix(".json")
    values = json.loads(path.read_text())
    (values["key"] if where == "version" else values)[where] = "11"
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="a checksum that does not hold"):
        store.records()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "poyo-edge/engine/9"}'])
def test_a_record_that_is_none_is_refused(store: EngineStore, text: str) -> None:
    engine(store).with_suffix(".json").write_text(text)
    with pytest.raises(ArtifactError, match="contents: expected the record of an engine, got"):
        store.records()


@pytest.mark.slow
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EngineKey)])
@pytest.mark.parametrize("value", [-5, 5.5, "5", [5], {}, None, "\0"])
def test_a_key_of_other_types_is_refused_behind_a_checksum_that_holds(
    store: EngineStore, field: str, value: Any
) -> None:
    path = engine(store).with_suffix(".json")
    values = json.loads(path.read_text())
    if type(value) is type(values["key"][field]) and value != "\0" and value != [5]:
        return
    values["key"][field] = value
    kept = {k: v for k, v in values.items() if k not in ("schema", "checksum")}
    values["checksum"] = sha256_bytes(json.dumps(kept, sort_keys=True).encode())
    path.with_stem("x").write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=f"contents: .*{field}: expected"):
        store.records()
    assert not store.examine("c" * 64, ORIN)[0].sound


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "endless", "nested"])
def test_a_record_that_is_no_small_file_is_refused_at_once(store: EngineStore, kind: str) -> None:
    path = store.folder / "x.json"
    makes: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "endless": lambda: path.symlink_to("/dev/zero"),
        "nested": lambda: path.write_text("[" * 200_000),
    }
    makes[kind]()
    with pytest.raises(ArtifactError, match=r"x\.json: "):
        store.records()
    states = store.examine("c" * 64, ORIN)
    assert [state.sound for state in states] == [False, True]


def test_a_folder_that_is_a_link_is_neither_read_nor_changed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "settings.json").write_text("{}")
    (tmp_path / "engines").symlink_to(elsewhere)
    store = EngineStore(tmp_path / "engines")
    with pytest.raises(ArtifactError, match=r"engines: kind: expected a folder of its own, got a"):
        store.records()
    assert not store.examine("c" * 64, ORIN)[0].sound
    for change in (lambda: store.write(record(), DATA), store.drop_damaged,
                   lambda: store.write_timing_cache(DATA)):  # fmt: skip
        with pytest.raises(UsageError, match=r"engines: expected a folder of the artifact's own"):
            change()
    assert [path.name for path in elsewhere.iterdir()] == ["settings.json"]
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_a_record_under_another_name_is_refused(store: EngineStore) -> None:
    path = engine(store).with_suffix(".json")
    path.rename(path.with_stem("other"))
    with pytest.raises(ArtifactError, match=r"name: expected fp16-0000512-\w+, got other"):
        store.records()


def test_bytes_and_record_must_belong_together(store: EngineStore) -> None:
    with pytest.raises(UsageError, match=r"^engine: expected the bytes that its record describes"):
        store.write(record(), DATA + b"!")


def test_an_interrupted_write_leaves_the_old_engine(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        store.write(record(data=b"new", created="2026"), b"new")
    monkeypatch.undo()
    assert store.read(store.records()[0], ORIN) == DATA
    assert len(list(store.folder.iterdir())) == 2


def test_the_timing_cache_is_trusted_only_when_it_is_whole_and_private(store: EngineStore) -> None:
    assert store.read_timing_cache() == b""
    store.write_timing_cache(b"timings")
    path = store.folder / "timing.cache"
    assert store.read_timing_cache() == b"timings"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o666)
    assert store.read_timing_cache() == b""
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read_timing_cache() == b""


def test_engines_can_be_copied_by_a_machine_that_cannot_run_them(store: EngineStore) -> None:
    assert store.read(record(), None) == DATA


def states(store: EngineStore, machine: Machine = ORIN) -> dict[str, EngineState]:
    return {state.file: state for state in store.examine("c" * 64, machine)}


def test_each_engine_is_said_to_fit_or_to_be_for_something_else(store: EngineStore) -> None:
    name = engine(store).name
    about = "tensorrt, fp16, 512 spikes, bytes unchanged"
    fits = EngineState(file=name, sound=True, detail=f"{about}; fits this machine")
    assert states(store) == {name: fits}
    other = "TensorRT: expected 10.7.0, got an engine for 10.3.0"
    foreign = states(store, dataclasses.replace(ORIN, tensorrt="10.7.0"))[name]
    assert foreign == EngineState(
        file=name, sound=True, detail=f"{about}; built for something else: {other}"
    )
    (state,) = store.examine("e" * 64, ORIN)
    assert state.detail.endswith("built for something else: core: of another one")


@pytest.mark.parametrize("damage", [truncated, flipped, removed, opened_to_the_group, linked])
def test_an_engine_that_changed_is_not_sound_on_any_machine(
    store: EngineStore, damage: Callable[[Path], None]
) -> None:
    damage(engine(store))
    for machine in (ORIN, Machine()):
        state = states(store, machine)[engine(store).name]
        assert not state.sound
        assert ("changed bytes" in state.detail) == (damage in (truncated, flipped))
        assert "build it again" in state.detail


def test_a_damaged_record_hides_no_other_engine(store: EngineStore) -> None:
    other = dataclasses.replace(KEY, n_spikes=1024)
    store.write(record(other), DATA)
    engine(store).with_suffix(".json").write_text("{}")
    found = states(store)
    assert {name: state.sound for name, state in found.items()} == {
        f"{KEY.name}.json": False, f"{other.name}.engine": True
    }  # fmt: skip
    engine(store).with_suffix(".json").unlink()
    assert states(store)[engine(store).name].detail == "no record of it, so nothing runs it"


def test_all_checks_happen_without_tensorrt(store: EngineStore) -> None:
    flipped(engine(store))
    code = (
        "import sys\n"
        "from poyo_edge.runtime.backends.trt.engines import EngineStore\n"
        "from poyo_edge.runtime.backends.machine import Machine\n"
        f"store = EngineStore({str(store.folder)!r})\n"
        f"machine = Machine(**{ORIN.to_json()!r})\n"
        "print(store.examine('c' * 64, machine)[0].sound)\n"
        "try:\n    store.read(store.records()[0], machine)\n"
        "except ValueError as error:\n    print(error.field)\n"
        "print(sorted({'tensorrt', 'tensorrt_rtx_bindings', 'cuda', 'onnx', 'torch'} "
        "& set(sys.modules)))\n"
    )
    done = run_python(code)
    assert done.stdout.split() == ["False", "sha256", "[]"], done.stderr
