"""What ``doctor`` says of a GPU and of a Jetson."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poyo_edge.cli.console import pairs

Values = Mapping[str, Any]


def accelerator_lines(values: Values) -> list[str]:
    """The GPU, and on a Jetson its state, its faults and what to fix; nothing where none is."""
    machine, jetson = values["accelerator"], values["jetson_state"]
    about = {
        "GPU": f"SM {machine['sm']}" if machine["sm"] else "",
        "driver": f"CUDA {machine['driver']}" if machine["driver"] else "",
        "TensorRT": machine["tensorrt"],
        "TensorRT-RTX": machine["rtx"],
    }
    if jetson is not None:
        clocks = [
            f"{clock['name']} {clock['now']:.0f} of {clock['high']:.0f} MHz"
            + ("" if clock["low"] >= clock["high"] else ", free to fall")
            for clock in jetson["clocks"]
        ]
        about |= {
            "Jetson": jetson["model"] or "unknown model",
            "release": f"L4T {jetson['l4t']}, {jetson['release'] or 'no JetPack that we know'}",
            "CUDA toolkit": jetson["cuda"] or "not found",
            "power mode": jetson["power_mode"] or "unknown",
            "clocks": "; ".join(clocks) or "unknown",
            "CPU governor": jetson["cpu_governor"] or "unknown",
            "build target": jetson["target"] or "none that we know",
        }
    shown = {name: value for name, value in about.items() if value}
    lines = ["", pairs(shown)] if shown else []
    if jetson is not None:
        lines += ["", "to fix", *(jetson["fix"] or ["nothing"])]
        lines += [f"note: {remark}" for remark in values["remarks"]]
    return lines
