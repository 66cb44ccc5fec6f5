"""What commands print as JSON, as reports are made of it."""

from __future__ import annotations

import math
from typing import Any

UNIT = "<img src=x onerror=alert(1)>"
"""A name that a file may hold."""


def calibration_values(**changed: Any) -> dict[str, Any]:
    """Of ``calibrate --report --json``."""
    units = [
        {"unit": f"day/unit_{i:03d}", "rate_hz": 3.0 + i, "part": 0.02 - 0.001 * i,
         "distance": 0.3 + 0.1 * i}
        for i in range(24)
    ]  # fmt: skip
    units[2]["unit"] = UNIT
    control = {"angular_error_deg": 6.5, "gain": 0.82, "held_gain": None, "bias_at_rest": 0.58,
               "noise_at_rest": 1.57}  # fmt: skip
    values: dict[str, Any] = {
        "session": "today.session",
        "behavior": "cursor.vel",
        "nan_samples": 3,
        "r2_heldout": 0.72,
        "r2_per_dim": [0.70, 0.74],
        "r2_interval": [[0.62, 0.77], [0.66, 0.80]],
        "n_judged": 575,
        "r2_in_use": 0.61,
        "labelled_s": 60.0,
        "steps": 60,
        "wall_s": 47.0,
        "stopped": "past the best",
        "curve": [
            {"step": step, "loss": None if not step else 1.0, "r2": -0.1 + 0.8 * (1 - 0.9**step),
             "r2_per_dim": [0.5, 0.6]}
            for step in range(0, 101, 10)
        ],
        "silent_units": ["day/unit_090"],
        "notes": ["a note"],
        "compared": {"control_in_use": {**control, "gain": 0.7}},
        "control": control,
        "label_speed": 28.0,
        "labels": [],
        "started": "first guess",
        "wiener": {"r2_heldout": 0.69, "r2_per_dim": [0.66, 0.72], "angular_error_deg": 5.0,
                   "wall_s": 3.0, "use": "session"},
        "behind_wiener": False,
        "peak_memory_mb": 153.6,
        "units": units,
        "alike": [["day/unit_001", "day/unit_003", 0.93]],
        "r2_by_seconds": [[10.0, 0.4], [20.0, 0.55], [40.0, 0.7]],
    }  # fmt: skip
    return values | changed


def closed_loop_values(**changed: Any) -> dict[str, Any]:
    """Of ``closed-loop --json``."""
    conditions, level = [], {"poyo": 2.2, "wiener": 2.0, "kalman": 1.4}
    for radius in (1.2, 0.8):
        for latency in (0.0, 60.0, 100.0, 200.0):
            for decoder, bits in level.items():
                bits = bits * radius / 1.2 - latency / 300
                conditions.append({
                    "decoder": decoder, "latency_ms": latency, "smoothing_ms": 0.0, "gain": 1.0,
                    "radius_cm": radius, "n_trials": 16, "success": 0.5 + bits / 5,
                    "time_s": 1.28, "dial_in_s": None, "path_efficiency": 0.86,
                    "bits_per_s": bits, "angular_error_deg": 31.9, "decoder_gain": 0.84,
                    "bits_per_s_95": [bits - 0.2, bits + 0.25],
                })  # fmt: skip
    step = {"command_cm_s": 20.0, "rise_ms": 280.0, "peak_gain": 1.2, "overshoot": 0.2,
            "held_gain_1s": 1.01, "rest_sd": 0.94, "rest_bias": 0.53}  # fmt: skip
    values: dict[str, Any] = {
        "artifact": "demo/demo.poyo",
        "recording": None,
        "session": None,
        "observe_s": 60.0,
        "recalibrate_s": 60.0,
        "labels": "proportional",
        "recalibrated": [
            {"decoder": "poyo", "seed": 0, "success": 0.9, "labelled_s": 40.0, "lead_s": None,
             "taken": False, "reason": "no better"}
        ],
        "task": "center-out",
        "trials": 64,
        "seeds": [0, 1],
        "conditions": conditions,
        "against": [
            {"latency_ms": 0.0, "smoothing_ms": 0.0, "gain": 1.0, "radius_cm": 1.2,
             "better": "wiener", "ratio": 1.1, "ratio_95": [0.9, 1.3]},
            {"latency_ms": 200.0, "smoothing_ms": 0.0, "gain": 1.0, "radius_cm": 0.8,
             "better": "kalman", "ratio": None, "ratio_95": None},
        ],
        "step": dict.fromkeys(level, step),
    }  # fmt: skip
    return values | changed


