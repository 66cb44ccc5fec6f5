"""One ONNX Runtime and not two, and systems that nothing was tried on."""

from __future__ import annotations

import pytest

from poyo_edge.doctor.environment import exchanged, lacking, to_mend, unsupported
from poyo_edge.errors import pip_install

CPU = {"onnxruntime": "1.20.0", "onnxruntime-gpu": None}
GPU = {"onnxruntime": None, "onnxruntime-gpu": "1.20.1"}
BOTH = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.20.1"}


@pytest.mark.parametrize(
    ("gpu", "kept"), [(True, "onnxruntime-gpu==1.20.1"), (False, "onnxruntime==1.20.0")]
)
def test_two_runtimes_are_mended_by_one_command(gpu: bool, kept: str) -> None:
    (command,) = to_mend(BOTH, gpu=gpu)
    assert command.partition("  #")[0] == (
        f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps {kept}"
    )
    assert to_mend(CPU, gpu=gpu) == to_mend(GPU, gpu=gpu) == []


def test_a_runtime_for_gpus_is_all_that_an_extra_needs() -> None:
    assert lacking(("torch", "onnxruntime"), {**GPU, "torch": None}) == ["torch"]
    assert lacking(("torch", "onnxruntime"), {"torch": None}) == ["torch", "onnxruntime"]


def test_a_second_runtime_is_never_installed_beside_the_first() -> None:
    commands = (pip_install("ort"), pip_install("gpu"), pip_install("rtx"))
    assert exchanged(commands, {}) == list(commands)
    assert exchanged((pip_install("gpu"),), CPU) == [
        "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    ]


def test_a_system_that_is_not_linux_is_said_in_one_sentence() -> None:
    assert unsupported("Linux") == ""
    said = unsupported("Darwin")
    assert said.startswith("Darwin is not supported: expected Linux")
    assert said.count(". ") == 0
