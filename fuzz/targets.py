"""What is fuzzed: one function for each reader of files or messages; all it raises is a crash.

Each takes the bytes of a file and gives them to the reader as a file. The errors that a reader
raises on purpose are its answer; anything else is a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from poyo_edge.artifact import (
    GOLDEN,
    MANIFEST,
    WEIGHTS,
    Artifact,
    Session,
    read_header,
    read_manifest,
)
from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.artifact.session import _HEADER_KEY as HEADER_KEY
from poyo_edge.artifact.session import _header as header
from poyo_edge.artifact.signing import _signature as read_signature
from poyo_edge.converting.journal_file import open_journal
from poyo_edge.errors import (
    ArtifactError,
    BackendError,
    CheckpointError,
    RecordingError,
    SessionError,
    SignatureError,
    UsageError,
)
from poyo_edge.export.engines.plan import read_plan
from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.ov.precision import read_precision
from poyo_edge.runtime.backends.trt.engine_key import EngineKey
from poyo_edge.runtime.backends.trt.engines import EngineRecord, EngineStore
from poyo_edge.runtime.control.envelope import Command, Refused, read_message
from poyo_edge.spec import ModelSpec
from poyo_edge.trials import Trial, Trials

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny.poyo"
Target = Callable[[bytes], object]


def session(data: bytes) -> None:
    """A ``.session`` file, and its JSON header as it stands behind a checksum that holds."""
    path = _file("x.session", data)
    for read in (read_header, Session.open):
        with contextlib.suppress(SessionError):
            read(path)
    with contextlib.suppress(SessionError):
        header(path, {HEADER_KEY: data.decode(errors="replace")})


def manifest(data: bytes) -> None:
    """``manifest.json``: with its own checksum, and with one that holds."""
    for content in (data, _resealed(data, "schema", "schema_version")):
        _file(MANIFEST, content)
        with contextlib.suppress(ArtifactError):
            read_manifest(_FOLDER)


def golden(data: bytes) -> None:
    """``golden.safetensors`` or ``weights.safetensors``, vouched for by a manifest."""
    artifact = _Vouched(path=_FOLDER, manifest=_TINY_MANIFEST)
    _file(GOLDEN, data)
    _file(WEIGHTS, data)
    with contextlib.suppress(ArtifactError):
        artifact.golden()
    with contextlib.suppress(ArtifactError):
        artifact.weights({"token_type": (4, 16)})


def engine(data: bytes) -> None:
    """``KEY.json`` of an engine, with its own checksum and with one that holds, under the name
    that its key asks for; and the engine beside it."""
    folder = _FOLDER / "engines"
    for content in (data, _resealed(data, "schema")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        store, record = EngineStore(folder), folder / "x.json"
        record.write_bytes(content)
        try:
            store.records()
        except ArtifactError as problem:
            wanted = folder / f"{str(problem.expected)[:100]}.json"
            if problem.field == "name" and wanted.parent == folder and "\0" not in wanted.name:
                record.rename(wanted)
                wanted.with_suffix(".engine").write_bytes(data)
        store.examine("0" * 64, Machine())
        with contextlib.suppress(ArtifactError, BackendError):
            store.fitting("tensorrt", "0" * 64, Machine())


def onnx_guard(data: bytes) -> None:
    """An ONNX file."""
    with contextlib.suppress(ArtifactError):
        require_plain_onnx(data, "core.onnx")


def recording(data: bytes) -> None:
    """An HDF5 file, with every behaviour in it."""
    try:
        opened = Recording.open(_file("x.h5", data))
    except RecordingError:
        return
    for key in opened.behaviors:
        with contextlib.suppress(RecordingError):
            opened.behavior(key)
    with contextlib.suppress(RecordingError):
        opened.trials()


def journal(data: bytes) -> None:
    """A journal: as it is, and as the header and as a frame of one whose checksums hold."""
    header, frame = _journal_frame(0, data), _journal_frame(data[0] % 10 if data else 0, data[1:])
    for content in (data, _SMALL_JOURNAL[:8] + header, _SMALL_JOURNAL + frame):
        path = _file("x.journal", content)
        with contextlib.suppress(RecordingError), open_journal(path) as source:
            for series in source.series:
                series.read()


def records(data: bytes) -> None:
    """What is made on a device or beside an artifact: ``signature.json``, ``cpu/precision.json``
    and ``build/plan.json``, the last also behind a checksum that holds."""
    for folder in ("cpu", "build"):
        (_FOLDER / folder).mkdir(exist_ok=True)
    _file("cpu/precision.json", data)
    with contextlib.suppress(ArtifactError):
        read_precision(_FOLDER)
    for content in (data, _resealed(data, "schema")):
        _file("build/plan.json", content)
        with contextlib.suppress(ArtifactError):
            read_plan(_FOLDER)
    with contextlib.suppress(SignatureError):
        read_signature(_file("signature.json", data))


def command(data: bytes) -> None:
    """A datagram for the port of commands: as it is, and signed where it can be a command."""
    with contextlib.suppress(Refused):
        read_message(data, _TOKEN)
    try:
        values = json.loads(data)
        made = Command(
            name=values["command"], argument=values.get("session") or values.get("text") or "",
            now=values.get("now", False), seq=values["seq"],
        )  # fmt: skip
        message = made.message(_TOKEN)
    except (UsageError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    with contextlib.suppress(Refused):
        if read_message(message, _TOKEN) != made:
            raise AssertionError("another command than the one that was signed")


def checkpoint(data: bytes) -> None:
    """A torch file."""
    from poyo_edge.checkpoint import load_checkpoint

    with contextlib.suppress(CheckpointError, UsageError):  # of a POYO+, which needs a task
        load_checkpoint(_file("x.ckpt", data))


TARGETS: dict[str, Target] = {
    f.__name__: f
    for f in (
        session,
        manifest,
        golden,
        engine,
        onnx_guard,
        recording,
        journal,
        records,
        command,
        checkpoint,
    )
}


def seeds(name: str) -> list[bytes]:
    """Small files that the reader accepts, to begin with."""
    if name == "session":
        return [path.read_bytes() for path in sorted((TINY / "sessions").iterdir())]
    if name == "manifest":
        return [(TINY / MANIFEST).read_bytes()]
    if name == "golden":
        return [(TINY / f"{part}.safetensors").read_bytes() for part in ("golden", "weights")]
    if name == "onnx_guard":
        return [(TINY / f"{part}.onnx").read_bytes() for part in ("core", "adapt")]
    if name == "engine":
        return [_engine_record()]
    if name == "records":
        return _records()
    if name == "command":
        swap = Command(name="swap", argument="day_2", now=True, seq=7)
        mark, stop = Command(name="mark", argument="a word", seq=8), Command(name="stop", seq=9)
        return [one.message(_TOKEN) for one in (swap, mark, stop)]
    if name == "journal":
        return [
            _SMALL_JOURNAL,
            _SMALL_JOURNAL[20:160],
            b"\1" + bytes(40),
            _TRIAL,
            b"\x09" + bytes(40),
        ]
    return [_small_recording()] if name == "recording" else _small_checkpoints()


class _Vouched(Artifact):
    """An artifact whose manifest vouches for whatever its files are."""

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


_TOKEN = "0" * 64
_MEMORY = Path("/dev/shm")
_FOLDER = Path(tempfile.mkdtemp(prefix="poyo-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
_TINY_MANIFEST = read_manifest(TINY)


def _file(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def _resealed(data: bytes, *outside: str) -> bytes:
    """JSON with a checksum that holds, so that what lies behind it is reached."""
    try:
        values = json.loads(data)
        kept = {k: v for k, v in values.items() if k not in (*outside, "checksum")}
        checksum = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        return json.dumps({**values, "checksum": checksum}).encode()
    except (ValueError, AttributeError, RecursionError):
        return data


def _engine_record() -> bytes:
    key = EngineKey(
        flavour="tensorrt", core_sha256="0" * 64, graph_sha256="1" * 64, precision="fp16",
        n_spikes=512, n_units=100, version="10.3.0", sm=("87",), driver="12.6", l4t="36.4.3",
        flags=("detailed",),
    )  # fmt: skip
    record = EngineRecord(
        key=key, sha256="2" * 64, size=3, build_s=1.5, parity=None, created="2025"
    )
    return json.dumps(record.to_json()).encode()


def _records() -> list[bytes]:
    plan = {
        "schema": "poyo-edge/build-plan/1", "core_sha256": "0", "precision": "fp16",
        "graph_sha256": "1", "graphs": {"512": "2"}, "n_units": 9, "target": "jetson",
        "prepared": {"a": 1}, "settled": ["b"], "unsettled": [],
    }  # fmt: skip
    signature = {
        "schema": "poyo-edge/signature/1", "algorithm": "ed25519", "public_key": "ab" * 32,
        "signature": "cd" * 64,
    }  # fmt: skip
    precision = {
        "core_sha256": "0", "backend": "openvino", "version": "1", "precision": "bf16",
        "recording": "r", "n_windows": 9, "r2_fp32": 0.5, "r2": 0.5, "speedup": 1.5,
        "ranges": {"w": 1.0},
    }  # fmt: skip
    return [json.dumps(values).encode() for values in (plan, signature, precision)]


def _journal_frame(kind: int, payload: bytes) -> bytes:
    return struct.pack("<BxxxII", kind, len(payload), zlib.crc32(payload)) + payload


def _small_journal() -> bytes:
    path = _FOLDER / "seed.journal"
    header = JournalHeader(session_id="s", unit_ids=("a", "b"), tick_rate_hz=1e3, behavior="x.y")
    writer = JournalWriter(path, header)
    writer.spikes(0, 0, np.array([1, 900]), np.array([0, 1], np.int32))
    writer.decoded(900, 0, "VALID", 2, np.array([0.5, 1.5]))
    writer.labels(0, np.array([5]), np.array([[1.0, 2.0]]))
    writer.event(clock="x")
    writer.trial(0, Trial(number=1, start=5, end=9, target=(1.0, 2.0), success=True))
    writer.cursor(0, np.array([5, 6]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    writer.close()
    return path.read_bytes()


_SMALL_JOURNAL = _small_journal()
_TRIAL = b'\7{"epoch": 0, "trial": {"number": 1, "start": 5, "end": 9, "target": [1.0]}}'
"""A kind, and what a frame of it holds."""


def _small_recording() -> bytes:
    path = write_recording(
        _FOLDER / "seed.h5", session_id="s", subject_id="a", unit_ids=["u0", "u1"],
        spike_times=[0.1, 0.2, 0.3], spike_units=[0, 1, 0],
        behaviors={"cursor.vel": ([0.1, 0.2], [[1.0, 2.0], [3.0, 4.0]])},
        domains={"train": [[0.0, 0.2]], "test": [[0.2, 0.3]]},
        trials=Trials.of([0.0, 0.2], [0.1, 0.3], target=[[1, 2], [3, 4]], success=[True, False]),
    )  # fmt: skip
    return path.read_bytes()


def _small_checkpoints() -> list[bytes]:
    """A bare file and one with a configuration, of a model of a few kilobytes."""
    import torch

    from poyo_edge.model import POYO

    spec = ModelSpec(
        dim=4, depth=1, dim_head=4, cross_heads=1, self_heads=1, latents_per_step=1, dim_out=1,
        ffn_mult=1, rotating_pairs=1,
    )  # fmt: skip
    state = POYO(spec, ["a/u0"], ["a"]).state_dict()
    wrapped = {f"model.{name}": value for name, value in state.items()}
    hyper = {"model": {"dim": 4, "sequence_length": 1.0, "latent_step": 0.125}}
    contents = [state, {"state_dict": wrapped, "hyper_parameters": hyper}]
    files = []
    for content in contents:
        for new in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=new)
            files.append(file.getvalue())
    return files


def read_pickles_here() -> None:
    """Read the pickles of checkpoints in this process, so that the fuzzer sees the way."""
    import safetensors.torch

    from poyo_edge.checkpoint import confined as checkpoint_confined
    from poyo_edge.checkpoint import file as checkpoint_file
    from poyo_edge.checkpoint import unpickling as checkpoint_unpickling

    def read_here(data: bytes) -> object:
        reply = checkpoint_unpickling._reply(data)
        n_text = int.from_bytes(reply[:8], "little")
        content = json.loads(reply[16 : 16 + n_text])
        if "error" in content:
            raise checkpoint_confined.UnreadableError(content["error"], content.get("reason", ""))
        tensors = safetensors.torch.load(reply[16 + n_text :])
        return checkpoint_confined._value(content["content"], tensors)

    vars(checkpoint_file)["read_confined"] = read_here
