from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmlaunch.supervision.processes.log_writer import LogWriter


@pytest.fixture(autouse=True)
def _writers_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A writer keeps its file open until its process ends; here that would be hundreds of files at the end of the tests."""
    made = list[LogWriter]()
    begin = LogWriter.__init__

    def recorded(self: LogWriter, *arguments: Any) -> None:
        made.append(self)
        begin(self, *arguments)

    monkeypatch.setattr(LogWriter, "__init__", recorded)
    yield
    for writer in made:
        writer._close()
