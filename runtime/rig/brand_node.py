"""A BRAND node: ``python -m poyo_edge.runtime.feeds.brand_node -n NAME -i HOST -p PORT``.

Parameters in the supergraph: ``artifact``, ``input_stream``, ``output_stream`` (all needed),
``session``, ``units`` (channel name → unit id), ``rate_hz`` (50), ``bin_ms``, ``settle_ms``,
``dtype``, ``backend``, ``run_priority``, ``cpu_affinity``, ``trial_stream``, ``cursor_stream``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.files.streams import guard_streams
from poyo_edge.runtime.feeds import FEEDS
from poyo_edge.runtime.feeds.brand import (
    BrandFeed,
    BrandSink,
    node_parameters,
    note_state,
)
from poyo_edge.runtime.feeds.values import Sink
from poyo_edge.runtime.feeds.wire.redis_client import import_redis
from poyo_edge.runtime.rig.ends import require_decoded, until_asked
from poyo_edge.runtime.rig.realtime import RealtimeSettings
from poyo_edge.runtime.rig.rig import Rig, RigSettings

STARTED, READY, SHUTDOWN, FATAL = (
    "NODE_STARTED", "NODE_READY", "NODE_SHUTDOWN", "NODE_FATAL_ERROR"
)  # fmt: skip
KNOWN = {"artifact", "input_stream", "output_stream", "session", "rate_hz", "bin_ms", "settle_ms",
         "dtype", "backend", "run_priority", "cpu_affinity", "units", "log", "trial_stream",
         "cursor_stream"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; the exit code, 3 where nothing was decoded."""
    guard_streams()
    options = _parser().parse_args(arguments)
    connection: dict[str, Any] = {"host": options.redis_host, "port": options.redis_port}
    if options.redis_socket:
        connection = {"unix_socket_path": options.redis_socket}
    with until_asked() as stop:
        try:
            FEEDS["redis"].require("a Redis feed")
            client = import_redis().Redis(**connection)
            note_state(client, options.nickname, 0, STARTED)
        except Exception as error:
            return _ended(options.nickname, error, 4)
        try:
            stats = _run(client, connection, options.nickname, stop)
            print(json.dumps(stats), flush=True)
            require_decoded(f"node {options.nickname}", stats)
            note_state(client, options.nickname, 0, SHUTDOWN)
        except Exception as error:
            with contextlib.suppress(Exception):  # Redis may be what is gone.
                note_state(client, options.nickname, 1, f"{FATAL}: {error}")
            return _ended(options.nickname, error, 5 if isinstance(error, OSError) else 1)
    return 0


def _ended(nickname: str, error: Exception, otherwise: int) -> int:
    """Say what ended the node; its exit code."""
    print(f"[{nickname}] error: {error}", file=sys.stderr)
    return error.exit_code if isinstance(error, PoyoEdgeError) else otherwise


def _run(
    client: Any, connection: dict[str, Any], nickname: str, stop: threading.Event
) -> dict[str, Any]:
    parameters = node_parameters(client, nickname)
    logging.basicConfig(level=str(parameters.get("log", "INFO")).upper())
    unknown = sorted(set(parameters) - KNOWN)
    if unknown:
        raise UsageError(f"parameters: expected {sorted(KNOWN)}, got {unknown[0]!r}")
    for name in ("artifact", "input_stream", "output_stream"):
        if not isinstance(parameters.get(name), str):
            raise UsageError(f"parameters: expected {name!r} as a string, got none")
    feed = BrandFeed(
        connection,
        parameters["input_stream"],
        parameters.get("bin_ms"),
        str(parameters.get("dtype", "")),
        trials=str(parameters.get("trial_stream", "")),
        cursor=str(parameters.get("cursor_stream", "")),
    )
    made = BrandSink(connection, parameters["output_stream"])
    sink = Sink(f"the stream {made.stream}", made, made.close)
    affinity = parameters.get("cpu_affinity") or ()
    settings = RigSettings(
        session=parameters.get("session"),
        units=parameters.get("units"),
        rate_hz=float(parameters.get("rate_hz", 50.0)),
        settle_ms=float(parameters.get("settle_ms", 0.0)),
        backend=str(parameters.get("backend", "auto")),
        realtime=RealtimeSettings(
            cpus=(affinity,) if isinstance(affinity, int) else tuple(affinity),
            priority=parameters.get("run_priority"),
            gc_off=True,
        ),
    )
    rig = Rig.open(parameters["artifact"], feed, [sink], settings)
    with rig:
        note_state(client, nickname, 0, READY)
        while not stop.wait(0.2):
            rig.require_alive()
    return rig.stats()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Decode a BRAND stream of spikes.")
    parser.add_argument("-n", "--nickname", required=True)
    parser.add_argument("-i", "--redis_host", default="localhost")
    parser.add_argument("-p", "--redis_port", type=int, default=6379)
    parser.add_argument("-s", "--redis_socket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
