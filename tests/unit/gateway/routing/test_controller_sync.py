"""Where the controller is."""

from __future__ import annotations

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.gateway.routing.controller_sync import controller_address


@pytest.mark.parametrize(
    "url", ["", "x", "https://h", "http://", "http://h/p", "http://h:0x1", "http://h:70000"]
)
def test_controller_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="http://host:port"):
        controller_address(url)
