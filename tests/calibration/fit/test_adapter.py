"""What a fit asks the model: the decoder's windows, and the slopes of the loss on them.

Legend: B batch, N spike tokens, Q queries.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.calibrating.teacher import DIM, T, adapter, lesson, prior
from helpers.damage import flip_bit
from hypothesis import given, settings
from hypothesis import strategies as st

import poyo_edge.calibration.fit.adapter as adapter_module
from poyo_edge.arrays import Float32, Float64, Int64
from poyo_edge.artifact import ADAPT, ADAPT_ORT_CPU, PRIOR, Artifact
from poyo_edge.calibration import Calibrator
from poyo_edge.calibration.fit.adapter import Adapter, Weighting
from poyo_edge.calibration.fit.labels import Labels
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.errors import ArtifactError, BackendError
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.backends import open_ort_cpu
from poyo_edge.spec import OutputScale

if TYPE_CHECKING:
    from conftest import Rig

GRID_HZ = 4096
EQUAL_SD = 1e-5  # 3.2e-6
"""Of a padded batch and single windows, relative to the output's spread; beside it the worst."""
SLOPE = 1e-4  # 2.6e-6
"""Of gradients and finite differences, relative; beside it the measured worst case."""
FLAT = Weighting(tail_s=0.25, early=1.0)


def stream(n_spikes: int, duration_s: float = 6.0, *, n_units: int = 12, hz: int = 16) -> Labels:
    """Random spikes and labels at times that are exact in binary."""
    rng = np.random.default_rng(n_spikes)
    times = np.arange(round(T * hz), round(duration_s * hz)) / hz
    ticks = np.sort(rng.choice(round(duration_s * GRID_HZ), n_spikes, replace=False))
    return Labels(
        n_units=n_units,
        spike_times=ticks / GRID_HZ,
        spike_rows=rng.integers(0, n_units, n_spikes).astype(np.int32),
        times=times,
        values=10 * rng.standard_normal((len(times), 2)),
        stretches=np.array([[0.0, duration_s]]),
    )


def with_spikes(labels: Labels, times: Float64, rows: Any) -> Labels:
    order = np.argsort(times, kind="stable")
    return dataclasses.replace(
        labels, spike_times=times[order], spike_rows=np.asarray(rows, np.int32)[order]
    )


def with_a_hole(labels: Labels) -> Labels:
    """Nothing is heard or labelled for eight seconds."""
    return dataclasses.replace(
        labels,
        times=labels.times + 8.0 * (labels.times >= 3.0),
        spike_times=labels.spike_times + 8.0 * (labels.spike_times >= 3.0),
    )


def embeddings(n_units: int, seed: int = 0) -> tuple[Float32, Float32]:
    rng = np.random.default_rng(seed)
    z = 0.3 * rng.standard_normal((n_units, DIM))
    units = prior().unit_mean + z @ prior().unit_root.T
    session = prior().session_mean + 0.3 * rng.standard_normal(DIM)
    return units.astype(np.float32), session.astype(np.float32)


def test_a_batch_holds_the_windows_of_its_samples() -> None:
    labels, ends = stream(300), np.array([3, 17, 60])
    batch = adapter().batch(labels, ends, FLAT)
    for i, end in enumerate(ends):
        t = labels.times[end]
        heard = (labels.spike_times >= t - T) & (labels.spike_times < t)
        mask = batch["spike_mask"][i]
        assert np.array_equal(mask, np.arange(len(mask)) < heard.sum()), "padding comes last"
        assert np.array_equal(batch["spike_unit"][i][mask], labels.spike_rows[heard])
        relative = labels.spike_times[heard] - (t - T)
        assert np.array_equal(batch["spike_time"][i][mask], relative.astype(np.float32))
        assert (batch["spike_unit"][i][~mask] == 0).all()
        assert (batch["spike_time"][i][~mask] == 0).all()
        queried = (labels.times >= t - T) & (labels.times <= t)
        n_queries = queried.sum()
        assert np.array_equal(
            batch["query_time"][i, :n_queries],
            (labels.times[queried] - (t - T)).astype(np.float32),
        )
        assert batch["target"][i, :n_queries] == pytest.approx(labels.values[queried] / 10.0)
    dtypes = {name: array.dtype.name for name, array in batch.items()}
    assert dtypes == {
        "spike_unit": "int32",
        "spike_time": "float32",
        "spike_mask": "bool",
        "query_time": "float32",
        "target": "float32",
        "target_weight": "float32",
    }


def test_a_batch_is_padded_to_its_longest_window_only() -> None:
    labels = stream(300)
    for ends in (np.array([5]), np.array([5, 60]), np.arange(20, 50)):
        t = labels.times[ends]
        counts = np.searchsorted(labels.spike_times, t) - np.searchsorted(labels.spike_times, t - T)
        assert adapter().batch(labels, ends, FLAT)["spike_time"].shape == (len(ends), counts.max())


