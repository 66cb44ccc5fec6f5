"""What all tests share: a small committed artifact, and a header that says what they run on."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

TINY = Path(__file__).parent / "data" / "tiny.poyo"


def pytest_report_header() -> list[str]:
    versions = []
    for package in ("numpy", "h5py", "safetensors", "onnxruntime", "onnx", "torch", "torch_brain"):
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
