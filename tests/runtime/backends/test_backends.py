"""Backends: what is present, what is refused, and that a failure has one type."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError, MissingExtraError, UsageError
from poyo_edge.runtime.backends import list_backends, open_backend
from poyo_edge.runtime.core import Core

Feeds = dict[str, npt.NDArray[Any]]


@pytest.fixture
def core(tiny: Path) -> bytes:
    return Artifact.open(tiny).read(CORE)


@pytest.fixture
def feeds(tiny: Path) -> Feeds:
    """Two windows of three spikes."""
    artifact = Artifact.open(tiny)
    session = artifact.session("tiny_a")
    constants = Core.open(artifact).constants(session.unit_embedding, session.session_embedding)
    return {
        "spike_unit": np.array([[0, 5, 11], [3, 3, 1]], np.int32),
        "spike_time": np.array([[0.1, 0.2, 0.9], [0.0, 0.5, 0.7]], np.float32),
        "spike_mask": np.ones((2, 3), np.bool_),
        "query_time": np.array([[1.0], [1.0]], np.float32),
        **constants.feeds(),
    }


def test_the_cpu_is_present_and_says_with_which_version() -> None:
    (info,) = [info for info in list_backends() if info.name == "ort-cpu"]
    assert info.present
    assert re.fullmatch(r"onnxruntime \d+\.\d+.*", info.reason)


def test_auto_takes_the_best_that_is_present(core: bytes) -> None:
    best = next(info.name for info in list_backends() if info.present)
    assert open_backend("auto", core).name == best


def test_predictions_are_float32_of_batch_queries_outputs(core: bytes, feeds: Feeds) -> None:
    prediction = open_backend("ort-cpu", core).run(feeds)
    assert prediction.shape == (2, 1, 2)
    assert prediction.dtype == np.float32


def test_masked_spikes_change_nothing(core: bytes, feeds: Feeds) -> None:
    backend = open_backend("ort-cpu", core)
    feeds["spike_mask"][:, 1] = False
    masked = backend.run(feeds)
    for name in ("spike_unit", "spike_time", "spike_mask"):
        feeds[name] = np.delete(feeds[name], 1, axis=1)
    assert masked == pytest.approx(backend.run(feeds), abs=2e-6)


def test_more_threads_give_the_same_prediction(core: bytes, feeds: Feeds) -> None:
    one, two = (open_backend("ort-cpu", core, threads=n).run(feeds) for n in (1, 2))
    assert one == pytest.approx(two, abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spike_unit", np.full((2, 3), 99, np.int32)),
        ("spike_time", np.zeros((2, 4), np.float32)),
        ("spike_time", np.zeros((2, 3), np.float64)),
        ("query_time", None),
    ],
)
def test_inputs_that_do_not_fit_end_as_a_backend_error(
    core: bytes, feeds: Feeds, name: str, value: Any
) -> None:
    del feeds[name]
    if value is not None:
        feeds[name] = value
    with pytest.raises(BackendError, match=r"^ort-cpu: "):
        open_backend("ort-cpu", core).run(feeds)


def test_a_core_that_is_none_is_refused() -> None:
    with pytest.raises(BackendError, match=r"^ort-cpu: the core cannot be opened: ") as refused:
        open_backend("ort-cpu", b"not a core")
    assert refused.value.exit_code == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "threads", "message"),
    [
        (
            "abacus",
            1,
            "backend: expected 'auto' or one of ['tensorrt', 'tensorrt-rtx', 'ort-cuda', 'ort-cpu'",
        ),
        ("auto", 0, "threads: expected an integer from 1 to 256, got 0"),
        ("auto", -1, "threads: expected an integer from 1 to 256, got -1"),
        ("auto", 257, "threads: expected an integer from 1 to 256, got 257"),
        ("auto", 2**40, f"threads: expected an integer from 1 to 256, got {2**40}"),
        ("auto", 1.0, "threads: expected an integer from 1 to 256, got 1.0"),
        ("auto", "2", "threads: expected an integer from 1 to 256, got '2'"),
        ("auto", None, "threads: expected an integer from 1 to 256, got None"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    core: bytes, name: str, threads: Any, message: str
) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        open_backend(name, core, threads=threads)


def test_without_onnxruntime_the_message_is_the_command_to_type(
    core: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (info,) = [info for info in list_backends() if info.name == "ort-cpu"]
    assert not info.present
    assert info.reason.endswith("run: pip install onnxruntime")
    with pytest.raises(MissingExtraError) as missing:
        open_backend("auto", core)
    assert str(missing.value).endswith("run: pip install onnxruntime")
    assert missing.value.exit_code == 4
