"""How a model is trained: sizes, data, optimiser and run, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from poyo_edge.errors import UsageError
from poyo_edge.records import JsonRecord
from poyo_edge.spec import ModelSpec, OutputScale

SHARED = ("", "electrode")
OPTIMIZERS = ("adamw", "sparse-lamb")
PRECISIONS = ("32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu")
RUN_KEYS = ("about", "threads", "workers", "devices", "nodes", "accelerator", "checkpoint_every",
            "validate_every", "validate_samples", "in_memory")  # fmt: skip
"""What may differ between a run and its continuation: nothing of it touches the weights."""
AS_TRAINED = ("ffn_dropout", "lin_dropout", "atn_dropout", "unit_dropout", "unit_dropout_peak",
              "tail_s", "tail_weight", "recency_s", "end_at_samples", "held_share", "held_piece_s",
              "held_lead_s")  # fmt: skip
"""What a recipe may leave to the checkpoint that it begins with: what is left out of the model and
of its windows, and how their samples count. A model that was trained without dropout loses by it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(JsonRecord):
    """Recordings that are read alike."""

    dataset: str = ""
    """A dataset class of torch_brain, like "PerichMillerPopulation2018"; empty for a folder."""
    folder: str = "."
    """Folder of the files below the data folder, when no class is named."""
    recordings: tuple[str, ...] = ("*",)
    """Patterns of file names without ``.h5``."""
    behavior: str = "cursor.vel"
    """What is decoded, GROUP.KEY."""
    scale: tuple[float, ...] = ()
    """Behaviour units per model unit; empty takes the standard deviation in the split."""
    offset: tuple[float, ...] = (0.0,)
    """Behaviour at the model's 0; taken from the data when the scale is."""
    unit: str = ""
    """Of the behaviour, such as "cm/s"."""
    split: str = "train"
    """The split that is trained on."""
    seconds: float = 0.0
    """Of the split of each recording, the first ones; 0 takes all."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Interval of the recording → weight of the samples in it; they multiply where they overlap."""
    prefix: str = ""
    """Put before session and unit ids, for sources whose ids would collide."""

    def __post_init__(self) -> None:
        if not self.recordings:
            raise UsageError("recordings: expected at least one pattern, got none")
        group, _, key = self.behavior.partition(".")
        if not group or not key:
            raise UsageError(f"behavior: expected GROUP.KEY, got {self.behavior!r}")
        if not 0 <= self.seconds < math.inf:
            raise UsageError(f"seconds: expected a number >= 0, got {self.seconds!r}")
        for name, weight in self.weights.items():
            if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise UsageError(f"weights.{name}: expected a number >= 0, got {weight!r}")
        _ = self.output

    @property
    def output(self) -> OutputScale | None:
        """The scale, or None when it is to be measured."""
        if not self.scale:
            return None
        return OutputScale(scale=self.scale, offset=self.offset, unit=self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(JsonRecord):
    """How a model is trained."""

    about: str = ""
    """What the recipe is for, in a sentence."""
    spec: ModelSpec
    """Sizes of the model; the table ``[model]`` of a file."""
    data: Mapping[str, Source] = field(default_factory=lambda: {"recordings": Source()})
    """Name → recordings that are read alike; the tables ``[data.NAME]``."""
    steps: int = 0
    """Optimiser steps; or give ``epochs`` or ``steps_per_session``."""
    steps_per_session: int = 0
    """Optimiser steps for each session; or give ``steps`` or ``epochs``."""
    epochs: int = 0
    """Rounds through all windows; or give ``steps``."""
    as_trained: tuple[str, ...] = ()
    """Keys of ``AS_TRAINED`` that are the checkpoint's which the run begins with, if it says them;
    one that is given with ``--set`` is taken off."""
    batch_size: int = 32
    """Windows in a step, of all devices together."""
    at_once: int = 0
    """Windows that go through the model at once, on each device; 0 takes all of a step."""
    optimizer: str = "adamw"
    """"adamw" or "sparse-lamb"."""
    lr: float = 0.0
    """Peak of the one-cycle schedule; or give ``base_lr``."""
    base_lr: float = 0.0
    """The peak divided by ``batch_size``."""
    warmup_share: float = 0.1
    """Part of the steps in which the learning rate rises (or is flat: ``div_factor`` 1)."""
    div_factor: float = 25.0
    """The peak divided by the first learning rate."""
    table_lr: float = 1.0
    """Learning rate of all embeddings (units, sessions, latents, token types), as a multiple."""
    beta2: float = 0.999
    """Decay of the mean square gradients that the optimiser divides by."""
    share_units: str = ""
    """What units of several sessions share an embedding by: "electrode", within one subject, or
    "" for nothing. What a unit's unlabelled activity says is added to it, and a little of its own.
    """
    own_lr: float = 0.1
    """Learning rate of what a unit has of its own, as a multiple of the embeddings'."""
    own_decay: float = 1.0
    """Weight decay of what a unit has of its own."""
    own_dropout: float = 0.5
    """Part of the sessions that go without what their units have of their own, in each step."""
    average: float = 0.0
    """Decay of a moving average of the weights, which is what is judged and kept; 0 for none."""
    start_worth_s: float = 0.0
    """Labelled seconds that the weights count for which tuning began with, once embeddings were
    identified: what is judged and kept lies so far back on the way from them (WiSE-FT, arXiv
    2109.01903). For runs that begin with a checkpoint; 0 keeps what they come to, and so does a
    checkpoint that knows electrodes (``share_units``) where it knows none of the sessions'."""
    weight_decay: float = 1e-4
    """Of all weights; what a unit has of its own has ``own_decay``."""
    clip_norm: float = 0.0
    """Longest gradient; 0 clips none."""
    ffn_dropout: float = 0.2
    """In the feed-forward parts."""
    lin_dropout: float = 0.4
    """Of what attention and feed-forward parts of the processing layers add."""
    atn_dropout: float = 0.0
    """Of attention weights."""
    t_min: float = 1e-4
    """Shortest period of the rotary time embeddings, in seconds."""
    unit_dropout: tuple[int, int, int] | None = None
    """Fewest, most frequent and largest number of units kept in a window; None keeps all."""
    unit_dropout_peak: float = 4.0
    """How sharp the most frequent number is (torch_brain's ``peak``)."""
    tail_s: float = 0.1
    """The end of the window in which samples weigh ``tail_weight`` instead of 1."""
    tail_weight: float = 1.0
    """Weight of the samples in the tail."""
    recency_s: float = 0.0
    """Time constant with which samples weigh less the farther they are from the window's end."""
    end_at_samples: bool = False
    """Let windows end where a sample is, as a live decoder's do, and decode that sample too."""
    held_share: float = 0.0
    """Share of the windows that are put together from pieces of their session with like behaviour,
    so that it holds or changes at once: see ``training/augment.py``. 0 makes none."""
    held_piece_s: float = 0.1
    """Length of these pieces."""
    held_lead_s: float = 0.1
    """How long before the behaviour units fire that say most of it."""
    identify_epochs: int = 0
    """First rounds, in which only the unit and session embeddings are trained; none where each
    session begins with what ``calibrate`` found."""
    unfreeze_epochs: float = 1.0
    """Rounds between thawing the decoder, each processing layer, and the encoder, after those."""
    seed: int = 0
    """Of weights, windows and everything else that is random."""
    precision: str = "32-true"
    """"32-true" or "bf16-mixed"."""
    validate_every: int = 0
    """Steps between measurements of R² on the valid split; 0 measures none."""
    validate_samples: int = 256
    """Samples of each session that a measurement decodes."""
    checkpoint_every: int = 0
    """Steps between states to resume from; 0 writes one every ten minutes."""
    accelerator: str = "auto"
    """"auto", "cpu" or "gpu"."""
    devices: int = 1
    """Devices of each node."""
    nodes: int = 1
    """Machines that train together."""
    in_memory: bool = False
    """Whether each process that cuts windows holds all spikes in memory, 12 bytes each."""
    workers: int = 0
    """Processes that cut windows, for each device."""
    threads: int | None = None
    """Threads of torch while training on a CPU; None leaves them as they are."""

    def __post_init__(self) -> None:
        check_spec(self.spec)
        self._check_numbers()
        lengths = (self.steps, self.epochs, self.steps_per_session)
        if sum(length > 0 for length in lengths) != 1:
            raise UsageError(
                f"steps, epochs, steps_per_session: expected one of them > 0, got "
                f"{', '.join(map(str, lengths))}"
            )
        if (self.lr > 0) == (self.base_lr > 0):
            raise UsageError(
                f"lr, base_lr: expected one of them > 0, got {self.lr} and {self.base_lr}"
            )
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("share_units", SHARED),
            ("accelerator", ACCELERATORS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}: expected one of {list(allowed)}, got {getattr(self, name)!r}"
                )
        for name in self.as_trained:
            if name not in AS_TRAINED:
                raise UsageError(f"as_trained: expected keys of {list(AS_TRAINED)}, got {name!r}")
        fewest, mode, most = self.unit_dropout or (1, 2, 2)
        if not 0 < fewest < mode <= most:
            raise UsageError(
                f"unit_dropout: expected 0 < fewest < most frequent <= largest, "
                f"got {self.unit_dropout}"
            )
        if self.batch_size % (self.devices * self.nodes):
            raise UsageError(
                f"batch_size: expected a multiple of the {self.devices * self.nodes} devices, "
                f"got {self.batch_size}"
            )
        held_s = self.held_piece_s + self.held_lead_s
        if self.held_share and held_s > self.spec.window_seconds:
            raise UsageError(
                f"held_piece_s, held_lead_s: expected at most the window of "
                f"{self.spec.window_seconds:g} s together, got {held_s:g}"
            )
        if not self.data:
            raise UsageError("data: expected at least one source, got none")

    def _check_numbers(self) -> None:
        for name in ("batch_size", "threads", "devices", "nodes", "validate_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {value}")
        for name in (
            "steps", "epochs", "lr", "base_lr", "weight_decay", "clip_norm", "identify_epochs",
            "seed", "workers", "validate_every", "checkpoint_every",
            "recency_s", "at_once", "steps_per_session", "own_decay", "held_lead_s",
            "start_worth_s",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in (
            "tail_weight",
            "tail_s",
            "div_factor",
            "unfreeze_epochs",
            "unit_dropout_peak",
            "t_min",
            "table_lr",
            "own_lr",
            "held_piece_s",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        for name in (
            "ffn_dropout",
            "lin_dropout",
            "atn_dropout",
            "warmup_share",
            "average",
            "beta2",
            "own_dropout",
            "held_share",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 0 <= number < 1, got {getattr(self, name)}")

    def with_behavior(self, behavior: str) -> Recipe:
        """The same recipe decoding another behaviour, GROUP.KEY, of all its sources.

        Scale, offset and unit of a source are those of the behaviour that it named; another one
        gets its standard deviation in the split.

        Raises:
            UsageError: no GROUP.KEY.
        """
        sources = {
            name: source
            if source.behavior == behavior
            else replace(source, behavior=behavior, scale=(), offset=(0.0,), unit="")
            for name, source in self.data.items()
        }
        return replace(self, data=sources)

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        return self.lr or self.base_lr * self.batch_size

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes


def check_spec(spec: ModelSpec) -> None:
    """Refuse sizes that torch_brain cannot build.

    Raises:
        UsageError: another feed-forward width or number of rotating pairs.
    """
    if spec.ffn_mult != 4 or spec.rotating_pairs * 4 != spec.dim_head:
        raise UsageError(
            f"spec: expected ffn_mult 4 and rotating_pairs = dim_head / 4, as torch_brain "
            f"builds its models, got {spec.ffn_mult}, {spec.rotating_pairs}, {spec.dim_head}"
        )
