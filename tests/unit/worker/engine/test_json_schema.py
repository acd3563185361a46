"""What clients' schemas become before a grammar is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.worker.engine.json_schema import calls_schema, normalized, without
from llmlaunch.worker.types import FunctionSchema


def lookaround(pattern: str) -> bool:
    return "(?" in pattern


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "description": None, "enum": None}, {"type": "string"}),
        ({"const": None}, {"const": None}),
        ({"type": "string", "default": None}, {"type": "string", "default": None}),
        ({"enum": [None, {"$ref": "#/x", "a": None}]}, {"enum": [None, {"$ref": "#/x", "a": None}]}),
        ({"properties": {"a": None, "default": {"type": None}}}, {"properties": {"a": {}, "default": {}}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "integer"}, {"type": "integer"}),
        ({"properties": {"$schema": {"type": "string"}}}, {"properties": {"$schema": {"type": "string"}}}),
        ({"items": {"maxItems": 3.0}, "minLength": 1.5}, {"items": {"maxItems": 3}, "minLength": 1.5}),
        ({"multipleOf": 2.0}, {"multipleOf": 2.0}),
    ],
    ids=str,
)
def test_nulls_and_dialects_say_nothing(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert normalized(schema) == expected


@pytest.mark.parametrize(
    ("reference", "moved"),
    [
        ("#", "#/here"),
        ("#/$defs/A", "#/here/$defs/A"),
        ("#/definitions/List[int]", "#/here/definitions/List%5Bint%5D"),
        ("#/$defs/List%5Bint%5D", "#/here/$defs/List%5Bint%5D"),
        ("#/$defs/a~1b", "#/here/$defs/a~1b"),
        ("#anchor", "#anchor"),
        ("https://example.com/own.json#/$defs/A", "#/here/$defs/A"),
        ("https://example.com/own.json", "#/here"),
        ("https://example.com/other.json#/$defs/A", "https://example.com/other.json#/$defs/A"),
    ],
)
def test_references_follow_their_schema(reference: str, moved: str) -> None:
    schema = {"$id": "https://example.com/own.json", "items": [{"$ref": reference}]}
    assert normalized(schema, "/here") == {"items": [{"$ref": moved}]}
    data = {"const": {"$ref": reference}, "properties": {"$ref": {"type": "string"}}}
    assert normalized(data, "/here") == data


def test_a_part_with_an_address_of_its_own_stays_as_it_is() -> None:
    part = {"$id": "https://example.com/part", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {}}}
    assert normalized({"properties": {"a": part}}, "/here") == {"properties": {"a": part}}


def test_what_no_grammar_has_is_left_out_and_named() -> None:
    schema = {
        "properties": {
            "pattern": {"type": "string", "pattern": "^(?!a)"},
            "b": {"type": "string", "pattern": "^b$"},
        },
        "patternProperties": {"^(?=x)": {"type": "integer"}, "^y": {}},
        "additionalProperties": False,
        "items": [{"$ref": "https://example.com/x"}, {"$ref": "#/$defs/A"}],
        "default": {"pattern": "(?!a)"},
    }
    kept, left_out = without(schema, lookaround)
    assert kept == {
        "properties": {"pattern": {"type": "string"}, "b": {"type": "string", "pattern": "^b$"}},
        "patternProperties": {"^y": {}},
        "items": [{}, {"$ref": "#/$defs/A"}],
        "default": {"pattern": "(?!a)"},
    }
    assert left_out == ["pattern '^(?!a)'", "patternProperties '^(?=x)'", "$ref 'https://example.com/x'"]
    assert without(kept, lookaround) == (kept, [])


KEYWORDS = st.sampled_from(
    [
        "$ref", "$id", "$schema", "$defs", "properties", "patternProperties", "pattern", "items", "enum", "const",
        "default", "minItems", "anyOf",
    ]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | KEYWORDS, inner, max_size=3)
    ),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(KEYWORDS, JSON, max_size=4)


@given(SCHEMAS)
def test_whatever_a_schema_is_it_is_brought_into_form(schema: dict[str, Any]) -> None:
    clean = normalized(schema)
    assert normalized(clean) == clean
    kept, _ = without(clean, lookaround)
    assert without(kept, lookaround) == (kept, [])
    calls_schema([FunctionSchema("f", schema), FunctionSchema("g", None)], single=True)
