"""Who adds a row and its file has added a feed: help, errors and the page know it."""

from __future__ import annotations

import importlib.metadata
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

from poyo_edge.errors import MissingExtraError, UsageError
from poyo_edge.runtime.feeds import FEEDS, SINKS, open_feed, open_sink
from poyo_edge.runtime.feeds.wire.address import Address, AddressRow

ROWS = [*FEEDS.values(), *SINKS.values()]
TOYS = """
from poyo_edge.runtime.feeds import Feed

class ToyFeed(Feed):
    def __init__(self, name, rate):
        super().__init__(rate)
        self.name = name

    def read(self, receiver, stop):
        receiver.feed([1, 2], [self.name, self.name])

class ToySink:
    def __init__(self, name, dim_out):
        self.said = [name, dim_out]

    def __call__(self, value):
        self.said.append(value)

    def close(self):
        print(*self.said)

def open_feed(address):
    return ToyFeed(address.name(), address.number("rate", 10.0))

def open_sink(address, dim_out):
    return ToySink(address.name(), dim_out)

def open_with_a_library(address):
    name = address.name()
    import no_such_toys
    return no_such_toys.Feed(name)
"""
ADDED = """
from poyo_edge.runtime.feeds import FEEDS, SINKS, open_feed, open_sink
from poyo_edge.runtime.feeds.wire.address import AddressRow

FEEDS["toy"] = AddressRow(address="toy://NAME?rate=10", help="a toy", load="toys:open_feed")
FEEDS["shop"] = AddressRow(
    address="shop://NAME", help="a toy to buy", load="toys:open_with_a_library",
    extra="toys", package="no_such_toys",
)
SINKS["toy"] = AddressRow(address="toy:NAME", help="a toy", load="toys:open_sink")
"""


def process(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in which the rows of the toys stand in the tables before anything else."""
    (folder / "toys.py").write_text(TOYS)
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{ADDED}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def command_line(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return process(folder, "from poyo_edge.cli import main; main()", *arguments)


def test_a_feed_is_a_file_and_a_row(tmp_path: Path) -> None:
    done = process(
        tmp_path,
        "class Receiver:\n"
        "    def feed(self, ticks, units, **_):\n"
        "        print(ticks, units)\n"
        "feed = open_feed('toy://bear?rate=30')\n"
        "feed.start(Receiver())\n"
        "assert feed.finished.wait(30)\n"
        "feed.stop()\n"
        "print(feed.tick_rate_hz, feed.bits, feed.speed)",
    )
    assert done.stdout.splitlines() == ["[1, 2] ['bear', 'bear']", "30.0 None 1.0"], done.stderr


def test_a_sink_is_a_file_and_a_row(tmp_path: Path) -> None:
    code = "sink = open_sink('toy:bear', 2); sink('value'); print(sink); sink.close()"
    done = process(tmp_path, code)
    assert done.stdout.splitlines() == ["toy:bear", "bear 2 value"], done.stderr


@pytest.mark.slow
def test_the_help_and_the_errors_know_a_row(tmp_path: Path) -> None:
    words = " ".join(command_line(tmp_path, "run", "--help").stdout.replace("│", " ").split())
    assert ", toy: or shop:" in words
    assert " or toy:; may be repeated." in words
    for arguments, code, message in (
        (["ftp://x"], 2, ", toy://NAME?rate=10, shop://NAME, got 'ftp://x'"),
        (["toy://x?colour=red"], 2, "toy://x?colour=red: expected options ['rate'], got 'colour'"),
        (["shop://"], 2, "shop://: expected a name behind shop:, got none"),
        (["shop://x"], 4, "shop://x needs the package 'no_such_toys', which is not installed; "
                          "run: pip install no_such_toys"),
    ):  # fmt: skip
        done = command_line(tmp_path, "run", "none.poyo", "--from", *arguments)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["lsl://s", "redis://127.0.0.1:1/s", "zmq://127.0.0.1:0"])
def test_a_sink_without_its_library_names_the_command_of_its_row(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    row = SINKS[address.partition(":")[0]]
    monkeypatch.setitem(sys.modules, row.package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_sink(address, 2)
    assert str(caught.value).endswith(f"run: {row.install}")


def test_a_brand_node_without_redis_names_the_command_of_its_row() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from poyo_edge.runtime.rig.brand_node import main; sys.exit(main(['-n', 'poyo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr.startswith("[poyo] error: a Redis feed needs the package 'redis'")
    assert done.stderr.endswith(f"run: {FEEDS['redis'].install}\n")


def test_a_wrong_address_is_said_before_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    for address, message in (
        ("openephys://x", "expected HOST:PORT"),
        ("openephys://x:1?rate=fast", "rate: expected a number > 0, got 'fast'"),
    ):
        with pytest.raises(UsageError, match=message):
            open_feed(address)


@pytest.mark.parametrize(
    ("address", "name", "options"),
    [
        ("file:a#1.h5?speed=2", "a#1.h5", {"speed": "2"}),
        ("file:/d/is it?.h5?speed=2&split=test", "/d/is it?.h5", {"speed": "2", "split": "test"}),
        ("file:is it?.h5", "is it?.h5", {}),
        ("file:a.h5", "a.h5", {}),
    ],
)
def test_a_file_may_have_any_name(address: str, name: str, options: dict[str, str]) -> None:
    where = Address.parse("--from", address, FEEDS)
    assert (where.place, where.options) == (name, options)
    with pytest.raises(UsageError, match=r"expected options .*, got 'sped'"):
        Address.parse("--from", f"{address}?sped=2", FEEDS)


def test_what_breaks_in_a_feed_without_a_library_is_not_called_missing() -> None:
    FEEDS["broken"] = AddressRow(address="broken://", help="", load="no_such_module:open_feed")
    try:
        with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
            open_feed("broken://x")
    finally:
        del FEEDS["broken"]
    assert not isinstance(caught.value, MissingExtraError)


def test_the_tables_load_no_library_of_a_feed() -> None:
    packages = {row.package for row in ROWS if row.package} | {"h5py"}
    code = "import sys, poyo_edge.runtime.feeds as f; print(*sys.modules); f.FEEDS['lsl'].present"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"pylsl", "redis", "zmq"} <= packages
    assert packages.isdisjoint(done.stdout.split())


def test_every_row_can_be_opened_and_its_extra_can_be_installed() -> None:
    extras = set(importlib.metadata.metadata("poyo-edge").get_all("Provides-Extra") or ())
    for row in ROWS:
        assert callable(row.opener)
        assert bool(row.extra) == bool(row.package)
        assert row.extra in {"", *extras}


def page_table(option: str) -> list[list[str]]:
    """Cells (system, address, needs) of the page's table with the option in its head."""
    lines = (ROOT / "docs" / "feeds.md").read_text(encoding="utf-8").splitlines()
    (head,) = (i for i, line in enumerate(lines) if line.startswith(f"| system | `{option}`"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[head + 2 :])
    return [[cell.strip() for cell in row.split("|")[1:4]] for row in rows]


@pytest.mark.parametrize(("option", "table"), [("--from", FEEDS), ("--to", SINKS)])
def test_the_page_has_the_rows_of_the_table(option: str, table: dict[str, AddressRow]) -> None:
    assert page_table(option) == [
        [row.help, f"`{row.address}`", f"`.[{row.extra}]`" if row.extra else "–"]
        for row in table.values()
    ]
    assert all(row.address.startswith(f"{scheme}:") for scheme, row in table.items())
