"""What all tests share: a small committed artifact, and a header that says what they run on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.paths import TINY

from poyo_edge.arrays import Float64, Rows
from poyo_edge.artifact import Artifact, Session
from poyo_edge.runtime import Decoder, Result
from poyo_edge.runtime.core import Core
from poyo_edge.tokens import cut_window

pytest_plugins = [
    "helpers.checkpoints.fixtures",
    "helpers.native.fixtures",
    "helpers.pages.fixtures",
    "helpers.native.kernels",
]


def pytest_report_header() -> list[str]:
    versions = []
    for package in ("numpy", "h5py", "safetensors", "onnxruntime", "onnx", "torch", "torch_brain",
                    "tensorrt-rtx-cu13-bindings"):  # fmt: skip
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    try:
        import onnxruntime
    except ImportError:
        providers = "none"
    else:
        providers = ", ".join(onnxruntime.get_available_providers())
    return [f"versions: {', '.join(versions)}", f"providers: {providers}"]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The artifact that ``tests/make_tiny.py`` made. Read only."""
    return TINY


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny.poyo"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes in one thread; what it was set to comes back."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@dataclasses.dataclass(frozen=True)
class Rig:
    """The artifact's core, opened, and what windows and streams of spikes decode to."""

    core: Core
    a: Session
    """12 units."""
    b: Session
    """10 units, of which 6 are also in ``a``."""

    window_s = 1.0
    n_units = 12
    grid_hz = 4096
    """Times on this grid are exact, those of starts and ends of windows too."""
    output_sd = 1.5
    """Of decoded values on random windows."""

    def decoder(self, **arguments: Any) -> Decoder:
        """A decoder of session a."""
        return Decoder(self.core, self.a, **arguments)

    def stream(self, n_spikes: int, duration_s: float, seed: int = 0) -> tuple[Float64, Rows]:
        """Sorted spikes, each at a time of its own on the grid, so that their order is unique."""
        rng = np.random.default_rng(seed)
        ticks = rng.choice(int(duration_s * self.grid_hz), n_spikes, replace=False)
        rows = rng.integers(0, self.n_units, n_spikes)
        return np.sort(ticks) / self.grid_hz, rows.astype(np.int32)

    def run(
        self,
        decoder: Decoder,
        times: Float64 | npt.NDArray[np.int64],
        rows: Rows,
        ends: Iterable[float],
        cuts: Iterable[int] = (),
    ) -> list[Result]:
        """Decode at each end, having pushed what came before it in chunks cut at ``cuts``."""
        decoded, pushed = list[Result](), 0
        for t in ends:
            heard = int(np.searchsorted(times, t))
            inner = sorted({cut for cut in cuts if pushed < cut < heard})
            for lo, hi in itertools.pairwise([pushed, *inner, heard]):
                decoder.push(times[lo:hi], rows[lo:hi])
            pushed = heard
            decoded.append(decoder.decode(t))
        return decoded

    def batch(
        self, times: Float64, rows: Rows, t: float, session: Session | None = None
    ) -> Float64:
        """What the window [t - T, t) of a sorted recording decodes to, all spikes at once."""
        cut = cut_window(times, rows.astype(np.int64), t - self.window_s, self.window_s)
        return self.window(*cut, session)

    def window(
        self, time: npt.NDArray[np.float32], rows: Rows, session: Session | None = None
    ) -> Float64:
        """What spikes at times relative to the start of their window decode to."""
        session = session or self.a
        constants = self.core.constants(session.unit_embedding, session.session_embedding)
        query = np.array([self.window_s], np.float32)
        scale, offset = self.core.artifact.manifest.output.arrays(2)
        prediction = self.core.predict(constants, time, rows, query)[0]
        return np.asarray(prediction.astype(np.float64) * scale + offset)


@pytest.fixture(scope="session")
def rig() -> Rig:
    """An opened core with two sessions."""
    artifact = Artifact.open(TINY)
    core = Core.open(artifact, backend="ort-cpu")
    return Rig(core=core, a=artifact.session("tiny_a"), b=artifact.session("tiny_b"))
