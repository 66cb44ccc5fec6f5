"""Make ``tests/data/tiny.poyo``: random weights, small enough to be committed.

Run it after a change of the core or of the file formats: ``python tests/make_tiny.py``. It needs
torch and onnx; what it makes does not.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from poyo_edge.artifact import (
    ADAPT,
    ADAPT_ORT_CPU,
    CORE,
    CORE_ORT_CPU,
    GOLDEN,
    MANIFEST,
    PRIOR,
    SESSIONS,
    WEIGHTS,
    Artifact,
    FileRecord,
    Manifest,
    Session,
)
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.files.writing import atomic_folder, sha256_file
from poyo_edge.model import POYO
from poyo_edge.spec import ModelSpec

TINY = Path(__file__).parent / "data" / "tiny.poyo"
SPEC = ModelSpec(
    dim=16,
    depth=1,
    dim_head=16,
    cross_heads=2,
    self_heads=2,
    latents_per_step=2,
    dim_out=2,
    rotating_pairs=4,
    window_s=1.0,
    latent_step_s=0.25,
)
UNITS_A = tuple(f"tiny_a/unit_{i:02d}" for i in range(12))
UNITS_B = tuple(f"tiny_b/unit_{i:02d}" for i in range(4))
SHARED = tuple(UNITS_A[i] for i in (9, 1, 5, 7, 3, 11))
MAX_SPIKES = 600
CREATED = "2025-01-01T00:00:00+00:00"


def make_tiny(out: Path) -> None:
    """Write the artifact, with the sessions "tiny_a" and "tiny_b", which share six units."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, exported = Path(folder) / "tiny.pt", Path(folder) / "tiny.poyo"
        torch.save(_state_dict(), checkpoint)
        options = ExportOptions(
            sequence_length=SPEC.window_s,
            latent_step=SPEC.latent_step_s,
            output_scale=(10.0,),
            behavior="cursor.vel",
            max_spikes=MAX_SPIKES,
        )
        export_checkpoint(checkpoint, exported, options)
        with atomic_folder(out, overwrite=True) as target:
            (target / SESSIONS).mkdir()
            for name in (CORE, CORE_ORT_CPU, ADAPT, ADAPT_ORT_CPU, WEIGHTS, PRIOR, GOLDEN):
                shutil.copyfile(exported / name, target / name)
            artifact = Artifact.open(exported)
            session_a = _dated(artifact.session("tiny_a"))
            session_b = _with_shared_units(_dated(artifact.session("tiny_b")), session_a)
            session_a.save(target / SESSIONS / "tiny_a.session")
            session_b.save(target / SESSIONS / "tiny_b.session")
            _write_manifest(target, artifact.manifest)


def _state_dict() -> dict[str, object]:
    """Weights from numpy's generator, so that they are the same with every torch.

    They are larger than those of a fresh model, most so where spikes come in: every spike has to
    show in the output.
    """
    rng = np.random.default_rng(7)
    model = POYO(SPEC, [*UNITS_A, *UNITS_B], ["tiny_a", "tiny_b"])
    for name, parameter in sorted(model.named_parameters()):
        fan_in = 1 if name.endswith("_emb.weight") else parameter.shape[-1]
        values = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(fan_in)
        if parameter.ndim == 1:
            values = 0.1 * values + float("norm" in name and name.endswith("weight"))
        if name.startswith("enc_atn.to_"):
            values *= 2.0
        parameter.data = torch.from_numpy(values.astype(np.float32))
    model.unit_emb.weight.data[0] = model.session_emb.weight.data[0] = 0.0
    state: dict[str, object] = model.state_dict()
    return state


def _dated(session: Session) -> Session:
    return dataclasses.replace(session, header=dataclasses.replace(session.header, created=CREATED))


def _with_shared_units(session: Session, other: Session) -> Session:
    """Another day's session: six units are those of ``other``, and have drifted a little."""
    rows = [other.header.unit_ids.index(unit) for unit in SHARED]
    drift = np.random.default_rng(8).standard_normal((len(rows), SPEC.dim))
    shared = other.unit_embedding[rows] + 0.1 * drift.astype(np.float32)
    return Session(
        header=dataclasses.replace(session.header, unit_ids=(*SHARED, *session.header.unit_ids)),
        unit_embedding=np.concatenate([shared, session.unit_embedding]),
        session_embedding=session.session_embedding,
    )


def _write_manifest(folder: Path, exported: Manifest) -> None:
    files = {
        file.relative_to(folder).as_posix(): FileRecord(
            sha256=sha256_file(file), size=file.stat().st_size
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = dataclasses.replace(exported, files=files, created=CREATED)
    text = json.dumps(manifest.to_json(), indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_tiny(TINY)
