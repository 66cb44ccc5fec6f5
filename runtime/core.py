"""An opened core: a backend plus what turns embeddings and spikes into its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32
from poyo_edge.artifact import CORE, CORE_CPU, CORE_ORT_CPU, Artifact, Session
from poyo_edge.files.tensors import Tensors
from poyo_edge.runtime.backends import Backend, Beside, open_backend
from poyo_edge.runtime.constants import SessionConstants, constant_shapes, session_constants


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The core of one artifact on one backend. Holds no stream state."""

    artifact: Artifact
    backend: Backend
    weights: Tensors

    @classmethod
    def open(cls, artifact: Artifact, *, backend: str = "auto", threads: int = 1) -> Core:
        """Open the core of a checked artifact.

        Raises:
            ArtifactError: a file of the artifact is damaged.
            UsageError, MissingExtraError, BackendError: see ``open_backend``.
        """
        beside = Beside(
            folder=artifact.path,
            core_sha256=artifact.manifest.files[CORE].sha256,
            max_spikes=artifact.manifest.max_spikes,
            fused=artifact.read_optional(CORE_ORT_CPU),
            native=artifact.read_optional(CORE_CPU),
        )
        return cls(
            artifact=artifact,
            backend=open_backend(backend, artifact.read(CORE), threads=threads, beside=beside),
            weights=artifact.weights(constant_shapes(artifact.manifest.spec)),
        )

    def constants(
        self,
        unit_embedding: Float32,
        session_embedding: Float32,
        encoder: Mapping[str, Float32] | None = None,
    ) -> SessionConstants:
        """The session's inputs.

        Args:
            unit_embedding: (U, D).
            session_embedding: (D,).
            encoder: weights of ``ENCODER_WEIGHTS`` that the session has of its own.

        Raises:
            UsageError: a shape is wrong or a value is not finite.
        """
        weights = self.weights if encoder is None else {**self.weights, **encoder}
        spec = self.artifact.manifest.spec
        return session_constants(spec, weights, unit_embedding, session_embedding)

    def constants_of(self, session: Session) -> SessionConstants:
        """The inputs of a session of this core. See ``constants``."""
        return self.constants(session.unit_embedding, session.session_embedding, session.encoder)

    def predict(
        self,
        constants: SessionConstants,
        spike_time: Float32,
        spike_unit: npt.NDArray[np.int32],
        query_time: Float32,
    ) -> Float32:
        """Predictions of one window, (Q, O) float32 in the model's scale.

        Args:
            constants: of the session.
            spike_time: (N,) float32, seconds from the start of the window.
            spike_unit: (N,) int32, rows of the session's units.
            query_time: (Q,) float32, seconds from the start of the window.
        """
        feeds = {
            "spike_unit": spike_unit[None],
            "spike_time": spike_time[None],
            "spike_mask": np.ones((1, len(spike_time)), np.bool_),
            "query_time": query_time[None],
            **constants.feeds(),
        }
        return np.asarray(self.backend.run(feeds)[0])

    def warm_up(self, constants: SessionConstants) -> None:
        """Run windows of several sizes, so that the first real one pays for no set-up."""
        window_s, most = (
            self.artifact.manifest.spec.window_seconds,
            self.artifact.manifest.max_spikes,
        )
        for count in (min(n, most) for n in (0, 256, 1023)):
            times = np.linspace(0, window_s, count, endpoint=False, dtype=np.float32)
            rows, query = np.zeros(count, np.int32), np.array([window_s], np.float32)
            self.predict(constants, times, rows, query)
