"""What the trained tables say about units and sessions that nobody has seen yet.

Legend: D model dim, U units.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from poyo_edge.arrays import Float32
from poyo_edge.artifact import PRIOR, Artifact
from poyo_edge.errors import ArtifactError
from poyo_edge.files import tensors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """Mean and spread of the trained embeddings."""

    unit_mean: Float32
    """(D,)."""
    unit_root: Float32
    """(D, D): principal directions of trained units, each times the standard deviation there."""
    session_mean: Float32
    """(D,)."""

    @classmethod
    def open(cls, artifact: Artifact) -> Prior:
        """Read ``prior.safetensors`` of an artifact.

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
        arrays, _ = tensors.from_bytes(artifact.read(PRIOR), path, ArtifactError)
        shapes = {"unit_mean": (dim,), "unit_root": (dim, dim), "session_mean": (dim,)}
        return cls(
            **{
                name: tensors.require_tensor(arrays, name, shape, path, ArtifactError)
                for name, shape in shapes.items()
            }
        )

    def distance(self, units: Float32) -> Float32:
        """How far units (U, D) are from the trained ones: (U,), 1 is typical of those.

        Root mean square, over the principal directions, of the deviation from their mean in
        standard deviations.
        """
        z = np.linalg.solve(self.unit_root.astype(np.float64), (units - self.unit_mean).T)
        return np.asarray(np.sqrt((z**2).mean(0)), np.float32)
