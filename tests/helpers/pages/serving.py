"""A page of a ring in a process of its own, and a run that writes one without a decoder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers.commands import start
from helpers.feeds import a_value
from helpers.waiting import PATIENCE_S
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.rig.settings import LoopCounters
from poyo_edge.trials import Trial

SHAPE = RingShape(dims=2, units=12, rate_hz=50, tick_rate_hz=1e9, window_s=1.0, seconds=20)


class Writer:
    """Writes frames at 50 Hz in a thread, as a loop would, until it is stopped."""

    def __init__(self, path: Path, state: Mapping[str, Any] | None = None) -> None:
        self.frames = FrameWriter(str(path), SHAPE)
        self.state = dict(state or {})
        self.status, self.flags = Status.VALID, tuple[str, ...]()
        self.silence_s = 0.01
        self._telling = threading.Lock()
        self.tell()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def tell(self, **changes: Any) -> None:
        """Change the state, or say only that it is as it was."""
        with self._telling:
            self.state |= changes
            self.frames.state.put({"host_ns": time.monotonic_ns(), "ended": "", "events": [],
                                   **self.state})  # fmt: skip

    def stop(self) -> None:
        """Write no more."""
        self._stop.set()
        self._thread.join()
        self.frames.close()

    def _run(self) -> None:
        rng, n = np.random.default_rng(0), 0
        while not self._stop.wait(0.02):
            n += 1
            if n % 25 == 0:
                self.tell()
            now = time.monotonic_ns()
            angle = n / 25
            self.frames.note_spikes(np.array([now]), rng.integers(0, 12, 20).astype(np.int32))
            here = 4 * np.array([[np.cos(angle), np.sin(angle)]])
            self.frames.note_cursor(np.array([now]), here)
            self.frames.note_trial(Trial(number=1, start=now, target=(5.0, 5.0), radius=1.2))
            value = a_value(n)
            result = dataclasses.replace(
                value.result, value=8 * np.array([-np.sin(angle), np.cos(angle)]), t=now,
                t_last_spike=now - int(self.silence_s * 1e9), status=self.status, flags=self.flags,
                session_id="tiny_a",
            )  # fmt: skip
            value = dataclasses.replace(
                value, result=result, t_s=now / 1e9, host_ns=now, newest_in_ns=now - 1_500_000,
                valid_until_ns=now + 500_000_000,
            )  # fmt: skip
            self.frames.write(value, due_ns=now, newest=True, counters=LoopCounters(decoded=n))


class Served:
    """A page that runs."""

    def __init__(self, process: subprocess.Popen[str] | None, url: str) -> None:
        self._process, self.url = process, url
        self.port = int(url.rstrip("/").rpartition(":")[2])

    @property
    def process(self) -> subprocess.Popen[str]:
        """The page's, where it was started here."""
        assert self._process is not None
        return self._process

    def get(
        self, path: str = "/", method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer; "host" and the like replace what is usual."""
        said = {"Host": f"127.0.0.1:{self.port}"}
        said |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in said.items():
                if value != "-":
                    connection.putheader(name, value)
            connection.endheaders()
            with connection.getresponse() as answer:
                text = answer.read().decode(errors="replace")
                return answer.status, dict(answer.getheaders()), text

    def connect(self, path: str = "/ws", **headers: str) -> int:
        """Status of the answer to a request for the page's connection."""
        words = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
                 "Sec_WebSocket_Key": "x3JJHMbDL1EzLkh9GBhXDw==",
                 "Sec_WebSocket_Protocol": f"bokeh, {self.token()}"}  # fmt: skip
        return self.get(path, **{**words, **headers})[0]

    def token(self) -> str:
        """Of a session of Bokeh's, as the page's own HTML has it; no secret of ours."""
        return self.get()[2].partition('"token":"')[2].partition('"')[0]

    def sheet(self, *asked: Mapping[str, Any], until: str = "") -> dict[str, Any]:
        """What the page says to a client of its connection that no browser holds back.

        Args:
            asked: what the client asks for, one after the other.
            until: words that what is said about it has; the newest sheet then.
        """
        return asyncio.run(self._sheet([json.dumps(one) for one in asked], until))

    async def _sheet(self, asked: list[str], until: str) -> dict[str, Any]:
        found = dict[str, Any]()
        async with _connected(self) as socket:
            while True:
                kind, content = await asyncio.wait_for(_message(socket), PATIENCE_S)
                if kind == "PULL-DOC-REPLY":
                    models = {name: one for one, name in _named(content)}
                    for text in asked:
                        await _change(socket, models["ask"], "json", text)
                for text in _sheets(content):
                    found = json.loads(text)
                if found and until in found["mine"]["said"] and (until or not asked):
                    return found

    def watched(self, seconds: float) -> int:
        """Sheets that a client gets in this time that draws each at once, as a quick browser."""
        return asyncio.run(self._watched(time.monotonic() + seconds))

    async def _watched(self, until: float) -> int:
        n, models = 0, dict[str, str]()
        async with _connected(self) as socket:
            while time.monotonic() < until:
                kind, content = await asyncio.wait_for(_message(socket), PATIENCE_S)
                if kind == "PULL-DOC-REPLY":
                    models = {name: one for one, name in _named(content)}
                for text in _sheets(content):
                    n += 1
                    await _change(socket, models["ack"], "drawn", json.loads(text)["number"])
        return n


