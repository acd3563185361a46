from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmlaunch.gateway.payload import model_field
from llmlaunch.gateway.payload.model_field import InvalidBody, dump, model_of, parse, referred_to, with_model

# Strings made of what could fool a search: quotes, backslashes, braces, the key itself.
tricky = st.text(alphabet=st.sampled_from(list('"\\{}[]:,model\n é\u0000😀')), max_size=12) | st.sampled_from(
    ["model", '"model"', '"model":"x"', '\\"model\\":', '{"model":"x"}', "\\", "stream"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def objects(draw: st.DrawFn) -> str:
    """JSON text of an object: members in any order, keys twice, keys escaped, space anywhere."""
    members = draw(st.lists(st.tuples(tricky | st.just("model"), values | tricky), max_size=6))
    space = st.sampled_from(["", " ", "\n", "\t "])
    parts = []
    for key, value in members:
        written = json.dumps(key, ensure_ascii=draw(st.booleans()))
        if key == "model" and draw(st.booleans()):
            written = '"mo\\u0064el"'
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        parts.append(f"{draw(space)}{written}{draw(space)}:{draw(space)}{text}{draw(space)}")
    return draw(space) + "{" + ",".join(parts) + "}" + draw(space)


def by_the_book(text: bytes) -> object:
    value = json.loads(text)["model"]
    if not isinstance(value, str) or not value:
        raise InvalidBody("")
    return value


@pytest.mark.parametrize("short", [0, 40, 1 << 20], ids=["no short ends", "tiny ends", "all parsed"])
@given(text=objects())
@example(text='{"messages":[{"model":"inner"}],"model":"m"}')
@example(text='{"model":"m","messages":[{"model":"inner"}]}')
@example(text='{"model":"first","model":"last"}')
@example(text='{"model":"first","mo\\u0064el":"last"}')
@example(text='{"x":"\\"model","model":"m"}')
@example(text='{"x":"model","y":1}')
@example(text='{"x":{"model":"inner"}}')
@example(text='{"model":{"model":"inner"}}')
@example(text='{"model":"a\\"b\\\\"}')
def test_the_short_way_agrees_with_json_loads(short: int, text: str) -> None:
    encoded = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_field, "SHORT", short)
        try:
            expected = by_the_book(encoded)
        except (KeyError, InvalidBody):
            with pytest.raises(InvalidBody):
                model_of(encoded)
        else:
            assert model_of(encoded) == expected


def test_the_short_way_is_taken_where_it_matters() -> None:
    """Both orders in which clients write a long conversation."""
    long = 'say "hello" { [ \\ \n ' * 2000
    for text in (
        json.dumps({"model": "m", "messages": [{"role": "user", "content": long}], "stream": True}),
        json.dumps({"messages": [{"role": "user", "content": long}], "model": "m", "stream": True}),
    ):
        assert model_field._fast_path(text.encode()) == "m"


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_an_error_or_a_name(data: bytes) -> None:
    with contextlib.suppress(InvalidBody):
        assert model_of(data)


@given(data=st.binary(max_size=30), at=st.integers(0, 5000))
def test_damage_to_a_long_body_never_crashes(data: bytes, at: int) -> None:
    text = json.dumps({"messages": ["x" * 4000], "model": "m"}).encode()
    with contextlib.suppress(InvalidBody):
        assert model_of(text[:at] + data + text[at + len(data) :])


@pytest.mark.parametrize(
    ("text", "message", "param"),
    [
        (b"", "no body", None), (b"[]", "object", None), (b"{", "line 1 column 2", None), (b"\xff", "UTF-8", None),
        (b"{}", "must provide a model", "model"), (b'{"model":null}', "not null", "model"),
        (b'{"model":true}', "a boolean", "model"), (b'{"model":1.5}', "a number", "model"),
        (b'{"model":[]}', "an array", "model"), (b'{"model":{}}', "an object", "model"), (b'{"model":""}', "empty", "model"),
        (b'{"a":' * 100_000, "nested too deeply", None), (b"9" * 5000, "cannot be read", None),
    ],
)  # fmt: skip
def test_messages_say_what_is_wrong(text: bytes, message: str, param: str | None) -> None:
    with pytest.raises(InvalidBody) as error:
        model_of(text)
    assert message in error.value.message
    assert error.value.param == param


def test_renaming_changes_the_model_alone() -> None:
    text = '{"model":"a","x":[1.0,"é",{"model":"a"}],"big":123456789012345678901234567890}'.encode()
    after = json.loads(with_model(text, "b/c"))
    assert after == {**json.loads(text), "model": "b/c"}


def test_a_lone_surrogate_survives() -> None:
    value = parse(b'{"x":"\\ud800"}')
    assert json.loads(dump(value)) == value


ITEM = "msg_" + "0a" * 24
SPOKEN = {
    "type": "message",
    "role": "user",
    "id": "msg_" + "1b" * 24,
    "content": '{"id":"msg_22"} item_reference',
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": "previous_response_id"}, []),
        ({"input": [SPOKEN]}, []),
        ({"input": "x", "previous_response_id": "resp_1"}, ["resp_1"]),
        ({"input": "x", "previous_response_id": None}, []),
        ({"input": [SPOKEN, {"type": "item_reference", "id": ITEM}]}, [ITEM]),
        ({"input": [{"id": ITEM}]}, [ITEM]),
        ({"input": [{"id": ITEM, "type": "item_reference"}, {"id": "fc_1"}], "previous_response_id": "r"}, ["r", ITEM, "fc_1"]),
        ({"input": [{"type": "item_reference"}, {"type": "item_reference", "id": 5}, 7]}, []),
        ({"input": [SPOKEN, {"type": "function_call", "id": "fc_1", "call_id": "item_reference"}]}, []),
        ({"input": {"type": "item_reference", "id": ITEM}}, []),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_body_refers_to(fields: dict[str, Any], expected: list[str]) -> None:
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps({"model": "m"} | fields, separators=separators).encode()
        assert list(referred_to(body)) == expected
        assert list(referred_to(body[:-1])) == [], "the worker refuses what is not JSON"
