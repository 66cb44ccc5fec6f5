"""What the trained tables say about units and sessions that nobody has seen yet.

Legend: D model dim, U units.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from poyo_edge import tensors
from poyo_edge.artifact import PRIOR, Artifact
from poyo_edge.errors import ArtifactError

Float32 = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """Mean and spread of the trained embeddings: new ones are ``mean + root @ z``."""

    unit_mean: Float32
    """(D,)."""
    unit_root: Float32
    """(D, D), a root of the covariance of trained unit embeddings."""
    session_mean: Float32
    """(D,)."""
    session_root: Float32
    """(D, D)."""

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
        shapes = {field.name: (dim, dim) for field in dataclasses.fields(cls)}
        shapes |= {"unit_mean": (dim,), "session_mean": (dim,)}  # type: ignore[dict-item]
        return cls(
            **{
                name: tensors.require_tensor(arrays, name, shape, path, ArtifactError)
                for name, shape in shapes.items()
            }
        )

    def unit_z(self, embeddings: Float32) -> Float32:
        """z (U, D) of unit embeddings (U, D)."""
        return np.linalg.solve(self.unit_root, (embeddings - self.unit_mean).T).T.astype(np.float32)

    def session_z(self, embedding: Float32) -> Float32:
        """z (D,) of a session embedding (D,)."""
        return np.linalg.solve(self.session_root, embedding - self.session_mean).astype(np.float32)

    def embeddings(self, unit_z: Float32, session_z: Float32) -> tuple[Float32, Float32]:
        """Unit embeddings (U, D) and session embedding (D,) of z."""
        units = self.unit_mean + unit_z @ self.unit_root.T
        session = self.session_mean + self.session_root @ session_z
        return units.astype(np.float32), session.astype(np.float32)
