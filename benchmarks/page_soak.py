"""An hour of a live demo with its page open in a browser: memory of all, frames that were missed.

    python benchmarks/page_soak.py DEMO_FOLDER --minutes 60 [--out soak.json] [--png page.png]
        [--approve] [--pictures FOLDER]

With --approve the page is armed by keyboard, and each fit on offer is approved by its key, as an
experimenter would. Needs chromium and the extra ``page``. Everything is simulated but decoder,
loop, page and browser.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.pages.browser import Browser

from poyo_edge.runtime.page.ring.memory import running
from poyo_edge.runtime.page.ring.reader import FrameReader

_LOOK_S = 10.0
_SIZE = 1920, 1200


def main() -> None:
    """Run it and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--approve", action="store_true", help="every fit that is on offer")
    parser.add_argument("--pictures", type=Path, help="of each kind of fit, at both widths")
    given = parser.parse_args()
    before = set(running())
    rig = subprocess.Popen(
        [sys.executable, "-m", "poyo_edge", "demo", "--out", str(given.demo), "--live", "--quiet",
         "--json", "--seconds", str(60 * given.minutes + 30)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert rig.stderr is not None
    said = list[str]()
    for line in rig.stderr:
        said.append(line.split()[-1])
        if "the page is at" in line:
            break
    token, url = said[-2:]
    (ring,) = set(running()) - before
    reader = FrameReader(ring)
    page = page_of(ring)
    rows, began = list[dict[str, Any]](), time.monotonic()
    with Browser() as browser:
        browser.open(url, *_SIZE)
        watcher = Watcher(browser, given.pictures)
        if given.approve:
            watcher.arm(token)
        while time.monotonic() - began < 60 * given.minutes and rig.poll() is None:
            time.sleep(_LOOK_S)
            n = len(reader.read(1 << 20))
            watcher.look(approve=given.approve)
            rows.append({
                "minutes": round((time.monotonic() - began) / 60, 2),
                "rig_mb": resident_mb(rig.pid), "page_mb": resident_mb(page),
                "browser_mb": browser.evaluate("performance.memory.usedJSHeapSize") / 1e6,
                "frames": n, "lost": reader.lost, "torn": reader.torn,
                "page_says": browser.evaluate("document.getElementById('frames').textContent"),
            })  # fmt: skip
            if given.out is not None:
                given.out.write_text(json.dumps(summary(rows), indent=1))
        if given.png is not None:
            browser.picture(given.png)
        problems = browser.problems()
    fits = {"fits": watcher.seen, "approvals": watcher.approvals}
    print(json.dumps({**summary(rows), **fits, "problems": problems}, indent=1))
    rig.terminate()
    rig.communicate()


class Watcher:
    """Whoever sits before the page: looks at the cards of fits, and approves."""

    def __init__(self, browser: Browser, pictures: Path | None) -> None:
        self.seen = list[str]()
        """What was said of fits, in the order of its first appearance."""
        self.approvals = 0
        """Presses of the key; a fit that is taken late may have two."""
        self._browser = browser
        self._pictures = pictures
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)

    def arm(self, token: str) -> None:
        """By keyboard alone."""
        self._browser.wait("document.getElementById('headline').textContent.includes('ecod')")
        self._browser.press("a")
        self._browser.type(token)
        self._browser.press("Enter")
        self._browser.wait("document.getElementById('mine').textContent.startsWith('Armed: ')")
        self._browser.press("Escape")

    def look(self, *, approve: bool) -> None:
        """Keep a picture of each kind of fit, and approve what is on offer."""
        cards = self._browser.evaluate(
            "[...document.querySelectorAll('.card')].map(e => e.innerText.split('\\n')[0])"
        )
        for kind in ("on offer", "approved", "refused"):
            if any(kind in card for card in cards):
                self._keep(kind)
        if approve and any("on offer" in card for card in cards):
            self._browser.press("t")
            self.approvals += 1

    def _keep(self, kind: str) -> None:
        if kind in self.seen:
            return
        self.seen.append(kind)
        if self._pictures is None:
            return
        for width, height in (_SIZE, (420, 900)):
            self._browser.size(width, height)
            self._browser.evaluate("window.scrollTo(0, 0)")
            time.sleep(2)
            self._browser.picture(self._pictures / f"{kind.replace(' ', '_')}_{width}.png")
        self._browser.size(*_SIZE)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Memory after a tenth of the time and in the end, and what was missed."""
    early, late = rows[len(rows) // 10], rows[-1]
    names = ("rig_mb", "page_mb", "browser_mb")
    return {
        "minutes": late["minutes"],
        **{name: {"after_a_tenth": early[name], "end": late[name],
                  "most": max(row[name] for row in rows)} for name in names},
        "frames": sum(row["frames"] for row in rows),
        "lost": late["lost"], "torn": late["torn"], "page_says": late["page_says"],
        "rows": rows[:: max(1, len(rows) // 60)],
    }  # fmt: skip


def page_of(ring: str) -> int:
    """Process of the page that shows a ring."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"page" in words and ring.encode() in words and int(entry.name) != os.getpid():
            return int(entry.name)
    raise LookupError(f"no page of {ring}")


def resident_mb(pid: int) -> float:
    """Memory of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    return 0.0


if __name__ == "__main__":
    main()
