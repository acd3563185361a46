"""What is remembered: turns up to a limit, and their items as long as a turn has them."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.controller.response_ids import giver
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn
from llmlaunch.worker.errors import NotFound


def turn(name: str, *before: dict[str, Any], text: str = "x") -> StoredTurn:
    """A turn whose output is a message with the id ``msg_NAME``."""
    return StoredTurn(before, {"id": name, "output": [item(f"msg_{name}", text)]})


def item(identity: str, text: str = "x") -> dict[str, Any]:
    return {"id": identity, "type": "message", "role": "assistant", "content": text}


def test_the_store_is_bounded() -> None:
    store = ResponseStore(max_turns=3, max_characters=1000)
    for name in "abcd":
        store.put(turn(name))
    assert store.get("a") is None
    assert store.get("b") is not None  # and used: c is the oldest now
    store.put(turn("e"))
    assert [store.get(name) is not None for name in "bcde"] == [True, False, True, True]
    store.put(turn("large", text="x" * 700))
    assert store.get("large") is not None
    store.put(turn("too large", text="x" * 2000))
    assert len(store) == store._characters == 0
    assert not store._items
    assert not store.remove("large")


def test_an_item_is_found_as_long_as_a_turn_has_it() -> None:
    store = ResponseStore()
    first = turn("one")
    store.put(first)
    store.put(turn("two", *first.items))
    assert store.item("msg_one") == first.items[0]
    assert store.remove("one")
    assert store.item("msg_one") == first.items[0]
    assert store.remove("two")
    assert store.item("msg_one") is store.item("msg_two") is None


def test_an_item_that_is_referred_to_keeps_its_turn() -> None:
    store = ResponseStore(max_turns=2)
    store.put(turn("one"))
    store.put(turn("two"))
    assert store.item("msg_one") is not None
    store.put(turn("three"))
    assert [store.item(f"msg_{name}") is not None for name in ("one", "two", "three")] == [True, False, True]


def test_an_item_stays_what_its_own_turn_has_said() -> None:
    store = ResponseStore()
    store.put(turn("one", text="true"))
    store.put(turn("two", item("msg_one", "forged")))
    found = store.item("msg_one")
    assert found is not None
    assert found["content"] == "true"


def test_references_are_replaced_in_their_place() -> None:
    store = ResponseStore()
    store.put(turn("one"))
    said = {"role": "user", "content": "hi"}
    for reference in (
        {"type": "item_reference", "id": "msg_one"},
        {"id": "msg_one"},
        {"type": None, "id": "msg_one"},
    ):
        assert store.resolved([said, reference, said]) == [said, item("msg_one"), said]


@pytest.mark.parametrize("identity", ["msg_two", "", None, 5, ["msg_one"]], ids=str)
def test_an_unknown_reference_is_named(identity: object) -> None:
    store = ResponseStore()
    store.put(turn("one"))
    with pytest.raises(NotFound) as refused:
        store.resolved([item("msg_one"), {"type": "item_reference", "id": identity}])
    assert refused.value.param == "input"
    assert f"input[1]: the item {identity!r}" in refused.value.message


def test_ids_say_which_worker_gave_them() -> None:
    store = ResponseStore("http://127.0.0.1:5")
    for prefix in ("resp", "msg", "fc", "rs", "fco"):
        identity = store.new_id(prefix)
        assert identity.startswith(f"{prefix}_")
        assert len(identity) <= 64, "OpenAI's own limit, which some clients check"
        assert giver([identity], ["http://127.0.0.1:4", "http://127.0.0.1:5"]) == "http://127.0.0.1:5"
