"""What doctor says of throttling, governors and cores, on files of other machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from poyo_edge.cli.commands.doctor import doctor_text
from poyo_edge.doctor import examine
from poyo_edge.doctor.real_time import RealTime, examine_real_time

CPU = "sys/devices/system/cpu"
SET_UP = {
    "proc/sys/kernel/sched_rt_runtime_us": "-1\n",
    "proc/sys/kernel/sched_rt_period_us": "1000000\n",
    f"{CPU}/online": "0-3\n",
    f"{CPU}/isolated": "3\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
    **{f"{CPU}/cpu{i}/cpufreq/scaling_governor": "performance\n" for i in range(4)},
    **{f"{CPU}/cpu{i}/topology/thread_siblings_list": f"{i}\n" for i in range(4)},
}


def found(folder: Path, files: Mapping[str, str], cores: range = range(4)) -> RealTime:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    state = examine_real_time(folder, cores)
    assert state is not None
    return state


def test_a_machine_that_is_set_up_has_nothing_to_fix(tmp_path: Path) -> None:
    state = found(tmp_path, SET_UP)
    assert state.fix == []
    assert (state.rt_runtime_us, state.isolated, state.siblings) == (-1, [3], [])
    assert state.quota_cpus is None


def test_a_clock_that_cannot_fall_needs_no_other_governor(tmp_path: Path) -> None:
    """``jetson_clocks`` leaves schedutil, and raises the lowest clock to the highest."""
    clocks = {
        f"{CPU}/cpu{i}/cpufreq/scaling_{name}": text
        for i in range(4)
        for name, text in (("governor", "schedutil\n"), ("min_freq", "1984000\n"),
                           ("max_freq", "1984000\n"))
    }  # fmt: skip
    assert found(tmp_path / "fixed", {**SET_UP, **clocks}).fix == []
    falls = {**clocks, f"{CPU}/cpu2/cpufreq/scaling_min_freq": "729600\n"}
    (said,) = found(tmp_path / "falls", {**SET_UP, **falls}).fix
    assert "/cpu2/cpufreq" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"proc/sys/kernel/sched_rt_runtime_us": "950000\n"},
            "sudo sysctl -w kernel.sched_rt_runtime_us=-1  # a thread of --priority that computes "
            "for 950 ms of 1000 is stopped for the other 50",
        ),
        (
            {"proc/sys/kernel/sched_rt_runtime_us": "0\n"},
            "sudo sysctl -w kernel.sched_rt_runtime_us=-1  # --priority is refused",
        ),
        (
            {f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave\n"},
            "echo performance | sudo tee /sys/devices/system/cpu/cpu2/cpufreq/scaling_governor  # "
            "powersave lets a clock fall",
        ),
        (
            {f"{CPU}/cpu{i}/cpufreq/scaling_governor": "schedutil\n" for i in (1, 3)},
            "sudo tee /sys/devices/system/cpu/cpu{1,3}/cpufreq/scaling_governor  # schedutil",
        ),
        (
            {f"{CPU}/isolated": "\n"},
            "add isolcpus=3 nohz_full=3 to the kernel's command line, and run with --cpu 3",
        ),
        (
            {f"{CPU}/cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}\n"
             for i in range(4)},
            "keep core 1 free too (isolcpus=1,3)",
        ),
        (
            {"sys/fs/cgroup/cpu.max": "150000 100000\n"},
            "start the container without a limit of processor time (docker: no --cpus)  # its "
            "cgroup grants 1.5 cores",
        ),
    ],
)  # fmt: skip
def test_each_thing_has_its_command(tmp_path: Path, files: Mapping[str, str], said: str) -> None:
    fix = found(tmp_path, {**SET_UP, **files}).fix
    assert len(fix) == 1
    assert said in fix[0]


def test_siblings_are_kept_together_where_no_core_is_isolated(tmp_path: Path) -> None:
    pairs = {f"{CPU}/cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}\n"
             for i in range(4)}  # fmt: skip
    fix = found(tmp_path, {**SET_UP, f"{CPU}/isolated": "\n", **pairs}).fix
    assert "isolcpus=1,3 nohz_full=1,3" in fix[0]
    assert "--cpu 1" in fix[0]
    assert "smt/control" in fix[1]


def test_a_cpuset_leaves_cores_out_and_may_keep_the_isolated_one_away(tmp_path: Path) -> None:
    fix = found(tmp_path, SET_UP, range(2)).fix
    assert "it may use 0-1 of 0-3" in fix[0]
    assert "allow core 3 to this process" in fix[1]


@pytest.mark.parametrize("text", ["", "x\n", "0-\n", "99999999\n", "3-1-2\n"])
def test_what_says_something_else_is_unknown(tmp_path: Path, text: str) -> None:
    state = found(tmp_path, {**dict.fromkeys(SET_UP, text), f"{CPU}/online": "0-3\n"})
    assert (state.isolated, state.siblings) == ([], [])
    assert state.quota_cpus is None
    assert examine_real_time(tmp_path / "empty") is None


def test_people_and_programs_are_told() -> None:
    values = examine()
    said = doctor_text(values)
    if values["real_time"] is None:
        assert "for steady latencies" not in said
        return
    assert set(values["real_time"]) >= {"rt_runtime_us", "governors", "isolated", "fix"}
    for line in ("real-time threads", "CPU governor", "for steady latencies"):
        assert line in said
    assert "nothing to do" in doctor_text({**values, "real_time": {**values["real_time"],
                                                                  "fix": []}})  # fmt: skip
