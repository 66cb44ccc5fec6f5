"""Addresses like ``udp://127.0.0.1:5000?rate=30000``, taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from poyo_edge.errors import UsageError
from poyo_edge.tables import Row


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddressRow(Row):
    """A kind of feed or sink, and how its address is written."""

    address: str
    """An example with all its options; the address that is typed may have no others."""
    never_waits: bool = False
    """Of a sink: whether no peer, network or lock can make it wait."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """An address of a known kind. Each part that is asked for and cannot be is a ``UsageError``."""

    text: str
    """As it was typed."""
    url: SplitResult
    options: Mapping[str, str]
    """What stands behind the question mark."""
    valid_for_ms: float | None = None
    """Of a sink: how long a value stands; None where nobody says."""

    @classmethod
    def parse(cls, option: str, text: str, known: Mapping[str, AddressRow]) -> Address:
        """Take an address apart.

        Args:
            option: of the command line, for messages.
            text: the address.
            known: scheme → its row.

        Raises:
            UsageError: no address, none of a known scheme, or an option that its kind has not.
        """
        try:
            url = urlsplit(text, allow_fragments=False)  # a file's name may hold a "#"
            _ = url.port
        except ValueError as error:
            raise UsageError(f"{option}: expected an address, got {text!r} ({error})") from None
        if url.scheme not in known:
            examples = ", ".join(row.address for row in known.values())
            raise UsageError(f"{option}: expected an address like {examples}, got {text!r}")
        example = urlsplit(known[url.scheme].address)
        allowed = {name for name, _ in parse_qsl(example.query)}
        url = _to_the_last_mark(url, allowed)
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        unknown = sorted(set(options) - allowed)
        if unknown:
            raise UsageError(
                f"{text}: expected options {sorted(allowed) or 'none'}, got {unknown[0]!r}"
            )
        return cls(text, url, options)

    @property
    def scheme(self) -> str:
        """What stands before the colon: the kind."""
        return self.url.scheme

    @property
    def place(self) -> str:
        """All between the scheme and the options, as a file is named."""
        return self.url.netloc + self.url.path

    def host_port(self) -> tuple[str, int]:
        """Of ``scheme://HOST:PORT``."""
        if not self.url.hostname or self.url.port is None:
            raise UsageError(
                f"{self.text}: expected HOST:PORT behind {self.scheme}://, like "
                f"{self.scheme}://127.0.0.1:5000"
            )
        return self.url.hostname, self.url.port

    def name(self) -> str:
        """Of ``scheme://NAME`` or ``scheme:NAME``."""
        name = self.place.strip("/")
        if not name:
            raise UsageError(f"{self.text}: expected a name behind {self.scheme}:, got none")
        return name

    def option(self, name: str, default: str = "") -> str:
        """The text of an option."""
        return self.options.get(name, default)

    def flag(self, name: str) -> bool:
        """Whether an option is given and neither empty nor 0."""
        return self.option(name) not in ("", "0")

    def number(self, name: str, default: float) -> float:
        """An option > 0; the default may be any."""
        if name not in self.options:
            return default
        try:
            value = float(self.options[name])
        except ValueError:
            value = -1.0
        if not 0 < value <= 1e12:
            raise UsageError(
                f"{self.text}: {name}: expected a number > 0, got {self.options[name]!r}"
            )
        return value

    def bits(self) -> int | None:
        """The option ``bits``: 8 to 63, the width of a counter; None if it is not given."""
        text = self.options.get("bits")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"{self.text}: bits: expected a whole number, got {text!r}")
        if not 8 <= int(text) <= 63:
            raise UsageError(f"{self.text}: bits: expected 8 to 63, got {text}")
        return int(text)


def _to_the_last_mark(url: SplitResult, allowed: Container[str]) -> SplitResult:
    """The address of a file whose name holds question marks: options stand behind the last."""
    if url.netloc or not url.query:
        return url
    name, _, last = f"{url.path}?{url.query}".rpartition("?")
    if all("=" in part or part in allowed for part in last.split("&")):
        return url._replace(path=name, query=last)
    return url._replace(path=f"{name}?{last}", query="")
