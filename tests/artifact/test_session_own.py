"""What a session has of its own beside the tables: weights of the encoder, and a mixed filter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.session_files import DIM, a_session, opened, rewritten

from poyo_edge.errors import SessionError, UsageError
from poyo_edge.files import tensors
from poyo_edge.filters.mixed import MixedFilter


def an_encoder() -> dict[str, Any]:
    shapes = {
        "token_type": (3, DIM), "context_norm.weight": (DIM,), "context_norm.bias": (DIM,),
        "to_kv": (4, DIM),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_weights_of_the_encoder_come_out_as_they_went_in(tmp_path: Path) -> None:
    own = an_encoder()
    shuffled = {name: own[name] for name in sorted(own)}
    session = dataclasses.replace(a_session(), encoder=shuffled)
    session.save(tmp_path / "own.session")
    found = opened(tmp_path / "own.session")
    assert found.header.schema_version == 5 and found.encoder is not None
    assert all(np.array_equal(found.encoder[name], own[name]) for name in own)
    assert found.digest == session.digest != a_session().digest
    assert a_session().to_bytes() == dataclasses.replace(session, encoder=None).to_bytes()


@pytest.mark.parametrize("name", ["token_type", "to_kv"])
def test_weights_of_the_encoder_that_are_incomplete_are_refused(tmp_path: Path, name: str) -> None:
    own = an_encoder()
    with pytest.raises(UsageError, match="encoder: expected token_type"):
        dataclasses.replace(a_session(), encoder={k: v for k, v in own.items() if k != name})
    out = tmp_path / "own.session"
    dataclasses.replace(a_session(), encoder=own).save(out)
    arrays, metadata = tensors.from_bytes(out.read_bytes(), out, SessionError)
    del arrays[f"encoder.{name}"]
    out.write_bytes(tensors.to_bytes(arrays, metadata))
    with pytest.raises(SessionError, match=f"encoder.{name}"):
        opened(out)


def a_filter() -> MixedFilter:
    rng = np.random.default_rng(1)
    return MixedFilter(
        share=0.25,
        weights=rng.normal(size=(2, 10, 2)).astype(np.float32),
        bias=np.ones(2, np.float32),
    )


def test_a_mixed_filter_comes_out_as_it_went_in(tmp_path: Path) -> None:
    mixed = a_filter()
    session = dataclasses.replace(a_session(), wiener=mixed, encoder=an_encoder())
    session.save(tmp_path / "mixed.session")
    found = opened(tmp_path / "mixed.session")
    assert found.header.schema_version == 6 and found.wiener is not None
    assert found.header.wiener_share == found.wiener.share == 0.25
    assert np.array_equal(found.wiener.weights, mixed.weights)
    assert np.array_equal(found.wiener.bias, mixed.bias)
    assert found.encoder is not None
    assert found.digest == session.digest
    others = [
        dataclasses.replace(session, wiener=None),
        dataclasses.replace(session, wiener=dataclasses.replace(mixed, share=0.26)),
        dataclasses.replace(session, wiener=dataclasses.replace(mixed, bias=-mixed.bias)),
        dataclasses.replace(session, wiener=dataclasses.replace(mixed, weights=-mixed.weights)),
    ]
    assert len({one.digest for one in [session, *others]}) == 5, "decoded values depend on it"
    plain = dataclasses.replace(found, wiener=None, encoder=None)
    plain.save(tmp_path / "plain.session")
    assert opened(tmp_path / "plain.session").header.schema_version < 3
    assert b"wiener" not in (tmp_path / "plain.session").read_bytes(), "older readers know no such"


@pytest.mark.parametrize(
    ("share", "arrays", "message"),
    [
        (1.5, {}, "a share above 0 and at most 1, got 1.5"),
        (-0.1, {}, "got -0.1"),
        (0, {}, "wiener_share: expected the share of a mixed filter, or no such key, got 0"),
        (0.25, {"wiener.weights": np.ones((3, 10, 2), np.float32)}, "wiener.weights"),
        (0.25, {"wiener.weights": np.ones((2, 10), np.float32)}, "wiener.weights"),
        (0.25, {"wiener.bias": np.ones(3, np.float32)}, "wiener.bias"),
        (0.25, {"wiener.bias": np.full(2, np.nan, np.float32)}, "wiener.bias"),
    ],
)
def test_a_mixed_filter_that_is_none_is_refused(
    tmp_path: Path, share: float, arrays: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mixed.session"
    dataclasses.replace(a_session(), wiener=a_filter()).save(path)
    with pytest.raises(SessionError, match=message):
        opened(rewritten(path, lambda header: header.update(wiener_share=share), arrays))
    with pytest.raises(UsageError, match="expected weights of 2 units, got 1"):
        dataclasses.replace(a_session(), wiener=a_filter().of_units(np.array([0])))
