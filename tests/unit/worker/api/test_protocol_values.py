"""Values as clients write them: what is taken, and how a wrong one is told."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.embeddings import EmbeddingBody
from llmlaunch.worker.api.messages.protocol import MessagesBody
from llmlaunch.worker.api.protocol import RequestBody, parse
from llmlaunch.worker.api.rerank import RerankBody, ScoreBody
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.tokenize import TokenizeBody
from llmlaunch.worker.errors import BadRequest

SAID = [{"role": "user", "content": "x"}]
BODIES: list[tuple[type[RequestBody], dict[str, Any]]] = [
    (ChatBody, {"model": "m", "messages": SAID}),
    (CompletionBody, {"model": "m", "prompt": "x"}),
    (ResponsesBody, {"model": "m", "input": "x"}),
    (EmbeddingBody, {"model": "m", "input": "x"}),
    (RerankBody, {"model": "m", "query": "x", "documents": ["x"]}),
    (ScoreBody, {"model": "m", "text_1": "x", "text_2": "x"}),
    (TokenizeBody, {"messages": SAID}),
    (MessagesBody, {"model": "m", "max_tokens": 4, "messages": SAID}),
]


def members(annotation: Any) -> list[Any]:
    """The types that a field may have, without null."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation]
    return [
        kind for option in typing.get_args(annotation) for kind in members(option) if kind is not type(None)
    ]


def read(kind: type[RequestBody], body: dict[str, Any]) -> Any:
    return parse(kind, json.dumps(body).encode())


def refused(kind: type[RequestBody], body: dict[str, Any]) -> BadRequest | None:
    try:
        read(kind, body)
    except BadRequest as error:
        return error
    return None


def refusal(kind: type[RequestBody], body: dict[str, Any]) -> BadRequest:
    error = refused(kind, body)
    assert error is not None, body
    return error


EACH = pytest.mark.parametrize(("kind", "needed"), BODIES, ids=[kind.__name__ for kind, _ in BODIES])


@EACH
def test_null_means_the_default_in_every_field_that_has_one(
    kind: type[RequestBody], needed: dict[str, Any]
) -> None:
    optional = [name for name, field in kind.model_fields.items() if not field.is_required()]
    nulls = read(kind, dict.fromkeys(optional) | needed)
    assert nulls == read(kind, needed)


@EACH
def test_a_whole_number_may_be_written_with_a_fraction_of_zero(
    kind: type[RequestBody], needed: dict[str, Any]
) -> None:
    whole = [name for name, field in kind.model_fields.items() if int in members(field.annotation)]
    for name in whole:
        assert getattr(read(kind, needed | {name: 4.0}), name) == 4
        assert type(getattr(read(kind, needed | {name: 4.0}), name)) is int
        for wrong in (4.5, "4", True, [4]):
            assert refusal(kind, needed | {name: wrong}).param == name


@EACH
def test_a_field_of_several_types_is_told_in_words(kind: type[RequestBody], needed: dict[str, Any]) -> None:
    for name, field in kind.model_fields.items():
        if len(members(field.annotation)) > 1:
            wrong = refusal(kind, needed | {name: 5.5})
            assert (wrong.param, wrong.message) == (name, f"{name} must be {kind.unions[name]}")


WRONG = st.recursive(
    st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(BODIES), st.data())
def test_whatever_is_sent_the_message_has_no_name_of_the_librarys(
    asked: tuple[type[RequestBody], dict[str, Any]], data: st.DataObject
) -> None:
    kind, needed = asked
    name = data.draw(st.sampled_from(sorted(kind.model_fields)))
    value = data.draw(WRONG)
    at = data.draw(st.integers(0, 1))
    body = needed | (
        {"messages": [*SAID, {"role": "user", "content": value}]}
        if at and "messages" in needed
        else {name: value}
    )
    error = refused(kind, body)
    if error is not None:
        assert error.param
        first = error.param.split("[")[0].split(".")[0]
        assert first in body or first in kind.model_fields
        words = error.message.removeprefix(error.param).split(", not ")[0]
        for leak in ("dict", "str,", "constrained", "Message", "StreamOptions", "union", "function-"):
            assert leak not in words, error.message


@pytest.mark.parametrize(
    "content", [{"type": "text", "text": "x"}, 5, ["x"], {"str": 1}, {"list[dict[str,any]]": []}], ids=str
)
@pytest.mark.parametrize("kind", [ChatBody, TokenizeBody])
def test_content_is_a_string_or_a_list_of_parts(kind: type[RequestBody], content: Any) -> None:
    wrong = refusal(kind, {"model": "m", "messages": [*SAID, {"role": "user", "content": content}]})
    assert wrong.param == "messages[1].content"
    assert wrong.message == "messages[1].content must be a string or a list of parts"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": [{"content": "x"}]}, "messages[0].role", "is missing"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role", "valid string, not 5"),
        ({"messages": ["x"]}, "messages[0]", 'must be an object, not "x"'),
        ({"stream_options": True}, "stream_options", "must be an object, not true"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "boolean"),
        ({"response_format": "json"}, "response_format", "must be an object"),
        ({"tools": [5]}, "tools[0]", "must be an object, not 5"),
        ({"stop": ["a", 5]}, "stop", "a string or a list"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_with_its_place(fields: dict[str, Any], param: str, words: str) -> None:
    wrong = refusal(ChatBody, {"model": "m", "messages": SAID} | fields)
    assert wrong.param == param
    assert words in wrong.message


def test_every_body_is_here() -> None:
    """A new body with fields of several types must be tried above."""

    def below(kind: type[BaseModel]) -> set[type[BaseModel]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    several = {
        kind
        for kind in below(RequestBody)
        if kind.__module__.startswith("llmlaunch.worker.api")
        and any(len(members(field.annotation)) > 1 for field in kind.model_fields.values())
    }
    assert {kind.__name__ for kind in several} <= {kind.__name__ for kind, _ in BODIES} | {
        "GenerationBody", "Message", "NamedEmbeddingBody",
    }  # fmt: skip
