"""The object with operators of our own: found, compiled, and loaded only if it is what it says."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poyo_edge.errors import BackendError, UsageError
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends import BACKENDS, kernel_library
from poyo_edge.runtime.backends.kernel_library import NAME, KernelLibrary
from poyo_edge.runtime.backends.machine import this_machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place where it looks."""
    monkeypatch.setattr(kernel_library, "cache_folder", lambda: tmp_path / "cache")
    kernel_library.look_again()
    yield tmp_path / "cache"
    monkeypatch.undo()
    kernel_library.look_again()


def reason() -> str:
    """Why there is none."""
    kernel_library.look_again()
    assert kernel_library.find_library() is None
    return kernel_library.why_absent()


def test_without_one_the_backend_is_missing_and_says_what_brings_it(folder: Path) -> None:
    why = reason()
    info = BACKENDS["ort-native"].look(this_machine())
    assert not info.present
    if not why.startswith("no kernels for"):
        assert "poyo-edge build ARTIFACT --target cpu" in why
        assert "sudo apt install g++" in why
    assert not folder.exists()  # looking writes nothing


def test_without_a_compiler_nothing_is_compiled(folder: Path) -> None:
    with pytest.raises(BackendError, match=r"expected a C\+\+ compiler .*sudo apt install g\+\+"):
        kernel_library.compile_library()


def test_a_compiler_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    compiler.chmod(0o755)
    with pytest.raises(BackendError, match="failed: it is broken"):
        kernel_library.compile_library(compiler=str(compiler))
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="expected a folder to write to"):
        kernel_library.compile_library(tmp_path / "file" / "x", compiler="true")


def test_one_that_was_compiled_is_found_and_says_its_instructions(kernels: KernelLibrary) -> None:
    assert kernels.instructions in ("avx512", "avx2", "sse2", "neon")
    assert kernels.choose() == kernels.instructions
    info = BACKENDS["ort-native"].look(this_machine())
    assert info.present
    assert info.reason.endswith(f"of our own for {kernels.instructions} in {kernels.path}")
    with pytest.raises(BackendError, match="expected some that this processor has"):
        kernels.choose("avx1024")


DAMAGES: dict[str, tuple[dict[str, Any] | None, str]] = {
    "a byte": ({}, "sha256: expected"),
    "another machine": ({"machine": "riscv64"}, "got one for riscv64"),
    "other sources": ({"sources": "0" * 64}, "got one of other sources"),
    "no record": (None, "expected a record of what it is beside it"),
    "a wrong record": ({"compiler": 3}, "expected a record of what it is beside it"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_that_is_not_what_it_says_is_not_loaded(
    compiled: Path, folder: Path, damage: str
) -> None:
    changes, sentence = DAMAGES[damage]
    shutil.copytree(compiled, folder)
    record = folder / (NAME + ".json")
    if changes is None:
        record.unlink()
    else:
        values: dict[str, Any] = json.loads(record.read_text()) | changes
        record.write_text(json.dumps(values))
    if damage == "a byte":
        data = bytearray((folder / NAME).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / NAME).write_bytes(data)
    assert sentence in reason()


def test_a_file_that_is_no_library_is_refused_though_its_record_fits(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"\x7fELF nothing")
    made = kernel_library.Made(
        sha256=sha256_bytes(b"\x7fELF nothing"),
        sources=kernel_library.sources_hash(),
        machine=platform.machine(),
        compiler="c++",
    )
    (folder / (NAME + ".json")).write_text(json.dumps(made.to_json()))
    assert "expected a library that can be loaded" in reason()
