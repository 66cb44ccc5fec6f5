"""Files that are no checkpoint, or only a part of one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

import torch
from helpers.checkpoints.files import State, plain_pickle, save, torch_legacy, torch_zip
from torch import nn

from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.errors import CheckpointError


def write_text(path: Path) -> None:
    path.write_text("unit_emb.weight: 3\n" * 20)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as opened:
        opened["spikes/timestamps"] = np.zeros(3)


def write_npz(path: Path) -> None:
    with path.open("wb") as opened:
        np.savez(opened, a=np.zeros(3))


def write_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/data.pkl", b"\x80\x02).")


def write_truncated(path: Path, keep: float = 0.5) -> None:
    torch_zip({"a": torch.zeros(5000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def write_truncated_legacy(path: Path) -> None:
    torch_legacy({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:4000])


def write_damaged_pickle(path: Path) -> None:
    torch_zip({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes().replace(b"ctorch._utils", b"\xfftorch._utils"))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "file: expected a torch checkpoint, got no such file"),
    "folder": (lambda p: p.mkdir(), "got a folder; pass the checkpoint file inside it"),
    "empty": (lambda p: p.write_bytes(b""), "got an empty file; copy or download it again"),
    "text": (write_text, "got a file of another format"),
    "hdf5": (write_hdf5, "got an HDF5 file; pass the checkpoint, not a recording"),
    "npz": (write_npz, "got a zip archive without tensors"),
    "torchscript": (write_torchscript, "got a TorchScript archive"),
    "truncated": (write_truncated, "got a truncated or damaged file"),
    "barely truncated": (lambda p: write_truncated(p, 0.999), "got a truncated or damaged file"),
    "truncated legacy": (write_truncated_legacy, "got a truncated or damaged file"),
    "damaged": (write_damaged_pickle, "got a truncated or damaged file"),
    "plain pickle": (lambda p: plain_pickle({"a": 1}, p), "a pickle that torch did not write"),
    "one tensor": (lambda p: torch.save(torch.zeros(3), p), "content: .* got Tensor"),
    "list": (lambda p: torch.save([torch.zeros(3)], p), "content: .* got list"),
    "no tensors": (lambda p: torch.save({"a": 1}, p), r"content: .* no tensor under the keys \['a"),
    "empty dict": (lambda p: torch.save({}, p), r"content: .* no tensor under the keys \[\]"),
    "state of a list": (lambda p: torch.save({"state_dict": [1]}, p), "state_dict that is a list"),
    "numbered keys": (lambda p: torch.save({0: torch.zeros(3)}, p), "got keys that are not text"),
    "another model": (
        lambda p: torch.save(nn.Linear(2, 3).state_dict(), p),
        r"rotary_emb\.omega: expected a tensor, got no such key",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_checkpoint_are_one_sentence(file: Path, name: str) -> None:
    write, message = BAD_FILES[name]
    write(file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_flipped_byte_becomes_a_wrong_weight(state: State, file: Path) -> None:
    good = save(state, file).read_bytes()
    weights = load_checkpoint(file).weights
    rng = np.random.default_rng(0)
    n_refused = 0
    for position in rng.integers(0, len(good), 150):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        try:
            read = load_checkpoint(file).weights
        except CheckpointError:
            n_refused += 1
        else:
            assert all(torch.equal(read[key], value) for key, value in weights.items())
    assert n_refused > 75


def test_truncation_at_any_byte_is_refused(state: State, file: Path) -> None:
    good = save(state, file).read_bytes()
    for length in np.random.default_rng(0).integers(0, len(good), 40):
        file.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=r"truncated|empty|another format"):
            load_checkpoint(file)
