"""What a run would train on, and what it would cost: the dry run, measured on a few batches."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import torch
from torch_brain.batching import collate

from poyo_edge.model.threads import torch_threads
from poyo_edge.training.loss import step_loss
from poyo_edge.training.optim import optimizer_and_schedule
from poyo_edge.training.run import n_parameters
from poyo_edge.training.sources import TrainingSession
from poyo_edge.training.start import Plan
from poyo_edge.training.windows import StepBatches

MEASURED_STEPS = 4
"""After one that warms up."""
_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments, float32."""


def survey(plan: Plan) -> dict[str, Any]:
    """Sessions, sizes and costs of a plan as JSON values; trains its model for a few steps."""
    sessions = [_session(s) for s in plan.sessions]
    parameters = n_parameters(plan)
    tables = sum(p.numel() for p in plan.model.parameters()) - parameters
    measured = _measured(plan)
    epoch_s = measured["step_s"] * plan.steps_per_epoch
    return {
        "sessions": sessions,
        "n_sessions": len(sessions),
        "n_subjects": len({s["subject"] for s in sessions}),
        "n_units": sum(s["units"] for s in sessions),
        "hours": round(sum(s["split_s"] for s in sessions) / 3600, 3),
        "n_windows": plan.n_windows,
        "steps_per_epoch": plan.steps_per_epoch,
        "steps": plan.steps,
        "parameters": parameters,
        "table_parameters": tables,
        "state_mb": round((parameters + tables) * _BYTES_PER_PARAMETER / 2**20, 1),
        **measured,
        "epoch_s": round(epoch_s, 1),
        "run_s": round(measured["step_s"] * plan.steps, 1),
        "warnings": early_warnings(plan),
    }


def early_warnings(plan: Plan) -> list[str]:
    """What may ruin a run and shows before it, one sentence each."""
    found = []
    for session in plan.sessions:
        recording = session.recording
        silent = np.flatnonzero(recording.spike_counts == 0)
        if len(silent):
            found.append(
                f"{session.session_id}: {len(silent)} of {len(recording.unit_ids)} units have no "
                f"spike, first {recording.unit_ids[silent[0]]}"
            )
        scale, _ = session.scale.arrays(plan.recipe.spec.dim_out)
        spread = session.sd / np.abs(scale)
        if (spread < 0.02).any() or (spread > 50).any():
            found.append(
                f"{session.session_id}: {recording.behavior} varies by {spread.round(4).tolist()} "
                f"of the model's scale in the split, where about 1 is usual; check its scale"
            )
        dropout = plan.recipe.unit_dropout
        if dropout is not None and len(recording.unit_ids) < dropout[0]:
            found.append(
                f"{session.session_id}: unit_dropout keeps at least {dropout[0]} units, so none of "
                f"its {len(recording.unit_ids)} is ever dropped"
            )
    return found


def _session(session: TrainingSession) -> dict[str, Any]:
    recording = session.recording
    whole = recording.domains.get("all", session.intervals)
    length = float((whole[:, 1] - whole[:, 0]).sum())
    return {
        "session": session.session_id,
        "source": session.source,
        "subject": recording.subject_id,
        "units": len(recording.unit_ids),
        "silent_units": int((recording.spike_counts == 0).sum()),
        "split_s": round(session.seconds, 1),
        "spikes_per_s": round(float(recording.spike_counts.sum()) / length, 1),
        "samples": session.n_samples,
        "sd": [round(float(x), 4) for x in session.sd],
        "scale": list(session.scale.scale),
    }


def _measured(plan: Plan) -> dict[str, Any]:
    """Time, tokens and memory of a few steps on one device."""
    recipe, dataset = plan.recipe, plan.dataset()
    on_gpu = recipe.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    with torch_threads(recipe.threads):
        model = plan.model.to(device).train()
        optimizer, _ = optimizer_and_schedule(model, recipe, MEASURED_STEPS + 1)
        cut_s, step_s, tokens = [], [], []
        world = recipe.world_size
        for draws in StepBatches(plan.sessions, recipe, MEASURED_STEPS + 1, world=world):
            started = time.perf_counter()
            batch = collate([dataset[draw] for draw in draws])
            cut_s.append(time.perf_counter() - started)
            tokens += batch["input_mask"].sum(dim=1).tolist()
            batch = {name: value.to(device) for name, value in batch.items()}
            started = time.perf_counter()
            bf16 = recipe.precision == "bf16-mixed"
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = step_loss(model, batch, batch["target_weight"].sum(), recipe.at_once)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if on_gpu:
                torch.cuda.synchronize()
            step_s.append(time.perf_counter() - started)
    cut, step = float(np.median(cut_s[1:])), float(np.median(step_s[1:]))
    whole = max(step, cut / recipe.workers) if recipe.workers else step + cut
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "tokens_per_window": round(float(np.mean(tokens)), 1),
        "most_tokens_per_window": int(max(tokens)),
        "cut_ms_per_window": round(cut / len(draws) * 1e3, 3),
        "step_s": round(whole, 4),
        "samples_per_s": round(recipe.batch_size / whole, 1),
        "peak_memory_mb": round(peak, 1),
    }
