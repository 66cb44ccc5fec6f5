"""What stands between a thread with deadlines and its core on Linux; and what to do about each.

Read from ``/proc`` and ``/sys``. Linux's documentation says what they mean: sched-rt-group.rst,
cpufreq.rst, kernel-parameters.rst on isolcpus, cgroup-v2.rst.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path

from poyo_edge.records import JsonRecord

_CPUS = "sys/devices/system/cpu"
_MOST = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RealTime(JsonRecord):
    """What was found; None and empty where a file is missing or says something else."""

    rt_runtime_us: int | None
    """Of each ``rt_period_us``, what real-time threads may use; -1 is all of it."""
    rt_period_us: int | None
    governors: dict[str, str]
    """Core that may be used → what chooses its clock."""
    fixed: list[int]
    """Cores of these whose lowest clock is their highest, as ``jetson_clocks`` leaves them."""
    cores: list[int]
    """That this process may use."""
    online: list[int]
    isolated: list[int]
    """That the system leaves to who asks for them (isolcpus)."""
    siblings: list[list[int]]
    """Cores that are threads of one, of those that may be used."""
    quota_cpus: float | None
    """Cores' worth of time that the cgroup grants in each of its periods; None is no limit."""
    fix: list[str]
    """What to do, each a command with its reason."""


def examine_real_time(
    root: Path = Path("/"), cores: Collection[int] | None = None
) -> RealTime | None:
    """What this machine is set to; None where the files of Linux are not.

    Args:
        root: where ``proc`` and ``sys`` are.
        cores: that this process may use; None asks the system.
    """
    online = _numbers(_text(root / _CPUS / "online"))
    if not online:
        return None
    if cores is None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else online
    usable = sorted(set(cores))
    found = RealTime(
        rt_runtime_us=_integer(_text(root / "proc/sys/kernel/sched_rt_runtime_us")),
        rt_period_us=_integer(_text(root / "proc/sys/kernel/sched_rt_period_us")),
        governors=_governors(root, usable),
        fixed=[core for core in usable if _is_fixed(root, core)],
        cores=usable,
        online=online,
        isolated=_numbers(_text(root / _CPUS / "isolated")),
        siblings=_siblings(root, usable),
        quota_cpus=_quota(root),
        fix=[],
    )
    return dataclasses.replace(found, fix=what_to_fix(found))


def what_to_fix(found: RealTime) -> list[str]:
    """Commands, most important first."""
    return [*_quota_fix(found), *_throttling_fix(found), *_governor_fix(found), *_core_fix(found)]


def _quota_fix(found: RealTime) -> list[str]:
    if found.quota_cpus is None:
        return []
    return [
        f"start the container without a limit of processor time (docker: no --cpus)  # its cgroup "
        f"grants {found.quota_cpus:g} cores: when that is used up, everything stops until the next "
        f"period"
    ]


def _throttling_fix(found: RealTime) -> list[str]:
    runtime, period = found.rt_runtime_us, found.rt_period_us
    if runtime is None or period is None or not 0 <= runtime < period:
        return []
    if runtime == 0:
        why = "--priority is refused: real-time threads may use nothing"
    else:
        why = (
            f"a thread of --priority that computes for {runtime / 1e3:g} ms of {period / 1e3:g} is "
            f"stopped for the other {(period - runtime) / 1e3:g}"
        )
    return [f"sudo sysctl -w kernel.sched_rt_runtime_us=-1  # {why}"]


def _governor_fix(found: RealTime) -> list[str]:
    slow = {
        int(core): name
        for core, name in found.governors.items()
        if name != "performance" and int(core) not in found.fixed
    }
    if not slow:
        return []
    names = ", ".join(sorted(set(slow.values())))
    cores = f"{{{','.join(map(str, slow))}}}" if len(slow) > 1 else str(*slow)
    return [
        f"echo performance | sudo tee /{_CPUS}/cpu{cores}/cpufreq/scaling_governor  # {names} lets "
        f"a clock fall between two windows, and the next one is late"
    ]


def _core_fix(found: RealTime) -> list[str]:
    fix = []
    outside = [core for core in found.online if core not in found.cores]
    free = [core for core in found.isolated if core in found.cores]
    if outside:
        fix.append(
            f"give the run its own core with taskset -c, or the container with --cpuset-cpus  # it "
            f"may use {_ranges(found.cores)} of {_ranges(found.online)}, and shares them with all "
            f"that may"
        )
    together = next((pair for pair in found.siblings if len(pair) > 1), None)
    if found.isolated and not free:
        fix.append(f"allow core {_ranges(found.isolated)} to this process  # it is kept from it")
    elif not free and len(found.online) > 1:
        last = _group(found, max(found.cores, default=found.online[-1]))
        words = _ranges(last)
        fix.append(
            f"add isolcpus={words} nohz_full={words} to the kernel's command line, and run with "
            f"--cpu {last[0]}  # no core is kept from other programs"
        )
    for core in free:
        others = [one for one in _group(found, core) if one not in free]
        if others:
            fix.append(
                f"keep core {_ranges(others)} free too (isolcpus={_ranges([core, *others])})  # it "
                f"and core {core} are threads of one core, and slow each other"
            )
    if together is not None and not free:
        fix.append(
            f"keep both threads of a core for the run, like {_ranges(together)}, or turn them off "
            f"(echo off | sudo tee /{_CPUS}/smt/control)  # threads of one core slow each other"
        )
    return fix


def _group(found: RealTime, core: int) -> list[int]:
    """A core with its siblings."""
    return next((group for group in found.siblings if core in group), [core])


def _governors(root: Path, cores: Collection[int]) -> dict[str, str]:
    found = {
        str(core): _text(root / _CPUS / f"cpu{core}/cpufreq/scaling_governor").strip()
        for core in cores
    }
    return {core: name for core, name in found.items() if name}


def _is_fixed(root: Path, core: int) -> bool:
    folder = root / _CPUS / f"cpu{core}/cpufreq"
    low, high = (_integer(_text(folder / f"scaling_{end}_freq")) for end in ("min", "max"))
    return low is not None and low == high


def _siblings(root: Path, cores: Collection[int]) -> list[list[int]]:
    groups = {
        tuple(_numbers(_text(root / _CPUS / f"cpu{core}/topology/thread_siblings_list")))
        for core in cores
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _quota(root: Path) -> float | None:
    """Of cgroup v2 (``cpu.max``) or v1, as a container sees its own."""
    folder = root / "sys/fs/cgroup"
    words = _text(folder / "cpu.max").split()
    if len(words) != 2:
        words = [_text(folder / f"cpu/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota, period = (_integer(word) for word in words)
    return round(quota / period, 2) if quota and period and quota > 0 and period > 0 else None


def _numbers(text: str) -> list[int]:
    """Of a list like ``0-3,8``; empty of anything else."""
    found: list[int] = []
    for piece in text.strip().split(","):
        ends = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", piece)
        if ends is None:
            return []
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return sorted(set(found))[:_MOST]


def _ranges(numbers: Collection[int]) -> str:
    """``0-3,8`` of numbers."""
    pieces: list[list[int]] = []
    for number in sorted(numbers):
        if pieces and number == pieces[-1][-1] + 1:
            pieces[-1].append(number)
        else:
            pieces.append([number])
    return ",".join(f"{one[0]}-{one[-1]}" if len(one) > 1 else f"{one[0]}" for one in pieces)


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
