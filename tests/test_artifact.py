"""Artifacts and files: every damage is refused with its reason, and nothing is ever half there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poyo_edge.artifact import (
    ADAPT,
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
from poyo_edge.files import (
    atomic_folder,
    atomic_path,
    require_free,
    safe_name,
    sha256_file,
    write_bytes,
)
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.constants import constant_shapes
from poyo_edge.runtime.core import Core

FILES = (
    MANIFEST,
    CORE,
    CORE_ORT_CPU,
    ADAPT,
    WEIGHTS,
    PRIOR,
    GOLDEN,
    "sessions/tiny_a.session",
    "sessions/tiny_b.session",
)
Values = dict[str, Any]


def rewritten(folder: Path, change: Callable[[Values], Any], *, checksum: bool = True) -> Path:
    """The artifact with a changed manifest; its checksum is made right again."""
    file = folder / MANIFEST
    values = json.loads(file.read_text())
    change(values)
    if checksum:
        rest = {
            k: v for k, v in values.items() if k not in ("schema", "schema_version", "checksum")
        }
        text = json.dumps(rest, sort_keys=True)
        values["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(values))
    return folder


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
    assert sum(file.stat().st_size for file in tiny.rglob("*") if file.is_file()) < 500_000


def test_a_manifest_survives_writing_and_reading(tiny_copy: Path) -> None:
    manifest = read_manifest(tiny_copy)
    (tiny_copy / MANIFEST).write_text(json.dumps(manifest.to_json()))
    assert read_manifest(tiny_copy) == manifest


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_refused(tiny_copy: Path, name: str) -> None:
    file = tiny_copy / name
    data = file.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert refusal(tiny_copy).startswith(f"{file}: ")


def test_a_digit_changed_in_the_manifest_is_refused(tiny_copy: Path) -> None:
    rewritten(tiny_copy, lambda v: v["output"].update(scale=[11.0]), checksum=False)
    message = r"manifest.json: checksum: expected \w{12}, got \w{12}; copy the whole artifact again"
    assert re.search(message, refusal(tiny_copy))


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
        f"check the path"
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
    ("spec", "dim"): 10**400,
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
    rewritten(tiny_copy, lambda v: v["spec"].update(dim=10**400))
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


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_written_file_is_the_new_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert entries(tmp_path) == ["x"]


@pytest.mark.parametrize("written", [False, True])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, written: bool) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "x") as temporary:
        if written:
            temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old"
    assert entries(tmp_path) == ["x"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert entries(tmp_path) == ["x"]


def fill(folder: Path, text: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text(text)


def an_artifact(folder: Path) -> None:
    folder.mkdir()
    fill(folder, "old")
    (folder / MANIFEST).write_text("{}")


def everything(folder: Path) -> dict[str, str | bytes | None]:
    """Name → target of a link, bytes of a file, None for a folder; of all below a folder."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        fill(folder, "new")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "deep" / "file").read_text() == "new"
    assert entries(tmp_path) == ["out"]


