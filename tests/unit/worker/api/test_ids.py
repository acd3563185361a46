"""Ids of responses and calls."""

from __future__ import annotations

from llmlaunch.worker.api.ids import new_call_id


def test_call_ids_pass_every_template() -> None:
    ids = {new_call_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in ids)
