"""Files that are never half there: whatever happens, the old one or the whole new one."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poyo_edge.artifact import MANIFEST
from poyo_edge.errors import UsageError
from poyo_edge.files import writing as files
from poyo_edge.files.writing import (
    atomic_folder,
    atomic_path,
    own_folder,
    require_free,
    safe_name,
    sha256_file,
    write_bytes,
)


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


def test_what_a_killed_writer_left_goes_with_the_next_one_and_what_another_writes_stays(
    tmp_path: Path,
) -> None:
    child = os.fork()
    if child == 0:
        writing = atomic_folder(tmp_path / "out")
        writing.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    elsewhere = tmp_path / ".out.000000deadbeef.tmp"  # of a machine whose locks nobody sees here
    elsewhere.mkdir()
    (left,) = (entry for entry in tmp_path.iterdir() if entry != elsewhere)
    with atomic_folder(tmp_path / "out") as first, atomic_folder(tmp_path / "out") as second:
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
        fill(second, "new")
    assert entries(tmp_path) == [elsewhere.name, "out"]


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
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
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


def test_a_folder_of_its_own_is_no_link_and_no_file(tmp_path: Path) -> None:
    own_folder(tmp_path / "own")
    own_folder(tmp_path / "own")
    (tmp_path / "link").symlink_to("own")
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "file").write_text("")
    for name, got in (("link", "a link"), ("nowhere", "a link"), ("file", "a file")):
        with pytest.raises(UsageError, match=f"{name}: expected a folder of .* own, got {got}"):
            own_folder(tmp_path / name)
    assert not (tmp_path / "none").exists()
