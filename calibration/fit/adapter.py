"""What a fit asks the model: gradients of a batch (``adapt.onnx``) and causal predictions.

Legend: B batch, N spike tokens, Q queries, S behaviour samples, O outputs, U units, D model dim.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, CORE, Artifact
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.workers import each
from poyo_edge.core_inputs import ENCODER, ENCODER_WEIGHTS, SPIKES, no_spikes
from poyo_edge.errors import ArtifactError, BackendError
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.runtime.backends import open_ort_cpu, ort_native
from poyo_edge.runtime.core import Core
from poyo_edge.tokens import relative_times

Feeds = dict[str, npt.NDArray[Any]]
UNITS, SESSION = "unit_embedding", "session_embedding"
_log = logging.getLogger(__name__)
_LEAST_AT_ONCE, _LEARNED_AT_ONCE, _JUDGED_AT_ONCE = 2, 32, 16
"""Windows in one run of a graph: so many at least and at most."""
_VALUES_AT_ONCE = 400_000
"""Embedded spikes times their width: of more, what lies between the nodes leaves a CPU's cache; of
less, the runs themselves cost more than what is computed in them."""
_INSIDE_S = 1e-6
"""Times nearer than this are equal."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """How much each labelled sample of a window counts."""

    tail_s: float
    """The last seconds of a window, in which a sample counts in full."""
    early: float
    """What an earlier sample counts."""


class Adapter:
    """The model of one artifact, for fitting. Everything but the two tables is frozen."""

    def __init__(self, artifact: Artifact, *, threads: int = 1) -> None:
        """Open the graph of gradients and the core.

        Args:
            artifact: with ``adapt.onnx``; ``adapt.ort-cpu.onnx`` is taken where it has that too.
            threads: windows that are worked on at the same time, each by one thread.

        Raises:
            ArtifactError: the artifact has no ``adapt.onnx``, or a file is damaged.
            MissingExtraError, BackendError: ONNX Runtime is absent or cannot open a graph.
        """
        if ADAPT not in artifact.manifest.files:
            raise ArtifactError(
                artifact.path,
                ADAPT,
                expected="the graph of gradients",
                got="an artifact without one",
                do="export the checkpoint again with this version of poyo-edge",
            )
        self.artifact = artifact
        self.spec = artifact.manifest.spec
        self.window_s = self.spec.window_seconds
        self.workers = threads
        native = ort_native.faster_in_fp32(artifact.path, artifact.manifest.files[CORE].sha256)
        self.core = Core.open(artifact, backend=ort_native.NAME if native else "ort-cpu")
        self._session = _gradient_graph(artifact, native=native)
        outputs = {output.name for output in self._session.get_outputs()}
        self.fits_encoder = outputs >= {f"{ENCODER}{name}_gradient" for name in ENCODER_WEIGHTS}
        """Whether the graph gives gradients of the encoder's weights; older ones do not."""
        self._scale, self._offset = artifact.manifest.output.arrays(self.spec.dim_out)

    def gradients(
        self, batch: Feeds, units: Float32, session: Float32
    ) -> tuple[float, Float32, Float32]:
        """Loss of a batch, and its gradients with respect to units (U, D) and session (D,).

        Raises:
            BackendError: ONNX Runtime failed.
        """
        loss, found = self.gradients_of(batch, {UNITS: units, SESSION: session})
        return loss, found[UNITS], found[SESSION]

    def gradients_of(
        self, batch: Feeds, tables: Mapping[str, Float32]
    ) -> tuple[float, dict[str, Float32]]:
        """Loss of a batch, and its gradients with respect to what is given.

        The batch is run in parts; losses and gradients are weighted by the parts' labels.

        Args:
            batch: see ``batch``.
            tables: name → values, as ``adapt.onnx`` calls them: ``UNITS`` (U, D) and ``SESSION``
                (D,), and weights of the encoder where they are not the model's.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        outputs = ["loss", *(f"{name}_gradient" for name in tables)]
        sums: list[Any] = [0.0, *(np.zeros_like(table) for table in tables.values())]
        total = float(batch["target_weight"].sum())
        n_spikes = batch["spike_mask"].sum(1)
        at_once = self._at_once(int(n_spikes.max(initial=0)), _LEARNED_AT_ONCE)
        for first in range(0, len(batch["spike_unit"]), at_once):
            part = {k: v[first : first + at_once] for k, v in batch.items()}
            width = int(n_spikes[first : first + at_once].max(initial=0))
            part |= {name: part[name][:, :width] for name in SPIKES}
            try:
                found = self._session.run(outputs, {**part, **tables})
            except Exception as problem:
                raise BackendError(f"ort-cpu: {ADAPT}: {problem}") from problem
            share = np.float32(part["target_weight"].sum() / total)
            sums = [so_far + share * new for so_far, new in zip(sums, found, strict=True)]
        gradients = (np.asarray(gradient) for gradient in sums[1:])
        return float(sums[0]), dict(zip(tables, gradients, strict=True))

    def batch(self, labels: Labels, ends: Int64, weighting: Weighting) -> Feeds:
        """Windows that end at the samples ``ends`` (B,), labelled with all samples in them."""
        times = labels.times[ends]
        first = np.searchsorted(labels.times, times - self.window_s, side="left")
        spikes = self._spikes(labels, times)
        queries = first[:, None] + np.arange(int((ends - first).max()) + 1)
        inside = queries <= ends[:, None]
        queries = np.minimum(queries, ends[:, None])
        # At most T: rounding may give a query a time just outside of its window.
        start = (times - self.window_s)[:, None]
        query_time = np.clip(labels.times[queries] - start, 0.0, self.window_s)
        weight = np.where(
            query_time > self.window_s - weighting.tail_s + _INSIDE_S, 1.0, weighting.early
        )
        target = (labels.values[queries] - self._offset) / self._scale
        return {
            **spikes,
            "query_time": query_time.astype(np.float32),
            "target": target.astype(np.float32),
            "target_weight": (weight * inside).astype(np.float32),
        }

    def encoder_weights(self) -> dict[str, Float32]:
        """The model's weights of the encoder, by their names in ``ENCODER_WEIGHTS``."""
        return {name: np.asarray(self.core.weights[name], np.float32) for name in ENCODER_WEIGHTS}

    def predict(
        self,
        labels: Labels,
        samples: Int64,
        units: Float32,
        session: Float32,
        encoder: Mapping[str, Float32] | None = None,
        wiener: MixedFilter | None = None,
    ) -> Float64:
        """Causal predictions (S, O) in behaviour units: for each sample [t - T, t), query t.

        ``encoder`` are weights of the encoder that are not the model's, ``wiener`` a filter that is
        mixed with what the model decodes.
        """
        constants = self.core.constants(units, session, encoder).feeds()
        query = np.full((1, 1), self.window_s, np.float32)
        first, last = self._tokens(labels, labels.times[samples])
        at_once = self._at_once(int((last - first).max(initial=0)), _JUDGED_AT_ONCE)

        def part(first: int) -> Float64:
            times = labels.times[samples[first : first + at_once]]
            feeds = {**self._spikes(labels, times), "query_time": query.repeat(len(times), 0)}
            prediction = self.core.backend.run({**feeds, **constants})
            decoded = prediction.astype(np.float64) * self._scale + self._offset
            if wiener is not None:
                decoded = wiener.mixed_with(decoded, **feeds)
            return np.asarray(decoded[:, 0])

        parts = each(part, range(0, len(samples), at_once), self.workers)
        return np.concatenate([np.empty((0, self.spec.dim_out)), *parts])

    def _spikes(self, labels: Labels, ends: Float64) -> Feeds:
        """Spike tokens of the windows [t - T, t), the newest ``max_spikes`` of each, padded."""
        starts = ends - self.window_s
        first, last = self._tokens(labels, ends)
        at = first[:, None] + np.arange(int((last - first).max(initial=0)))
        mask = at < last[:, None]
        at = np.where(mask, at, 0)
        spikes = no_spikes(*at.shape)
        if len(labels.spike_times):
            time = relative_times(labels.spike_times[at], starts[:, None], self.window_s)
            np.copyto(spikes["spike_unit"], labels.spike_rows[at], "same_kind", where=mask)
            np.copyto(spikes["spike_time"], time, "same_kind", where=mask)
            np.copyto(spikes["spike_mask"], mask)
        return spikes

    def _tokens(self, labels: Labels, ends: Float64) -> tuple[Int64, Int64]:
        """The first spike of each window [t - T, t) that counts, and the first after it."""
        last = np.searchsorted(labels.spike_times, ends, side="left")
        first = np.searchsorted(labels.spike_times, ends - self.window_s, side="left")
        return np.maximum(first, last - self.artifact.manifest.max_spikes), last

    def _at_once(self, n_spikes: int, most: int) -> int:
        """Windows of so many spikes that one run of a graph takes."""
        fit = _VALUES_AT_ONCE // max(1, n_spikes * self.spec.dim)
        return max(_LEAST_AT_ONCE, min(most, fit))


