"""The page's server over loopback: what it answers, to whom, and how it lives and ends."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import run, run_python
from helpers.pages.rings import ring_writer
from helpers.pages.serving import Served, Writer, served
from helpers.waiting import wait_until

from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.page.watching import Watch
from poyo_edge.runtime.rig import Rig, RigSettings

pytest.importorskip("bokeh", reason="the page needs it")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "ring", {"run": {"artifact": "tiny.poyo", "source": "udp://x",
                  "targets": [], "backend": "ort-cpu", "control": None, "behavior": "cursor.vel",
                  "unit": "cm/s"}})  # fmt: skip
    yield made
    made.stop()


@pytest.mark.slow
def test_the_page_and_its_scripts_come_from_here_alone(page: Served, writer: Writer) -> None:
    status, headers, html = page.get()
    assert status == 200
    assert f"<title>poyo-edge {writer.frames.path}</title>" in html
    assert page.sheet()["title"] == "tiny.poyo"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "cdn.bokeh" not in html
    scripts = [part.partition('"')[0] for part in html.split('src="')[1:]]
    assert scripts
    for one in scripts:
        path = one.removeprefix(page.url.rstrip("/"))
        assert path.startswith(("/static/", "static/")), one
        assert page.get("/" + path.lstrip("/"))[0] == 200


@pytest.mark.slow
def test_a_foreign_host_reads_nothing(page: Served) -> None:
    for host in ("evil.example", f"evil.example:{page.port}", "127.0.0.1", "-"):
        for path in ("/", "/static/js/bokeh.min.js", "/favicon.ico", "/nothing"):
            status, headers, text = page.get(path, host=host)
            assert status in (400, 403), (host, path)
            assert len(text) < 200
            assert status == 400 or headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert page.connect(host=host, origin=f"http://{host}") in (400, 403)


@pytest.mark.slow
def test_a_foreign_origin_reads_nothing_and_gets_no_connection(page: Served) -> None:
    ours, other = f"127.0.0.1:{page.port}", f"127.0.0.1:{page.port + 1}"
    for origin in ("http://evil.example", "null", f"https://{ours}", f"http://{ours}1",
                   f"http://{other}", f"http://localhost:{page.port}"):  # fmt: skip
        status, headers, text = page.get(origin=origin)
        assert (status, "poyo-edge" in text) == (403, False)
        assert "Access-Control-Allow-Origin" not in headers
        assert page.connect(origin=origin) == 403
    assert page.get(sec_fetch_site="cross-site")[0] == 403
    assert page.connect() == 403, "a connection has to say whose it is"
    assert page.connect(origin=f"http://127.0.0.1:{page.port}") == 101


@pytest.mark.slow
def test_what_other_pages_could_put_into_themselves_is_not_there(page: Served) -> None:
    for path in ("/autoload.js?bokeh-autoload-element=x", "/metadata"):
        assert page.get(path)[0] == 403
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert page.get(method=method)[0] == 403


def test_it_listens_on_loopback_alone(page: Served) -> None:
    address = f"{page.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(address)]
    assert listening == [f"0100007F:{address}"]


def test_a_port_that_is_taken_is_said(writer: Writer) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("page", writer.frames.path, "--port", port)
    assert done.returncode == 2
    assert f"expected a free one, got {port}" in done.stderr


def test_no_such_run_is_said_with_those_that_there_are(tmp_path: Path) -> None:
    done = run("page", tmp_path / "none")
    assert done.returncode == 2
    assert "expected the ring of a run, got none that can be opened" in done.stderr


@pytest.mark.slow
def test_a_rig_that_is_killed_is_said_and_the_page_stays(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with ring_writer(path) as rig, served(path) as page:
        rig.put()
        watch = Watch(str(path))
        assert watch.reader.alive
        rig.kill()
        wait_until(lambda: not watch.reader.alive)
        found = page.sheet()
        assert "The rig is gone: its process died" in found["headline"]
        assert (found["tone"], found["commands"]["alive"]) == ("bad", False)
        with ring_writer(path) as again:  # the next run of that name
            again.put()
            wait_until(lambda: page.sheet()["commands"]["alive"])


@pytest.mark.slow
def test_a_run_that_ended_is_said(page: Served, writer: Writer) -> None:
    writer.tell(ended="ended")
    writer.stop()
    assert page.sheet()["headline"].startswith("The run has ended; last value")


@pytest.mark.slow
def test_a_page_that_is_killed_leaves_the_ring_as_it_was(writer: Writer) -> None:
    with served(writer.frames.path) as page:
        before = int(writer.frames._head["written"])
        os.kill(page.process.pid, signal.SIGKILL)
        page.process.wait()
        wait_until(lambda: int(writer.frames._head["written"]) > before + 10)
        assert int(writer.frames._head["written"]) > before + 10
    with served(writer.frames.path) as again:
        assert again.sheet()["commands"]["alive"]


@pytest.mark.slow
def test_who_lacks_bokeh_is_told_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'bokeh' else real(name, *a)\n"
        "sys.argv = ['poyo-edge', *sys.argv[1:]]\n"
        "from poyo_edge.cli import main\n"
        "main()\n"
    )
    artifact = Path(__file__).parents[2] / "data" / "tiny.poyo"
    for words in (
        ["page", tmp_path / "ring"],
        ["run", artifact, "--session", "tiny_a", "--from", "udp://127.0.0.1:0", "--page"],
        ["demo", "--live", "--out", tmp_path / "demo"],
    ):
        done = run_python(code, *words)
        assert done.returncode == 4, done.stderr
        assert "the page needs the package 'bokeh'" in done.stderr
        assert 'pip install "bokeh>=3.4,<4"' in done.stderr


def test_nothing_of_the_device_side_loads_bokeh(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import poyo_edge.runtime, poyo_edge.runtime.rig, poyo_edge.calibration, poyo_edge.cli\n"
        "import poyo_edge.runtime.page.launching, poyo_edge.runtime.page.server\n"
        "print(sorted({'bokeh', 'tornado', 'jinja2'} & {*sys.modules}))\n"
    )
    done = run_python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert sys.executable


TOKEN = "ab" * 32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"do": "tell", "command": "stop"}, "Read-only: arm this page"),
        ({"do": "tell", "command": "zero", "armed": True, "token": TOKEN}, "Read-only: arm this"),
        ({"do": "arm", "token": ""}, "Not armed"),
        ({"do": "arm", "token": 5}, "Not armed"),
        ({"do": "arm", "token": TOKEN}, "This run takes no commands"),
        ({"do": "anything"}, "something that there is not"),
        ({}, "something that there is not"),
    ],
)
def test_a_client_without_the_token_changes_nothing(
    page: Served, asked: dict[str, object], said: str
) -> None:
    found = page.sheet(asked, until=said)
    assert said in found["mine"]["said"]
    assert not found["mine"]["armed"]


def test_a_wrong_token_is_refused_by_the_run_and_the_right_one_is_not(
    tiny: Path, tmp_path: Path
) -> None:
    settings = RigSettings(
        session="tiny_a", ring=str(tmp_path / "ring"), control_address="udp://127.0.0.1:0"
    )
    with Rig.open(tiny, "udp://127.0.0.1:0", (), settings) as rig:
        assert rig.port is not None
        reader = FrameReader(str(tmp_path / "ring"))
        wait_until(lambda: reader.state()[0])
        with served(tmp_path / "ring") as page:
            found = page.sheet({"do": "arm", "token": TOKEN}, until="Armed: ")
            assert not found["mine"]["armed"]
            assert found["mine"]["tone"] == "bad"
            assert rig.stats()["commands"]["accepted"] == {}
            found = page.sheet({"do": "arm", "token": rig.port.token}, until="Armed: ")
            assert found["mine"]["armed"]
            assert rig.port.token not in str(found)
            assert rig.stats()["commands"]["accepted"] == {"mark": 1}
            found = page.sheet({"do": "tell", "command": "zero"}, until="Read-only")
            assert not found["mine"]["armed"], "another browser is armed by itself"
            assert rig.stats()["commands"]["held"] == ""
