"""Promises about files: saves that survive a kill, damage that is refused, nothing that runs."""

from __future__ import annotations

import dataclasses
import importlib.abc
import json
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, lesson, misled
from helpers.checkpoints.canary import Canary
from helpers.commands import WITH_HELPERS, run_python
from helpers.paths import TINY
from helpers.trt.engines import installed
from helpers.trt.machines import ORIN
from helpers.vouched import planted, rewritten

from poyo_edge.artifact import (
    CORE,
    CORE_ORT_CPU,
    MANIFEST,
    Artifact,
    Session,
)
from poyo_edge.errors import (
    ArtifactError,
    BackendError,
    CheckFailedError,
    FileProblemError,
    PoyoEdgeError,
    SessionError,
    UsageError,
)
from poyo_edge.files import writing as files
from poyo_edge.journal import Journal, JournalHeader, JournalWriter
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.backends import opening as backends
from poyo_edge.runtime.backends.trt.engines import EngineRecord, EngineStore

if TYPE_CHECKING:
    from conftest import Rig


def small_session() -> Session:
    header = Session.open(TINY / "sessions" / "tiny_a.session").header
    table = np.ones((1, 2), np.float32)
    header = dataclasses.replace(header, unit_ids=("u",))
    return Session(header=header, unit_embedding=table, session_embedding=table[0])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "settrace") or sys.platform == "win32", reason="needs fork")
