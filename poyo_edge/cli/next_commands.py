"""The command to type next, where what happened decides which."""

from __future__ import annotations

import shlex
from pathlib import Path

from poyo_edge.cli.console import program
from poyo_edge.errors import PoyoEdgeError
from poyo_edge.files.writing import safe_name
from poyo_edge.runtime.backends.machine import this_machine


def to_build(artifact: Path) -> str:
    """``poyo-edge build …`` where this is a Jetson and no engine of the artifact fits it; or ""."""
    machine = this_machine()
    if not machine.jetson:
        return ""
    from poyo_edge.artifact import CORE, read_manifest
    from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineStore

    core = read_manifest(artifact).files[CORE].sha256
    try:
        EngineStore(artifact / ENGINES).fitting("tensorrt", core, machine)
    except PoyoEdgeError:
        return shlex.join([program(), "build", str(artifact)])
    return ""


def to_calibrate(artifact: Path, recording: Path, session_id: str, behavior: str = "") -> str:
    """``poyo-edge calibrate …`` of a recording whose units the artifact does not know."""
    named = ["--behavior", behavior] if behavior else []
    out = f"{safe_name(session_id)}.session"
    return shlex.join([program(), "calibrate", str(artifact), str(recording), *named, "-o", out])


def engine_notes(artifact: Path, backend: str) -> list[str]:
    """What has to be said on a Jetson that decodes on its CPU, because nobody has built engines."""
    build = "" if backend.startswith("tensorrt") else to_build(artifact)
    return [f"this Jetson decodes on its CPU; its engines are built by: {build}"] if build else []
