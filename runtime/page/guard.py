"""Who may ask a page: a browser on this machine that is on this very page, and nobody else.

The server listens on loopback alone. That keeps other machines out, and not other web pages in a
browser of this machine: those may send requests to loopback (CSRF), or give a name of their own
loopback's address and then read as if they were us (DNS rebinding). So each request has to be *for*
an address of ours (``Host``), and where it says which page it comes from (``Origin``,
``Sec-Fetch-Site``), that has to be ours too. Nothing else of a request is believed.
"""

from __future__ import annotations

from collections.abc import Mapping

_METHODS = ("GET", "HEAD")
_NAMES = ("127.0.0.1", "localhost", "[::1]")
_SITES = ("same-origin", "none")

HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' {ws}; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}
"""Of every answer. ``{ws}`` is where the page's own connection goes. Bokeh makes functions of text,
which 'unsafe-eval' allows; what comes from a rig is only ever put there as text."""


def hosts(port: int) -> tuple[str, ...]:
    """What ``Host`` may be."""
    return tuple(f"{name}:{port}" for name in _NAMES)


def refusal(method: str, headers: Mapping[str, str], port: int, *, websocket: bool) -> str:
    """Why a request is refused; "" if it is not.

    Args:
        method: of HTTP.
        headers: as they came; ``Host`` among them.
        port: of the page.
        websocket: whether it opens the page's connection, which any page may ask a browser for.
    """
    ours = hosts(port)
    if method not in _METHODS:
        return f"method: expected one of {', '.join(_METHODS)}, got {method[:20]!r}"
    host = headers.get("Host", "").lower()
    if host not in ours:
        return f"Host: expected {ours[0]}, got {host[:80]!r}"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in [f"http://{one}" for one in ours]:
        return f"Origin: expected this page, got {origin[:80]!r}"
    if origin is not None and origin.lower() != f"http://{host}":
        return f"Origin: expected that of the Host {host!r}, got {origin[:80]!r}"
    if websocket and origin is None:
        return "Origin: expected this page, got none"
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site not in _SITES:
        return f"Sec-Fetch-Site: expected a request of this page, got {site[:40]!r}"
    return ""
