"""Which requests a page answers: those of a browser that is on it, at an address of ours."""

from __future__ import annotations

import pytest

from poyo_edge.runtime.page.guard import hosts, refusal

PORT = 5006
OURS = {"Host": "127.0.0.1:5006"}
PAGE = {**OURS, "Origin": "http://127.0.0.1:5006"}


@pytest.mark.parametrize(
    "headers",
    [
        OURS,
        PAGE,
        {**PAGE, "Sec-Fetch-Site": "same-origin"},
        {**OURS, "Sec-Fetch-Site": "none"},  # typed, or a bookmark
        {"Host": "localhost:5006", "Origin": "http://localhost:5006"},
        {"Host": "[::1]:5006"},
        {"Host": "LOCALHOST:5006"},
    ],
)
def test_our_own_page_is_answered(headers: dict[str, str]) -> None:
    assert refusal("GET", headers, PORT, websocket=False) == ""


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "Host"),
        ({"Host": "evil.example:5006"}, "Host"),  # DNS rebinding
        ({"Host": "127.0.0.1:5006.evil.example"}, "Host"),
        ({"Host": "127.0.0.1"}, "Host"),
        ({"Host": "127.0.0.1:80"}, "Host"),
        ({"Host": "0.0.0.0:5006"}, "Host"),
        ({**OURS, "Origin": "http://evil.example"}, "Origin"),
        ({**OURS, "Origin": "null"}, "Origin"),  # a sandboxed frame, or a file
        ({**OURS, "Origin": ""}, "Origin"),
        ({**OURS, "Origin": "https://127.0.0.1:5006"}, "Origin"),
        ({**OURS, "Origin": "http://127.0.0.1:5007"}, "Origin"),
        ({**OURS, "Origin": "http://localhost:5006"}, "Origin"),
        ({**OURS, "Origin": "http://127.0.0.1:5006.evil.example"}, "Origin"),
        ({**PAGE, "Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site"),
        ({**PAGE, "Sec-Fetch-Site": "same-site"}, "Sec-Fetch-Site"),  # another port of loopback
    ],
)
def test_others_are_refused(headers: dict[str, str], why: str) -> None:
    for websocket in (False, True):
        assert refusal("GET", headers, PORT, websocket=websocket).startswith(why)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", ""])
def test_only_reading_methods_are_answered(method: str) -> None:
    assert refusal(method, OURS, PORT, websocket=False).startswith("method")


def test_a_connection_has_to_say_its_page() -> None:
    assert refusal("GET", PAGE, PORT, websocket=True) == ""
    assert refusal("GET", OURS, PORT, websocket=True).startswith("Origin: expected this page")
    assert hosts(80) == ("127.0.0.1:80", "localhost:80", "[::1]:80")