def test_samples_count_by_how_late_they_are() -> None:
    labels = stream(100)
    batch = adapter().batch(labels, np.array([40]), Weighting(tail_s=0.25, early=0.125))
    # A quarter of a second holds four samples at 16 Hz.
    assert batch["target_weight"][0].tolist() == [0.125] * 13 + [1.0] * 4
    last = adapter().batch(labels, np.array([40]), Weighting(tail_s=1e-3, early=0.0))
    assert last["target_weight"][0].tolist() == [0.0] * 16 + [1.0]
    assert (adapter().batch(labels, np.array([40]), FLAT)["target_weight"] == 1.0).all()


def test_queries_that_only_fill_the_row_count_nothing() -> None:
    """After a hole a window holds fewer samples than its neighbours in the batch."""
    labels = with_a_hole(stream(300))
    ends = np.array([20, int(np.searchsorted(labels.times, 11.0)) + 2])
    batch = adapter().batch(labels, ends, FLAT)
    assert (batch["target_weight"] > 0).sum(1).tolist() == [17, 3]
    assert (batch["target_weight"][1, 3:] == 0).all()
    alone = adapter().batch(labels, ends[1:], FLAT)
    assert alone["target_weight"].shape == (1, 3)
    units, session = embeddings(12)
    full = adapter().gradients(
        adapter().batch(labels, np.repeat(ends[1:], 2), FLAT), units, session
    )
    half = adapter().gradients(alone, units, session)
    assert full[0] == pytest.approx(half[0], rel=1e-5)
    assert full[1] == pytest.approx(half[1], rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=80)
@given(
    start=st.floats(-1e3, 2e9),
    hz=st.floats(3.0, 60.0),
    ends=st.lists(st.integers(70, 299), min_size=1, max_size=6),
)
def test_queries_lie_in_their_window_whatever_the_clock(
    start: float, hz: float, ends: list[int]
) -> None:
    times = start + np.arange(300) / hz
    labels = dataclasses.replace(
        stream(10), times=times, values=np.zeros((300, 2)), spike_times=times[:10] + 1e-3
    )
    batch = adapter().batch(labels, np.array(ends), Weighting(tail_s=1e-3, early=0.5))
    query, weight = batch["query_time"], batch["target_weight"]
    assert query.min() >= 0.0
    assert query.max() <= np.float32(T)
    assert query[weight == 1.0] == pytest.approx([T] * len(ends)), "the last sample of each"


def test_targets_are_in_the_models_scale() -> None:
    opened = adapter().artifact
    output = OutputScale(scale=(4.0, -0.5), offset=(3.0, 1.0))
    manifest = dataclasses.replace(opened.manifest, output=output)
    scaled = Adapter(Artifact(path=opened.path, manifest=manifest))
    labels, end = stream(200), np.array([30])
    units, session = embeddings(12)
    target = scaled.batch(labels, end, FLAT)["target"][0, -1]
    assert target == pytest.approx((labels.values[30] - [3.0, 1.0]) / [4.0, -0.5], rel=1e-6)
    raw = adapter().predict(labels, end, units, session) / 10.0
    assert scaled.predict(labels, end, units, session) == pytest.approx(raw * [4.0, -0.5] + [3, 1])


def decoded(rig: Rig, labels: Labels, samples: Int64) -> Float64:
    """The same by the decoder, as a stream."""
    decoder, pushed, out = rig.decoder(), 0, []
    for t in labels.times[samples]:
        heard = int(np.searchsorted(labels.spike_times, t))
        decoder.push(labels.spike_times[pushed:heard], labels.spike_rows[pushed:heard])
        pushed = heard
        out.append(decoder.decode(float(t)).value)
    return np.array(out)


def require_decoded_alike(rig: Rig, labels: Labels, samples: Int64) -> None:
    a = rig.a
    predicted = adapter().predict(labels, samples, a.unit_embedding, a.session_embedding)
    worst = np.abs(predicted - decoded(rig, labels, samples)).max() / rig.output_sd
    assert worst < EQUAL_SD, f"{worst:.1e}"


@pytest.mark.parametrize("n_spikes", [0, 1, 20, 300, 2000])
def test_predictions_are_the_decoders(rig: Rig, n_spikes: int) -> None:
    labels = stream(n_spikes)
    require_decoded_alike(rig, labels, np.arange(len(labels.times)))


