"""Session files: what goes in comes out, and anything else is refused with the reason."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.session_files import DIM, Change, a_session, opened, rewritten

from poyo_edge.artifact import LabelsMade, Session, SessionHeader, read_header
from poyo_edge.errors import SessionError, UsageError
from poyo_edge.files import tensors


def content(session: Session) -> tuple[Any, ...]:
    header = dataclasses.replace(session.header, checksum="")
    return header, session.unit_embedding.tobytes(), session.session_embedding.tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "day.session"
    a_session().save(path)
    return path


def test_what_is_saved_is_what_is_opened(path: Path) -> None:
    session = opened(path)
    assert content(session) == content(a_session())
    assert len(session.header.checksum) == 64
    assert read_header(path) == session.header
    session.save(path)
    assert content(opened(path)) == content(a_session())


def test_without_a_core_to_fit_a_session_of_any_core_opens(path: Path) -> None:
    assert content(Session.open(path)) == content(a_session())
    a_session(core_hash="d1" * 32).save(path)
    assert Session.open(path).header.core_hash == "d1" * 32
    assert content(Session.open(path, dim=DIM)) == content(a_session(core_hash="d1" * 32))
    with pytest.raises(SessionError, match=r"unit_embedding: expected float32 \(2, 4\), got"):
        Session.open(path, dim=DIM + 1)


def test_a_damaged_session_is_refused_with_what_to_do(path: Path) -> None:
    rewritten(path, lambda header: header.update(session_id="x"))
    message = (
        rf"^{re.escape(str(path))}: checksum: expected \w{{12}}, got \w{{12}}; "
        r"the file is damaged: restore a copy or make it again$"
    )
    for open_it in (opened, Session.open):
        with pytest.raises(SessionError, match=message):
            open_it(path)


def test_bytes_do_not_depend_on_when_they_are_made(path: Path) -> None:
    assert a_session().to_bytes() == path.read_bytes()


def test_saving_again_replaces_the_file_and_leaves_nothing_else(path: Path) -> None:
    a_session(session_id="another").save(path)
    assert opened(path).header.session_id == "another"
    assert [file.name for file in path.parent.iterdir()] == ["day.session"]


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SessionError):
            opened(path)
        with pytest.raises(SessionError):
            read_header(path)


def test_a_file_with_bytes_appended_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SessionError, match="contents: expected a whole safetensors file"):
        opened(path)


@pytest.mark.slow
@pytest.mark.parametrize("open_it", [opened, Session.open], ids=["for a core", "for any core"])
@pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF])
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(
    path: Path, flip: int, open_it: Callable[[Path], Session]
) -> None:
    data, expected = path.read_bytes(), content(opened(path))
    refused = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= flip
        path.write_bytes(damaged)
        try:
            assert content(open_it(path)) == expected, f"byte {place}"
        except SessionError:
            refused += 1
    # What remains is white space between the parts of the header.
    assert refused >= 0.98 * len(data)


HEADERS: dict[str, tuple[Change, str]] = {
    "newer": (
        lambda header: header.update(schema_version=7),
        "schema_version: expected 1 to 6, got 7; "
        "update poyo-edge, or make the session again with this version",
    ),
    "another schema": (
        lambda header: header.update(schema="poyo-edge/artifact"),
        "schema: expected poyo-edge/session, got poyo-edge/artifact; "
        "name a file that poyo-edge wrote as a .session",
    ),
    "another core": (
        lambda header: header.update(core_hash="d1" * 32),
        "core_hash: expected c0c0c0c0c0c0, got d1d1d1d1d1d1; "
        "use the artifact that the session was made for",
    ),
    "unknown field": (
        lambda header: header.update(colour="red"),
        "header: expected the fields of a session, got SessionHeader: unknown keys ['colour'], "
        "missing keys []",
    ),
    "missing field": (
        lambda header: header.pop("unit_ids"),
        "got SessionHeader: unknown keys [], missing keys ['unit_ids']",
    ),
    "no units": (
        lambda header: header.update(unit_ids=[]),
        "unit_ids: expected unique unit ids, at least one, got ()",
    ),
    "a unit twice": (
        lambda header: header.update(unit_ids=["u1", "u1"]),
        "unit_ids: expected unique unit ids, at least one, got ('u1', 'u1')",
    ),
    "more units than rows": (
        lambda header: header.update(unit_ids=["u1", "u2", "u3"]),
        "unit_embedding: expected float32 (3, 3), got float32 (2, 3)",
    ),
    "an id of half a letter": (
        lambda header: header.update(session_id="\ud800"),
        "session_id: expected a string, got '\\ud800'",
    ),
    "ids that numpy takes for one": (
        lambda header: header.update(unit_ids=["u1", "u1\0"]),
        "unit_ids: expected unique unit ids, at least one, got ('u1', 'u1\\x00')",
    ),
    "an id that would fill the memory": (
        lambda header: header.update(unit_ids=["u1", "u" * (1 << 25) + "u"]),
        "unit_ids: expected ids of sensible length, got 2 names of up to 33554433 letters",
    ),
    "a duration that is none": (
        lambda header: header.update(labelled_s="long"),
        "labelled_s: expected a number, got 'long'",
    ),
    "another unit": (
        lambda header: header.update(unit_ids=["u1", "u3"]),
        "checksum: expected ",
    ),
    "another id": (lambda header: header.update(session_id="x"), "checksum: expected "),
    "a better result": (lambda header: header.update(r2_heldout=0.99), "checksum: expected "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_says_something_else_is_refused(path: Path, name: str) -> None:
    change, message = HEADERS[name]
    with pytest.raises(SessionError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        opened(rewritten(path, change))


@pytest.mark.parametrize("value", [None, 9, [], {}, [[1]], [None], [1, 2], "text", True, 1e400])
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(SessionHeader)])
def test_a_field_of_any_other_type_is_refused(path: Path, field: str, value: Any) -> None:
    with pytest.raises(SessionError):
        opened(rewritten(path, lambda header: header.update({field: value})))


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong shape": (
        {"session_embedding": np.zeros(4, np.float32)},
        "session_embedding: expected float32 (3), got float32 (4,)",
    ),
    "wrong dtype": (
        {"unit_embedding": np.zeros((2, 3), np.float64)},
        "unit_embedding: expected float32 (2, 3), got float64 (2, 3)",
    ),
    "NaN": (
        {"unit_embedding": np.full((2, 3), np.nan, np.float32)},
        "unit_embedding: expected finite values, got 6 NaN or Inf",
    ),
    "other values": ({"session_embedding": np.zeros(3, np.float32)}, "checksum: expected "),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tensors_that_do_not_fit_are_refused(path: Path, name: str) -> None:
    arrays, message = ARRAYS[name]
    with pytest.raises(SessionError, match=re.escape(f"{path}: {message}")):
        opened(rewritten(path, lambda _: None, arrays))


def test_a_missing_tensor_is_named(path: Path) -> None:
    found, metadata = tensors.from_bytes(path.read_bytes(), path, SessionError)
    del found["session_embedding"]
    path.write_bytes(tensors.to_bytes(found, metadata))
    message = "session_embedding: expected a float32 tensor (3), got none"
    with pytest.raises(SessionError, match=re.escape(message)):
        opened(path)


def safetensors_bytes(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "header: expected a safetensors file, got 0 bytes"),
    "text": (b"not a session file at all", "header: expected a safetensors header inside the file"),
    "absurd length": (
        struct.pack("<Q", 1 << 62) + b"{}",
        "got a length of 4611686018427387904 in a file of 10 bytes",
    ),
    "no JSON": (safetensors_bytes(b"{oops"), "header: expected JSON, got "),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "header: expected JSON, got "),
    "a list": (safetensors_bytes(b"[]"), "header: expected JSON, got "),
    "metadata of a list": (
        safetensors_bytes(b'{"__metadata__": []}'),
        "header: expected JSON, got ",
    ),
    "deep": (safetensors_bytes(b"[" * 200_000), "header: expected JSON, got "),
    "another safetensors file": (
        tensors.to_bytes({"x": np.zeros(2, np.float32)}, {"made_by": "someone"}),
        "header: expected schema 'poyo-edge/session', got another file; "
        "name a file that poyo-edge wrote as a .session",
    ),
    "a header that is no mapping": (
        tensors.to_bytes({"x": np.zeros(2, np.float32)}, {"poyo_edge": "[1]"}),
        "header: expected schema 'poyo-edge/session', got another file",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_session_is_refused(path: Path, name: str) -> None:
    data, message = FILES[name]
    path.write_bytes(data)
    for read in (opened, read_header):
        with pytest.raises(SessionError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
            read(path)


def test_a_recording_is_no_session(tmp_path: Path) -> None:
    path = tmp_path / "today.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(SessionError, match="got an HDF5 file; make a session of a recording with"):
        Session.open(path)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="file: expected an existing file, got none") as missing:
        opened(tmp_path / "none.session")
    assert missing.value.exit_code == 5
    with pytest.raises(SessionError, match="file: expected a file, got a folder"):
        opened(tmp_path)


def test_arrays_that_do_not_fit_the_ids_make_no_session() -> None:
    with pytest.raises(UsageError, match=r"got 2 rows for 3 ids$"):
        a_session(unit_ids=("u1", "u2", "u3"))
    with pytest.raises(UsageError, match=r"session 'monkey/day 1': expected unique unit ids$"):
        a_session(unit_ids=("u1", "u1"))


MADE = LabelsMade(kind="intention:refit", lead_s=0.14, reaction_s=0.2, speed=17.5, labelled_s=51.0)


def test_how_labels_were_made_is_kept_in_a_version_of_its_own(path: Path) -> None:
    plain = opened(path)
    header = dataclasses.replace(plain.header, labels=(MADE,))
    dataclasses.replace(plain, header=header).save(path)
    again = opened(path)
    assert again.header.labels == (MADE,)
    assert again.header.schema_version == 3
    assert again.digest == plain.digest, "decoded values do not depend on it"
    plain.save(path)
    assert opened(path).header.schema_version < 3
    assert b'"labels"' not in path.read_bytes(), "older readers know no such key"


def test_notes_are_kept_in_a_version_of_their_own(path: Path) -> None:
    plain = opened(path)
    header = dataclasses.replace(plain.header, notes=("behind a Wiener filter",), labels=(MADE,))
    dataclasses.replace(plain, header=header).save(path)
    again = opened(path)
    assert again.header.notes == ("behind a Wiener filter",)
    assert again.header.labels == (MADE,)
    assert again.header.schema_version == 4
    assert again.digest == plain.digest, "decoded values do not depend on them"
    plain.save(path)
    assert opened(path).header.schema_version < 3
    assert b'"notes"' not in path.read_bytes(), "older readers know no such key"
