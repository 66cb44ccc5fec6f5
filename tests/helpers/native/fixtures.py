"""The C library, built once, and frozen sessions to decode with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Rig

from helpers.native import building
from helpers.native.calling import NativeDecoder, onnxruntime_library
from poyo_edge.artifact import Activity, Session
from poyo_edge.export import freeze_session


@pytest.fixture(scope="session")
def libpoyoedge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libpoyoedge."""
    if building.CC is None:
        pytest.skip(building.NO_COMPILER)
    return building.build_library(tmp_path_factory.mktemp("native") / "libpoyoedge.so")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library in ONNX Runtime's place, which fails now and then."""
    if building.CC is None:
        pytest.skip(building.NO_COMPILER)
    return building.build_stand_in(tmp_path_factory.mktemp("stand_in") / "libonnxruntime.so")


@pytest.fixture(scope="session")
def onnxruntime_so(libpoyoedge: Path) -> Path:
    """The library of the installed wheel."""
    found = onnxruntime_library()
    if found is None:
        pytest.skip("no libonnxruntime in the installed onnxruntime")
    return found


def activity(n_units: int, rate_hz: float) -> Activity:
    """Rates whose sum no short sum of float32 gives."""
    return Activity(
        rate_hz=(rate_hz + np.arange(n_units) / 7).astype(np.float32),
        rate_sd_hz=np.ones(n_units, np.float32),
        output_low=np.full(2, -3, np.float32),
        output_high=np.full(2, 3, np.float32),
    )


@pytest.fixture(scope="session")
def native_sessions(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Session]:
    """Frozen file → its session: of 12 units that knows its rates, of 10 that does not."""
    folder = tmp_path_factory.mktemp("frozen")
    a = dataclasses.replace(rig.a, activity=activity(12, 30.0))
    files = {folder / "a.onnx": a, folder / "b.onnx": rig.b}
    for path, session in files.items():
        freeze_session(rig.core.artifact.path, session, path)
    return files


@pytest.fixture(scope="session")
def native_file(native_sessions: dict[Path, Session]) -> Path:
    """The first of them."""
    return next(iter(native_sessions))


@pytest.fixture
def native_decoder(libpoyoedge: Path, stand_in: Path, native_file: Path) -> Iterator[NativeDecoder]:
    """One in seconds, on the stand-in."""
    with NativeDecoder(libpoyoedge, native_file, stand_in) as opened:
        yield opened
