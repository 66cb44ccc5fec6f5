"""``poyo-edge doctor``: what this machine can run."""

from __future__ import annotations

from collections.abc import Sequence

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import LOOK, Json, command
from poyo_edge.cli.text import Values, pairs

_TORCH = (
    "what brings torch may bring CUDA, several GB; for the CPU alone run first: pip install torch "
    "--index-url https://download.pytorch.org/whl/cpu (in a clone with -c constraints.txt, which "
    "names the version that is tested)"
)


@command(LOOK, example="poyo-edge doctor")
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run, and what to install."""
    from poyo_edge.doctor import examine

    values = examine()
    Console(as_json=as_json).result(values, doctor_text(values))


def doctor_text(values: Values) -> str:
    """Machine, packages, backends, and what to install."""
    packages = {name: version or "not installed" for name, version in values["packages"].items()}
    backends = [
        f"{'ready  ' if info['present'] else 'missing'}  {info['name']}: {info['reason']}"
        for info in values["backends"]
    ]
    about = {
        "poyo-edge": values["poyo_edge"],
        "python": values["python"],
        "machine": f"{values['machine']}, {values['cores']} cores",
        "jetson": values["jetson"] or "no",
    }
    if values["supported"]:
        about["system"] = values["supported"]
    mend = ["to mend", *values["to_mend"], ""] if values["to_mend"] else []
    install = values["install"] or ["nothing more that this machine could use"]
    if values["packages"]["torch"] is None:
        install = [*install, f"note: {_TORCH}"]
    if values["missing_backends"]:
        install = [*install, f"note: {values['missing_backends']}"]
    machine = [pairs(about), *_real_time_lines(values["real_time"]), *_accelerator_lines(values)]
    return "\n".join(
        [*machine, "", pairs(packages), "", "backends", *backends, "", pairs(_tables(values)), "",
         *mend, "to install", *install]
    )  # fmt: skip


def _tables(values: Values) -> dict[str, str]:
    """Feeds, sinks, file formats and checkpoint layouts: what is there, and how to get the rest."""
    tables = {"feeds": "feeds", "sinks": "sinks", "files": "formats"}
    lines = {title: _offered(values[key]) for title, key in tables.items()}
    exported = [row["name"] for row in values["layouts"] if row["exported"]]
    refused = [row["name"] for row in values["layouts"] if not row["exported"]]
    lines["layouts"] = f"{', '.join(sorted(exported))}; refused: {', '.join(sorted(refused))}"
    return lines


def _offered(rows: Sequence[Values]) -> str:
    there = [row["name"] for row in rows if row["present"]]
    missing = [f"{row['name']} ({row['install']})" for row in rows if not row["present"]]
    return ", ".join(there) + f"; missing: {', '.join(missing)}" * bool(missing)


def _real_time_lines(found: Values | None) -> list[str]:
    """What decides how steady latencies are, and what to do; nothing where that is unknown."""
    if found is None:
        return []
    runtime, period = found["rt_runtime_us"], found["rt_period_us"]
    limit = "no limit" if runtime == -1 else f"{runtime} of each {period} µs"
    governors = ", ".join(sorted(set(found["governors"].values())))
    isolated = ", ".join(map(str, found["isolated"]))
    together = "; ".join(" and ".join(map(str, group)) for group in found["siblings"])
    about = {
        "real-time threads": "unknown" if None in (runtime, period) else limit,
        "CPU governor": governors or "unknown, as in virtual machines",
        "cores": f"{len(found['cores'])} of {len(found['online'])} may be used",
        "isolated cores": isolated or "none",
        "threads of one core": together or "none",
    }
    if found["quota_cpus"] is not None:
        about["processor time"] = f"{found['quota_cpus']:g} cores at most (cgroup)"
    return ["", pairs(about), "", "for steady latencies", *(found["fix"] or ["nothing to do"])]


def _accelerator_lines(values: Values) -> list[str]:
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
            "release": f"L4T {jetson['l4t']}, {jetson['release'] or 'no JetPack that we know'}"
            if jetson["l4t"]
            else "not shown, as in a container",
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
