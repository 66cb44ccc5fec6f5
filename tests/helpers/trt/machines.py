"""Machines that a test can say it runs on."""

from __future__ import annotations

import sys

import pytest

from helpers.trt.double import Double
from poyo_edge.export.engines import build as build_module
from poyo_edge.runtime.backends import opening as backends
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.libcuda import CudaLibrary

HERE = Machine()
"""A workstation without a GPU."""
ORIN = Machine(sm="87", driver="12.6", l4t="36.4.3", tensorrt="10.3.0")


def on(machine: Machine, double: Double | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that this is that machine, with the double for its TensorRT and CUDA."""
    for module in (build_module, backends):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    if double is not None:
        monkeypatch.setitem(sys.modules, "tensorrt", double.trt)
        monkeypatch.setattr(Cuda, "open", lambda: Cuda(CudaLibrary(double.cuda)))
