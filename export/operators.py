"""Which operators ONNX Runtime needs for a core and a frozen session: for a reduced build of it.

Its format (``build.sh --include_ops_by_config``) is a line ``domain;opset;operator,operator`` for
each domain. ONNX Runtime also makes operators of its own while it opens a graph, so what it makes
of each graph is listed too.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from poyo_edge.artifact import CORE, CORE_ORT_CPU, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.export.freeze import freeze_session
from poyo_edge.files import wire
from poyo_edge.files.writing import atomic_path, require_folder

_OPSET, _GRAPH, _NODE = 8, 7, 1
Operators = dict[tuple[str, int], set[str]]
"""(domain, opset) → names."""


def write_operators(artifact: str | Path, out: str | Path) -> int:
    """Write what the graphs of an artifact need, and how many operators that is.

    Args:
        artifact: the folder ``NAME.poyo``; its first session is frozen for it.
        out: the file to write; one that is there is replaced.

    Raises:
        ArtifactError: a file of it cannot be used.
        UsageError: ``out`` cannot be written.
        BackendError: ONNX Runtime does not open a graph.
    """
    require_folder(Path(out))
    opened = Artifact.open(artifact)
    graphs = [opened.read(n) for n in (CORE, CORE_ORT_CPU) if n in opened.manifest.files]
    with tempfile.TemporaryDirectory() as folder:
        for session in [*opened.session_files()][:1]:
            frozen = Path(folder) / "frozen.onnx"
            freeze_session(artifact, session, frozen)
            graphs.append(frozen.read_bytes())
        found = operators_of([*graphs, *(_as_run(graph, Path(folder)) for graph in graphs)])
    lines = [
        "# Operators of a core and of a frozen session, as ONNX Runtime opens them (CPU).",
        "# For build.sh --include_ops_by_config; types are float, int32, int64 and bool.",
        *(
            f"{domain or 'ai.onnx'};{opset};{','.join(sorted(names))}"
            for (domain, opset), names in sorted(found.items())
        ),
    ]
    with atomic_path(Path(out)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(len(names) for names in found.values())


def operators_of(graphs: Iterable[bytes]) -> Operators:
    """The operators of ONNX models, by domain and the opset that each model asks for."""
    found: Operators = defaultdict(set)
    for graph in graphs:
        opsets, nodes = dict[str, int](), list[tuple[str, str]]()
        for field in wire.fields(memoryview(graph)):
            if field.number == _OPSET and isinstance(field.value, memoryview):
                version = next(f.value for f in wire.fields(field.value) if f.number == 2)
                assert isinstance(version, int)  # the guard has seen it, or ONNX Runtime wrote it
                opsets[_standard(_texts(field.value).get(1, ""))] = version
            elif field.number == _GRAPH and isinstance(field.value, memoryview):
                for node in wire.fields(field.value):
                    if node.number == _NODE and isinstance(node.value, memoryview):
                        texts = _texts(node.value)
                        nodes.append((_standard(texts.get(7, "")), texts[4]))
        for domain_of, operator in nodes:
            found[domain_of, opsets.get(domain_of, 1)].add(operator)
    return dict(found)


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _texts(message: memoryview) -> dict[int, str]:
    """Number → text of the fields that name things."""
    return {
        field.number: str(field.value, "utf-8")
        for field in wire.fields(message)
        if field.number in (1, 4, 7) and isinstance(field.value, memoryview)
    }


def _as_run(graph: bytes, folder: Path) -> bytes:
    """What ONNX Runtime makes of a graph before it runs it."""
    import onnxruntime

    options, path = onnxruntime.SessionOptions(), folder / "optimised.onnx"
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BackendError(f"ort-cpu: a graph cannot be opened: {problem}") from problem
    return path.read_bytes()
