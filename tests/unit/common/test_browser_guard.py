"""Which requests a server takes, where any page in a browser can reach it."""

from __future__ import annotations

import pytest

from llmlaunch.common.browser_guard import Door, door, name_of, not_json

OPEN = Door()
LOOPBACK = door("127.0.0.1", names=["llm.example.org", "Box.local:8000"], origins=["https://chat.example"])
OWN = "localhost:8000"


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LOCALHOST:8000", "LocalHost", "localhost.", "localhost.:8000", "127.0.0.1",
        "127.0.0.1:8000", "127.0.0.2", "127.255.255.254:1", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000",
        "[::ffff:127.0.0.1]:8000", "", "llm.example.org", "LLM.example.org:443", "llm.example.org.", "box.local",
        "box.local:9", "127.0.0.1:",
    ],
)  # fmt: skip
def test_names_of_its_own(host: str) -> None:
    assert LOOPBACK.refusal(host, "", "") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example:8000", "1.2.3.4",
        "192.168.1.5:8000", "0.0.0.0:8000", "[::]:8000", "[2001:db8::1]", "[::ffff:1.2.3.4]", "xlocalhost",
        "localhost..", "evil.llm.example.org", "example.org", "127.0.0.1@evil.example", "2130706433", "127.1",
        "[localhost].evil", "127.0.0.1:80:evil", "null", "*",
    ],
)  # fmt: skip
def test_names_of_strangers(host: str) -> None:
    refusal = LOOPBACK.refusal(host, "", "")
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "host_not_allowed")
    assert host in refusal.message


def test_the_refusal_says_what_lets_a_name_in() -> None:
    made = door("::1", remedy="Add it to allowed_hosts.")
    refusal = made.refusal("evil.example", "", "")
    assert refusal is not None
    assert refusal.message.endswith("loopback addresses. Add it to allowed_hosts.")


@pytest.mark.parametrize(
    "made",
    [
        OPEN, door("127.0.0.1", keys=True), door("0.0.0.0"), door("::"), door("192.168.1.5"), door("fe80::1%eth0"),
        door("127.0.0.1", names=["*"]),
    ],
)  # fmt: skip
def test_where_any_name_will_do(made: Door) -> None:
    assert made.refusal("evil.example", "", "") is None


@pytest.mark.parametrize("bound", ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1", "[::1]"])
def test_where_it_will_not(bound: str) -> None:
    assert door(bound).refusal("evil.example", "", "") is not None


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        (OWN, "", ""),
        (OWN, "", "none"),
        (OWN, "", "same-origin"),
        (OWN, "", "same-site"),
        (OWN, "http://localhost:8000", "same-origin"),
        (OWN, "HTTP://LOCALHOST:8000", ""),
        (OWN, "https://localhost:8000", ""),
        ("localhost", "http://localhost", ""),
        ("localhost:80", "http://localhost", ""),
        ("localhost", "https://localhost:443", ""),
        ("[::1]:8000", "http://[::1]:8000", ""),
        (OWN, "https://chat.example", "cross-site"),
    ],
)
def test_pages_that_may_call(host: str, origin: str, site: str) -> None:
    assert LOOPBACK.refusal(host, origin, site) is None


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        (OWN, "https://evil.example", ""),
        (OWN, "https://evil.example", "cross-site"),
        (OWN, "null", ""),
        (OWN, "null", "cross-site"),
        (OWN, "", "cross-site"),
        (OWN, "", "Cross-Site"),
        (OWN, "http://localhost:3000", "same-site"),
        (OWN, "http://127.0.0.1:8000", ""),
        (OWN, "http://localhost", ""),
        ("localhost", "http://localhost:8000", ""),
        (OWN, "chrome-extension://abcdefgh", "none"),
        (OWN, "file://", ""),
        (OWN, "https://chat.example.evil", ""),
        (OWN, "https://chat.example:444", ""),
        (OWN, "http://chat.example", ""),
        (OWN, "https://chat.example, https://evil.example", ""),
        ("", "http://localhost:8000", ""),
    ],
)
def test_pages_that_may_not(host: str, origin: str, site: str) -> None:
    for made in (LOOPBACK, door("0.0.0.0", origins=["https://chat.example"])):
        refusal = made.refusal(host, origin, site)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, "origin_not_allowed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "chrome-extension://abcdefgh", ""])
def test_every_page_where_every_page_is_let_in(origin: str) -> None:
    made = door("127.0.0.1", origins=["*"])
    assert made.refusal(OWN, origin, "cross-site") is None
    assert made.refusal("evil.example", origin, "cross-site") is not None  # its name is another matter


def test_an_extension_can_be_named() -> None:
    made = door("127.0.0.1", origins=["chrome-extension://abcdefgh"])
    assert made.refusal(OWN, "chrome-extension://abcdefgh", "none") is None


@pytest.mark.parametrize(
    "kind",
    [
        "", "application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x",
        "application/vnd.api+json", "application/merge-patch+json;v=1",
    ],
)  # fmt: skip
def test_bodies_that_are_json(kind: str) -> None:
    assert not_json(kind, "", "") is None
    assert not_json(kind, "https://chat.example", "cross-site") is None


def test_what_curl_calls_a_form_is_taken_where_no_browser_sent_it() -> None:
    form = "application/x-www-form-urlencoded"
    assert not_json(form, "", "") is None
    assert not_json(form, "https://chat.example", "") is not None
    assert not_json(form, "", "same-origin") is not None
    assert not_json("text/plain", "", "") is not None


def test_a_form_with_a_file_is_taken_where_files_are() -> None:
    form = "multipart/form-data; boundary=x"
    assert not_json(form, "", "", forms=True) is None
    assert not_json("application/json", "", "", forms=True) is None
    refusal = not_json("text/plain", "", "", forms=True)
    assert refusal is not None
    assert "multipart/form-data" in refusal.message


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x",
        "TEXT/PLAIN", "text/json", "application/octet-stream", "text/plain; application/json",
        "application/json, text/plain", "json", "text/x+json",
    ],
)  # fmt: skip
def test_bodies_that_are_not(kind: str) -> None:
    refusal = not_json(kind, "", "")
    assert refusal is not None
    assert refusal.status == 415
    assert "Content-Type: application/json" in refusal.message


def test_what_a_host_names() -> None:
    assert name_of(" [::1]:80 ") == "::1"
    assert name_of("A.b.:80") == "a.b"
    assert name_of("[localhost].evil") == "[localhost].evil"


@pytest.mark.parametrize(
    ("host", "here"),
    [("192.168.1.5", True), ("[2001:db8::1]:80", True), ("llm.example.org", True), ("box", False)],
)
def test_what_no_name_server_could_point_here(host: str, here: bool) -> None:
    assert LOOPBACK.points_here(host) is here
