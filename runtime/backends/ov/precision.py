"""Which precision below FP32 an artifact may use on the CPU: only one that was measured.

``build --target cpu --precision`` writes the record after it has compared R² on a recording;
a core or an OpenVINO that differs from the measured one gets FP32.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import own_folder
from poyo_edge.records import AnyFloat, JsonRecord, require_fields
from poyo_edge.runtime.backends.beside_manifest import read_record, write_record

_log = logging.getLogger(__name__)
FILE = Path("cpu", "precision.json")
"""Where it is in an artifact; the manifest does not list it, since it is made later."""
LIMIT_R2 = 0.002
"""Most R² that a precision may cost."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CpuPrecision(JsonRecord):
    """A precision and the measurement that allows it."""

    core_sha256: str
    backend: str
    version: str
    """Of the package behind the backend."""
    precision: str
    recording: str
    n_windows: int
    r2_fp32: AnyFloat
    r2: AnyFloat
    """Of the lower precision, on the same windows."""
    speedup: float
    """How many times faster than ONNX Runtime in FP32, where it was measured."""
    ranges: dict[str, Any] = dataclasses.field(default_factory=dict)
    """For INT8: name of a weight → largest value that it was multiplied with in calibration, a
    float >= 0."""

    def __post_init__(self) -> None:
        require_fields(self)
        for name, reach in self.ranges.items():
            if not isinstance(reach, float) or not math.isfinite(reach) or reach < 0:
                raise UsageError(f"ranges: {name}: expected a number >= 0, got {reach!r}")
        if not self.r2_fp32 - self.r2 <= LIMIT_R2:
            raise UsageError(
                f"r2: expected a loss of at most {LIMIT_R2}, got {self.r2_fp32 - self.r2:.5f}"
            )

    def save(self, artifact: Path) -> None:
        """Write it into an artifact."""
        write_record(artifact / FILE, self)


def read_precision(artifact: Path) -> CpuPrecision | None:
    """The record of an artifact, or None where there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    return read_record(artifact / FILE, CpuPrecision, "remove it, or build again")


def approved_precision(artifact: Path, core_sha256: str, version: str) -> CpuPrecision | None:
    """The record of a precision that an OpenVINO of this version may compute a core in."""
    record = read_precision(artifact)
    if record is None or (record.core_sha256, record.version) == (core_sha256, version):
        return record
    _log.warning(
        "openvino: %s was measured with another core or OpenVINO (%s, here %s); using fp32",
        record.precision,
        record.version,
        version,
    )
    return None


def forget_precision(artifact: Path) -> bool:
    """Remove the record; whether there was one."""
    there = (artifact / FILE).exists()
    if there:
        own_folder((artifact / FILE).parent)
    (artifact / FILE).unlink(missing_ok=True)
    return there