def test_spikes_at_the_edges_of_windows_are_decoded_as_the_decoder_does(rig: Rig) -> None:
    labels = stream(40, hz=4)
    edges = np.arange(0, 6 * 4) / 4
    times = np.concatenate([labels.spike_times, edges, edges])
    rows = np.concatenate([labels.spike_rows, np.arange(24) % 12, (np.arange(24) + 5) % 12])
    full = with_spikes(labels, times, rows)
    require_decoded_alike(rig, full, np.arange(len(labels.times)))
    batch = adapter().batch(full, np.array([7]), FLAT)
    t = full.times[7]
    at_start = (full.spike_times == t - T).sum()
    assert at_start == 2
    assert (batch["spike_time"][0, : at_start + 1] == 0).tolist() == [True, True, False]
    assert batch["spike_time"].max() < np.float32(T), "a spike at t belongs to later windows"


def test_a_spike_just_before_the_end_keeps_its_place(rig: Rig) -> None:
    """In float32 its time from the start would round to the window's length."""
    end = 5.0
    times = np.array([4.5, np.nextafter(end, 0)])
    labels = with_spikes(stream(2), times, [1, 2])
    sample = np.flatnonzero(labels.times == end)
    assert adapter().batch(labels, sample, FLAT)["spike_time"].max() < np.float32(T)
    require_decoded_alike(rig, labels, sample)


def test_of_too_many_spikes_the_newest_are_kept(rig: Rig) -> None:
    most = adapter().artifact.manifest.max_spikes
    labels = stream(9000)
    samples = np.arange(len(labels.times))
    batch = adapter().batch(labels, samples[:3], FLAT)
    assert batch["spike_mask"].shape == (3, most)
    assert batch["spike_mask"].all()
    end = int(np.searchsorted(labels.spike_times, labels.times[0]))
    assert np.array_equal(batch["spike_unit"][0], labels.spike_rows[end - most : end])
    require_decoded_alike(rig, labels, samples[::8])


def test_predictions_do_not_depend_on_how_many_there_are() -> None:
    labels, (units, session) = stream(400, 12.0), embeddings(12)
    samples = np.arange(len(labels.times))
    assert len(samples) > 64
    together = adapter().predict(labels, samples, units, session)
    assert together.shape == (len(samples), 2)
    assert together.dtype == np.float64
    for sample in (0, 31, 32, 33, len(samples) - 1):
        alone = adapter().predict(labels, np.array([sample]), units, session)[0]
        assert together[sample] == pytest.approx(alone, abs=EQUAL_SD)
    assert adapter().predict(labels, samples[:0], units, session).shape == (0, 2)


