"""Which addresses a worker may have, and who may name them."""

from __future__ import annotations

import pytest

from llmlaunch.controller.worker_probe import BadAddressError, is_own, parse_address


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("http://127.0.0.1:21002", "http://127.0.0.1:21002"),
        ("http://localhost:21002/", "http://localhost:21002"),
        ("HTTP://GPU-Box:21002", "http://gpu-box:21002"),
        ("https://gpu.example", "https://gpu.example:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        (" http://10.0.0.1:1 ", "http://10.0.0.1:1"),
    ],
)
def test_an_address_has_one_spelling(text: str, spelled: str) -> None:
    assert str(parse_address(text)) == spelled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:21002",
        "ftp://localhost:21002",
        "file:///etc/passwd",
        "gopher://localhost:1",
        "http://",
        "http://:21002",
        "http://user:secret@localhost:21002",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost:port",
        "http://localhost:21002/admin",
        "http://localhost:21002/?a=b",
        "http://localhost:21002/#x",
        "http://local host:21002",
        "http://loc\r\nalhost:21002",
        "http://[::1:21002",
    ],
)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadAddressError, match="worker address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "client", "own"),
    [
        ("http://127.0.0.1:1", "127.0.0.1", True),
        ("http://127.0.0.2:1", "127.0.0.1", True),
        ("http://[::1]:1", "127.0.0.1", True),
        ("http://localhost:1", "::1", True),
        ("http://127.0.0.1:1", "::ffff:127.0.0.1", True),
        ("http://[::ffff:7f00:1]:1", "127.0.0.1", True),
        ("http://10.1.2.3:1", "10.1.2.3", True),
        ("http://10.1.2.3:1", "::ffff:10.1.2.3", True),
        ("http://[2001:db8::1]:1", "2001:db8:0::1", True),
        ("http://10.1.2.4:1", "10.1.2.3", False),
        ("http://127.0.0.1:1", "10.1.2.3", False),  # the controller's own loopback is not the caller's
        ("http://localhost:1", "10.1.2.3", False),
        ("http://[::ffff:7f00:1]:1", "10.1.2.3", False),
        ("http://169.254.169.254:80", "127.0.0.1", False),
        ("http://gpu-box:1", "10.1.2.3", False),  # a name may resolve to anything later
        ("http://2130706433:1", "127.0.0.1", False),  # 127.0.0.1 as one number is a name here
        ("http://127.0.0.1:1", "", False),
    ],
)
def test_without_the_token_a_caller_may_only_name_its_own_machine(
    address: str, client: str, own: bool
) -> None:
    assert is_own(parse_address(address), client) is own
