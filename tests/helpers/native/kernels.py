"""Operators of our own, compiled once for all tests; where nobody asks for them there are none."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from poyo_edge.runtime.backends import kernel_library
from poyo_edge.runtime.backends.kernel_library import KernelLibrary

KERNELS = kernel_library.SOURCES
HARNESS = Path(__file__).parents[2] / "runtime" / "native" / "c" / "kernels.cpp"
"""Random shapes against plain loops, with a stand-in for ONNX Runtime."""
OF_THE_USER = kernel_library.cache_folder()


@pytest.fixture(scope="session", autouse=True)
def no_kernels_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see neither kernels that lie ready nor a compiler, unless they ask for them."""
    nowhere = tmp_path_factory.mktemp("no_kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_library, "cache_folder", lambda: nowhere)
        patch.setattr(kernel_library, "find_compiler", lambda: None)
        patch.setattr(kernel_library, "SHIPPED", nowhere)
        kernel_library.look_again()
        yield
    kernel_library.look_again()


@pytest.fixture(scope="session")
def compiler() -> str:
    """A C++ compiler."""
    found = next(filter(None, map(shutil.which, kernel_library.COMPILERS)), None)
    if found is None:
        pytest.skip("no C++ compiler")
    return str(found)


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the object; processes that test side by side compile it once, or twice."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "kernels"
    for there in (KERNELS, OF_THE_USER):  # of a wheel of this platform, or of these very sources
        if (there / (kernel_library.NAME + ".json")).exists():
            return there
    if not (folder / (kernel_library.NAME + ".json")).exists():
        kernel_library.compile_library(folder, compiler=request.getfixturevalue("compiler"))
    return folder


@pytest.fixture
def kernels(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelLibrary]:
    """The object, found as if it lay in the user's cache."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    monkeypatch.setattr(kernel_library, "cache_folder", lambda: compiled)
    kernel_library.look_again()
    found = kernel_library.find_library()
    if found is None:
        pytest.skip(kernel_library.why_absent())
    yield found
    monkeypatch.undo()
    kernel_library.look_again()


def build_harness(compiler: str, out: Path, *flags: str, sources: str = "*.cpp") -> Path:
    """The harness with the kernels in it."""
    files = sorted(KERNELS.glob(sources))
    words = [compiler, *kernel_library.FLAGS, "-fexceptions", "-frtti", *flags, HARNESS, *files]
    done = subprocess.run(
        [*map(str, words), "-o", str(out), "-lpthread"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    return out
