"""What has arrived: checked, placed on the device's clock, pushed, and told to who listens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.errors import UsageError
from poyo_edge.journal import JournalWriter
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.feeds.values import Packet
from poyo_edge.runtime.intake import SessionRows, are_plain_rows
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.losses import Losses
from poyo_edge.runtime.rig.recorder import Recorder
from poyo_edge.runtime.rig.settings import LoopCounters
from poyo_edge.runtime.rig.source_watch import SourceWatch
from poyo_edge.runtime.rig.task import BACK_S, Task, can_be_ticks
from poyo_edge.runtime.unit_names import UnitNames

_log = logging.getLogger(__name__)


class Arrivals:
    """Uses packets in their order, in the loop's thread.

    Args:
        decoder: where spikes go.
        clock: the device's.
        counters: where packets are counted.
        names: what the feed calls units of the session that the loop begins with.
        source: told when spikes arrive.
        losses: told of what was lost.
        journal: where everything is recorded.
        recorder: what writes spikes there.
        placed: called with a packet's host_ns once it is on the clock, which may have begun anew.
        on_spikes: called with ticks (N,) and rows (N,) that were pushed.
        on_labels: called with ticks (N,) and values (N, D) of behaviour.
        task: takes trials and the cursor.
    """

    def __init__(
        self,
        decoder: Decoder,
        clock: DeviceClock,
        *,
        counters: LoopCounters,
        names: UnitNames,
        source: SourceWatch,
        losses: Losses,
        journal: JournalWriter | None,
        recorder: Recorder,
        placed: Callable[[int], None],
        on_spikes: Callable[[Int64, Rows], None] | None,
        on_labels: Callable[[Int64, Float64], None] | None,
        task: Task,
    ) -> None:
        self.sync: Any = None
        """Of the newest packet that was used."""
        self._decoder, self._clock, self._counters = decoder, clock, counters
        self._names = names
        self._began_with, self._in_use = names.table, decoder.units
        self._source, self._losses = source, losses
        self._journal, self._recorder = journal, recorder
        self._placed = placed
        self._on_spikes, self._on_labels = on_spikes, on_labels
        self._task = task
        self._dim_out = decoder.artifact.manifest.spec.dim_out

    @property
    def unknown_units(self) -> str:
        """The first spike of a unit that the session has not, in words; "" while there is none."""
        return self._names.unknown

    def take(self, packet: Packet) -> None:
        """Use one packet; nothing in it raises."""
        if packet.lost or packet.problem:
            self._losses.take(packet, self._clock)
            return
        self._counters.packets += 1
        if packet.trial is not None:
            self._task.take_trial(packet.trial, packet.host_ns)
        elif not can_be_ticks(packet.ticks):
            self._counters.bad_packets += 1
        elif packet.cursor is not None:
            self._task.take_cursor(packet.ticks, packet.cursor, packet.host_ns)
        elif packet.labels is not None:
            self._take_labels(packet, packet.labels)
        elif packet.ticks.shape != packet.units.shape or packet.units.dtype.kind not in "iuUSO":
            self._counters.bad_packets += 1
        else:
            self._take_spikes(packet)

    def _take_spikes(self, packet: Packet) -> None:
        self._source.note(packet.host_ns)
        if packet.sync is not None:
            self.sync = packet.sync
        if not packet.ticks.size:
            return
        ticks = self._clock.place(packet.ticks, packet.host_ns)
        if not len(ticks):
            return
        self._placed(packet.host_ns)
        try:
            rows = self._rows(packet.units)
            self._decoder.push(ticks, rows)
        except UsageError:
            self._counters.bad_packets += 1
            return
        self._losses.unknown(self._names.unknown)
        self._recorder.spikes(packet.host_ns, self._clock.epoch, ticks, rows, packet.units)
        if self._on_spikes is not None:
            self._on_spikes(ticks, rows)

    def _rows(self, units: npt.NDArray[Any]) -> SessionRows:
        """Rows (N,) of the session in use; it may have been swapped since the last packet."""
        in_use = self._decoder.units
        if in_use is not self._in_use:
            self._in_use, self._names = in_use, self._names.of(in_use.unit_ids)
        if units.dtype.kind not in "iu":
            return self._names.rows(units)
        if are_plain_rows(units):
            units = self._began_with.own(self._began_with.as_rows(units))
        return in_use.own(in_use.as_rows(units))

    def _take_labels(self, packet: Packet, values: Float64) -> None:
        if values.shape != (len(packet.ticks), self._dim_out) or not len(values):
            self._counters.bad_packets += 1
            return
        ticks = self._clock.unwrapped(packet.ticks)
        if not self._clock.covers(ticks, packet.host_ns, back_s=BACK_S):
            self._counters.bad_packets += 1
            return
        if self._journal is not None:
            self._journal.labels(self._clock.epoch, ticks, values)
        if self._on_labels is not None:
            try:
                self._on_labels(ticks, values)
            except UsageError as error:
                self._counters.label_failures += 1
                _log.warning("labelled data was refused: %s", error)
