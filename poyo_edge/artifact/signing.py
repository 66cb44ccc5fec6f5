"""Signatures of artifacts: Ed25519 over the manifest, which holds the hash of every listed file.

Made and checked offline with ``cryptography``. What is in an artifact's folder without being in
its manifest is not covered: sessions calibrated later, engines built on the device, and what
``build --target cpu`` wrote (an allowed precision, a graph of our operators). These have checks of
their own (see SECURITY.md).
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

from poyo_edge.artifact.artifact import Artifact, Manifest
from poyo_edge.errors import MissingExtraError, SignatureError, UsageError
from poyo_edge.files.tensors import read_file
from poyo_edge.files.writing import require_folder, sha256_bytes, write_bytes
from poyo_edge.records import JsonRecord

SIGNATURE = "signature.json"
"""Beside the manifest, which cannot list it."""
SCHEMA = "poyo-edge/signature/1"
_ALGORITHM = "ed25519"
_MOST_BYTES = 1 << 16


def new_key(path: str | Path) -> Path:
    """Make a pair of keys: ``path``, for its owner alone, and ``path.pub``. Returns the latter.

    Raises:
        UsageError: one of the files exists, or the folder does not.
        MissingExtraError: ``cryptography`` is not installed.
    """
    private_file = Path(path)
    public_file = private_file.with_name(f"{private_file.name}.pub")
    require_folder(private_file)
    for file in (private_file, public_file):
        if os.path.lexists(file):
            raise UsageError(f"{file}: expected a name that is free, got a file; name another")
    ed25519, serialization = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    descriptor = os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)
            opened.write(private)
            opened.flush()
            os.fsync(descriptor)
        write_bytes(public_file, public)
    except OSError as error:  # half a pair is none, and would be in the way of the next
        private_file.unlink()
        error.filename = error.filename or str(private_file)
        raise
    return public_file


def sign(artifact: str | Path, key: str | Path) -> str:
    """Sign an artifact whose files all have their hashes; returns the key's fingerprint.

    Raises:
        ArtifactError: a file of the artifact is missing or damaged.
        SignatureError: the key cannot be read, is no Ed25519 key, or is open to others.
        MissingExtraError: ``cryptography`` is not installed.
    """
    private = _private_key(Path(key))
    opened = Artifact.open(artifact)
    public = _raw(private.public_key())
    record = _Signature(
        schema=SCHEMA,
        algorithm=_ALGORITHM,
        public_key=public.hex(),
        signature=private.sign(signed_bytes(opened.manifest)).hex(),
    )
    text = json.dumps(record.to_json(), indent=1) + "\n"
    write_bytes(opened.path / SIGNATURE, text.encode())
    return fingerprint(public)


def require_signed(artifact: Artifact, public_key: str | Path) -> str:
    """Refuse an artifact that a key did not sign; returns the key's fingerprint.

    Args:
        artifact: opened, so its files have the hashes of its manifest.
        public_key: the PEM file that ``keygen`` wrote.

    Raises:
        SignatureError: no signature, one of another key, or one that does not hold.
        MissingExtraError: ``cryptography`` is not installed.
    """
    key_file = Path(public_key)
    key = _public_key(key_file)
    wanted = _raw(key)
    path = artifact.path / SIGNATURE
    if not path.exists():
        raise SignatureError(
            path,
            "file",
            expected=f"a signature of key {fingerprint(wanted)}",
            got="none",
            do=f"sign it: poyo-edge sign {artifact.path} --key KEY",
        )
    found, signature = _signature(path)
    if found != wanted:
        raise SignatureError(
            path,
            "public_key",
            expected=f"key {fingerprint(wanted)} of {key_file}",
            got=f"key {fingerprint(found)}",
            do="ask who signed it, or name that key's public file if you trust it",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed_bytes(artifact.manifest))
    except InvalidSignature:
        raise SignatureError(
            path,
            "signature",
            expected=f"that of key {fingerprint(wanted)} over this manifest",
            got="one of something else",
            do="the artifact was changed after it was signed: copy it again from its source",
        ) from None
    return fingerprint(wanted)


def signed_bytes(manifest: Manifest) -> bytes:
    """What is signed: a line that says so, and the manifest as JSON with sorted keys."""
    text = json.dumps(manifest.to_json(), sort_keys=True, separators=(",", ":"))
    return f"{SCHEMA}\n{text}".encode()


def fingerprint(public_key: bytes) -> str:
    """A short name of a key: the first 16 digits of its SHA-256."""
    return sha256_bytes(public_key)[:16]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Signature(JsonRecord):
    """The file beside the manifest; key and signature in hexadecimal."""

    schema: str
    algorithm: str
    public_key: str
    signature: str


def _signature(path: Path) -> tuple[bytes, bytes]:
    """Public key and signature of the file, of the right lengths."""
    data = read_file(path, SignatureError, _MOST_BYTES)
    try:
        record = _Signature.from_json(json.loads(data))
        if (record.schema, record.algorithm) != (SCHEMA, _ALGORITHM):
            raise ValueError
        key, signature = bytes.fromhex(record.public_key), bytes.fromhex(record.signature)
        if (len(key), len(signature)) != (32, 64):
            raise ValueError
    except (ValueError, RecursionError):
        raise SignatureError(
            path,
            "contents",
            expected=f"JSON of schema {SCHEMA!r}",
            got=f"{len(data)} bytes that are none",
            do="sign the artifact again",
        ) from None
    return key, signature


def _private_key(path: Path) -> Any:
    data = read_file(path, SignatureError, _MOST_BYTES)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SignatureError(
            path,
            "mode",
            expected="a private key that only its owner may read",
            got=oct(mode),
            do=f"chmod 600 {path}, and make a new one if others may have seen it",
        )
    ed25519, serialization = _cryptography()
    return _loaded(
        path,
        lambda: serialization.load_pem_private_key(data, password=None),
        ed25519.Ed25519PrivateKey,
        "an Ed25519 private key in PEM without a passphrase",
    )


def _public_key(path: Path) -> Any:
    data = read_file(path, SignatureError, _MOST_BYTES)
    ed25519, serialization = _cryptography()
    return _loaded(
        path,
        lambda: serialization.load_pem_public_key(data),
        ed25519.Ed25519PublicKey,
        "an Ed25519 public key in PEM",
    )


def _loaded(path: Path, load: Any, kind: type, expected: str) -> Any:
    try:
        key = load()
    except Exception as problem:  # cryptography raises classes of several modules
        got = f"a file that is none ({problem!s:.80})"
        do = "name a file that poyo-edge keygen wrote"
        raise SignatureError(path, "key", expected=expected, got=got, do=do) from None
    if not isinstance(key, kind):
        do = "name a file that poyo-edge keygen wrote"
        raise SignatureError(path, "key", expected=expected, got=type(key).__name__, do=do)
    return key


def _raw(public_key: Any) -> bytes:
    """The 32 bytes of a public key."""
    _, serialization = _cryptography()
    return bytes(
        public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    )


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", "sign", "signing and verifying") from error
    return ed25519, serialization
