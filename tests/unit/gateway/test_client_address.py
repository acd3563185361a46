"""Who asks, through proxies that can be believed and past those that cannot."""

from __future__ import annotations

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.gateway.client_address import client_of, networks

OURS = networks(["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"], "x")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7,10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", '"[2001:db8::7]:4711"', "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "nonsense, 10.2.2.2", "10.2.2.2"),
        ("10.0.0.1", "198.51.100.7, unknown", "10.0.0.1"),
        ("10.0.0.1", ",", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("fd00::1%eth0", "198.51.100.7", "198.51.100.7"),
        ("", "198.51.100.7", ""),
    ],
)
def test_the_right_most_address_that_is_not_trusted(peer: str, forwarded: str, client: str) -> None:
    assert client_of(peer, forwarded, OURS) == client


def test_nobody_is_trusted_unless_told() -> None:
    assert client_of("127.0.0.1", "198.51.100.7", ()) == "127.0.0.1"


def test_a_header_of_any_length_costs_little() -> None:
    assert client_of("10.0.0.1", "10.0.0.2, " * 100_000 + "10.0.0.3", OURS) == "10.0.0.2"


@pytest.mark.parametrize("text", ["*", "", "10.0.0.0/33", "proxy.lan", "10.0.0"])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--trusted-proxy") as error:
        networks(["10.0.0.1", text], "--trusted-proxy")
    assert "10.0.0.0/8" in error.value.hint
