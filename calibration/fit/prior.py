"""What the trained tables say about units and sessions that nobody has seen yet.

Legend: D model dim, U units.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.artifact import PRIOR, Artifact
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.files import tensors
from poyo_edge.unit_guess import GUESS, GUESS_HELD, GUESS_NAMES, GUESS_TENSORS, UnitGuess

_NOBODY = "\0"
"""No animal is called so."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """Mean and spread of the trained embeddings."""

    unit_mean: Float32
    """(D,)."""
    unit_root: Float32
    """(D, D): principal directions of trained units, each times the standard deviation there."""
    session_mean: Float32
    """(D,)."""
    guess: UnitGuess | None = None
    """What new units are like before any label; None in artifacts whose units share nothing."""
    subject: str | None = None
    """The animal that is calibrated, if it is known."""
    held: bool = False
    """Whether movements may be held in the session, as in a loop."""

    @classmethod
    def open(cls, artifact: Artifact, subject: str | None = None) -> Prior:
        """Read ``prior.safetensors`` of an artifact, for sessions of an animal.

        Raises:
            ArtifactError: absent or damaged.
        """
        path, dim = artifact.path / PRIOR, artifact.manifest.spec.dim
        if PRIOR not in artifact.manifest.files:
            raise ArtifactError(
                path,
                "file",
                expected="statistics of the trained embeddings",
                got="an artifact without them",
                do="export the checkpoint again with this version of poyo-edge",
            )
        arrays, names = tensors.from_bytes(artifact.read(PRIOR), path, ArtifactError)
        shapes = {"unit_mean": (dim,), "unit_root": (dim, dim), "session_mean": (dim,)}
        found: dict[str, Any] = {
            name: tensors.require_tensor(arrays, name, shape, path, ArtifactError)
            for name, shape in shapes.items()
        }
        return cls(
            **found,
            guess=_guess(arrays, names, path, dim) if GUESS in names else None,
            subject=subject,
        )

    @property
    def knows_animal(self) -> bool:
        """Whether training has found what units of this animal are like; an animal that nobody
        named counts as known."""
        return self.guess is not None and (
            self.subject is None or self.subject in self.guess.subjects
        )

    def of_nobody(self) -> Prior:
        """The same for an animal that training has not seen."""
        return dataclasses.replace(self, subject=_NOBODY)

    def in_control(self) -> Prior:
        """The same for a session that somebody controls: movements may be held there for longer
        than recordings have any."""
        return dataclasses.replace(self, held=True)

    def distance(self, units: Float32) -> Float32:
        """How far units (U, D) are from the trained ones: (U,), 1 is typical of those.

        Root mean square, over the principal directions, of the deviation from their mean in
        standard deviations.
        """
        z = np.linalg.solve(self.unit_root.astype(np.float64), (units - self.unit_mean).T)
        return np.asarray(np.sqrt((z**2).mean(0)), np.float32)


def _guess(arrays: tensors.Tensors, header: Mapping[str, str], path: Path, dim: int) -> UnitGuess:
    wide: dict[str, tuple[int | None, ...]] = {
        **dict.fromkeys(("shared", "weight", "session_shared", GUESS_HELD), (None, dim)),
    }
    there = (*GUESS_TENSORS, *([GUESS_HELD] if f"{GUESS}.{GUESS_HELD}" in arrays else []))
    found: dict[str, Any] = {
        name: tensors.require_tensor(
            arrays, f"{GUESS}.{name}", wide.get(name, (None,)), path, ArtifactError
        )
        for name in there
    }
    try:
        values = json.loads(header[GUESS])
        names: dict[str, Any] = {name: tuple(map(str, values[name])) for name in GUESS_NAMES}
        return UnitGuess(**found, **names)
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise ArtifactError(
            path,
            GUESS,
            expected="names and statistics that fit the tensors",
            got=str(error),
            do="export the checkpoint again with this version of poyo-edge",
        ) from None
