"""Serves a page of a run to browsers of this machine, until nobody needs it any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

from poyo_edge.errors import MissingExtraError, UsageError
from poyo_edge.runtime.page.guard import HEADERS, hosts, refusal
from poyo_edge.runtime.page.sheet import Sheet
from poyo_edge.runtime.page.watching import EACH_S, Watch

_log = logging.getLogger(__name__)
DEFAULT_PORT = 5006
_TRIES = 20
"""Ports that are tried from the default one on, where none is asked for."""
_NICE = 5
_LONELY_S = 60.0
"""A page whose run is gone ends when no browser has looked at it for so long."""


def require_bokeh() -> None:
    """Say what to install before anything begins.

    Raises:
        MissingExtraError: Bokeh is not there.
    """
    import importlib.util

    if importlib.util.find_spec("bokeh") is None:
        raise MissingExtraError("bokeh", "page", "the page")


class PageServer:
    """Listens on 127.0.0.1 from when it is made.

    Args:
        run: name or path of a ring.
        port: None takes the first free one from 5006 on; 0 any.

    Raises:
        MissingExtraError: Bokeh is not there.
        UsageError, RingError: no such ring, or the port is taken.
    """

    def __init__(self, run: str, *, port: int | None = None) -> None:
        require_bokeh()
        from tornado.httpserver import HTTPServer
        from tornado.netutil import bind_sockets

        self.watch = Watch(run)
        self._sheet = Sheet(self.watch)
        tries = range(DEFAULT_PORT, DEFAULT_PORT + _TRIES) if port is None else [port]
        for one in tries:
            try:
                self._sockets = bind_sockets(one, "127.0.0.1")
                break
            except OSError as error:
                reason = error.strerror
        else:
            raise UsageError(
                f"port: expected a free one, got {tries[0]}{' and those behind' * (len(tries) > 1)}"
                f", which cannot be bound ({reason}); name another with --port"
            )
        self.port = int(self._sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self._server_of = HTTPServer

    def run(self) -> None:
        """Serve until the run is gone and nobody looks, or an interrupt."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # a rig under SCHED_FIFO started it
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.nice(_NICE)  # what decodes comes first
        from bokeh.server.server import BaseServer
        from tornado.ioloop import IOLoop

        application = _guarded(self._document, self.port)
        http = self._server_of(application, max_buffer_size=1 << 22)
        http.add_sockets(self._sockets)
        server = BaseServer(IOLoop.current(), application, http)
        server.start()
        lonely_since = time.monotonic()
        try:
            while True:
                self.watch.look()
                now = time.monotonic()
                if self.watch.alive or server.get_sessions():
                    lonely_since = now
                if now - lonely_since > _LONELY_S:
                    return
                await asyncio.sleep(EACH_S)
        finally:
            server.stop()
            http.stop()

    def _document(self, document: Any) -> None:
        from poyo_edge.runtime.page.document import Page

        Page(document, self.watch, self._sheet)


def _guarded(document: Any, port: int) -> Any:
    """Bokeh's application, in which each request is looked at first and each answer has headers."""
    from bokeh.application import Application
    from bokeh.application.handlers import FunctionHandler
    from bokeh.server.tornado import BokehTornado
    from tornado.web import OutputTransform, RequestHandler

    class Refuse(RequestHandler):  # type: ignore[misc]  # no types without the extra
        """Says why."""

        def initialize(self, reason: str) -> None:
            self.reason = reason

        def prepare(self) -> None:
            _log.warning("refused %s: %s", self.request.remote_ip, self.reason)
            self.set_status(403)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"refused: {self.reason}\n")

    class Headers(OutputTransform):  # type: ignore[misc]
        """Puts ours on each answer."""

        def transform_first_chunk(
            self, status_code: int, headers: Any, chunk: bytes, finishing: bool
        ) -> tuple[int, Any, bytes]:
            ws = " ".join(f"ws://{one}" for one in hosts(port))
            for name, value in HEADERS.items():
                headers[name] = value.replace("{ws}", ws)
            return status_code, headers, chunk

    class Guarded(BokehTornado):  # type: ignore[misc]
        """Refuses before any handler of Bokeh's sees a request."""

        def find_handler(self, request: Any, **kwargs: Any) -> Any:
            websocket = request.headers.get("Upgrade", "").lower() == "websocket"
            reason = refusal(request.method, request.headers, port, websocket=websocket)
            path = request.path
            if not reason and path.endswith(("/autoload.js", "/metadata")):
                reason = f"path: expected one of this page, got {path[:80]!r}"
            if reason:
                return self.get_handler_delegate(request, Refuse, {"reason": reason})
            return super().find_handler(request, **kwargs)

    return Guarded(
        {"/": Application(FunctionHandler(document))},
        extra_websocket_origins=list(hosts(port)), use_index=False,
        websocket_max_message_size_bytes=1 << 20, keep_alive_milliseconds=5000,
        check_unused_sessions_milliseconds=2000, unused_session_lifetime_milliseconds=4000,
        transforms=[Headers],
    )  # fmt: skip