def paths() -> dict[str, list[Any]]:
    """Decoder → trials: the way, the target, its radius, whether it was reached."""
    trials = []
    for i in range(8):
        angle = math.tau * i / 8
        way = [
            (7 * s * math.cos(angle + 0.4 * (1 - s)), 7 * s * math.sin(angle + 0.4 * (1 - s)))
            for s in (k / 20 for k in range(21 if i else 9))
        ]
        trials.append((way, (7 * math.cos(angle), 7 * math.sin(angle)), 1.2, bool(i)))
    return {"poyo": trials, "wiener": trials, "kalman": trials}


def evaluation_values(n_sessions: int = 12, **changed: Any) -> dict[str, Any]:
    """Of ``evaluate --json``."""
    sessions = [
        {
            "session": f"perich_miller_population_2018/c_2013100{i}_center_out_reaching",
            "subject": "c",
            "r2": {
                "causal": {"poyo": 0.8 - 0.02 * i, "wiener": 0.6 - 0.03 * i, "gru": 0.1 - 0.05 * i},
                "acausal": {"poyo": 0.85 - 0.02 * i},
            },
        }
        for i in range(n_sessions)
    ]
    values: dict[str, Any] = {
        "model": "model.ckpt",
        "behavior": "cursor.vel",
        "sessions": sessions,
        "subjects": [
            {"subject": "c", "n_sessions": n_sessions,
             "r2": {"causal": {"poyo": 0.7}, "acausal": {"poyo": 0.75}}}
        ],
        "left_out": ["unknown_session"],
    }  # fmt: skip
    return values | changed


def export_values(**changed: Any) -> dict[str, Any]:
    """Of ``report.json``."""
    values: dict[str, Any] = {
        "name": "demo",
        "artifact": "demo.poyo",
        "layout": "B1",
        "source": {
            "file": "demo.ckpt", "sha256": "9b11" * 16, "layout": "B1", "container": "lightning",
            "prefix": "model.", "omega": "v0.1.1+", "scaled": True, "task": "", "notes": [UNIT],
        },
        "spec": {"dim": 32, "depth": 2, "window_s": 1.0, "something_new": 3},
        "output": {"scale": [10.0], "offset": [0.0], "unit": "cm/s"},
        "behavior": "cursor.vel",
        "max_abs_error": 1.5e-6,
        "tolerance": 7.2e-6,
        "output_sd": 0.716,
        "rounding": 1.1e-6,
        "float64_times": 0.0,
        "gradients": {"max_relative_error": 8e-7, "rounding": 5e-7, "tolerance": 1e-5},
        "parity": [
            {"kind": "synthetic", "n_spikes": n, "n_windows": 1, "max_abs_error": 5e-7,
             "tolerance": 7.2e-6, "ok": True}
            for n in (0, 1, 1000)
        ],
        "health": {"n_matrices": 20, "dead": [], "degenerate": [], "fp16_zero": 0,
                   "fp16_subnormal": 43, "fp16_inf": 0},
        "sessions": {"sim_00": 60},
        "replay": {
            "recording": "sim.h5", "split": "test", "r2": 0.918, "r2_per_dim": [0.93, 0.91],
            "n_predictions": 3000, "backend": "ort-cpu",
            "latency_ms": {"p50": 0.7, "p90": 1.1, "p99": 2.0, "p999": 3.0, "max": 9.0},
            "counters": {"received": 28449, "late": 0},
            "statuses": {"VALID": 2850, "WARMUP": 150, "HELD": 0},
        },
        "tools": {"poyo-edge": "0.1.0"},
    }  # fmt: skip
    return values | changed
