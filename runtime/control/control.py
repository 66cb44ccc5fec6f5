"""All that a loop asks for between decoder and cursor: shaping, and what commands hold back."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.control.commands import Commands
from poyo_edge.runtime.control.controller import Controller
from poyo_edge.runtime.control.envelope import Answer, Command
from poyo_edge.runtime.control.settings import ControlSettings
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.open_session import OpenSession
from poyo_edge.runtime.result import Controlled, Result
from poyo_edge.trials import Trial

_log = logging.getLogger(__name__)
OnLabels = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None]


class Control:
    """A ``Controller`` and ``Commands``, as a ``DecodeLoop`` uses them in its own thread.

    Args:
        decoder: whose values these are, opened with ``tick_rate_hz``.
        settings: of the controller; None is all off.
        sessions: name → a session made ready, that a command may swap in.
    """

    def __init__(
        self,
        decoder: Decoder,
        settings: ControlSettings | None = None,
        sessions: Mapping[str, OpenSession] | None = None,
    ) -> None:
        if decoder.tick_rate_hz is None:
            raise UsageError("decoder: expected one opened with tick_rate_hz, got one in seconds")
        n_dims = decoder.artifact.manifest.spec.dim_out
        self.controller = Controller(settings or ControlSettings(), n_dims, decoder.tick_rate_hz)
        self.commands = Commands(decoder, sessions)
        self.refused_trials = self.refused_positions = self.labels_left_out = 0
        self.first_refused = ""

        self._journal: JournalWriter | None = None

    def attach(
        self,
        journal: JournalWriter | None,
        watch: Callable[[Callable[[], str], Callable[[], None]], None],
        ending: threading.Event,
    ) -> None:
        """Work for a loop.

        Args:
            journal: where commands are recorded.
            watch: sees to it that zero leaves while what it is given says why, and calls the other.
            ending: set when a command has stopped the loop and zero has left.
        """
        self._journal = journal
        if journal is not None and self.controller.settings.active:
            journal.event(control=self.controller.settings.to_json())

        def end_if_stopped() -> None:
            if self.commands.stopped:
                ending.set()

        self.commands.on_halt = lambda: watch(lambda: self.commands.held, end_if_stopped)

    def command(self, name: str, argument: str = "", *, now: bool = False) -> Answer:
        """Obey, from any thread.

        Raises:
            UsageError: it is refused; why.
        """
        answer = self.commands.do(Command(name=name, argument=argument, now=now))
        if not answer.ok:
            raise UsageError(answer.reason)
        return answer

    def record(self) -> None:
        """Write what commands came into the journal, in the thread that writes it."""
        for event in self.commands.take_events():
            if self._journal is not None:
                self._journal.event(**event)

    def note_trial(self, trial: Trial) -> None:
        """Take a trial that a feed told; one that cannot be meant is counted and said once."""
        try:
            self.controller.note_trial(trial)
        except UsageError as error:
            self.refused_trials += 1
            self._say(str(error))

    def note_cursor(self, tick: int, position: npt.ArrayLike) -> None:
        """Take where the cursor was (D,); what cannot be meant is counted and said once."""
        try:
            self.controller.note_cursor(tick, position)
        except UsageError as error:
            self.refused_positions += 1
            self._say(str(error))

    def note_positions(
        self, ticks: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]
    ) -> None:
        """The newest of some positions of the cursor: ticks (N,) and (N, D)."""
        if len(ticks):
            newest = int(ticks.argmax())
            self.note_cursor(int(ticks[newest]), positions[newest])

    def look(self, tick: int) -> None:
        """It is ``tick`` on the device: do what has waited for it."""
        self.commands.look(self.controller.running(tick))

    def out(self, result: Result) -> tuple[Result, Controlled | None]:
        """What to act on instead of a value; the same object, and None, while all is off."""
        held, controller = self.commands.held, self.controller
        if not held and not controller.settings.active:
            return result, None
        tick, flags = int(result.t), result.flags
        if held:
            controller.pause(tick)
            value, flags = np.zeros_like(result.value), (*flags, held)
        else:
            value = controller(result.value, result.status, tick, session_id=result.session_id)
        given = dataclasses.replace(
            result, value=value, status=_stopped(result.status) if held else result.status,
            flags=flags,
        )  # fmt: skip
        return given, Controlled(
            decoded=result.value,
            status=result.status,
            ramp=controller.ramp,
            assist=controller.assist,
            click=controller.click,
            held=held,
        )

    def labels_to(self, listener: OnLabels | None) -> OnLabels | None:
        """The same listener, who hears nothing while the run is paused."""
        if listener is None:
            return None
        tell = listener

        def unless_paused(ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
            if self.commands.paused:
                self.labels_left_out += len(ticks)
            else:
                tell(ticks, values)

        return unless_paused

    def to_json(self) -> dict[str, Any]:
        """``control`` (None while all is off) and ``commands``, for the loop's figures."""
        shaped = self.controller.to_json()
        if shaped is not None:
            shaped |= {
                "refused_trials": self.refused_trials,
                "refused_positions": self.refused_positions,
                "first_refused": self.first_refused,
            }
        told = {**self.commands.to_json(), "labels_left_out": self.labels_left_out}
        return {"control": shaped, "commands": told}

    def _say(self, said: str) -> None:
        if not self.first_refused:
            self.first_refused = said
            _log.warning("control: %s", said)


def zero_of(result: Result, held: str) -> Result:
    """A zero in the place of a value that a hanging loop does not give."""
    return dataclasses.replace(
        result, value=np.zeros_like(result.value), status=Status.INVALID,
        flags=tuple(dict.fromkeys((*result.flags, held))),
    )  # fmt: skip


def _stopped(status: Status) -> Status:
    return status if status is Status.INVALID else Status.HELD