def without_units(batch: Feeds, n_units: int, most: float, rng: np.random.Generator) -> Feeds:
    """A batch of windows (B, N) whose spikes of some units are left out: of each window a share of
    the units between 0 and ``most``."""
    units, mask = batch["spike_unit"], batch["spike_mask"]
    heard = rng.random((len(units), n_units)) >= most * rng.random((len(units), 1))
    kept = mask & np.take_along_axis(heard, units.astype(np.int64), axis=1)
    front = np.argsort(~kept, axis=1, kind="stable")  # spikes come before padding
    found = dict(batch)
    for name in SPIKES:
        found[name] = np.take_along_axis(kept if name == "spike_mask" else batch[name], front, 1)
    return found


def _gradient_graph(artifact: Artifact, *, native: bool) -> Any:
    """The graph of our operators where it was faster here, or the one made for ONNX Runtime's CPU
    provider, or the plain one where that does not open; those that are not needed are not read.
    """
    core_sha256 = artifact.manifest.files[CORE].sha256
    ours = ort_native.open_gradients(artifact.path, core_sha256) if native else None
    if ours is not None:
        return ours
    if ADAPT_ORT_CPU in artifact.manifest.files:
        try:
            return open_ort_cpu(artifact.read(ADAPT_ORT_CPU), threads=1, what=ADAPT_ORT_CPU)
        except BackendError as problem:
            _log.warning("ort-cpu: using %s, for the graph made for it: %s", ADAPT, problem)
    return open_ort_cpu(artifact.read(ADAPT), threads=1, what=ADAPT)
