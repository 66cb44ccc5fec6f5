"""Every name and argument that we use of TensorRT exists in every version that we claim."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.trt.bindings import WHEELS, Api, read_bindings

from poyo_edge.runtime.backends.trt.api import ONLY_IN, USED
from poyo_edge.targets import RTX_CAPABILITIES

Uses = dict[str, dict[str, int]]


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = getattr(request.config, "cache", None)
    if kept is None:  # pytest -p no:cacheprovider
        return tmp_path_factory.mktemp("tensorrt-bindings")
    return Path(kept.mkdir("tensorrt-bindings"))


def missing(api: Api, used: Uses) -> list[str]:
    """What of ``used`` an API lacks, or takes other numbers of arguments for."""
    found = []
    for kind, members in used.items():
        for member, n_arguments in members.items():
            if member not in api.get(kind, {}):
                found.append(f"{kind}.{member}")
            elif not takes(api[kind][member], n_arguments):
                found.append(f"{kind}.{member} with {n_arguments} arguments")
    return found


def takes(doc: str, n_arguments: int) -> bool:
    """Whether one of a docstring's pybind signatures can be called with that many positionals."""
    signatures = re.findall(r"\w+\(self: [^,)]+(.*)\) -> ", doc)
    if not signatures:
        return True  # a property, an enum member, or a method without a signature
    for arguments in signatures:
        names = [part for part in re.split(r", (?=\w+: |\*)", arguments) if part]
        required = [part for part in names if " = " not in part]
        if len(required) <= n_arguments <= len(names):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_all_that_we_use_is_in_the_bindings(version: str, cache: Path) -> None:
    api = read_bindings(version, cache)
    assert api[""]["__version__"] == version
    assert missing(api, USED) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_what_we_use_on_one_version_only_is_there(version: str, cache: Path) -> None:
    api = read_bindings(version, cache)
    for kind, members in ONLY_IN.items():
        for member, versions in members.items():
            if version.startswith(versions):
                assert member in api[kind], (kind, member)


def test_fp16_is_a_flag_on_10_and_gone_on_11(cache: Path) -> None:
    """Why it is in the list of exceptions, and why precision is in the graph."""
    there = {version: "FP16" in read_bindings(version, cache)["BuilderFlag"] for version in WHEELS}
    assert there == {version: not version.startswith("11") for version in WHEELS}


@pytest.mark.parametrize("version", WHEELS)
def test_a_name_that_is_not_there_would_be_noticed(version: str, cache: Path) -> None:
    api = read_bindings(version, cache)
    for kind, members in USED.items():
        for member in members:
            others = {name: doc for name, doc in api[kind].items() if name != member}
            assert missing({**api, kind: others}, USED) == [f"{kind}.{member}"]


@pytest.mark.parametrize("version", WHEELS)
def test_a_wrong_number_of_arguments_would_be_noticed(version: str, cache: Path) -> None:
    api = read_bindings(version, cache)
    wrong = {"IBuilderConfig": {"set_memory_pool_limit": 1}, "Builder": {"create_network": 4}}
    assert len(missing(api, wrong)) == 2


def test_tensorrt_rtx_has_all_of_it_too() -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("NVIDIA's wheels are missing: pip install tensorrt_rtx_cu13_bindings")
    trt = importlib.import_module("tensorrt_rtx_bindings")
    api: dict[str, Any] = {}
    used: Uses = copy.deepcopy(USED)
    for kind, members in ONLY_IN.items():
        rtx = {member: 0 for member, versions in members.items() if "rtx" in versions}
        used.setdefault(kind, {}).update(rtx)
    for kind in used:
        thing: Any = trt
        for part in kind.split("."):
            thing = getattr(thing, part)
        names = {name: inspect.getattr_static(thing, name) for name in dir(thing)}
        api[kind] = {
            name: "property" if isinstance(value, property) else (value.__doc__ or "")
            for name, value in names.items()
        }
    used["IBuilderConfig"]["set_compute_capability"] = 2
    assert missing(api, used) == []
    assert set(RTX_CAPABILITIES) <= set(api["ComputeCapability"])