@pytest.mark.parametrize("there_before", [False, True])
def test_an_exception_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, there_before: bool
) -> None:
    if there_before:
        an_artifact(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out", overwrite=True) as new:
        fill(new, "half")
        raise ZeroDivisionError
    assert entries(tmp_path) == (["out"] if there_before else [])
    if there_before:
        assert (tmp_path / "out" / "deep" / "file").read_text() == "old"


@pytest.mark.parametrize("marker", [MANIFEST, "study.json"])
def test_overwriting_replaces_and_leaves_nothing_of_the_old(tmp_path: Path, marker: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_text("old")
    (tmp_path / "out" / marker).write_text("{}")
    before = everything(tmp_path)
    message = (
        f"{tmp_path / 'out'}: expected a name that is free, got one where an artifact exists; "
        f"choose another with -o or pass --overwrite"
    )
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        atomic_folder(tmp_path / "out", marker=marker).__enter__()
    assert everything(tmp_path) == before
    with atomic_folder(tmp_path / "out", overwrite=True, marker=marker) as folder:
        fill(folder, "new")
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == ["deep"]
    assert (tmp_path / "out" / "deep" / "file").read_text() == "new"


def link_to_an_artifact(path: Path) -> None:
    an_artifact(path.with_name("real"))
    path.symlink_to("real")


def folder_of_something_else(path: Path) -> None:
    path.mkdir()
    fill(path, "precious")


def folder_with_a_folder_for_a_manifest(path: Path) -> None:
    (path / MANIFEST).mkdir(parents=True)


NOT_OURS: dict[str, Callable[[Path], Any]] = {
    "text file": lambda path: path.write_text("precious"),
    "link to an artifact": link_to_an_artifact,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "folder without a manifest": folder_of_something_else,
    "empty folder": Path.mkdir,
    "folder with a folder for a manifest": folder_with_a_folder_for_a_manifest,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", NOT_OURS)
def test_what_is_no_artifact_is_never_overwritten(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    NOT_OURS[kind](tmp_path / "out")
    before = everything(tmp_path)
    message = (
        f"{tmp_path / 'out'}: expected a name that is free, got one where something else exists; "
        f"choose another with -o"
    )
    for refuse in (require_free, lambda *a, **k: atomic_folder(*a, **k).__enter__()):
        with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
            refuse(tmp_path / "out", overwrite=overwrite)
    assert everything(tmp_path) == before


def test_a_folder_with_a_manifest_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    an_artifact(tmp_path / "out")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="got one where something else exists"):
        atomic_folder(tmp_path / "out", overwrite=True, marker="study.json").__enter__()
    assert everything(tmp_path) == before


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_artifact(tmp_path / "out")
    before = everything(tmp_path)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(errno.EXDEV, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OSError, match="refused"),
        atomic_folder(tmp_path / "out", overwrite=True) as new,
    ):
        fill(new, "new")
    assert entries(tmp_path) == ["out"]
    assert everything(tmp_path) == before


@pytest.mark.parametrize("parent", ["no", "file"])
def test_a_parent_that_is_no_folder_is_refused_before_any_work(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("precious")
    before = everything(tmp_path)
    target = tmp_path / parent / "out"
    message = (
        f"{target}: expected an existing folder to write into, got {str(target.parent)!r}, "
        f"which is none; create it or choose another"
    )
    for writing in (atomic_folder(target, overwrite=True), atomic_path(target)):
        with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
            writing.__enter__()
    assert everything(tmp_path) == before


def test_a_parent_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Path, mode: int) -> bool:
        return not (path == tmp_path and mode & os.W_OK)

    monkeypatch.setattr(os, "access", access)  # The tests may run as root, who can write anywhere.
    message = (
        f"{tmp_path / 'out'}: expected a parent folder that can be written, got {tmp_path}, "
        f"which cannot; choose another with -o"
    )
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        atomic_folder(tmp_path / "out").__enter__()
    assert entries(tmp_path) == []


def test_every_id_has_a_safe_file_name_of_its_own() -> None:
    assert safe_name("tiny_a") == "tiny_a"
    ids = [
        "a/b",
        "a_b",
        "a b",
        "../a",
        ".a",
        "",
        ".",
        "..",
        "é",
        "a" * 200,
        "a" * 201,
        "CON:",
        "a\n",
    ]
    names = [safe_name(identifier) for identifier in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", name)


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_tiny_copy_can_be_replaced_by_a_whole_artifact(tiny: Path, tmp_path: Path) -> None:
    """What ``export --overwrite`` does: the old artifact opens until the new one does."""
    target = tmp_path / "model.poyo"
    for _ in range(2):
        with atomic_folder(target, overwrite=True) as folder:
            shutil.copytree(tiny, folder, dirs_exist_ok=True)
            if target.exists():
                Artifact.open(target)
        Artifact.open(target)
