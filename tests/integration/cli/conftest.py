from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import deployment
from tests.support.deployment import Cli


@pytest.fixture
def cli() -> Iterator[Cli]:
    with deployment.cli() as box:
        yield box
