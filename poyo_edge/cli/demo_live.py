"""``poyo-edge demo --live``: a simulated person decodes with the demo's model, on a page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.live import LiveView
from poyo_edge.cli.paging import show
from poyo_edge.cli.recalibrating import Recalibration
from poyo_edge.cli.shared import needs

_ARTIFACT, _SESSION, _RECORDING = "demo.poyo", "sim_04.session", "recordings/sim_04.h5"
_LOOK_EACH_S = 0.1
_RECALIBRATES_S = 120.0


class Demo(NamedTuple):
    """What a demo left in its folder."""

    artifact: Path
    session: Path
    recording: Path


def demo_of(folder: Path, *, seed: int, steps: int | None, console: Console) -> Demo:
    """The demo that is in a folder; it is made first where there is none.

    Raises:
        MissingExtraError: there is none, and it cannot be made.
    """
    from poyo_edge.runtime.page.server import require_bokeh

    require_bokeh()
    found = Demo(*(folder / name for name in (_ARTIFACT, _SESSION, _RECORDING)))
    if not all(path.exists() for path in found):
        console.step(f"no demo is in {folder} yet: making it, some minutes, once")
        road = needs("all", "poyo_edge.cli.demo")
        road.run_demo(folder, seed=seed, steps=steps, say=console.step, bar=console.progress)
    return found


def run_live(
    demo: Demo, console: Console, *, port: int | None, seconds: float | None, seed: int
) -> None:
    """Decode the simulated person in real time until Ctrl-C or a time, with a page.

    Args:
        demo: whose model and session.
        console: where words go.
        port: of the page; None takes a free one.
        seconds: after which it ends; None for never.
        seed: of person, spikes and targets.
    """
    from poyo_edge.recording.confined import open_confined
    from poyo_edge.runtime.page.ring.aim import Aim
    from poyo_edge.runtime.page.ring.memory import free_name, path_of
    from poyo_edge.runtime.rig import Rig, RigSettings
    from poyo_edge.runtime.rig.ends import require_decoded, until_asked
    from poyo_edge.simulation.fitted.from_recording import array_from_recording
    from poyo_edge.simulation.live_feed.live import LiveFeed

    ring = free_name()
    with tempfile.TemporaryDirectory(prefix="poyo-edge-") as scratch:
        aim = Aim(Path(scratch) / "aim")
        try:
            array = array_from_recording(open_confined(demo.recording), "cursor.vel", seed=seed)
            feed = LiveFeed(array, aim=aim.read, seed=seed)
            free = Recalibration("offer", _RECALIBRATES_S)
            settings = RigSettings(
                session=demo.session, ring=ring, control_address="udp://127.0.0.1:0"
            )
            callbacks = free.callbacks()
            keep = callbacks.pop("on_value")

            def on_value(value: Any) -> None:
                feed.on_value(value)
                keep(value)

            rig = Rig.open(demo.artifact, feed, (), settings, on_value=on_value, **callbacks)
            rig.told_beside |= {
                "aim": lambda: str(path_of(str(aim.path))), "simulated": lambda: True,
                "recalibration": free.value,
            }  # fmt: skip
            try:
                free.open(demo.artifact, rig, None)
                _until_the_end(rig, ring, console, port, seconds, until_asked)
            finally:
                rig.stop()
                free.stop()
        finally:
            aim.close()
    values = {**rig.stats(), **free.to_json()}
    n_trials = values["outcome"]["trials"]
    console.result(values, f"{values['loop']['decoded']} windows decoded, {n_trials} trials")
    require_decoded("demo --live", values)


def _until_the_end(
    rig: Any, ring: str, console: Console, port: int | None, seconds: float | None, until_asked: Any
) -> None:
    import time

    end = None if seconds is None else time.monotonic() + seconds
    title = f"{rig.decoder.session_id}: person, array and task are simulated"
    with until_asked() as stop, LiveView(title, quiet=console.quiet) as view, rig:
        loud = Console(as_json=console.as_json)
        loud.step("person, array and task are simulated; Ctrl-C ends it")
        loud.step(f"the token for commands from the page is {rig.port.token}")
        show(ring, console, page=True, port=port)
        while not stop.wait(_LOOK_EACH_S):
            if rig.stopped or (end is not None and time.monotonic() >= end):
                return
            rig.require_alive()
            view.update(rig.stats(), rig.loop.last)
    console.step(f"again: {program()} demo --live")
