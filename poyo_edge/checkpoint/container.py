"""What a checkpoint file keeps its weights in, and what training had put around their names.

Containers: Lightning's dict and a bare ``state_dict`` (layouts A to C), the flat dict of the
ibl-bwb trainers (layout F), safetensors with a vocabulary file beside it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from poyo_edge.checkpoint.file import CheckpointFile
from poyo_edge.checkpoint.foreign import Foreign
from poyo_edge.checkpoint.keys import TASK_VOCAB, UNIT_TABLE, VOCAB_KEYS
from poyo_edge.errors import CheckpointError, UsageError

ContainerKind = Literal["lightning", "state_dict", "model_state_dict", "safetensors"]
_WHERE: dict[ContainerKind, str] = {
    "lightning": "weights under 'state_dict'",
    "state_dict": "a bare state dict",
    "model_state_dict": "weights under 'model_state_dict'",
    "safetensors": "a safetensors file",
}
_WRAPPERS = re.compile(r"(?:model\.|module\.|_orig_mod\.)*")
_COMPILED = "_orig_mod."
_MOST_VOCAB_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a checkpoint file holds: nothing about the model is known yet."""

    kind: ContainerKind
    sha256: str
    prefix: str
    """What training wrappers had put before every key, for example "model."."""
    state: dict[str, Any]
    """Key, without the prefix, → tensor or vocabulary."""
    hyper: Mapping[str, Any]
    """The hyper-parameters or configuration; empty when there are none."""

    @property
    def where(self) -> str:
        """In words: where the weights were, and what was stripped from their names."""
        stripped = f"the prefix {self.prefix!r} was stripped" if self.prefix else "no prefix"
        return f"{_WHERE[self.kind]}; {stripped}"


def open_container(path: Path, file: CheckpointFile, vocab: Path | None = None) -> Container:
    """Find the weights in what a file holds, and strip what training had put around their names.

    Args:
        path: of the file.
        file: what it holds.
        vocab: JSON with the vocabularies that the file lacks; None looks for
            ``NAME.vocab.json`` beside it.

    Raises:
        CheckpointError: without weights, or keys that collide; a vocabulary file without sense.
        UsageError: ``vocab`` is named and the checkpoint has one of those itself.
    """
    state, hyper, kind = _opened(path, file.content)
    prefix = _wrapper_prefix(state)
    state = _stripped(path, state, prefix)
    beside = path.with_name(f"{path.stem}.vocab.json")
    if vocab is not None:
        state |= _lacking(vocab, read_vocab(vocab), state)
    elif beside.is_file():
        state = {**read_vocab(beside), **state}
    if file.safetensors and any(key not in state for key in VOCAB_KEYS):
        raise CheckpointError(
            path,
            "vocabulary",
            expected=f"a vocabulary file beside the weights, {beside.name}",
            got="none; safetensors files hold tensors alone",
            do="write one where the model is (see docs/checkpoints.md), or name it: export --vocab",
        )
    kind = "safetensors" if file.safetensors else kind
    return Container(kind=kind, sha256=file.sha256, prefix=prefix, state=state, hyper=hyper)


def read_vocab(path: Path) -> dict[str, dict[str, int]]:
    """The vocabularies in a JSON file: any of "unit_emb.vocab", "session_emb.vocab" and, for
    POYO+, "task_emb.vocab", each id → row.

    Raises:
        CheckpointError: missing, no JSON, or no mapping of that kind.
    """
    try:
        if path.stat().st_size > _MOST_VOCAB_BYTES:
            raise ValueError("a file of more than 256 MiB")
        values = json.loads(path.read_text(encoding="utf-8"))
        known = (*VOCAB_KEYS, TASK_VOCAB)
        if not isinstance(values, dict) or not values or not set(values) <= set(known):
            names = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{names!s:.80}")
    except (OSError, ValueError, RecursionError) as problem:
        raise CheckpointError(
            path,
            "vocabulary",
            expected=f"JSON with {', '.join(VOCAB_KEYS)} or {TASK_VOCAB}",
            got=str(problem),
            do="write it as docs/checkpoints.md says",
        ) from None
    return values


def _lacking(path: Path, given: Mapping[str, Any], state: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in given:
        if key in state:
            raise UsageError(
                f"{path}: expected vocabularies that the checkpoint lacks, got {key!r}, which it "
                "has; leave that out, or leave --vocab out"
            )
    return given


def no_weights(path: Path, got: str) -> CheckpointError:
    """The refusal of a file in which there is no ``state_dict``."""
    return CheckpointError(
        path,
        "content",
        expected="a POYO state dict or a Lightning checkpoint",
        got=got,
        do="pass a file written by Lightning or by torch.save(model.state_dict(), PATH)",
    )


def _opened(path: Path, content: object) -> tuple[dict[str, Any], Mapping[str, Any], ContainerKind]:
    """The ``state_dict``, the hyper-parameters (empty when there are none) and the container."""
    if not isinstance(content, Mapping):
        raise no_weights(path, type(content).__name__)
    kind: ContainerKind = "state_dict"
    state, hyper = content, None
    if "model_state_dict" in content:
        kind, state, hyper = "model_state_dict", content["model_state_dict"], content.get("cfg")
    elif "state_dict" in content:
        kind, state, hyper = "lightning", content["state_dict"], content.get("hyper_parameters")
    if not isinstance(state, Mapping):
        raise no_weights(path, f"a state_dict that is a {type(state).__name__}")
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise no_weights(path, f"no tensor under the keys {[str(k) for k in state][:5]}")
    if not all(isinstance(key, str) for key in state):
        raise no_weights(path, "keys that are not text")
    return dict(state), _without_classes(hyper), kind


def _without_classes(hyper: object) -> Mapping[str, Any]:
    """Hyper-parameters, with the plain attributes of what was pickled instead of the objects."""
    if isinstance(hyper, Foreign):
        hyper = hyper.values
    if not isinstance(hyper, Mapping):
        return {}
    return {k: v.values if isinstance(v, Foreign) else v for k, v in hyper.items()}


def _wrapper_prefix(keys: Iterable[str]) -> str:
    """The leading "model.", "module." and "_orig_mod." that training wrappers put before keys."""
    keys = list(keys)
    anchor = min((k for k in keys if k.endswith(UNIT_TABLE)), key=len, default=keys[0])
    match = _WRAPPERS.match(anchor)
    return match.group() if match else ""


def _stripped(path: Path, state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Without the prefix, and without what ``torch.compile`` puts before parts of a model."""
    names = {key: key.removeprefix(prefix).replace(_COMPILED, "") for key in state}
    repeated = next(_repeated(names), None)
    if repeated is not None:
        got = f"keys that occur both with and without the prefix {prefix!r}, {repeated!r}"
        raise no_weights(path, got if prefix else f"the key {repeated!r} twice")
    return {names[key]: value for key, value in state.items()}


def _repeated(names: Mapping[str, str]) -> Iterator[str]:
    seen = set[str]()
    for name in names.values():
        if name in seen:
            yield name
        seen.add(name)
