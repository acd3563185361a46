"""The list of a response's input: ids for all, and pages as OpenAI's clients turn them."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.responses.input_items import page, with_ids
from llmlaunch.worker.errors import BadRequest

ITEMS = [{"id": f"msg_{at}"} for at in range(25)]


def listed(**query: str) -> list[int]:
    return [int(item["id"].removeprefix("msg_")) for item in page(ITEMS, query)["data"]]


def test_items_get_ids_and_the_form_of_openais_own() -> None:
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": ["hello"], "status": None},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "x"}],
            "id": "msg_mine",
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x", "id": None},
        {"type": "web_search_call"},
    ]
    found = list(with_ids(given, lambda prefix: prefix + "_new"))
    assert [item["id"] for item in found] == [
        "msg_new",
        "msg_new",
        "msg_mine",
        "fc_new",
        "fco_new",
        "item_new",
    ]
    assert found[0] == {
        "id": "msg_new", "type": "message", "role": "user", "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }  # fmt: skip
    assert found[1]["content"] == [{"type": "output_text", "text": "hello", "annotations": []}]
    assert "id" not in given[0]


def test_pages() -> None:
    assert listed() == list(range(24, 4, -1))
    assert listed(order="asc", limit="3") == [0, 1, 2]
    assert listed(order="asc", limit="3", after="msg_2") == [3, 4, 5]
    assert listed(after="msg_2", limit="100") == [1, 0]
    assert listed(after="msg_0") == []
    assert listed(limit="", order="", after="")[0] == 24
    whole = page(ITEMS, {"limit": "2"})
    assert (whole["object"], whole["first_id"], whole["last_id"], whole["has_more"]) == (
        "list",
        "msg_24",
        "msg_23",
        True,
    )
    assert page(ITEMS, {"limit": "25"})["has_more"] is False


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"), ({"limit": "101"}, "limit"), ({"limit": "x"}, "limit"), ({"limit": "²"}, "limit"),
        ({"limit": "0" * 9 + "5"}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_99"}, "after"),
    ],
    ids=str,
)  # fmt: skip
def test_a_query_that_is_not_valid_names_its_parameter(query: dict[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        page(ITEMS, query)
    assert refused.value.param == param
    assert query[param] in refused.value.message
