"""Hosts as they are written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from llmlaunch.common.addresses import bracketed, is_loopback, is_wildcard, local_url, overlap, parse, url


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0::1", "::1"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_addresses(host: str, expected: str) -> None:
    assert parse(host) == ip_address(expected)


@pytest.mark.parametrize("host", ["", "box", "localhost", "127.1", "2130706433", "[::1", "127.0.0.1%eth0"])
def test_names_are_no_addresses(host: str) -> None:
    assert parse(host) is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.255.255.254", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LocalHost"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "0.0.0.0", "::", "2001:db8::1", "::ffff:10.0.0.1", "x", "", "localhost.example", "xlocalhost",
        "127.0.0.1.example", "127.0.0.1%x", "localhost]", "2130706433",
    ],
)  # fmt: skip
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


def test_wildcards() -> None:
    assert all(map(is_wildcard, ("0.0.0.0", "::", "[::]", "")))
    assert not any(map(is_wildcard, ("127.0.0.1", "::1", "box")))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:80"),
        ("gpu-box", "http://gpu-box:80"),
    ],
)
def test_how_this_machine_reaches_a_server(host: str, expected: str) -> None:
    assert local_url(host, 80) == expected


def test_a_url_names_the_host_as_it_is() -> None:
    assert url("0.0.0.0", 80) == "http://0.0.0.0:80"
    assert url("::", 80) == "http://[::]:80"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::1", False),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST.", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("", "10.0.0.5", True),
        ("0.0.0.0", "box", True),
        ("0.0.0.0", "::", True),
        ("0.0.0.0", "::1", False),
        ("::", "10.0.0.5", True),
        ("::", "::1", True),
        ("::", "box", True),
        ("[::1]", "0:0::1", True),
        ("Host", "host", True),
        ("host", "127.0.0.1", False),
    ],
)
def test_hosts_that_overlap(a: str, b: str, expected: bool) -> None:
    assert overlap(a, b) is overlap(b, a) is expected


def test_parsed_addresses_overlap_as_hosts_do() -> None:
    assert overlap(ip_address("::"), "10.0.0.5")
    assert not overlap(ip_address("10.0.0.6"), ip_address("10.0.0.5"))


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("10.0.0.5", "10.0.0.5"), ("gpu-box", "gpu-box"), ("", "")]
)
def test_a_port_can_stand_behind_it(host: str, shown: str) -> None:
    assert bracketed(host) == shown
