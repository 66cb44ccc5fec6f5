"""What the benchmarks share: torch_brain's own model, random windows, where they ran, tables.

Legend: B batch, N spikes, U units.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import MissingExtraError, PoyoEdgeError, UsageError
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens, window_tokens

_PACKAGES = ("poyo-edge", "numpy", "onnxruntime", "torch", "torch_brain", "onnx", "onnxscript")
_TORCH_BRAIN_FFN_MULT = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A random window, or a batch of them with equally many spikes; queried at the end."""

    spike_time: npt.NDArray[np.float32]
    """(B, N) seconds from the start, ascending."""
    spike_unit: npt.NDArray[np.int32]
    """(B, N) rows of the session's units."""
    n_units: int


def torch_brain_model(spec: ModelSpec, **more: Any) -> Any:
    """torch_brain's own ``POYO`` of these sizes, in eval mode, vocabularies not yet set.

    Args:
        spec: sizes and time window.
        more: further arguments of ``torch_brain.models.POYO``.

    Raises:
        MissingExtraError: torch_brain is not installed.
        UsageError: torch_brain cannot build this size.
    """
    require("torch_brain", "train", "the comparison with torch_brain")
    from torch_brain.models import POYO

    if spec.ffn_mult != _TORCH_BRAIN_FFN_MULT:
        raise UsageError(
            f"ffn_mult: expected {_TORCH_BRAIN_FFN_MULT}, the only one that torch_brain builds, "
            f"got {spec.ffn_mult}"
        )
    model = POYO(
        sequence_length=spec.window_seconds,
        latent_step=float(spec.latent_step_s),
        num_latents_per_step=spec.latents_per_step,
        dim_out=spec.dim_out,
        dim=spec.dim,
        depth=spec.depth,
        dim_head=spec.dim_head,
        cross_heads=spec.cross_heads,
        self_heads=spec.self_heads,
        **more,
    )
    return model.eval()


def random_window(
    spec: ModelSpec, n_units: int, n_spikes: int, rng: np.random.Generator, *, batch: int = 1
) -> Window:
    """Spikes at uniform times, of units with unequal rates."""
    rate, shape = rng.gamma(1.0, size=n_units), (batch, n_spikes)
    return Window(
        spike_time=np.sort(rng.uniform(0, spec.window_seconds, shape)).astype(np.float32),
        spike_unit=rng.choice(n_units, shape, p=rate / rate.sum()).astype(np.int32),
        n_units=n_units,
    )


def torch_brain_feeds(spec: ModelSpec, window: Window) -> dict[str, npt.NDArray[Any]]:
    """Inputs of torch_brain's forward: 2U boundary tokens, spikes, latents, one query.

    Unit i is row i + 1 of its table, the session is row 1; times are float32.
    """
    each = [
        window_tokens(
            time.astype(np.float64), unit.astype(np.int64), window.n_units, spec.window_seconds
        )
        for time, unit in zip(window.spike_time, window.spike_unit, strict=True)
    ]
    batch, (latent_index, latent_time) = len(each), latent_tokens(spec)
    return {
        "input_unit_index": np.stack([tokens.unit for tokens in each]) + 1,
        "input_timestamps": np.stack([tokens.time for tokens in each]).astype(np.float32),
        "input_token_type": np.stack([tokens.type for tokens in each]),
        "latent_index": np.tile(latent_index, (batch, 1)),
        "latent_timestamps": np.tile(latent_time.astype(np.float32), (batch, 1)),
        "session_index": np.ones(batch, np.int64),
        "output_timestamps": np.full((batch, 1), spec.window_seconds, np.float32),
    }


def require(package: str, extra: str, purpose: str) -> None:
    """Raise ``MissingExtraError`` with the pip command unless ``package`` is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)


def environment(threads: int) -> dict[str, Any]:
    """Versions, commit, device and command line, as JSON values."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": git_commit(),
        "device": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": threads,
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def git_commit() -> str | None:
    """Hash of the commit of this repository, with "+changes" behind it; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_model() -> str:
    """Name of the processor, as Linux tells it or as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(found: Mapping[str, Any]) -> str:
    """One line about ``environment``, to print beside every table."""
    device, versions = found["device"], found["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{device['cpu']}, {device['threads']} of {device['cores']} cores; {packages}; "
        f"commit {found['commit'] or 'unknown'}\n{found['command']}"
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, all others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a results file, if one is wanted."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a script; an error raised on purpose becomes a sentence and its exit code."""
    try:
        main()
    except PoyoEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