@contextlib.asynccontextmanager
async def _connected(page: Served) -> AsyncIterator[Any]:
    """A page's connection, on which the document has been asked for."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(
        page.url.replace("http:", "ws:") + "ws",
        headers={"Origin": page.url.rstrip("/"), "Host": f"127.0.0.1:{page.port}"},
    )
    socket = await websocket_connect(request, subprotocols=["bokeh", page.token()])
    try:
        await _message(socket)  # ACK
        await _send(socket, "PULL-DOC-REQ", {})
        yield socket
    finally:
        socket.close()
        while await socket.read_message() is not None:
            pass
        await asyncio.sleep(0)


async def _change(socket: Any, model: str, name: str, value: Any) -> None:
    """Put one value into the data of a model."""
    change = {"kind": "ModelChanged", "model": {"id": model}, "attr": "data",
              "new": {"type": "map", "entries": [[name, [value]]]}}  # fmt: skip
    await _send(socket, "PATCH-DOC", {"events": [change]})


async def _message(socket: Any) -> tuple[str, Any]:
    """Kind and content of the next message of Bokeh's protocol; what is binary is left out."""
    parts = [await socket.read_message() for _ in range(3)]
    header = json.loads(parts[0])
    for _ in range(header.get("num_buffers", 0)):
        await socket.read_message()
        await socket.read_message()
    return str(header["msgtype"]), json.loads(parts[2])


async def _send(socket: Any, kind: str, content: Any) -> None:
    header = {"msgid": str(time.monotonic_ns()), "msgtype": kind}
    for part in (header, {}, content):
        await socket.write_message(json.dumps(part))


def _walk(content: Any) -> Iterator[Any]:
    yield content
    inner = content.values() if isinstance(content, dict) else content
    if isinstance(inner, str) or not isinstance(content, dict | list):
        return
    for one in inner:
        yield from _walk(one)


def _named(content: Any) -> Iterator[tuple[str, str]]:
    """Id and name of all models that have one."""
    for one in _walk(content):
        if isinstance(one, dict) and isinstance(one.get("attributes"), dict):
            name = one["attributes"].get("name")
            if isinstance(name, str):
                yield str(one["id"]), name


def _sheets(content: Any) -> Iterator[str]:
    for one in _walk(content):
        if isinstance(one, str) and one.startswith('{"title"'):
            yield one


@contextlib.contextmanager
def served(ring: Path, *arguments: str) -> Iterator[Served]:
    """``poyo-edge page`` of a ring, ended in the end."""
    process = start("page", ring, "--json", "--port", "0", *arguments)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        yield Served(process, json.loads(line)["url"])
    finally:
        process.kill()
        process.communicate()
