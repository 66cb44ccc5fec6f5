"""A checkpoint as a decoder of windows, in batches, for evaluation on a workstation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch_brain.batching import collate, pad8, track_mask8

from poyo_edge.arrays import Float64
from poyo_edge.checkpoint import load_checkpoint
from poyo_edge.checkpoint.readouts import readouts_of
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.spec import OutputScale
from poyo_edge.tokens import latent_tokens, relative_times, window_tokens
from poyo_edge.training.lazy import Cut, LazyRecording, unit_names
from poyo_edge.training.validation import predict

BATCH = 32


class TorchDecoder:
    """A checkpoint of torch_brain's layouts; sessions are scaled as the file says of each.

    Raises:
        CheckpointError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        self.spec = checkpoint.spec
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = checkpoint.model().to(self._device)
        self._units, self._sessions = checkpoint.unit_vocab, checkpoint.session_vocab
        self._filters = checkpoint.filters
        self._scale = checkpoint.output
        readouts = readouts_of(path)
        self._scales = {name: scale for name, (scale, _) in readouts.items()}
        behaviors = {behavior for _, behavior in readouts.values() if behavior}
        self.behavior = behaviors.pop() if len(behaviors) == 1 else ""
        index, times = latent_tokens(self.spec)
        self._latents = {"latent_index": index, "latent_timestamps": times.astype(np.float32)}

    def knows(self, recording: LazyRecording) -> bool:
        """Whether the session has a row in the checkpoint."""
        return recording.session_id in self._sessions

    def output(self, recording: LazyRecording) -> OutputScale:
        """Scale and unit of what is decoded."""
        return self._scales.get(recording.session_id, self._scale)

    def decode(
        self, recording: LazyRecording, windows: Sequence[tuple[float, Float64]]
    ) -> Iterator[Float64]:
        """Behaviour (Q, O) of each window, given by its start and its queries (Q,) in seconds."""
        window_s = self.spec.window_seconds
        scale, offset = self.output(recording).arrays(self.spec.dim_out)
        rows, mixed = self._rows(recording), self._mixed(recording)
        for first in range(0, len(windows), BATCH):
            some = windows[first : first + BATCH]
            cuts = [recording.cut(start, start + window_s) for start, _ in some]
            batch = collate(
                [
                    self._inputs(recording.session_id, cut, rows, *window)
                    for cut, window in zip(cuts, some, strict=True)
                ]
            )
            found = predict(self._model, batch, self._device)
            for values, cut, (start, queries) in zip(found, cuts, some, strict=True):
                decoded = values[: len(queries)] * scale + offset
                if mixed is not None:
                    decoded = mixed.mixed_with(
                        decoded,
                        cut.spike_units.astype(np.int32),
                        relative_times(cut.spike_times, start, window_s),
                        (queries - start).astype(np.float32),
                    )
                yield decoded

    def _rows(self, recording: LazyRecording) -> npt.NDArray[np.int64]:
        names = unit_names(recording, self._units)
        return np.array([self._units.get(name, 0) for name in names], dtype=np.int64)

    def _mixed(self, recording: LazyRecording) -> MixedFilter | None:
        """The session's filter, for the recording's units."""
        named = self._filters.get(recording.session_id)
        return None if named is None else named.of(unit_names(recording, named.unit_ids))

    def _inputs(
        self,
        session_id: str,
        cut: Cut,
        rows: npt.NDArray[np.int64],
        start: float,
        queries: Float64,
    ) -> dict[str, Any]:
        window_s = self.spec.window_seconds
        known = rows > 0
        place = np.cumsum(known) - 1
        kept = known[cut.spike_units]
        units = place[cut.spike_units[kept]]
        tokens = window_tokens(cut.spike_times[kept] - start, units, int(known.sum()), window_s)
        return {
            "input_unit_index": pad8(rows[known][tokens.unit]),
            "input_timestamps": pad8(tokens.time.astype(np.float32)),
            "input_token_type": pad8(tokens.type),
            "input_mask": track_mask8(tokens.unit),
            **self._latents,
            "session_index": self._sessions[session_id],
            "output_timestamps": pad8((queries - start).astype(np.float32)),
        }
