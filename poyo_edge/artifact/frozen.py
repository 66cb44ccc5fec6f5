"""Frozen sessions: one ONNX file that any ONNX Runtime decodes with, ``spike_unit``, ``spike_time``
→ ``value``. What it is stands in its metadata, with a digest of the whole file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.artifact.activity import Activity
from poyo_edge.artifact.onnx_guard import OWN_DOMAIN, require_plain_onnx
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.files import tensors, wire
from poyo_edge.files.writing import sha256_bytes

SCHEMA = "poyo-edge/frozen/1"
PREFIX = "poyo_edge."
MAY_USE = frozenset({"com.microsoft", OWN_DOMAIN})
"""Operators of ONNX Runtime, in files that are made for its CPU provider, and our own."""
_METADATA, _KEY, _VALUE = 14, 1, 2
_NO_DIGEST = "0" * 64
_MOST_UNITS = 1 << 20
_DO = "freeze the session again with poyo-edge freeze"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenHeader:
    """What a frozen file says about itself."""

    session_id: str
    unit_ids: tuple[str, ...]
    """(U,): what the rows of ``spike_unit`` mean."""
    core_hash: str
    window_s: float
    """``spike_time`` is in seconds from the start of a window of this length."""
    unit: str
    """Of ``value``; "" when unknown."""
    behavior: str
    """What is decoded, as GROUP.KEY; "" when unknown."""
    max_spikes: int
    """Most spikes that a window is decoded from; keep the newest."""
    activity: Activity | None = None
    """How the units fired during calibration, if that is known."""

    def metadata(self) -> dict[str, str]:
        """Key → text, as it stands in the file, without the digest."""
        activity = None
        if self.activity is not None:
            activity = {k: [float(x) for x in v] for k, v in self.activity.arrays().items()}
        values = {
            "schema": SCHEMA,
            "session_id": self.session_id,
            "unit_ids": _json(self.unit_ids),
            "core_hash": self.core_hash,
            "window_s": repr(self.window_s),
            "unit": self.unit,
            "behavior": self.behavior,
            "max_spikes": str(self.max_spikes),
            "activity": _json(activity),
        }
        return {PREFIX + name: value for name, value in values.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frozen:
    """A frozen file that has been checked."""

    header: FrozenHeader
    data: bytes
    sha256: str
    """Of the file with this value zeroed, hexadecimal."""


def sealed(model: bytes, header: FrozenHeader) -> bytes:
    """An ONNX model with the header and the digest of the whole file at its end.

    Args:
        model: a ModelProto that has no metadata yet.
        header: what to say of it.
    """
    entries = [*header.metadata().items(), (PREFIX + "sha256", _NO_DIGEST)]
    data = model + b"".join(
        wire.block(_METADATA, [wire.block(_KEY, key), wire.block(_VALUE, value)])
        for key, value in entries
    )
    return data[: -len(_NO_DIGEST)] + sha256_bytes(data).encode()


def open_frozen(path: str | Path) -> Frozen:
    """Read and check a frozen file.

    Raises:
        ArtifactError: no frozen session, of another schema, damaged, or what ``require_plain_onnx``
            refuses.
    """
    data = tensors.read_file(path, ArtifactError)
    metadata = metadata_of(data, path)
    schema = metadata.get(PREFIX + "schema")
    if schema != SCHEMA:
        got = "an ONNX file without it" if schema is None else f"{schema!r:.80}"
        raise ArtifactError(path, PREFIX + "schema", expected=repr(SCHEMA), got=got, do=_DO)
    said = metadata.get(PREFIX + "sha256", "")
    digest = sha256_bytes(_unsealed(data, said, path))
    if digest != said:
        raise ArtifactError(
            path, PREFIX + "sha256", expected=f"{said:.12}", got=digest[:12],
            do="the file is damaged: copy it again, or freeze the session again",
        )  # fmt: skip
    require_plain_onnx(data, path, MAY_USE)
    return Frozen(header=_header(metadata, path), data=data, sha256=said)


def is_frozen(path: Path) -> bool:
    """Whether a file means to be a frozen session; ``open_frozen`` says whether it is whole."""
    if path.suffix != ".onnx":
        return False
    return (PREFIX + "schema").encode() in tensors.read_file(path, ArtifactError)


def metadata_of(data: bytes, path: str | Path) -> dict[str, str]:
    """The metadata of an ONNX model.

    Raises:
        ArtifactError: no ONNX model, or a key twice.
    """
    found = dict[str, str]()
    try:
        for field in wire.fields(memoryview(data)):
            if field.number == _METADATA and isinstance(field.value, memoryview):
                parts = {one.number: one.value for one in wire.fields(field.value)}
                key, value = (_text(parts.get(number, b"")) for number in (_KEY, _VALUE))
                if key in found:
                    raise wire.WireError(f"{key!r:.80} twice in the metadata")
                found[key] = value
    except (wire.WireError, UnicodeDecodeError) as problem:
        raise ArtifactError(
            path, "contents", expected="an ONNX model", got=str(problem), do=_DO
        ) from None
    return found


def _text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise wire.WireError("a number where text should be")
    return str(value, "utf-8")


def _unsealed(data: bytes, said: str, path: str | Path) -> bytes:
    """The bytes with the digest zeroed, which stands at their end."""
    if len(said) != len(_NO_DIGEST) or not data.endswith(said.encode()):
        raise ArtifactError(
            path, PREFIX + "sha256", expected="64 hexadecimal digits at the file's end",
            got=f"{said!r:.80}" if said else "none", do=_DO,
        )  # fmt: skip
    return data[: -len(said)] + _NO_DIGEST.encode()


def _header(metadata: dict[str, str], path: str | Path) -> FrozenHeader:
    values = {name: metadata.get(PREFIX + name) for name in (
        "session_id", "unit_ids", "core_hash", "window_s", "unit", "behavior", "max_spikes",
        "activity",
    )}  # fmt: skip
    for name, text in values.items():
        if text is None:
            raise ArtifactError(path, PREFIX + name, expected="a value", got="none", do=_DO)
    try:
        units = json.loads(str(values["unit_ids"]))
        activity = json.loads(str(values["activity"]))
        header = FrozenHeader(
            session_id=str(values["session_id"]),
            unit_ids=_unit_ids(units),
            core_hash=str(values["core_hash"]),
            window_s=_positive(float(str(values["window_s"]))),
            unit=str(values["unit"]),
            behavior=str(values["behavior"]),
            max_spikes=int(_positive(int(str(values["max_spikes"])))),
            activity=None if activity is None else _activity(activity, len(units)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as problem:
        raise ArtifactError(
            path, "metadata", expected="the fields of a frozen session", got=f"{problem!s:.120}",
            do=_DO,
        ) from None  # fmt: skip
    return header


def _unit_ids(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= _MOST_UNITS:
        raise ValueError("unit_ids: expected a list of names")
    if not all(isinstance(one, str) for one in values) or len({*values}) != len(values):
        raise ValueError("unit_ids: expected names that differ")
    return tuple(values)


def _positive(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"expected a number > 0, got {value!r}")
    return value


def _activity(values: dict[str, Any], n_units: int) -> Activity:
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
    if len(arrays["rate_hz"]) != n_units or not all(np.isfinite(a).all() for a in arrays.values()):
        raise ValueError("activity: expected a finite rate for each unit")
    return Activity(**arrays)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
