"""What ``build`` can be told, and what is chosen where nothing was said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from poyo_edge.artifact import Artifact, Session
from poyo_edge.errors import BackendError, UsageError
from poyo_edge.runtime.backends import BACKENDS, BEHIND
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.targets import TARGETS, Target, find_jetson, find_release, find_target

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What ``poyo-edge build`` can be told."""

    target: str | None = None
    """None for the Jetson that this is."""
    precision: str | None = None
    """None for the target's own: FP16 with islands for engines, FP32 elsewhere."""
    max_spikes: int | None = None
    """Largest window; None for the artifact's own."""
    session: str | None = None
    recording: Path | None = None
    """Also compare R² on this recording's test split."""
    behavior: str = ""
    rebuild: bool = False
    systemd: str | None = None
    """Path of the artifact on the device, to write a unit file for."""


def choose_target(name: str | None, machine: Machine) -> Target:
    """The target meant, made definite where this machine is one of those it may be.

    Raises:
        UsageError: no such target, or another Jetson than this one.
        BackendError: a Jetson that is too old.
    """
    if name is None and not machine.jetson:
        raise UsageError(
            f"target: expected one of {list(TARGETS)}, got none; name it with --target, which may "
            f"be left out on a Jetson only"
        )
    target = find_target(name or "jetson")
    if not machine.jetson or not target.built_on_device:
        return target
    here = find_jetson(machine.sm)
    if here is None:
        raise BackendError(
            f"{target.name}: expected a Jetson Orin or Thor, got "
            f"{f'a GPU of SM {machine.sm}' if machine.sm else 'no GPU that the driver shows'}; "
            f"run poyo-edge doctor"
        )
    if target.name not in ("jetson", here.name):
        raise UsageError(
            f"target: expected {here.name!r}, which this machine is, got {target.name!r}; "
            f"leave --target out"
        )
    if machine.l4t and find_release(machine.l4t) is None:
        raise BackendError(
            f"{target.name}: expected JetPack 6.1 or newer, got L4T {machine.l4t}; update JetPack"
        )
    return here


def choose_precision(name: str | None, target: Target) -> str:
    """The precision meant: FP16 with islands for engines, else FP32 (CPUs: BF16, INT8 too).

    Raises:
        UsageError: the target has no such precision.
    """
    engine = BACKENDS[target.backend].built
    if name is None:
        return "fp16" if engine else "fp32"
    allowed = list(PRECISIONS) if engine else ["fp32"]
    if target.backend == BEHIND:
        allowed += ["bf16", "int8"]
    if name not in allowed:
        raise UsageError(f"precision: expected one of {allowed} for {target.name}, got {name!r}")
    return name


def choose_max_spikes(most: int | None, allowed: int) -> int:
    """The largest window to build for.

    Raises:
        UsageError: the artifact never decodes that many.
    """
    if most is not None and most > allowed:
        raise UsageError(
            f"max_spikes: expected at most {allowed}, the artifact's largest window, got {most}; "
            f"leave --max-spikes out, or export again with --max-spikes {most}"
        )
    return most or allowed


def choose_session(artifact: Artifact, options: BuildOptions, recorded: str | None) -> Session:
    """The session named; else the recording's own, or the only one; else the one with most units.

    Args:
        artifact: whose sessions.
        options: may name one.
        recorded: session id of the recording to compare on; None without one.

    Raises:
        UsageError: no such session, or none that goes with the recording.
    """
    known = artifact.session_files()
    if options.session is None and recorded is not None and len(known) > 1:
        if recorded not in known:
            raise UsageError(
                f"{options.recording}: session: expected one of {list(known)}, which the artifact "
                f"has, got {recorded!r}; name the one to decode it with: --session"
            )
        return artifact.session(known[recorded])
    if options.session is None and len(known) > 1:
        sizes = {name: len(artifact.session(p).header.unit_ids) for name, p in known.items()}
        return artifact.session(max(sizes, key=lambda name: sizes[name]))
    return artifact.session(options.session)
