"""Session files: the unit table and session embedding of one recording session.

A ``.session`` file is a safetensors file with two tensors, ``unit_embedding`` (U, D) and
``session_embedding`` (D,), and a JSON header. It belongs to one core, named by its hash. From
schema version 2 on it may also hold the activity during calibration (``activity.py``), from 3 on
how labels of intention were made, from 4 on notes, from 5 on weights of the encoder of its own,
from 6 on a Wiener filter that is mixed with the model.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact.activity import Activity, activity_from
from poyo_edge.core_inputs import ENCODER, ENCODER_WEIGHTS
from poyo_edge.errors import SessionError, UsageError
from poyo_edge.files import tensors
from poyo_edge.files.magic import HDF5_MAGIC
from poyo_edge.files.writing import sha256_bytes, write_bytes
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.records import FieldError, JsonRecord, in_words, too_long

SCHEMA = "poyo-edge/session"
SCHEMA_VERSION = 6
UNLABELLED = "unlabelled"
"""The method of a session that nobody has judged: made of activity alone."""
_PLAIN, _ACTIVE, _LABELLED, _NOTED, _OWN_ENCODER = 1, 2, 3, 4, 5
"""The versions of a session without activity, of one with activity and without ``labels``, of one
without ``notes``, of one without ``encoder``, and of one without ``wiener``: readers of these
versions open them."""
_HEADER_KEY = "poyo_edge"
_MAX_BYTES = 256 << 20
_MOST = 1e15
"""No number in a header is larger."""
_ACTIVITY = "rate_hz"
"""A tensor that every activity has."""
_WEIGHTS, _BIAS = "wiener.weights", "wiener.bias"
_IDS = "unique unit ids, at least one"
_ONLY_IF_ANY = {
    "labels": "how labels were made",
    "notes": "notes",
    "wiener_share": "the share of a mixed filter",
}
"""Fields that are not in the header where they are empty, and what they are."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelsMade(JsonRecord):
    """How labels were made that no sensor measured (``calibration.intention``)."""

    kind: str
    """Such as "intention:proportional"."""
    lead_s: float
    """How much later than the shown cursor they count."""
    reaction_s: float
    speed: float
    """Where "proportional" saturates, and that of "constant", behaviour units."""
    labelled_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionHeader(JsonRecord):
    """What a session file says about itself."""

    session_id: str
    unit_ids: tuple[str, ...]
    core_hash: str
    """Hash of the core (all weights but the two tables) that the embeddings belong to."""
    checksum: str = ""
    """SHA-256 of everything else in the file; written by ``Session.to_bytes``."""
    method: str = "checkpoint"
    """How the embeddings were made: "checkpoint", "calibration" or "unlabelled"."""
    labelled_s: float | None = None
    steps: int | None = None
    r2_heldout: float | None = None
    created: str = ""
    schema: str = SCHEMA
    schema_version: int = _PLAIN
    """Of the file; ``Session.to_bytes`` writes the one that it needs."""
    labels: tuple[LabelsMade, ...] = ()
    """How its labels were made; none for measured behaviour, and in files before version 3."""
    notes: tuple[str, ...] = ()
    """What whoever decodes with it should know; none in files before version 4."""
    wiener_share: float = 0.0
    """Of the Wiener filter that is mixed in, 0 for none; as in ``Session.wiener``."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; ``labels``, ``notes`` and ``wiener_share`` only where there
        are some, as older readers know no such keys and older checksums do not count them."""
        values = JsonRecord.to_json(self)
        for name in _ONLY_IF_ANY:
            if not values[name]:
                del values[name]
        return values


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """Embeddings of one session. Rows of ``unit_embedding`` follow ``header.unit_ids``."""

    header: SessionHeader
    unit_embedding: npt.NDArray[np.float32]
    """(U, D)."""
    session_embedding: npt.NDArray[np.float32]
    """(D,)."""
    activity: Activity | None = None
    """How the units fired during calibration, if that is known."""
    encoder: dict[str, npt.NDArray[np.float32]] | None = None
    """All weights of ``core_inputs.ENCODER_WEIGHTS``, where the session has its own: token_type
    (3, D), context_norm.weight and context_norm.bias (D,), to_kv (2·H·K, D)."""
    wiener: MixedFilter | None = None
    """A Wiener filter that is mixed with what the model decodes, if there is one."""

    def __post_init__(self) -> None:
        units, n_units = self.header.unit_ids, len(self.unit_embedding)
        if len(units) != n_units or n_units == 0:
            raise UsageError(
                f"session {self.header.session_id!r}: expected one embedding row for each unit id "
                f"and at least one, got {n_units} rows for {len(units)} ids"
            )
        if len(set(units)) != n_units:
            raise UsageError(f"session {self.header.session_id!r}: expected unique unit ids")
        if self.encoder is not None and sorted(self.encoder) != sorted(ENCODER_WEIGHTS):
            raise UsageError(
                f"session {self.header.session_id!r}: encoder: expected "
                f"{', '.join(ENCODER_WEIGHTS)}, got {', '.join(self.encoder)}"
            )
        if self.wiener is not None and len(self.wiener.weights) != n_units:
            raise UsageError(
                f"session {self.header.session_id!r}: mixed filter: expected weights of {n_units} "
                f"units, got {len(self.wiener.weights)}"
            )
        if self.activity is not None and len(self.activity.rate_hz) != n_units:
            raise UsageError(
                f"session {self.header.session_id!r}: activity: expected rates of {n_units} units, "
                f"got {len(self.activity.rate_hz)}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of all that a decoded value depends on: core, unit ids, both tables, and what
        the session has of its own, the encoder's weights and the mixed filter."""
        tables = [self.unit_embedding, self.session_embedding]
        tables += [self.encoder[name] for name in ENCODER_WEIGHTS] if self.encoder else []
        names: list[Any] = [self.header.core_hash, *self.header.unit_ids]
        if self.wiener is not None:
            tables += [self.wiener.weights, self.wiener.bias]
            names.append(self.wiener.share)
        payload = b"".join(np.ascontiguousarray(one, "<f4").tobytes() for one in tables)
        return sha256_bytes(json.dumps(names).encode() + payload)

    def to_bytes(self) -> bytes:
        """The file's bytes; the header carries a checksum of itself and the tensors."""
        header = dataclasses.replace(self._own_header(), checksum=self._checksum())
        arrays = self._arrays()
        text = json.dumps(header.to_json(), ensure_ascii=False)
        return tensors.to_bytes(arrays, {_HEADER_KEY: text})

    def save(self, path: str | Path) -> None:
        """Write the file; a crash leaves the old file or the whole new one."""
        write_bytes(path, self.to_bytes())

    def _own_header(self) -> SessionHeader:
        version = _PLAIN if self.activity is None else _ACTIVE
        if self.header.labels:
            version = _LABELLED
        if self.header.notes:
            version = _NOTED
        if self.encoder is not None:
            version = _OWN_ENCODER
        if self.wiener is not None:
            version = SCHEMA_VERSION
        share = 0.0 if self.wiener is None else float(self.wiener.share)
        return dataclasses.replace(self.header, schema_version=version, wiener_share=share)

    def _arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        tables = {
            "unit_embedding": self.unit_embedding,
            "session_embedding": self.session_embedding,
        }
        own = {ENCODER + n: self.encoder[n] for n in ENCODER_WEIGHTS} if self.encoder else {}
        if self.wiener is not None:
            own |= {_WEIGHTS: self.wiener.weights, _BIAS: self.wiener.bias}
        return tables | ({} if self.activity is None else self.activity.arrays()) | own

    def _checksum(self) -> str:
        header = dataclasses.replace(self._own_header(), checksum="").to_json()
        parts = self._arrays().values()
        payload = b"".join(np.ascontiguousarray(part, np.float32).tobytes() for part in parts)
        return sha256_bytes(json.dumps(header, sort_keys=True).encode() + payload)

    @classmethod
    def open(
        cls, path: str | Path, *, dim: int | None = None, core_hash: str | None = None
    ) -> Session:
        """Read and check a session file for a core.

        Args:
            path: the ``.session`` file.
            dim: model dimension D of the core; None takes any.
            core_hash: the core's hash; None takes any.

        Raises:
            SessionError: unreadable, damaged, of a newer schema, or made for another core.
        """
        data = tensors.read_file(path, SessionError, _MAX_BYTES)
        if data.startswith(HDF5_MAGIC):
            raise SessionError(
                path,
                "file",
                expected="a .session file",
                got="an HDF5 file",
                do="make a session of a recording with poyo-edge calibrate",
            )
        return cls.from_bytes(data, path, dim=dim, core_hash=core_hash)

    @classmethod
    def from_bytes(
        cls, data: bytes, path: str | Path, *, dim: int | None = None, core_hash: str | None = None
    ) -> Session:
        """Check the bytes of a session file; ``path`` says where they came from. See ``open``."""
        arrays, metadata = tensors.from_bytes(data, path, SessionError)
        header = _header(path, metadata)
        if core_hash is not None and header.core_hash != core_hash:
            raise SessionError(
                path,
                "core_hash",
                expected=core_hash[:12],
                got=header.core_hash[:12],
                do="use the artifact that the session was made for",
            )
        shape = (len(header.unit_ids), dim)
        activity = None
        if header.schema_version == _ACTIVE or _ACTIVITY in arrays:
            activity = activity_from(arrays, len(header.unit_ids), path, SessionError)
        session = cls(
            header=header,
            unit_embedding=tensors.require_tensor(
                arrays, "unit_embedding", shape, path, SessionError
            ),
            session_embedding=tensors.require_tensor(
                arrays, "session_embedding", (dim,), path, SessionError
            ),
            activity=activity,
            encoder=_encoder(arrays, dim, path),
            wiener=_wiener(arrays, header, path),
        )
        if session._checksum() != header.checksum:
            raise SessionError(
                path,
                "checksum",
                expected=header.checksum[:12],
                got=session._checksum()[:12],
                do="the file is damaged: restore a copy or make it again",
            )
        return session


def _encoder(
    arrays: tensors.Tensors, dim: int | None, path: str | Path
) -> dict[str, npt.NDArray[np.float32]] | None:
    """The encoder's weights in a file, in its order; None where it has none."""
    shapes: dict[str, tuple[int | None, ...]] = {
        "token_type": (3, dim),
        "context_norm.weight": (dim,),
        "context_norm.bias": (dim,),
        "to_kv": (None, dim),
    }
    if not any(name.startswith(ENCODER) for name in arrays):
        return None
    return {
        name: tensors.require_tensor(arrays, ENCODER + name, shapes[name], path, SessionError)
        for name in ENCODER_WEIGHTS
    }


def _wiener(arrays: tensors.Tensors, header: SessionHeader, path: str | Path) -> MixedFilter | None:
    """The mixed filter in a file; None where it has none."""
    if not header.wiener_share and not {_WEIGHTS, _BIAS} & {*arrays}:
        return None
    shape = (len(header.unit_ids), None, None)
    weights = tensors.require_tensor(arrays, _WEIGHTS, shape, path, SessionError)
    bias = tensors.require_tensor(arrays, _BIAS, weights.shape[2:], path, SessionError)
    try:
        return MixedFilter(share=header.wiener_share, weights=weights, bias=bias)
    except UsageError as problem:
        raise SessionError(
            path, "mixed filter", expected="a share, weights and a bias", got=str(problem),
            do="make the session again",
        ) from problem  # fmt: skip


def read_header(path: str | Path) -> SessionHeader:
    """The header alone, for ``inspect``; the embeddings are not checked against a core.

    Raises:
        SessionError: unreadable or not a session file.
    """
    data = tensors.read_file(path, SessionError, _MAX_BYTES)
    return _header(path, tensors.from_bytes(data, path, SessionError)[1])


def _header(path: str | Path, metadata: dict[str, str]) -> SessionHeader:
    do = "name a file that poyo-edge wrote as a .session"
    try:
        values: dict[str, Any] = json.loads(metadata[_HEADER_KEY])
        schema, version = values["schema"], values["schema_version"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise SessionError(
            path, "header", expected=f"schema {SCHEMA!r}", got="another file", do=do
        ) from None
    if schema != SCHEMA:
        raise SessionError(path, "schema", expected=SCHEMA, got=schema, do=do)
    if type(version) is not int or not _PLAIN <= version <= SCHEMA_VERSION:
        raise SessionError(
            path,
            "schema_version",
            expected=f"{_PLAIN} to {SCHEMA_VERSION}",
            got=version,
            do="update poyo-edge, or make the session again with this version",
        )
    try:
        header = SessionHeader.from_json(values)
    except FieldError as problem:
        expected, got = in_words(problem.hint), problem.got
        if problem.place == "unit_ids":
            ids = values["unit_ids"]
            expected, got = _IDS, f"{tuple(ids) if isinstance(ids, list) else ids!r:.80}"
        raise SessionError(path, problem.place, expected=expected, got=got, do=do) from None
    except UsageError as problem:
        raise SessionError(
            path, "header", expected="the fields of a session", got=str(problem), do=do
        ) from problem
    for name in ("labelled_s", "steps", "r2_heldout"):
        value = getattr(header, name)
        if value is not None and not abs(value) < _MOST:
            raise SessionError(path, name, expected="a number", got=f"{value!r:.80}", do=do)
    for name, what in _ONLY_IF_ANY.items():
        if name in values and not getattr(header, name):
            got = f"{values[name]!r:.20}"
            raise SessionError(path, name, expected=f"{what}, or no such key", got=got, do=do)
    ids = header.unit_ids
    if not ids or len(set(ids)) != len(ids):
        raise SessionError(path, "unit_ids", expected=_IDS, got=f"{ids!r:.80}", do=do)
    long = too_long(ids)
    if long:
        raise SessionError(path, "unit_ids", expected="ids of sensible length", got=long, do=do)
    return header
