"""The shared object with operators of our own: where it is, and how it is compiled.

It comes in a platform wheel, or is compiled on the machine by ``poyo-edge build --target cpu`` and
``just native`` into the user's cache, from ``runtime/native/kernels``. Beside it lies a record of
what it was made from; only an object whose bytes and sources are those of the record is loaded.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from poyo_edge.errors import BackendError, UsageError
from poyo_edge.files.writing import atomic_path, sha256_bytes, write_bytes
from poyo_edge.records import JsonRecord, require_fields

NAME = "poyo_edge_kernels.so"
SOURCES = Path(__file__).parent.parent / "native" / "kernels"
SHIPPED = SOURCES
"""Where a wheel of a platform has the object."""
MACHINES = ("x86_64", "aarch64")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
    "-fno-exceptions", "-fno-rtti", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wshadow",
)  # fmt: skip
_LINKING = ("-shared", "-Wl,--as-needed", "-Wl,-z,defs")
_BESIDE = ".json"
_MOST_SECONDS = 1800
_WITHOUT = "ort-cpu decodes without it; please report this with the compiler's version"
_choosing = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made(JsonRecord):
    """What an object was made from; the file beside it."""

    sha256: str
    """Of the object."""
    sources: str
    """See ``sources_hash``."""
    machine: str
    compiler: str

    def __post_init__(self) -> None:
        require_fields(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KernelLibrary:
    """An object that was looked at and loaded."""

    path: Path
    sources: str
    instructions: str
    """The best instruction set that it has for this processor: "avx512", "avx2", "sse2" or
    "neon"."""

    def choose(self, instructions: str = "") -> str:
        """Let operators that are created from now on use an instruction set; "" is the best.

        Raises:
            BackendError: the processor or the object lacks it.
        """
        with _choosing:
            chosen = _loaded(self.path).poyo_edge_kernels_choose(instructions.encode() or None)
        if chosen is None:
            raise BackendError(
                f"{NAME}: instructions: expected some that this processor has, for example "
                f"{self.instructions!r}, got {instructions!r}"
            )
        return str(chosen, "ascii")


def find_library() -> KernelLibrary | None:
    """The object for this machine, or None; ``why_absent`` says why."""
    found = _find()
    return found if isinstance(found, KernelLibrary) else None


def why_absent() -> str:
    """Why there is no object, and what brings one; "" where there is one."""
    found = _find()
    return "" if isinstance(found, KernelLibrary) else found


def find_compiler() -> str | None:
    """The path of a C++ compiler."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


@functools.cache
def sources_hash() -> str:
    """SHA-256 over all sources: names and bytes."""
    digest = hashlib.sha256()
    for path in (*_sources(".h"), *_sources(".cpp"), SOURCES.parent / "src" / "ort" / "api.h"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where objects that were compiled here are kept, one folder for each state of the sources."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "poyo-edge", f"kernels-{sources_hash()[:16]}")


def compile_library(
    into: Path | None = None, *, compiler: str | None = None, machine: str = platform.machine()
) -> Path:
    """Compile the object; about half a minute of processor time.

    Args:
        into: the folder to put it into; None is the user's cache, where it is found.
        compiler: a C++ compiler; None takes the first of ``COMPILERS``.
        machine: what it compiles for, as ``platform.machine`` says it.

    Raises:
        BackendError: no compiler, or it failed.
        UsageError: the folder cannot be written.
    """
    compiler = compiler or find_compiler()
    if compiler is None:
        raise BackendError(
            f"{NAME}: expected a C++ compiler ({', '.join(COMPILERS)}), got none; install one, "
            f"for example with: sudo apt install g++"
        )
    folder = cache_folder() if into is None else into
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(folder / NAME) as temporary:
            _run([compiler, *FLAGS, *map(str, _sources(".cpp")), *_LINKING, "-o", str(temporary)])
            data = temporary.read_bytes()
        made = Made(
            sha256=sha256_bytes(data),
            sources=sources_hash(),
            machine=machine,
            compiler=Path(compiler).name,
        )
        text = json.dumps(made.to_json(), indent=1)
        write_bytes(folder / (NAME + _BESIDE), (text + "\n").encode())
    except OSError as problem:
        raise UsageError(f"{folder}: expected a folder to write to, got: {problem}") from problem
    look_again()
    return folder / NAME


def _sources(suffix: str) -> list[Path]:
    return sorted(path for path in SOURCES.glob(f"*{suffix}") if path.is_file())


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"took longer than {_MOST_SECONDS} s"
    else:
        said = f"failed: {done.stderr.strip()[:2000]}" if done.returncode else ""
    if said:
        raise BackendError(f"{NAME}: {command[0]} {said}; {_WITHOUT}")


@functools.cache
def _find() -> KernelLibrary | str:
    """The object, or why there is none. Asked once, and again after compiling."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        return f"no kernels for {sys.platform} on {machine}"
    problems = []
    for folder in (SHIPPED, cache_folder()):
        if not (folder / NAME).exists():
            continue
        problem = _problem(folder / NAME, machine)
        if not problem:
            return _open(folder / NAME)
        problems.append(f"{folder / NAME}: {problem}")
    do = "poyo-edge build ARTIFACT --target cpu compiles them"
    if find_compiler() is None:
        do += " where a C++ compiler is (sudo apt install g++)"
    return "; ".join([*(problems or ["its kernels are not compiled"]), do])


def _problem(path: Path, machine: str) -> str:
    """What keeps an object from being loaded; "" when nothing does."""
    try:
        made = Made.from_json(json.loads(path.with_name(NAME + _BESIDE).read_bytes()))
        digest = sha256_bytes(path.read_bytes())
    except (OSError, ValueError, UsageError, RecursionError) as problem:
        return f"expected a record of what it is beside it, got: {problem!r:.200}"
    if made.machine != machine:
        return f"expected one for {machine}, got one for {made.machine}"
    if made.sources != sources_hash():
        return "expected one of this version, got one of other sources"
    if made.sha256 != digest:
        return f"sha256: expected {made.sha256[:12]}, got {digest[:12]}"
    try:
        _loaded(path)
    except (OSError, AttributeError) as problem:
        return f"expected a library that can be loaded, got: {problem!r:.200}"
    return ""


def _open(path: Path) -> KernelLibrary:
    with _choosing:
        best = str(_loaded(path).poyo_edge_kernels_choose(None), "ascii")
    return KernelLibrary(path=path, sources=sources_hash(), instructions=best)


@functools.cache
def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.poyo_edge_kernels_choose.restype = ctypes.c_char_p
    library.poyo_edge_kernels_choose.argtypes = [ctypes.c_char_p]
    return library


def look_again() -> None:
    """Forget what was found, so that the next one who asks looks anew."""
    _find.cache_clear()
    _loaded.cache_clear()


def _main(words: Sequence[str]) -> None:
    """``python -m … [FOLDER COMPILER MACHINE]``: compile, into the user's cache or for a wheel."""
    if not words:
        print(compile_library())
        return
    folder, compiler, machine = words
    print(compile_library(Path(folder), compiler=compiler, machine=machine))


if __name__ == "__main__":
    _main(sys.argv[1:])
