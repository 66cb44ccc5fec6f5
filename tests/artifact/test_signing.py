"""Who vouches for an artifact: keys, signatures, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import run, write_to_full_disk
from helpers.vouched import rewritten

from poyo_edge.artifact import Artifact, Session
from poyo_edge.artifact.signing import SIGNATURE, new_key, require_signed, sign
from poyo_edge.errors import ArtifactError, MissingExtraError, SignatureError, UsageError
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.verify import verify

pytest.importorskip("cryptography", reason="needs cryptography")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "lab.key")
    return tmp_path / "lab.key"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("lab.key.pub")


@pytest.fixture
def signed(tiny_copy: Path, key: Path) -> Path:
    sign(tiny_copy, key)
    return tiny_copy


def test_a_signed_artifact_opens_and_verifies(signed: Path, public: Path) -> None:
    decoder = Decoder.open(signed, "tiny_a", backend="ort-cpu", require_signature=public)
    assert decoder.session_id == "tiny_a"
    (check,) = [one for one in verify(signed, public_key=public) if one.name == "signature"]
    assert check.ok
    assert check.detail == f"by key {require_signed(Artifact.open(signed), public)}"


def test_sessions_added_later_are_said_to_be_uncovered(signed: Path, public: Path) -> None:
    day = (signed / "sessions" / "tiny_a.session").read_bytes()
    (signed / "sessions" / "day.session").write_bytes(day)
    (check,) = [one for one in verify(signed, public_key=public) if one.name == "signature"]
    assert check.ok
    assert check.detail.endswith("not covered: 1 sessions added later")


def test_a_session_that_takes_the_id_of_a_signed_one_is_not_taken_for_it(
    signed: Path, public: Path
) -> None:
    a, b = (Session.open(signed / "sessions" / f"tiny_{one}.session") for one in "ab")
    header = dataclasses.replace(b.header, session_id="tiny_a")
    forged = dataclasses.replace(b, header=header)
    forged.save(signed / "sessions" / "zzz.session")
    artifact = Artifact.open(signed)
    assert artifact.session_files()["tiny_a"].name == "tiny_a.session"
    opened = Decoder.open(signed, "tiny_a", backend="ort-cpu", require_signature=public)
    assert opened.unit_ids == a.header.unit_ids


def test_a_session_that_is_changed_between_check_and_use_is_refused(signed: Path) -> None:
    artifact, file = Artifact.open(signed), signed / "sessions" / "tiny_a.session"
    b = Session.open(signed / "sessions" / "tiny_b.session")
    forged = dataclasses.replace(b, header=dataclasses.replace(b.header, session_id="tiny_a"))
    forged.save(file)
    for name in ("tiny_a", file):
        with pytest.raises(ArtifactError, match=r"tiny_a\.session: size: expected"):
            artifact.session(name)


def test_a_full_disk_leaves_no_half_of_a_pair(tmp_path: Path) -> None:
    imports = "from poyo_edge.artifact.signing import new_key"
    for most in (50, 100):  # of a private key of 119 bytes
        write_to_full_disk(imports, "new_key(sys.argv[1])", tmp_path / "lab.key", most)
        assert not list(tmp_path.iterdir())


def test_keys_are_for_their_owner_and_never_overwritten(key: Path, public: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PRIVATE" in key.read_bytes()
    assert b"PRIVATE" not in public.read_bytes()
    for file in (key, public):
        before = file.read_bytes()
        with pytest.raises(UsageError, match="expected a name that is free"):
            new_key(key)
        assert file.read_bytes() == before
    with pytest.raises(UsageError, match="expected an existing folder"):
        new_key(key.parent / "none" / "lab.key")


def _rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _resealed(artifact: Path) -> None:
    """Another offset, in a manifest whose own checksum is right."""
    rewritten(artifact, lambda values: values["output"].update(offset=[5.0]))


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda a: (a / SIGNATURE).unlink(), "expected a signature of key .*, got none; sign"),
    "manifest": (_resealed, "the artifact was changed after it was signed"),
    "bits": (
        lambda a: _rewrite(a / SIGNATURE, lambda v: v.update(signature="00" * 64)),
        "expected that of key .* over this manifest, got one of something else",
    ),
    "short": (
        lambda a: _rewrite(a / SIGNATURE, lambda v: v.update(signature="00")),
        "expected JSON of schema 'poyo-edge/signature/1'",
    ),
    "other algorithm": (
        lambda a: _rewrite(a / SIGNATURE, lambda v: v.update(algorithm="none")),
        "expected JSON of schema",
    ),
    "no JSON": (lambda a: (a / SIGNATURE).write_bytes(b"\xff"), "expected JSON of schema"),
    "a list": (lambda a: (a / SIGNATURE).write_text("[1]"), "expected JSON of schema"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_the_key_did_not_sign_is_refused(signed: Path, public: Path, forgery: str) -> None:
    change, message = FORGERIES[forgery]
    change(signed)
    with pytest.raises(SignatureError, match=message):
        Decoder.open(signed, "tiny_a", require_signature=public)
    checks = {check.name: check for check in verify(signed, public_key=public)}
    assert not checks["signature"].ok


def test_a_changed_file_is_refused_by_its_hash(signed: Path, public: Path) -> None:
    data = bytearray((signed / "core.onnx").read_bytes())
    data[100] ^= 1
    (signed / "core.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"core\.onnx: sha256"):
        Decoder.open(signed, "tiny_a", require_signature=public)


def test_another_key_is_refused_even_if_it_signed(signed: Path, public: Path) -> None:
    other = public.with_name("other.key")
    new_key(other)
    sign(signed, other)
    with pytest.raises(SignatureError, match=r"public_key: expected key .*lab\.key\.pub, got key"):
        Decoder.open(signed, "tiny_a", require_signature=public)


def test_a_damaged_artifact_is_not_signed(tiny_copy: Path, key: Path) -> None:
    (tiny_copy / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        sign(tiny_copy, key)
    assert not (tiny_copy / SIGNATURE).exists()


def test_keys_that_are_none_are_refused(signed: Path, key: Path, public: Path) -> None:
    artifact = Artifact.open(signed)
    for path, message in (
        (key.with_name("none"), "expected an existing file, got none"),
        (key, "expected an Ed25519 public key in PEM"),
    ):
        with pytest.raises(SignatureError, match=message):
            require_signed(artifact, path)
    public.chmod(0o600)
    with pytest.raises(SignatureError, match="expected an Ed25519 private key in PEM"):
        sign(signed, public)
    key.chmod(0o644)
    with pytest.raises(SignatureError, match=r"only its owner may read, got 0o644; chmod 600"):
        sign(signed, key)


def test_a_key_of_another_kind_is_refused(signed: Path, public: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    other = x25519.X25519PrivateKey.generate().public_key()
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(other.public_bytes(encoding, form))
    with pytest.raises(SignatureError, match="expected an Ed25519 public key in PEM, got X25519"):
        require_signed(Artifact.open(signed), public)


def test_without_cryptography_the_message_is_the_command_to_type(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    (tmp_path / "day.pub").write_text("-")
    for refused in (
        lambda: new_key(tmp_path / "lab.key"),
        lambda: Decoder.open(tiny, "tiny_a", require_signature=tmp_path / "day.pub"),
    ):
        with pytest.raises(MissingExtraError, match="pip install cryptography"):
            refused()
    assert not (tmp_path / "lab.key").exists()


@pytest.mark.slow
def test_the_three_commands_in_turn(tiny_copy: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "lab.key", tmp_path / "lab.key.pub"
    assert run("keygen", key).returncode == 0
    assert key.stat().st_mode & 0o077 == 0
    done = run("verify", tiny_copy, "--public-key", public)
    assert (done.returncode, "expected a signature of key" in done.stdout) == (3, True)
    done = run("sign", tiny_copy, "--key", key)
    assert (done.returncode, f"--public-key {public}" in done.stdout) == (0, True), done.stderr
    done = run("verify", tiny_copy, "--public-key", public)
    assert (done.returncode, "by key" in done.stdout) == (0, True), done.stdout
    done = run("sign", tiny_copy, "--key", public)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
