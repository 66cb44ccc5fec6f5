"""The folder ``build/`` of an artifact: a graph made ready elsewhere, and the device's plan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.errors import ArtifactError, UsageError
from poyo_edge.files.tensors import read_file
from poyo_edge.files.writing import own_folder, sha256_bytes, sha256_json, write_bytes
from poyo_edge.records import record_from, require_fields

FOLDER, PLAN, UNIT = "build", "plan.json", "poyo-edge-build.service"
SCHEMA = "poyo-edge/build-plan/1"
_MOST_BYTES = 2 << 30
_MOST_PLAN_BYTES = 1 << 24
_REPEAT = (
    "run poyo-edge build --target jetson again on the workstation, and copy the whole artifact"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What was made ready, for which core, and what is known of it."""

    core_sha256: str
    precision: str
    graph_sha256: str
    graphs: dict[str, str]
    """Token bucket → SHA-256 of the graph of fixed shape, as the device will make it."""
    n_units: int
    target: str
    prepared: dict[str, Any]
    """What ``Prepared.to_json`` says."""
    settled: list[str]
    unsettled: list[str]
    kernel_plan: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Token bucket → ``KernelPlan.to_json``; empty where no builder was there to ask."""

    def __post_init__(self) -> None:
        require_fields(self)
        if not self.precision.isalnum():
            raise UsageError(f"precision: expected letters and digits, got {self.precision!r:.80}")

    def save(self, artifact: Path, graph: bytes) -> None:
        """Write the graph and, once it is there, the plan that vouches for it.

        FP32 needs no graph of its own: it is the artifact's core.
        """
        folder = artifact / FOLDER
        own_folder(folder)
        if self.precision != "fp32":
            write_bytes(folder / graph_name(self.precision), graph)
        values = dataclasses.asdict(self)
        text = json.dumps({"schema": SCHEMA, **values, "checksum": sha256_json(values)}, indent=1)
        write_bytes(folder / PLAN, (text + "\n").encode())


def replaced(artifact: Path, plan: BuildPlan) -> str:
    """What is lost when a plan takes the place of the one that is there; "" when nothing is."""
    try:
        old = read_plan(artifact)
    except ArtifactError:
        return f"{FOLDER}/{PLAN} was damaged and has been replaced"
    if old is None:
        return ""
    facts = {
        "target": (old.target, plan.target),
        "precision": (old.precision, plan.precision),
        "token buckets": (", ".join(old.graphs), ", ".join(plan.graphs)),
        "most units": (old.n_units, plan.n_units),
        "core": (old.core_sha256[:12], plan.core_sha256[:12]),
        "graph": (old.graph_sha256[:12], plan.graph_sha256[:12]),
    }
    changed = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}
    if len(changed) > 1:
        changed.pop("graph", None)  # it follows from the others
    words = "; ".join(f"{name} was {old}, is {new}" for name, (old, new) in changed.items())
    if not words:
        return ""
    return f"{FOLDER}/{PLAN} replaces an earlier plan ({words}): an artifact holds one, the last"


def read_plan(artifact: Path) -> BuildPlan | None:
    """The plan of an artifact; None when nothing was made ready.

    Raises:
        ArtifactError: it is damaged.
    """
    path = artifact / FOLDER / PLAN
    if not path.is_file():
        return None
    data = read_file(path, ArtifactError, _MOST_PLAN_BYTES)
    try:
        values = json.loads(data)
        schema, checksum = values.pop("schema"), values.pop("checksum")
        if schema != SCHEMA or checksum != sha256_json(values):
            raise ValueError(f"schema {schema!r}, or a checksum that does not hold")
        return record_from(BuildPlan, values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ArtifactError(
            path, "contents", expected="a build plan", got=str(problem), do=_REPEAT
        ) from problem


def read_prepared(artifact: Path, plan: BuildPlan) -> bytes:
    """The graph that a plan vouches for.

    Raises:
        ArtifactError: missing, changed, or a graph that ``require_plain_onnx`` refuses.
    """
    path = artifact / FOLDER / graph_name(plan.precision)
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ArtifactError(path, "file", expected="the graph", got="none", do=_REPEAT)
    data = path.read_bytes()
    digest = sha256_bytes(data)
    if digest != plan.graph_sha256:
        raise ArtifactError(
            path, "sha256", expected=plan.graph_sha256[:12], got=digest[:12], do=_REPEAT
        )
    require_plain_onnx(data, path)
    return data


def graph_name(precision: str) -> str:
    """File name of the graph of a precision."""
    return f"core.{precision}.onnx"


def service_unit(artifact: str, flags: str) -> str:
    """A systemd unit that builds once, before whatever decodes.

    It waits for the power mode (JetPack's nvpmodel.service): a builder times kernels at the clocks
    that it finds.

    It runs as the owner of the home folder that the artifact lies in: engines belong to the user
    who decodes. The environment is the one of docs/jetson.md, ``~/poyo``.

    Args:
        artifact: absolute path of the artifact on the device.
        flags: of ``poyo-edge build``.
    """
    parts = artifact.split("/")
    home = f"/home/{parts[2]}" if parts[1] == "home" and len(parts) > 3 else "/root"
    user = home.rpartition("/")[2]
    return f"""[Unit]
Description=Build the poyo-edge engines of {artifact}
After=local-fs.target nvpmodel.service
ConditionPathIsDirectory={artifact}

[Service]
Type=oneshot
User={user}
# Engines that fit are kept, so this costs seconds on every later start.
ExecStart={home}/poyo/bin/poyo-edge build {artifact} {flags}
RemainAfterExit=yes

[Install]
WantedBy=multi-user.target
"""
