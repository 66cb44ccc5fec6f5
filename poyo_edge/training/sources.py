"""From a recipe's sources to sessions that passed the checks.

Legend: S behaviour samples, O outputs, K intervals.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.errors import MissingExtraError, RecordingError, UsageError
from poyo_edge.recording.given import require_measured
from poyo_edge.recording.other_files import convert_command, other_kind
from poyo_edge.recording.reading import listing
from poyo_edge.recording.recording import first_seconds
from poyo_edge.recording.units import require_unit, same_unit
from poyo_edge.spec import OutputScale
from poyo_edge.training.lazy import LazyRecording
from poyo_edge.training.recipe import Recipe, Source

Told = Callable[[int, int, str], None]
"""Told how many recordings have been checked, how many there are, and which one it was."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingSession:
    """A recording that passed the checks, and where and in which scale to train on it."""

    recording: LazyRecording
    source: str
    """Name of its source in the recipe."""
    intervals: Float64
    """(K, 2) float64 seconds of the split."""
    scale: OutputScale
    n_samples: int
    """Behaviour samples in the split."""
    mean: Float64
    """(O,) of the behaviour in the split."""
    sd: Float64

    @property
    def session_id(self) -> str:
        """Name of the session in the model."""
        return self.recording.session_id

    @property
    def seconds(self) -> float:
        """Length of the split."""
        return float((self.intervals[:, 1] - self.intervals[:, 0]).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A file of a source, and what a dataset class of torch_brain says about it."""

    source: str
    path: Path
    intervals: Float64 | None = None
    unit_ids: tuple[str, ...] | None = None


def open_sessions(
    data: str | Path | Sequence[str | Path], recipe: Recipe, on_progress: Told | None = None
) -> list[TrainingSession]:
    """Find and check all recordings of a recipe.

    Args:
        data: the folder that the recipe's sources are looked up in, or the files themselves,
            which then all belong to the recipe's only source.
        recipe: what to look for, and how to read it.
        on_progress: told after each recording.

    Raises:
        RecordingError: a recording cannot be used: no such behaviour or split, a session that
            occurs twice, NaN, behaviour that never changes, no window that fits.
        UsageError: no recording at all, no such folder, or no such dataset class.
    """
    found = list(_files(data, recipe))
    if not found:
        raise UsageError("recordings: expected at least one file, got none")
    sessions = []
    for count, one in enumerate(found, start=1):
        sessions.append(_open(one, recipe))
        if on_progress is not None:
            on_progress(count, len(found), one.path.name)
    _check_distinct(sessions)
    return _scaled(sessions, recipe.data)


def _files(data: str | Path | Sequence[str | Path], recipe: Recipe) -> Iterable[_Found]:
    if not isinstance(data, (str, Path)):
        if len(recipe.data) > 1:
            raise UsageError(
                f"data: expected a folder for a recipe with {len(recipe.data)} sources, got files"
            )
        return [_Found(source=next(iter(recipe.data)), path=Path(path)) for path in data]
    root = Path(data)
    if root.is_file():
        return _files([root], recipe)
    if not root.is_dir():
        raise UsageError(f"{root}: expected a folder of recordings, got none; check --data")
    return [
        one
        for name, source in recipe.data.items()
        for one in (
            _of_class(name, source, root)
            if source.dataset
            else _of_folder(name, source, root / source.folder)
        )
    ]


def _of_folder(name: str, source: Source, folder: Path) -> list[_Found]:
    stems = _matching(name, source, folder)
    return [_Found(source=name, path=folder / f"{stem}.h5") for stem in stems]


def _matching(name: str, source: Source, folder: Path) -> list[str]:
    stems = sorted(path.stem for path in folder.glob("*.h5"))
    chosen = [s for s in stems if any(fnmatch.fnmatchcase(s, p) for p in source.recordings)]
    if not chosen:
        do = f"correct --data or data.{name}.recordings"
        others = sorted(folder.iterdir()) if folder.is_dir() and not stems else []
        other = next((one for one in others[:100] if _is_readable(one)), None)
        if other is not None:
            do = f"make recordings of its files first, like: {convert_command(other)}"
        raise UsageError(
            f"data.{name}: expected recordings {', '.join(source.recordings)} (*.h5) in {folder}, "
            f"got {len(stems)} files of other names; {do}"
        )
    return chosen


def _is_readable(path: Path) -> bool:
    kind = other_kind(path)
    return kind is not None and kind.readable


def _of_class(name: str, source: Source, root: Path) -> list[_Found]:
    """Recordings, units and intervals as one of torch_brain's dataset classes gives them."""
    cls = dataset_class(source.dataset)
    folder = root / inspect.signature(cls).parameters["dirname"].default
    if not folder.is_dir():
        raise UsageError(
            f"data.{name}: expected the folder {folder} of {source.dataset}, got none; prepare "
            f"the data with torch_brain's brainsets pipeline, or correct --data"
        )
    stems = _matching(name, source, folder)
    dataset = cls(root=str(root), recording_ids=stems)
    try:
        intervals = dataset.get_sampling_intervals(source.split)
    except (AttributeError, KeyError) as error:
        raise UsageError(
            f"data.{name}: expected the split {source.split!r} in all recordings of "
            f"{source.dataset}, got one without it ({error})"
        ) from None
    found = []
    for stem in stems:
        spans = np.stack([intervals[stem].start, intervals[stem].end], axis=-1)
        ids = dataset.get_recording(stem).units.id
        found.append(
            _Found(
                source=name,
                path=folder / f"{stem}.h5",
                intervals=np.asarray(spans, dtype=np.float64),
                unit_ids=tuple(source.prefix + str(i) for i in ids),
            )
        )
    return found


def dataset_class(name: str) -> Any:
    """A dataset class of torch_brain for recordings of spikes, by its name.

    Raises:
        UsageError: torch_brain has none of that name.
        MissingExtraError: torch_brain is not installed.
    """
    try:
        from torch_brain import datasets
    except ImportError as error:
        raise MissingExtraError("torch_brain", "train", "reading torch_brain's datasets") from error
    known = [
        key
        for key, value in vars(datasets).items()
        if inspect.isclass(value)
        and issubclass(value, datasets.Dataset)
        and hasattr(value, "get_unit_ids")
        and "dirname" in inspect.signature(value).parameters
    ]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(
            f"dataset: expected one of torch_brain's {listing(known)}, got {name!r}{meant}"
        )
    return getattr(datasets, name)


def _open(found: _Found, recipe: Recipe) -> TrainingSession:
    source = recipe.data[found.source]
    recording = LazyRecording.open(found.path, source.behavior, source.weights, source.prefix)
    recording.in_memory = recipe.in_memory
    require_measured(found.path, source.behavior)
    require_unit(
        found.path, source.behavior, recording.behavior_unit, OutputScale(unit=source.unit)
    )
    if found.unit_ids is not None:
        recording.unit_ids = found.unit_ids
    intervals = found.intervals
    if intervals is None:
        intervals = _split(recording, source.split)
    intervals = first_seconds(intervals, source.seconds or None)
    _check_windows(recording, intervals, source.split, recipe.spec.window_s)
    _, values = recording.samples(intervals)
    _check_behavior(recording.path, values, source, recipe.spec.dim_out)
    return TrainingSession(
        recording=recording,
        source=found.source,
        intervals=intervals,
        scale=source.output or OutputScale(),
        n_samples=len(values),
        mean=values.mean(axis=0),
        sd=values.std(axis=0),
    )


def _split(recording: LazyRecording, split: str) -> Float64:
    if split not in recording.domains:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"one of the splits {listing(recording.domains)}",
            got=repr(split),
            do="choose one of them or add the split to the recording",
        )
    return recording.domains[split]


