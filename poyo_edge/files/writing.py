"""Files that are never half there: temporary name, fsync, rename; and their checksums."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.files.locks import gets_lock

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux's <fcntl.h>."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well.

    On an exception the temporary file is removed and an older ``path`` is left as it was.

    Raises:
        UsageError: the parent folder does not exist.
    """
    target = Path(path)
    require_folder(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(target)
        fsync(target.parent)
    except OSError as error:
        if error.errno:  # a full disk does not say of what
            error.filename = error.filename or str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` is either the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def keep_previous(path: str | Path) -> None:
    """Let a file that is about to be replaced stay beside as ``NAME.previous``."""
    path = Path(path)
    if path.is_file():
        with atomic_path(path.with_name(f"{path.name}.previous")) as temporary:
            shutil.copyfile(path, temporary)


@contextlib.contextmanager
def atomic_folder(
    path: str | Path, *, overwrite: bool = False, marker: str = "manifest.json"
) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well.

    With ``overwrite``, an existing folder is replaced, but only one that holds ``marker``. What a
    killed process had begun to write under the same name is removed.

    Raises:
        UsageError: see ``require_free``.
    """
    target = Path(path)
    require_free(target, overwrite=overwrite, marker=marker)
    _remove_abandoned(target)
    temporary, writer = _own_temporary(target)
    aside = temporary.with_suffix(".old")
    try:
        yield temporary
        for item in sorted(temporary.rglob("*"), reverse=True):
            fsync(item)
        fsync(temporary)
        _put_in_place(temporary, target, aside)
        fsync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(writer)


def require_free(target: Path, *, overwrite: bool, marker: str = "manifest.json") -> None:
    """Refuse a folder name that cannot be written.

    Raises:
        UsageError: ``target`` exists and is no folder with a file ``marker``, or ``overwrite`` is
            false; or its parent does not exist or cannot be written.
    """
    require_folder(target)
    if not os.path.lexists(target):
        return
    ours = target.is_dir() and not target.is_symlink() and (target / marker).is_file()
    if not (ours and overwrite):
        hint = "choose another with -o or pass --overwrite" if ours else "choose another with -o"
        got = "an artifact" if ours else "something else"
        raise UsageError(
            f"{target}: expected a name that is free, got one where {got} exists; {hint}"
        )


def require_folder(target: Path) -> None:
    """Refuse a name in a folder that does not exist or cannot be written.

    Raises:
        UsageError: its parent is no folder, or one that cannot be written.
    """
    if not target.parent.is_dir():
        raise UsageError(
            f"{target}: expected an existing folder to write into, got {str(target.parent)!r}, "
            f"which is none; create it or choose another"
        )
    if not os.access(target.parent, os.W_OK):
        raise UsageError(
            f"{target}: expected a parent folder that can be written, got {target.parent}, which "
            f"cannot; choose another with -o"
        )


def own_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder inside an artifact where there is none. An artifact may come from anyone, and
    a link in it from there could lead anywhere.

    Raises:
        UsageError: a link or a file is there.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        got = "a link" if path.is_symlink() else "a file"
        raise UsageError(f"{path}: expected a folder of the artifact's own, got {got}; remove it")
    path.mkdir(mode=mode, exist_ok=True)


def fsync(path: Path) -> None:
    """Ask the system to keep a file's contents, or a folder's entries, through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(values: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal of JSON values, whatever the order of their keys."""
    return sha256_bytes(json.dumps(values, sort_keys=True).encode())


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def safe_name(identifier: str) -> str:
    """A file name for any id: ``/`` and other unsafe characters become ``_``.

    Ids that had to be changed get a short checksum, so that two ids never share a name.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", identifier)[:100].lstrip(".") or "_"
    return name if name == identifier else f"{name}-{sha256_bytes(identifier.encode())[:8]}"


def _own_temporary(target: Path) -> tuple[Path, int]:
    """A new folder beside the target, and a descriptor with the lock on it, which says that its
    writer lives. Its name says on which machine: locks on folders hold on one."""
    while True:
        temporary = target.with_name(f".{target.name}.{_machine()}{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
        writer = os.open(temporary, os.O_RDONLY)
        gets_lock(writer)
        if temporary.is_dir():  # nobody took it for abandoned before the lock was there
            return temporary, writer
        os.close(writer)


def _remove_abandoned(target: Path) -> None:
    """What killed processes of this machine left of the same target."""
    name = re.compile(rf"\.{re.escape(target.name)}\.{_machine()}[0-9a-f]{{8}}\.tmp")
    for beside in target.parent.iterdir():
        if not name.fullmatch(beside.name) or beside.is_symlink() or not beside.is_dir():
            continue
        with contextlib.suppress(OSError):  # it may be another user's
            descriptor = os.open(beside, os.O_RDONLY)
            try:
                if gets_lock(descriptor):
                    shutil.rmtree(beside, ignore_errors=True)
            finally:
                os.close(descriptor)


@functools.cache
def _machine() -> str:
    return sha256_bytes(platform.node().encode())[:6]


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, so that no kill finds one missing; False where the system
    or the file system cannot (``renameat2`` of Linux)."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = ctypes.c_int(_AT_FDCWD)
    names = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    failed = rename(here, names[0], here, names[1], ctypes.c_uint(_RENAME_EXCHANGE))
    return not failed


def _put_in_place(new: Path, target: Path, aside: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    if _exchange(new, target):
        shutil.rmtree(new)
        return
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)