def test_the_loss_is_the_weighted_mean_of_squares() -> None:
    """In a batch of any size, whose windows hold different numbers of labels."""
    labels, ends = stream(300), np.arange(2, 80, 4)
    labels = with_a_hole(labels)
    units, session = embeddings(12)
    batch = adapter().batch(labels, ends, Weighting(tail_s=0.2, early=0.3))
    core = adapter().core
    constants = core.constants(units, session)
    total = weights = 0.0
    for i in range(len(ends)):
        mask, weight = batch["spike_mask"][i], batch["target_weight"][i].astype(np.float64)
        predicted = core.predict(
            constants,
            batch["spike_time"][i][mask],
            batch["spike_unit"][i][mask],
            batch["query_time"][i],
        )
        total += (weight * ((predicted - batch["target"][i]) ** 2).mean(-1)).sum()
        weights += weight.sum()
    assert adapter().gradients(batch, units, session)[0] == pytest.approx(total / weights, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_the_slopes_of_the_loss(seed: int) -> None:
    """Along random directions: the difference of the loss over the length of a short way."""
    labels, ends = lesson().labels(), np.array([15, 100, 101, 102, 150, 177, 203, 240, 300, 333])
    units, session = embeddings(6, seed)
    batch = adapter().batch(labels, ends, FLAT)
    _, by_units, by_session = adapter().gradients(batch, units, session)
    assert by_units.shape == units.shape
    assert by_session.shape == session.shape
    rng = np.random.default_rng(seed)
    way = rng.standard_normal((len(units) + 1, DIM)).astype(np.float32)
    way += (
        np.sign((by_units * way[:-1]).sum() + by_session @ way[-1])
        * np.concatenate([by_units, by_session[None]])
        / np.float32(np.sqrt((by_units**2).mean()))
    )
    slopes = []
    for h in (4e-3, 2e-3):
        ahead, behind = (
            adapter().gradients(batch, units + s * way[:-1], session + s * way[-1])[0]
            for s in (np.float32(h), np.float32(-h))
        )
        slopes.append((ahead - behind) / (2 * h))
    slope = (4 * slopes[1] - slopes[0]) / 3  # Richardson: errors of the second order cancel
    expected = float((by_units * way[:-1]).sum() + by_session @ way[-1])
    assert slope == pytest.approx(expected, rel=SLOPE)


def test_each_tables_gradient_is_its_own() -> None:
    labels, ends = lesson().labels(), np.array([15, 100, 333])
    units, session = embeddings(6)
    batch = adapter().batch(labels, ends, FLAT)
    loss, by_units, by_session = adapter().gradients(batch, units, session)
    for table, gradient in ((units, by_units), (session, by_session)):
        step = np.float32(1e-3 / np.sqrt((gradient**2).sum())) * gradient
        table -= step
        lower = adapter().gradients(batch, units, session)[0]
        table += step
        assert loss - lower == pytest.approx(1e-3 * np.sqrt((gradient**2).sum()), rel=0.05)


def test_a_backend_that_fails_is_named() -> None:
    units, session = embeddings(12)
    batch = adapter().batch(stream(50), np.array([3]), FLAT)
    with pytest.raises(BackendError, match=r"^ort-cpu: adapt\.onnx: "):
        adapter().gradients(batch, units[:, :5], session)


def without(artifact: Artifact, name: str) -> Artifact:
    files = {file: record for file, record in artifact.manifest.files.items() if file != name}
    return Artifact(
        path=artifact.path, manifest=dataclasses.replace(artifact.manifest, files=files)
    )


def test_an_artifact_without_gradients_or_statistics_is_refused(tiny: Path) -> None:
    artifact = Artifact.open(tiny)
    message = (
        f"{tiny}: adapt.onnx: expected the graph of gradients, got an artifact without one; "
        f"export the checkpoint again with this version of poyo-edge"
    )
    with pytest.raises(ArtifactError, match=f"^{re.escape(message)}$"):
        Adapter(without(artifact, ADAPT))
    message = (
        f"{tiny / PRIOR}: file: expected statistics of the trained embeddings, got an artifact "
        f"without them; export the checkpoint again with this version of poyo-edge"
    )
    with pytest.raises(ArtifactError, match=f"^{re.escape(message)}$"):
        Prior.open(without(artifact, PRIOR))


@pytest.mark.parametrize("reason", ["absent", "does not open"])
def test_without_the_graph_for_onnx_runtime_the_plain_one_gives_the_gradients(
    tiny: Path, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, opened = Artifact.open(tiny), list[str]()

    def noted(model: bytes, *, threads: int, what: str) -> Any:
        opened.append(what)
        if what == ADAPT_ORT_CPU and reason == "does not open":
            raise BackendError("an older ONNX Runtime")
        return open_ort_cpu(model, threads=threads, what=what)

    monkeypatch.setattr(adapter_module, "open_ort_cpu", noted)
    if reason == "absent":
        artifact = without(artifact, ADAPT_ORT_CPU)
    plain = Adapter(artifact)
    assert opened == ([ADAPT] if reason == "absent" else [ADAPT_ORT_CPU, ADAPT])
    batch = adapter().batch(stream(300), np.array([3, 17, 60]), FLAT)
    ours, theirs = (one.gradients(batch, *embeddings(12)) for one in (adapter(), plain))
    for got, want in zip(ours, theirs, strict=True):
        error = np.abs(np.asarray(got) - np.asarray(want)).max()
        assert error <= 1e-5 * np.abs(np.asarray(want)).max()  # 5e-7
    opened.clear()
    monkeypatch.undo()
    reason = "none"
    monkeypatch.setattr(adapter_module, "open_ort_cpu", noted)
    artifact, read, whole = Artifact.open(tiny), list[str](), Artifact.read

    def reading(self: Artifact, name: str) -> bytes:
        read.append(name)
        return whole(self, name)

    monkeypatch.setattr(Artifact, "read", reading)
    Adapter(artifact)
    assert opened == [ADAPT_ORT_CPU]
    assert ADAPT_ORT_CPU in read and ADAPT not in read  # read and hashed where it is needed


@pytest.mark.parametrize("name", [ADAPT, ADAPT_ORT_CPU, PRIOR])
def test_an_artifact_that_lost_or_damaged_a_file_is_refused_by_its_name(
    tiny_copy: Path, name: str
) -> None:
    file = tiny_copy / name
    flip_bit(file)
    with pytest.raises(ArtifactError, match=rf"^{re.escape(str(file))}: sha256: ") as damaged:
        Calibrator.open(tiny_copy, ["u"])
    assert damaged.value.exit_code == 5
    file.unlink()
    with pytest.raises(ArtifactError, match=rf"^{re.escape(str(file))}: file: expected one that"):
        Calibrator.open(tiny_copy, ["u"])
    with pytest.raises(ArtifactError):
        Decoder.open(tiny_copy, "tiny_a")
