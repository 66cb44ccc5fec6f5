"""The operator check: our graphs pass it, and each way to fail it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers.paths import SHARED

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import random_core  # noqa: E402

from poyo_edge.errors import CheckFailedError, UsageError  # noqa: E402
from poyo_edge.export.precision.operator_table import OPERATORS, VERSIONS  # noqa: E402
from poyo_edge.export.precision.operators import check_operators, require_operators  # noqa: E402

Proto = Any
FACTS = SHARED / "facts" / "trt_operators.json"


@pytest.fixture
def proto() -> Proto:
    return random_core().proto


@pytest.mark.parametrize("version", VERSIONS)
def test_the_core_passes_every_table(proto: Proto, version: str) -> None:
    assert check_operators(proto, version) == []


def test_every_operator_of_the_core_is_one_that_the_table_calls_used(
    proto: Proto,
) -> None:
    used = {node.op_type for node in proto.graph.node}
    tempting = {name for name, known in OPERATORS.items() if known.first != VERSIONS[0]}
    assert used == set(OPERATORS) - tempting


def _append(proto: Proto, *arguments: object, **attributes: object) -> None:
    node = onnx.helper.make_node(*arguments, name="culprit", **attributes)
    proto.graph.node.append(node)


def _forbidden(proto: Proto) -> None:
    _append(proto, "CumSum", ["prediction", "ints.1"], ["extra"])


def _later(proto: Proto) -> None:
    proto.opset_import[0].version = 23
    _append(proto, "RMSNormalization", ["session_query", "session_query"], ["extra"])


def _attribute(proto: Proto) -> None:
    _append(proto, "LayerNormalization", ["session_query"] * 2, ["extra"], stash_type=1)


def _outputs(proto: Proto) -> None:
    _append(proto, "LayerNormalization", ["session_query"] * 2, ["extra", "mean"], axis=-1)


def _double(proto: Proto) -> None:
    _append(proto, "Cast", ["prediction"], ["double"], to=onnx.TensorProto.DOUBLE)
    _append(proto, "Neg", ["double"], ["extra"])


def _mixed(proto: Proto) -> None:
    _append(proto, "Cast", ["prediction"], ["half"], to=onnx.TensorProto.FLOAT16)
    _append(proto, "Add", ["half", "prediction"], ["extra"])


def _computed_axes(proto: Proto) -> None:
    _append(proto, "Shape", ["session_query"], ["axes"])
    _append(proto, "Unsqueeze", ["prediction", "axes"], ["extra"])


def _foreign(proto: Proto) -> None:
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    _append(proto, "FastGelu", ["prediction"], ["extra"], domain="com.microsoft")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_forbidden, "CumSum 'culprit': expected an operator of our table"),
        (_later, "RMSNormalization 'culprit': expected an operator of 10.3, got one that exists "
                 "from 10.15 on"),
        (_attribute, "'culprit': expected no attribute but ['axis', 'epsilon'], got ['stash_type"),
        (_outputs, "'culprit': expected the first output alone, got ['extra', 'mean']"),
        (_double, "Neg 'culprit': expected types ['BFLOAT16', 'FLOAT', 'FLOAT16', 'INT32'"),
        (_mixed, "types 'model': expected types that ONNX allows"),
        (_computed_axes, "Unsqueeze 'culprit': expected input 1 to be an initializer, got 'axes'"),
        (_foreign, "expected standard operators only, got the domain 'com.microsoft'"),
    ],
)  # fmt: skip
def test_a_graph_with_one_forbidden_thing_fails_by_name(
    proto: Proto, damage: Callable[[Proto], None], words: str
) -> None:
    damage(proto)
    problems = [str(problem) for problem in check_operators(proto, "10.3")]
    assert any(words in problem for problem in problems), problems
    with pytest.raises(CheckFailedError, match=r"^operators: expected .* TensorRT 10\.3: ") as bad:
        require_operators(proto, ["10.3"])
    assert bad.value.exit_code == 3


def test_versions_differ_in_what_they_take(proto: Proto) -> None:
    _later(proto)
    assert check_operators(proto, "10.3")
    assert check_operators(proto, "10.13")
    assert not check_operators(proto, "10.15")
    assert not check_operators(proto, "11.1")


def test_the_newest_opset_is_a_limit_too(proto: Proto) -> None:
    proto.opset_import[0].version = 21
    (problem,) = check_operators(proto, "10.3")
    assert str(problem) == "TensorRT 10.3: opset 'model': expected opset 20 at most, got 21"
    assert not check_operators(proto, "10.13")


def test_a_version_without_a_table_is_refused(proto: Proto) -> None:
    with pytest.raises(UsageError, match=r"^version: expected one of \['10.3', .* got '8.6'$"):
        check_operators(proto, "8.6")


def test_the_table_says_what_the_facts_say() -> None:
    if not FACTS.is_file():
        pytest.skip(f"the published operator tables are not at {FACTS}")
    facts = json.loads(FACTS.read_text())["versions"]
    onnx_name = {"FP32": "FLOAT", "FP16": "FLOAT16", "BF16": "BFLOAT16"}
    for version in VERSIONS:
        table = facts["tensorrt_" + version if version.startswith("rtx") else version]
        for name, known in OPERATORS.items():
            exists = VERSIONS.index(known.first) <= VERSIONS.index(version)
            assert (name in table and table[name]["supported"]) == exists, (version, name)
            if exists and table[name]["types"]:
                types = {onnx_name.get(kind, kind) for kind in table[name]["types"]}
                assert known.types <= types, (version, name)