def test_R12_a_save_that_is_killed_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every line of ours (``killer.py``), and cut off at every byte."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        done = run_python(
            "from helpers.killer import main; main()", folder, environment=WITH_HELPERS
        )
    assert done.returncode == 0, done.stderr
    found = {one["save"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert set(found["session"]["found"]) == {"old (older)", "old (old)", "new (old)"}
    assert set(found["artifact"]["found"]) == {"old", "new"}
    assert {"1 values", "2 values", "3 values"} <= set(found["journal"]["found"])
    assert min(one["kills"] for one in found.values()) > 30

    path = tmp_path / "cut.session"
    data = small_session().to_bytes()
    _require_synced(tmp_path / "synced.session", monkeypatch)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SessionError):
            Session.open(path)
    writer = JournalWriter(tmp_path / "a.journal", JournalHeader(
        session_id="s", unit_ids=("u",), tick_rate_hz=1.0, behavior=""))  # fmt: skip
    for i in range(3):
        writer.decoded(i, i, "VALID", i, np.zeros(1))
    writer.close()
    whole = (tmp_path / "a.journal").read_bytes()
    counts = []
    for length in range(len(whole)):
        (tmp_path / "cut.journal").write_bytes(whole[:length])
        try:
            counts.append(len(list(Journal(tmp_path / "cut.journal").entries())))
        except FileProblemError:
            assert not counts
    assert (counts[0], counts[-1], counts) == (0, 2, sorted(counts))


def _require_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill keeps what the system has in memory, a power cut does not: fsync before and after."""
    done, fsync, replace = list[str](), files.fsync, Path.replace

    def synced(item: Path) -> None:
        done.append("folder" if item.is_dir() else "file")
        fsync(item)

    def replaced(self: Path, target: Any) -> Path:
        done.append("replace")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", synced)
        patch.setattr(Path, "replace", replaced)
        small_session().save(path)
    assert done == ["file", "replace", "folder"]


@pytest.mark.slow
def test_R13_a_flipped_bit_in_any_file_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def flipped(path: Path, open_it: Callable[[], object]) -> None:
        good = path.read_bytes()
        for place in rng.choice(len(good), 12, replace=False):
            data = bytearray(good)
            data[place] ^= 1 << int(rng.integers(7))
            path.write_bytes(data)
            with pytest.raises(FileProblemError):
                open_it()
        path.write_bytes(good)
        open_it()

    for name in Artifact.open(tiny_copy).manifest.files:
        flipped(tiny_copy / name, lambda: Artifact.open(tiny_copy))
    compact = json.dumps(json.loads((tiny_copy / MANIFEST).read_bytes()), separators=(",", ":"))
    (tiny_copy / MANIFEST).write_text(compact)
    flipped(tiny_copy / MANIFEST, lambda: Artifact.open(tiny_copy))
    day = tmp_path / "day.session"
    small_session().save(day)
    flipped(day, lambda: Session.open(day))
    store, record = engine_of(tmp_path / "other.poyo")
    flipped(next(store.folder.glob("*.engine")), lambda: store.read(record, ORIN))


def test_R14_a_session_fits_only_the_core_it_was_made_for(rig: Rig, tmp_path: Path) -> None:
    header = dataclasses.replace(rig.a.header, core_hash="0" * 64)
    foreign = dataclasses.replace(rig.a, header=header)
    foreign.save(tmp_path / "foreign.session")
    with pytest.raises(SessionError, match=r"core_hash: expected .*, got 000000000000; use the"):
        Decoder.open(TINY, tmp_path / "foreign.session")
    decoder = rig.decoder()
    for session in (foreign, tmp_path / "foreign.session"):
        with pytest.raises((UsageError, SessionError), match="000000000000"):
            decoder.swap_session(session)
    assert decoder.session_id == "tiny_a"


def test_R15_a_fit_that_makes_things_worse_is_refused_with_its_reason(tmp_path: Path) -> None:
    given = lesson()
    still, short = np.zeros_like(given.values), given.times < 4
    shuffled = np.random.default_rng(0).permutation(given.values)
    cases: dict[str, tuple[Any, Any, str]] = {
        "too short": (given.times[short], given.values[short], "expected at least .* labelled s"),
        "no movement": (given.times, still, "expected movement in every dimension"),
        "shuffled": (given.times, shuffled, "expected samples in order of time"),
    }
    for times, values, message in cases.values():
        lesson_of = dataclasses.replace(given, times=times, values=values)
        with pytest.raises(UsageError, match=message):
            lesson_of.calibrator(QUICK).fit()
    path, decoder = tmp_path / "day.session", Decoder.open(TINY, "tiny_a")
    given.truth.save(path)
    before = path.read_bytes()
    takes: list[Callable[[], None]] = [
        lambda: misled().save(path),
        lambda: misled().swap_into(decoder),
    ]
    for take in takes:
        with pytest.raises(CheckFailedError, match=r"expected an R² above 0, .*, got -"):
            take()
    assert (path.read_bytes(), decoder.session_id) == (before, "tiny_a")
    decoder.swap_session(given.truth)
    decoder.revert()
    assert decoder.session_id == "tiny_a"


def test_R17_a_pickle_is_never_executed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="checkpoints are read with torch")
    from poyo_edge.checkpoint import load_checkpoint

    canary, plain, zipped = (tmp_path / name for name in ("canary", "plain.pt", "zip.pt"))
    plain.write_bytes(pickle.dumps(Canary(canary)))
    torch.save({"state_dict": {}, "hyper_parameters": Canary(canary)}, zipped)
    for file in (plain, zipped):
        # The process that reads it could not write the canary either, so the message counts too.
        with pytest.raises(FileProblemError, match=r"exec'; it was refused and did not run"):
            load_checkpoint(file)
        assert not canary.exists()
    for session in (tmp_path / "x.session", tmp_path / "weights.safetensors"):
        session.write_bytes(plain.read_bytes())
        with pytest.raises(SessionError):
            Session.open(session)
    assert not canary.exists()
    pickle.loads(plain.read_bytes())
    assert canary.exists(), "it would have run"


class NoTensorRT(importlib.abc.MetaPathFinder):
    """Says when TensorRT is asked for."""

    asked = False

    def find_spec(self, name: str, *_: Any) -> None:
        self.asked |= name.partition(".")[0] == "tensorrt"


def engine_of(artifact: Path) -> tuple[EngineStore, EngineRecord]:
    """An engine for the tiny artifact's core and an Orin, installed."""
    artifact.mkdir(exist_ok=True)
    return installed(artifact, bytes(range(256)) * 8, n_spikes=1024, n_units=128)


def test_R18_an_engine_that_is_not_ours_never_reaches_tensorrt(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    watch = NoTensorRT()
    monkeypatch.setattr(sys, "meta_path", [watch, *sys.meta_path])
    monkeypatch.setattr(backends, "this_machine", lambda: ORIN)
    store, _ = engine_of(tiny_copy)
    engine = next(store.folder.glob("*.engine"))
    good = engine.read_bytes()

    def refused(kind: type[PoyoEdgeError], match: str) -> None:
        with pytest.raises(kind, match=match):
            Decoder.open(tiny_copy, "tiny_a", backend="tensorrt")
        assert not watch.asked

    engine.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    refused(ArtifactError, "sha256: expected")
    engine.write_bytes(good)
    engine.chmod(0o666)
    refused(ArtifactError, "permissions: expected one that its owner alone may write")
    engine.chmod(0o600)
    other = dataclasses.replace(ORIN, tensorrt="10.4.0")
    monkeypatch.setattr(backends, "this_machine", lambda: other)
    refused(BackendError, r"expected an engine for this machine .*10\.4\.0")
    monkeypatch.setattr(backends, "this_machine", lambda: ORIN)
    with pytest.raises(PoyoEdgeError):
        Decoder.open(tiny_copy, "tiny_a", backend="tensorrt")
    assert watch.asked, "a sound engine does reach it"


def sealed(artifact: Path, core: bytes) -> None:
    """Put another core in, and no graph made from it, with a manifest that vouches for that."""
    (artifact / CORE_ORT_CPU).unlink(missing_ok=True)
    rewritten(artifact, lambda values: values["files"].pop(CORE_ORT_CPU, None))
    planted(artifact, CORE, core)


def test_R19_a_hostile_graph_is_refused(
    tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="crafts graphs with onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(1 << 16))

    def external(graph: Any) -> None:
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "../secret"), ("offset", "0"), ("length", "64")):
            tensor.external_data.add(key=key, value=value)

    def custom(graph: Any) -> None:
        graph.node[0].domain = "evil.ops"

    def absurd(graph: Any) -> None:
        graph.initializer[0].dims[:] = [1 << 40]

    source = (TINY / CORE).read_bytes()
    for harm in (external, custom, absurd):
        model = onnx.load_from_string(source)
        harm(model.graph)
        sealed(tiny_copy, model.SerializeToString())
        with pytest.raises(ArtifactError, match=r"core\.onnx"):
            Decoder.open(tiny_copy, "tiny_a", backend="ort-cpu")
    sealed(tiny_copy, source)
    Decoder.open(tiny_copy, "tiny_a", backend="ort-cpu")


AUDITED = """
import json, os, sys
from pathlib import Path
artifact, folder = sys.argv[1:3]
seen = []
def audit(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "urllib.", "ftplib.",
                         "smtplib.", "http.")):
        seen.append(event)
    if event in ("os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "os.truncate"):
        for path in arguments[:2]:
            if isinstance(path, (str, bytes, os.PathLike)):
                wrote(os.fsdecode(path))
    if event == "open" and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] is not None:
            if not isinstance(arguments[0], int):
                wrote(os.fsdecode(arguments[0]))
def wrote(path):
    if not os.path.realpath(path).startswith((os.path.realpath(folder), "/dev/null")):
        seen.append("write " + path)
sys.dont_write_bytecode = True
sys.addaudithook(audit)
import numpy as np
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.verify import verify
from poyo_edge.calibration import Calibrator, FitSettings
decoder = Decoder.open(artifact, "tiny_a", backend="ort-cpu")
times = np.sort(np.random.default_rng(0).uniform(0, 40, 4000))
rows = (np.arange(4000) % 12).astype(np.int32)
decoder.push(times, rows)
for i in range(100):
    decoder.decode(1 + i / 50)
decoder.stats()
verify(artifact)
cal = Calibrator.open(artifact, decoder.unit_ids, settings=FitSettings(steps=4, judge_every=2))
labels = np.arange(0, 40, 0.1)
cal.add(times, rows, labels, np.stack([np.sin(labels), np.cos(labels)], 1) * 10)
session = cal.fit()
session.save(Path(folder, "day.session"), force=True)
decoder.swap_session(session)
decoder.decode(4.0)
inside = len(os.listdir(folder))
open(Path(artifact).parent / "canary", "w").close()
import socket; socket.socket().close()
print(json.dumps({"seen": seen, "inside": inside}))
"""


def test_R20_nothing_is_sent_and_nothing_written_elsewhere(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = run_python(AUDITED, tiny_copy, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inside"] == 1
    canaries = [f"write {tmp_path / 'canary'}", "socket.__new__"]
    assert found["seen"] == canaries, "the two that prove that the watch works, and no other"
