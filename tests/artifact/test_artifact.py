"""Artifacts and files: every damage is refused with its reason, and nothing is ever half there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.vouched import Values, rewritten

from poyo_edge.artifact import (
    ADAPT,
    ADAPT_ORT_CPU,
    CORE,
    CORE_ORT_CPU,
    GOLDEN,
    MANIFEST,
    PRIOR,
    WEIGHTS,
    Artifact,
    read_manifest,
)
from poyo_edge.errors import ArtifactError, PoyoEdgeError, SessionError, UsageError
from poyo_edge.files.writing import atomic_folder
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.constants import constant_shapes
from poyo_edge.runtime.core import Core

FILES = (
    MANIFEST,
    CORE,
    CORE_ORT_CPU,
    ADAPT,
    ADAPT_ORT_CPU,
    WEIGHTS,
    PRIOR,
    GOLDEN,
    "sessions/tiny_a.session",
    "sessions/tiny_b.session",
)


def refusal(folder: Path) -> str:
    """The sentence that opening ends with; reading the manifest first decides nothing else."""
    with pytest.raises(ArtifactError) as refused:
        Artifact.open(folder)
    assert refused.value.exit_code == 5
    with pytest.raises(PoyoEdgeError):
        Decoder.open(folder, "tiny_a")
    return str(refused.value)


def test_a_copy_opens_wherever_it_is(tiny: Path, tiny_copy: Path) -> None:
    one, other = Artifact.open(tiny), Artifact.open(str(tiny_copy))
    assert one.manifest == other.manifest
    assert set(one.manifest.files) == set(FILES) - {MANIFEST}
    assert one.session("tiny_a").header == other.session("tiny_a").header


def test_the_committed_artifact_is_small(tiny: Path) -> None:
    assert sum(file.stat().st_size for file in tiny.rglob("*") if file.is_file()) < 600_000


def test_a_manifest_survives_writing_and_reading(tiny_copy: Path) -> None:
    manifest = read_manifest(tiny_copy)
    (tiny_copy / MANIFEST).write_text(json.dumps(manifest.to_json()))
    assert read_manifest(tiny_copy) == manifest


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_refused(tiny_copy: Path, name: str) -> None:
    file = tiny_copy / name
    data = file.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 12)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert refusal(tiny_copy).startswith(f"{file}: ")


def test_a_digit_changed_in_the_manifest_is_refused(tiny_copy: Path) -> None:
    rewritten(tiny_copy, lambda v: v["output"].update(scale=[11.0]), checksum=False)
    message = r"manifest.json: checksum: expected \w{12}, got \w{12}; copy the whole artifact again"
    assert re.search(message, refusal(tiny_copy))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_refused(tiny_copy: Path, name: str) -> None:
    file = tiny_copy / name
    data = file.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 2):
        file.write_bytes(data[:length])
        message = refusal(tiny_copy)
        assert message.startswith(f"{file}: ")
        if name != MANIFEST:
            assert f"size: expected {len(data)} bytes, got {length}; " in message


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    assert refusal(tiny_copy) == (
        f"{tiny_copy}: artifact: expected a folder with manifest.json, got one without; "
        f"name the folder NAME.poyo that export wrote"
        if name == MANIFEST
        else f"{tiny_copy / name}: file: expected one that the manifest lists, got none; "
        f"copy the whole artifact again or export it again"
    )


def test_a_folder_in_the_place_of_a_file_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / CORE).unlink()
    (tiny_copy / CORE).mkdir()
    assert "core.onnx: file: expected a file, got a folder" in refusal(tiny_copy)


def test_a_path_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.poyo") == (
        f"{tmp_path / 'none.poyo'}: artifact: expected a folder NAME.poyo, got nothing there; "
        f"check the path; poyo-edge export makes one of a checkpoint"
    )
    (tmp_path / "file.poyo").write_text("x")
    assert "expected a folder NAME.poyo, got a file; check" in refusal(tmp_path / "file.poyo")
    assert refusal(tmp_path) == (
        f"{tmp_path}: artifact: expected a folder with manifest.json, got one without; "
        f"name the folder NAME.poyo that export wrote"
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"schema": 1}', "\0", "[" * 100_000, '{"schema":'],
    ids=len,
)
def test_a_manifest_that_is_no_json_of_ours_is_refused(tiny_copy: Path, text: str) -> None:
    (tiny_copy / MANIFEST).write_text(text)
    assert refusal(tiny_copy) == (
        f"{tiny_copy / MANIFEST}: contents: expected JSON of schema 'poyo-edge/artifact', "
        f"got {len(text)} bytes that are none; copy the whole artifact again or export it again"
    )


MANIFESTS: dict[str, tuple[Callable[[Values], Any], str]] = {
    "newer schema": (
        lambda v: v.update(schema_version=2),
        "schema_version: expected 1, got 2; "
        "update poyo-edge, or export the checkpoint again with this version",
    ),
    "another schema": (
        lambda v: v.update(schema="poyo-edge/session"),
        "schema: expected poyo-edge/artifact, got 'poyo-edge/session'; ",
    ),
    "unknown key": (lambda v: v.update(colour="red"), "got unknown ['colour'], missing []; "),
    "missing key": (lambda v: v.pop("core_hash"), "got unknown [], missing ['core_hash']; "),
    "unknown spec key": (
        lambda v: v["spec"].update(heads=3),
        "contents: expected a valid manifest, got ModelSpec: unknown keys ['heads']",
    ),
    "odd head size": (
        lambda v: v["spec"].update(dim_head=15),
        "got dim_head: expected an even number >= 2 * rotating_pairs (8), got 15; ",
    ),
    "scale of another width": (
        lambda v: v["output"].update(scale=[1.0, 2.0, 3.0]),
        "got scale: expected 1 or 2 numbers, got 3; ",
    ),
    "scale of zero": (lambda v: v["output"].update(scale=[0.0]), "scale: expected numbers other"),
    "no spikes": (lambda v: v.update(max_spikes=0), "max_spikes: expected an integer >= 1, got 0"),
    "a name that leaves the folder": (
        lambda v: v["files"].update({"../x": v["files"][CORE]}),
        "files: expected plain names with core.onnx, adapt.onnx, weights.safetensors, "
        "prior.safetensors, golden.safetensors among them, got unsafe ['../x'], missing []; ",
    ),
    "more outputs than memory": (
        lambda v: v["spec"].update(dim_out=10**12),
        "dim_out: expected an integer from 1 to 65536, got 1000000000000; ",
    ),
    "notes that are none": (
        lambda v: v["source"].update(notes=5),
        "source: expected notes in a list, got 5; ",
    ),
    "no core": (lambda v: v["files"].pop(CORE), "got unsafe [], missing ['core.onnx']; "),
    "another core file": (
        lambda v: v["files"].update({CORE: v["files"][WEIGHTS]}),
        "core.onnx: size: expected 5904 bytes, got ",
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_says_something_else_is_refused(tiny_copy: Path, name: str) -> None:
    change, message = MANIFESTS[name]
    assert message in refusal(rewritten(tiny_copy, change))


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "..",
        ".hidden",
        "sessions/../../x",
        "sessions/..",
        "other/x",
        "a\\b",
        "C:x",
        "x\n",
        "",
        "sessions/",
    ],
)
def test_file_names_that_could_leave_the_folder_are_refused(tiny_copy: Path, name: str) -> None:
    rewritten(tiny_copy, lambda v: v["files"].update({name: v["files"][CORE]}))
    assert f"got unsafe [{name!r}], missing []" in refusal(tiny_copy)


PLACES = [
    ("name",),
    ("behavior",),
    ("core_hash",),
    ("created",),
    ("source",),
    ("tools",),
    ("max_spikes",),
    ("spec",),
    ("spec", "dim"),
    ("spec", "window_s"),
    ("output",),
    ("output", "scale"),
    ("output", "offset"),
    ("files",),
    ("files", CORE),
    ("files", CORE, "sha256"),
    ("files", CORE, "size"),
]


OTHER_KINDS: list[Any] = [None, -1, 10**400, 1e400, [], {}, [[1]], "text"]
HARMLESS: dict[tuple[str, ...], Any] = {
    ("name",): "text",
    ("behavior",): "text",
    ("created",): "text",
    ("core_hash",): "text",
    ("source",): {},
    ("tools",): {},
    ("output",): {},
    ("max_spikes",): 10**400,
}
"""Values that are odd but of the right kind; what does not fit the weights is refused later."""


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_manifest_value_of_any_other_kind_is_refused(
    tiny_copy: Path, place: tuple[str, ...]
) -> None:
    original = (tiny_copy / MANIFEST).read_text()
    for value in OTHER_KINDS:
        (tiny_copy / MANIFEST).write_text(original)

        def change(values: Values, value: Any = value) -> None:
            for key in place[:-1]:
                values = values[key]
            values[place[-1]] = value

        rewritten(tiny_copy, change)
        if place in HARMLESS and value == HARMLESS[place]:
            Artifact.open(tiny_copy)
        else:
            refusal(tiny_copy)


def test_sizes_that_the_weights_do_not_have_are_refused(tiny_copy: Path) -> None:
    rewritten(tiny_copy, lambda v: v["spec"].update(dim=1 << 16))
    with pytest.raises(ArtifactError, match=r"weights.safetensors: token_type: expected float32"):
        Core.open(Artifact.open(tiny_copy))


def test_weights_of_other_shapes_are_refused(tiny: Path) -> None:
    artifact = Artifact.open(tiny)
    shapes = constant_shapes(artifact.manifest.spec)
    assert set(artifact.weights(shapes)) == set(shapes)
    message = "weights.safetensors: omega: expected float32 (5), got float32 (4,); create the file"
    with pytest.raises(ArtifactError, match=re.escape(message)):
        artifact.weights({**shapes, "omega": (5,)})
    with pytest.raises(ArtifactError, match=re.escape("phi: expected a float32 tensor (2), got")):
        artifact.weights({"phi": (2,)})


def test_a_session_is_found_by_id_or_file(tiny: Path, tiny_copy: Path) -> None:
    artifact = Artifact.open(tiny_copy)
    assert list(artifact.session_files()) == ["tiny_a", "tiny_b"]
    by_file = artifact.session(tiny / "sessions" / "tiny_b.session")
    assert artifact.session("tiny_b").header == by_file.header
    (tiny_copy / "sessions" / "tiny_b.session").rename(tiny_copy / "sessions" / "monday.session")
    assert artifact.session("tiny_b").header == by_file.header
    (tiny_copy / "sessions" / "tiny_a.session").unlink()
    assert artifact.session().header == by_file.header


def test_a_session_that_is_not_there_is_refused_with_those_that_are(tiny: Path) -> None:
    message = (
        f"{tiny}: session: expected a .session file or one of the 2 ids [tiny_a, tiny_b], "
        f"got 'tiny_c'; name one of them (--session)"
    )
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        Artifact.open(tiny).session("tiny_c")


def test_a_damaged_session_beside_it_does_not_keep_another_from_opening(tiny_copy: Path) -> None:
    (tiny_copy / "sessions" / "later.session").write_bytes(b"half a file")
    artifact = Artifact.open(tiny_copy)
    assert artifact.session("tiny_a").header.session_id == "tiny_a"
    with pytest.raises(SessionError, match=r"later\.session"):
        artifact.session("someone")


def test_a_tiny_copy_can_be_replaced_by_a_whole_artifact(tiny: Path, tmp_path: Path) -> None:
    """What ``export --overwrite`` does: the old artifact opens until the new one does."""
    target = tmp_path / "model.poyo"
    for _ in range(2):
        with atomic_folder(target, overwrite=True) as folder:
            shutil.copytree(tiny, folder, dirs_exist_ok=True)
            if target.exists():
                Artifact.open(target)
        Artifact.open(target)
