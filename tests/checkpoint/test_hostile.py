"""Nothing that a checkpoint's pickle asks for is ever done."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

import torch
from helpers.checkpoints.canary import Canary
from helpers.checkpoints.files import (
    SPEC,
    UNITS,
    WRITERS,
    State,
    assert_decodes_like,
    lightning,
    numpy_words,
    plain_pickle,
    save,
)
from helpers.commands import run_python
from torch import nn

from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.errors import CheckpointError


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("place", ["alone", "hyper_parameters", "vocab"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    state: State, file: Path, tmp_path: Path, write: Callable[[object, Path], None], place: str
) -> None:
    canary = Canary(tmp_path / "canary")
    content: object = canary
    if place == "hyper_parameters":
        content = lightning(state, {"model": canary})
    if place == "vocab" and write is not plain_pickle:
        content = {**state, "unit_emb.vocab": canary}
    write(content, file)
    with pytest.raises(CheckpointError, match=r"the global '(builtins\.)?exec'") as caught:
        load_checkpoint(file)
    assert "it was refused and did not run" in str(caught.value)
    assert not canary.path.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_the_malicious_pickle_would_run_without_protection(
    file: Path, tmp_path: Path, write: Callable[[object, Path], None]
) -> None:
    write(Canary(tmp_path / "canary"), file)
    if write is plain_pickle:
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (np.zeros(3), r"numpy\._?core.multiarray._reconstruct"),
        (np.int64(3), "numpy.dtype"),
        (Path("x"), "pathlib"),
    ],
)
def test_a_pickled_object_is_refused_by_name(
    state: State, file: Path, extra: object, name: str
) -> None:
    with pytest.raises(CheckpointError, match=f"the global '{name}"):
        load_checkpoint(save({**state, "extra": extra}, file))


def test_old_numpy_names_of_string_scalars_are_read(state: State, file: Path) -> None:
    save(numpy_words(state), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"numpy._core.multi", b"numpy.core.multi"))
    checkpoint = load_checkpoint(file)
    assert list(checkpoint.unit_vocab) == ["NA", *UNITS]


def test_a_pickled_module_beside_the_weights_is_never_built(
    oracle: Any, state: State, file: Path
) -> None:
    checkpoint = load_checkpoint(save(lightning(state, {"model": nn.Linear(2, 2)}), file))
    assert_decodes_like(checkpoint, oracle)


def test_a_pickled_module_among_the_weights_is_refused_by_its_class(
    state: State, file: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"extra: .* got torch\.nn\.modules\.linear\.Linear"):
        load_checkpoint(save({**state, "extra": nn.Linear(2, 2)}, file))


def test_a_tensor_that_repeats_itself_beyond_the_limit_is_refused(state: State, file: Path) -> None:
    state["readout.weight"] = torch.zeros(1).expand(1 << 34)
    with pytest.raises(CheckpointError, match="within its limits of memory and time"):
        load_checkpoint(save(state, file))


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(state: State, file: Path) -> None:
    save(state, file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/bomb", bytes(1 << 22))
    with pytest.raises(CheckpointError, match=r"an archive of \d+ bytes that unpacks to \d+"):
        load_checkpoint(file)


def test_the_child_that_reads_can_open_nothing() -> None:
    code = (
        "import os, socket\n"
        "from poyo_edge.checkpoint.unpickling import _confine\n"
        "_confine(0)\n"
        "for attempt in (lambda: os.open('/dev/null', 0), socket.socket):\n"
        "    try:\n        attempt()\n"
        "    except OSError:\n        continue\n"
        "    os._exit(1)\n"
    )
    assert run_python(code).returncode == 0


@pytest.fixture
def _no_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("_no_checksums")
def test_files_without_checksums_are_read(state: State, file: Path) -> None:
    save(state, file)
    with zipfile.ZipFile(file) as archive:
        assert not any(info.CRC for info in archive.infolist())
    assert load_checkpoint(file).spec == SPEC
    save({**state, "extra": Path("x")}, file)
    with pytest.raises(CheckpointError, match=r"the global 'pathlib"):
        load_checkpoint(file)


def test_legacy_torch_files_are_read(oracle: Any, state: State, file: Path) -> None:
    save(state, file, _use_new_zipfile_serialization=False)
    assert_decodes_like(load_checkpoint(file), oracle)