def _check_windows(
    recording: LazyRecording, intervals: Float64, split: str, window_s: float
) -> None:
    longest = float(np.max(intervals[:, 1] - intervals[:, 0], initial=0.0))
    if longest < window_s:
        raise RecordingError(
            recording.path,
            f"{split}_domain",
            expected=f"an interval of at least one window ({window_s} s)",
            got=f"{len(intervals)} intervals, the longest of {longest:.3f} s",
            do="leave this recording out or correct the split",
        )


def _check_behavior(path: Path, values: Float64, source: Source, dim_out: int) -> None:
    spread = values.std(axis=0) if len(values) else np.zeros(values.shape[1])
    if values.shape[1] != dim_out:
        expected, got = f"{dim_out} dimensions", f"{values.shape[1]}"
    elif not (spread > 0).all():
        expected = f"values that change in the {source.split} split"
        got = f"{len(values)} samples with standard deviation {spread.tolist()}"
    else:
        return
    do = "choose another behaviour or leave this recording out"
    raise RecordingError(path, source.behavior, expected=expected, got=got, do=do)


def _check_distinct(sessions: Sequence[TrainingSession]) -> None:
    owners: dict[str, Path] = {}
    for recording in (s.recording for s in sessions):
        if recording.session_id in owners:
            raise RecordingError(
                recording.path,
                "session id",
                expected="a name that no other recording has",
                got=f"{recording.session_id!r}, also in {owners[recording.session_id]}",
                do="give each session once, or one of their sources a prefix in the recipe",
            )
        owners[recording.session_id] = recording.path


def _scaled(
    sessions: Sequence[TrainingSession], sources: Mapping[str, Source]
) -> list[TrainingSession]:
    """Sources without a scale get the mean and standard deviation of all their sessions, and
    those without a unit the one that all their recordings state."""
    scales = dict[str, OutputScale]()
    for name, source in sources.items():
        alike = [s for s in sessions if s.source == name]
        if alike:
            scale = source.output or _measured(alike)
            scales[name] = dataclasses.replace(scale, unit=source.unit or _stated_unit(alike))
    return [dataclasses.replace(session, scale=scales[session.source]) for session in sessions]


def _stated_unit(sessions: Sequence[TrainingSession]) -> str:
    """The unit of the behaviour that all recordings state; "" where one states none.

    Raises:
        RecordingError: two state different ones.
    """
    stated = [s.recording for s in sessions if s.recording.behavior_unit]
    for other in stated[1:]:
        first = stated[0]
        require_unit(
            other.path, other.behavior, other.behavior_unit, OutputScale(unit=first.behavior_unit)
        )
        if not same_unit(other.behavior_unit, first.behavior_unit):
            raise RecordingError(
                other.path,
                other.behavior,
                expected=f"values in {first.behavior_unit}, as in {first.path.name}",
                got=other.behavior_unit,
                do="train on recordings in one unit, or give the recipe a source for each",
            )
    return stated[0].behavior_unit if len(stated) == len(sessions) else ""


def _measured(sessions: Sequence[TrainingSession]) -> OutputScale:
    share = np.array([s.n_samples for s in sessions]) / sum(s.n_samples for s in sessions)
    mean = sum(w * s.mean for w, s in zip(share, sessions, strict=True))
    square = sum(w * (s.sd**2 + (s.mean - mean) ** 2) for w, s in zip(share, sessions, strict=True))
    return OutputScale(
        scale=tuple(math.sqrt(x) for x in np.atleast_1d(square)),
        offset=tuple(float(x) for x in np.atleast_1d(mean)),
    )
