"""Events are read however their bytes arrive."""

from __future__ import annotations

import pytest

from llmlaunch.gateway.dialects import event_stream
from llmlaunch.gateway.dialects.event_stream import EventReader
from llmlaunch.gateway.failures import InvalidResponse

STREAM = b': ping\n\ndata: {"a": 1}\n\nevent: x\r\ndata:first\r\ndata: second\r\n\r\n\n\ndata: [DONE]'


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_events_however_they_are_cut(size: int) -> None:
    reader = EventReader()
    found = [data for at in range(0, len(STREAM), size) for data in reader.feed(STREAM[at : at + size])]
    assert found + reader.end() == [b'{"a": 1}', b"first\nsecond", b"[DONE]"]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LIMIT", 10)
    with pytest.raises(InvalidResponse):
        EventReader().feed(b"data: 123456789")
    reader = EventReader()
    reader.feed(b"data: 12345\ndata: 123456\n")
    with pytest.raises(InvalidResponse):
        reader.feed(b"data: 1\n")
