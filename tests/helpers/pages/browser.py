"""Debian's chromium without a window, driven over its DevTools protocol; no download, no driver."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.waiting import PATIENCE_S, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check",
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio",
    "--no-proxy-server", "--force-device-scale-factor=1",
)  # fmt: skip


def chromium() -> str:
    """Where it is; the test is skipped where it is not."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: expected one of {', '.join(NAMES)} (apt-get install chromium)")
    return found


class Browser:
    """One browser with one tab; use it with ``with``."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="poyo-browser-")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [chromium(), *_ARGUMENTS, *sandbox, f"--user-data-dir={self._profile}", "about:blank"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._session = ""
        self._events = list[dict[str, Any]]()
        self._socket: Any = self._loop.run_until_complete(self._connect())
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of this size."""
        self.size(width, height)
        self.call("Page.navigate", url="about:blank")
        self._events.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def size(self, width: int, height: int) -> None:
        """As of a screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def evaluate(self, code: str) -> Any:
        """What an expression of JavaScript gives; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, code: str) -> None:
        """Until an expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.evaluate(f"Boolean({code})"):
            assert time.monotonic() < until, f"never came true: {code}\n{self.text()}"
            time.sleep(0.05)

    def text(self) -> str:
        """All words of the page that are to be seen."""
        return str(self.evaluate("document.body.innerText"))

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as a keyboard does."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        code = codes.get(key) or ord(key.upper())
        said = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **said, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **said)

    def move(self, x: float, y: float) -> None:
        """The mouse to a point of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page, below the window too."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def requested(self) -> list[str]:
        """Addresses that were asked for since the start."""
        return [
            one["params"]["request"]["url"]
            for one in self._events
            if one["method"] == "Network.requestWillBeSent"
        ]

    def problems(self) -> list[str]:
        """What the page threw, or wrote to the console as an error."""
        thrown = [
            str(one["params"]["exceptionDetails"].get("exception", {}).get("description"))
            for one in self._events
            if one["method"] == "Runtime.exceptionThrown"
        ]
        written = [
            str([arg.get("value") for arg in one["params"]["args"]])
            for one in self._events
            if one["method"] == "Runtime.consoleAPICalled" and one["params"]["type"] == "error"
        ]
        return thrown + written

    def kill(self) -> None:
        """At once, with all of its processes; may be called again."""
        if self._loop.is_closed():
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._loop.run_until_complete(self._drain())
        self._loop.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its result."""
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number, message = self._number, {"method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.write_message(json.dumps({"id": number, **session, **message}))
        while True:
            text = await asyncio.wait_for(self._socket.read_message(), 3 * PATIENCE_S)
            assert text is not None, "the browser is gone"
            found = json.loads(text)
            if found.get("id") == number:
                assert "error" not in found, found
                return dict(found["result"])
            if "method" in found:
                self._events.append(found)

    async def _drain(self) -> None:
        """Read to the end, which has come."""
        self._socket.close()
        while await asyncio.wait_for(self._socket.read_message(), PATIENCE_S) is not None:
            pass
        await asyncio.sleep(0)

    async def _connect(self) -> Any:
        from tornado.websocket import websocket_connect

        told = Path(self._profile) / "DevToolsActivePort"
        wait_until(lambda: told.exists() and told.read_text().count("\n") == 1)
        port, path = told.read_text().split()
        return await websocket_connect(f"ws://127.0.0.1:{port}{path}", max_message_size=1 << 28)
