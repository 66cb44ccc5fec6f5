"""What a built engine depends on: whether it fits a machine, and why it was built again."""

from __future__ import annotations

import dataclasses
import json

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.records import JsonRecord, require_fields
from poyo_edge.runtime.backends.machine import Machine

_MOST = 1 << 31


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey(JsonRecord):
    """Everything that an engine depends on."""

    flavour: str
    """"tensorrt" or "tensorrt-rtx"."""
    core_sha256: str
    """Of ``core.onnx``."""
    graph_sha256: str
    """Of the graph of fixed shape that was built."""
    precision: str
    n_spikes: int
    """The token bucket."""
    n_units: int
    """Most units of a session."""
    version: str
    """Of TensorRT, in full."""
    sm: tuple[str, ...]
    """Compute capabilities that it runs on."""
    driver: str
    """CUDA version of the driver, and Jetson Linux release; "" for engines made ahead of time."""
    l4t: str
    flags: tuple[str, ...]
    gpu: str = ""
    """Board or device, and multiprocessors; "" for engines made ahead of time or before this was
    kept."""

    def __post_init__(self) -> None:
        require_fields(self)
        for name in ("n_spikes", "n_units"):
            if not 0 < getattr(self, name) < _MOST:
                raise UsageError(
                    f"{name}: expected an integer from 1 to {_MOST - 1}, got {getattr(self, name)}"
                )

    @property
    def name(self) -> str:
        """The file name without its ending."""
        values = self.to_json()
        if not self.gpu:  # as it was named before this was kept
            del values["gpu"]
        digest = sha256_bytes(json.dumps(values, sort_keys=True).encode())
        return f"{self.precision}-{self.n_spikes:07d}-{digest[:16]}"

    def differences(self, machine: Machine) -> list[str]:
        """Why the engine does not fit a machine; nothing when it does."""
        device = self.flavour == "tensorrt"
        title, version = ("TensorRT", machine.tensorrt) if device else ("TensorRT-RTX", machine.rtx)
        facts = [(title, self.version, version, self.version == version)]
        gpu = machine.sm and f"SM {machine.sm}"
        facts.append(("GPU", f"SM {', '.join(self.sm)}", gpu, machine.sm in self.sm))
        if device:
            facts += [
                ("CUDA of the driver", self.driver, machine.driver, self.driver == machine.driver),
                ("L4T", self.l4t, machine.l4t, self.l4t == machine.l4t),
                ("device", self.gpu, machine.gpu, self.gpu in ("", machine.gpu)),
            ]
        return [
            f"{name}: expected {here}, got an engine for {built}"
            if here
            else f"{name}: expected {built}, which the engine is for, got none on this machine"
            for name, built, here, same in facts
            if not same
        ]

    def changes(self, other: EngineKey) -> list[str]:
        """What differs in an earlier engine, in words; nothing when they are the same."""
        return [
            _CHANGED[field.name].format(was=_words(was), now=_words(now))
            for field in dataclasses.fields(self)
            for was, now in [(getattr(other, field.name), getattr(self, field.name))]
            if was != now
        ]


_CHANGED = {
    "flavour": "the builder was {was}, is {now}",
    "core_sha256": "the core is another one",
    "graph_sha256": "the graph is another one",
    "precision": "the precision was {was}, is {now}",
    "n_spikes": "the bucket was {was}, is {now} spikes",
    "n_units": "units of a session were at most {was}, are {now}",
    "version": "TensorRT was {was}, is {now}",
    "sm": "the GPU was SM {was}, is SM {now}",
    "driver": "the driver's CUDA was {was}, is {now}",
    "l4t": "L4T was {was}, is {now}",
    "flags": "the builder's flags were {was}, are {now}",
    "gpu": "the device was {was}, is {now}",
}


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value) or "none"
