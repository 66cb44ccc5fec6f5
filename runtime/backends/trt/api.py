"""Every part of TensorRT's Python API that poyo-edge touches, and nothing else.

The tests hold this list against the bindings of five versions of TensorRT and of TensorRT-RTX,
and let builder and backend run only on a double that has no other member. So a name that some
JetPack lacks cannot slip in.
"""

from __future__ import annotations

USED: dict[str, dict[str, int]] = {
    # Class → member → number of positional arguments that we pass (self left out).
    "Builder": {
        "__init__": 1,
        "create_network": 1,
        "create_builder_config": 0,
        "build_serialized_network": 2,
    },
    "INetworkDefinition": {"num_inputs": 0, "num_layers": 0, "get_input": 1},
    "ITensor": {"name": 0, "shape": 0},
    "OnnxParser": {"__init__": 2, "parse": 1, "num_errors": 0, "get_error": 1},
    "ParserError": {"desc": 0, "node_name": 0},
    "IBuilderConfig": {
        "set_memory_pool_limit": 2,
        "profiling_verbosity": 0,
        "clear_flag": 1,
        "progress_monitor": 0,
        "create_timing_cache": 1,
        "set_timing_cache": 2,
    },
    "ITimingCache": {"serialize": 0},
    "ILogger": {"__init__": 0, "log": 2},
    "ILogger.Severity": {"ERROR": 0, "INTERNAL_ERROR": 0, "WARNING": 0},
    "IProgressMonitor": {
        "__init__": 0,
        "phase_start": 3,
        "step_complete": 2,
        "phase_finish": 1,
    },
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED": 0},
    "BuilderFlag": {"TF32": 0},
    "MemoryPoolType": {"WORKSPACE": 0},
    "ProfilingVerbosity": {"DETAILED": 0},
    "Runtime": {"__init__": 1, "deserialize_cuda_engine": 1},
    "ICudaEngine": {
        "num_io_tensors": 0,
        "get_tensor_name": 1,
        "get_tensor_shape": 1,
        "get_tensor_dtype": 1,
        "create_execution_context": 0,
        "create_engine_inspector": 0,
    },
    "IExecutionContext": {"set_tensor_address": 2, "execute_async_v3": 1},
    "EngineInspector": {"get_engine_information": 1},
    "LayerInformationFormat": {"JSON": 0},
    "DataType": {"FLOAT": 0, "INT32": 0, "BOOL": 0},
}

ONLY_IN: dict[str, dict[str, tuple[str, ...]]] = {
    # What is used on some versions only, behind a check of the version or the flavour.
    "BuilderFlag": {"FP16": ("10.3",)},
    "IBuilderConfig": {
        "set_flag": ("10.3",),
        "num_compute_capabilities": ("rtx",),
        "set_compute_capability": ("rtx",),
    },
    "ComputeCapability": {
        "SM80": ("rtx",),
        "SM86": ("rtx",),
        "SM89": ("rtx",),
        "SM120": ("rtx",),
        "SM121": ("rtx",),
    },
}
