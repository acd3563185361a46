"""Answers with a form have it, whatever the model would rather say: here it says random bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.generation.response_format import is_requested, requested
from llmlaunch.worker.engine.structured_output import GrammarCompiler, GrammarMatcher
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import FunctionSchema, GenerationRequest, Sampling, StoppingCriteria
from tests.unit.worker import tiny

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tiny.save(tiny.fresh("Llama", vocab_size=259), tmp_path_factory.mktemp("tiny"))
    return Tokenizer(AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, frozenset({tiny.END}))


def body(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields)


FORMS: list[tuple[dict[str, Any], Any]] = [
    ({"guided_choice": ["yes", "no", "may.be (x)"]}, lambda text: text in ("yes", "no", "may.be (x)")),
    ({"guided_regex": r"[a-c]{3}-\d\d"}, lambda text: re.fullmatch(r"[a-c]{3}-\d\d", text)),
    ({"structured_outputs": {"regex": "(ab){1,4}"}}, lambda text: re.fullmatch("(ab){1,4}", text)),
    ({"guided_grammar": 'start: "a" | "bc" start'}, lambda text: re.fullmatch("(bc)*a", text)),
    ({"guided_json": PERSON}, lambda text: set(json.loads(text)) == {"name", "age"}),
    ({"guided_json": json.dumps(PERSON)}, lambda text: json.loads(text)["age"] < 100),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}},
        lambda text: len(json.loads(text)["name"]) <= 5,
    ),
]


def made(grammars: GrammarCompiler, asked_for: ChatBody) -> GrammarMatcher | None:
    found = requested(asked_for)
    return grammars.compile(found) if found is not None else None


@pytest.mark.parametrize(
    ("fields", "holds"), FORMS, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_answers_have_the_form(
    grammars: GrammarCompiler, tokenizer: Tokenizer, fields: dict[str, Any], holds: Any
) -> None:
    asked_for = body(**fields)
    assert is_requested(asked_for)
    run = tiny.Run(tiny.batching(tiny.fresh("Llama", vocab_size=259), rows=4, columns=256))
    for seed in range(6):
        constraint = made(grammars, asked_for)
        rules = Sampling(temperature=1.5, seed=seed)
        # Beside one that has no form, and with endings that must not break the form.
        run.add(
            GenerationRequest(
                f"free{seed}", (5, 6), Sampling(seed=seed), StoppingCriteria(20, ignore_eos=True)
            )
        )
        ending = StoppingCriteria(200, min_tokens=50, ignore_eos=True)
        run.add(GenerationRequest(f"bound{seed}", (5, 6), rules, ending, constraint=constraint))
    run.finish()
    for seed in range(6):
        text = tokenizer.decode(run.tokens[f"bound{seed}"])
        assert run.last[f"bound{seed}"].finish == "stop", text
        assert holds(text), text
        assert len(run.tokens[f"free{seed}"]) == 20


def test_json_objects_are_objects(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """They may be long; so far as they went they are the beginning of one."""
    run = tiny.Run(tiny.batching(tiny.fresh("Llama", vocab_size=259), rows=2, columns=256))
    constraint = made(grammars, body(response_format={"type": "json_object"}))
    run.add(GenerationRequest("a", (5,), Sampling(seed=1), StoppingCriteria(200), constraint=constraint))
    run.finish()
    text = tokenizer.decode(run.tokens["a"])
    assert text.lstrip().startswith("{")
    if run.last["a"].finish == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"response_format": {}}], ids=str
)
def test_without_a_form_there_is_no_guide(grammars: GrammarCompiler, fields: dict[str, Any]) -> None:
    assert made(grammars, body(**fields)) is None
    assert not is_requested(body(**fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strnig"}}}},
            "response_format",
        ),
        ({"guided_regex": "(["}, "guided_regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_grammar": "start: %%"}, "guided_grammar"),
        ({"structured_outputs": {"shape": "x"}}, "structured_outputs"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": True, "disable_any_whitespace": "x"}}, "structured_outputs"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_is_refused_by_its_parameter(
    grammars: GrammarCompiler, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        made(grammars, body(**fields))
    assert caught.value.param == param
    assert len(caught.value.message) < 500


def accepts(tokenizer: Tokenizer, constraint: GrammarMatcher, text: str) -> bool:
    """Whether ``constraint`` allows ``text`` and nothing after it is needed."""
    matcher = constraint.copy()
    for token in [*tokenizer.encode(text, special=False), tiny.END]:
        logits = torch.zeros(tokenizer.vocabulary)
        matcher.mask_logits(logits)
        if logits[token] < 0:
            return False
        matcher.accept_token(token)
    return True


ITEM = {
    "type": "object",
    "properties": {"t": {"type": "string"}},
    "required": ["t"],
    "additionalProperties": False,
}


def with_definitions(words: str, item: dict[str, Any], reference: str) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": reference}}
    return {"type": "object", "properties": {"i": items}, "required": ["i"]} | {words: {"Item": item}}


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("words", ["$defs", "definitions"])
def test_two_functions_may_have_definitions_of_the_same_name(
    grammars: GrammarCompiler, tokenizer: Tokenizer, words: str, single: bool
) -> None:
    reference = f"#/{words}/Item"
    functions = [
        FunctionSchema("texts", with_definitions(words, ITEM, reference)),
        FunctionSchema("numbers", with_definitions(words, {"type": "integer"}, reference), strict=True),
    ]
    constraint = grammars.compile_calls(functions, single=single)

    def fits(name: str, item: Any) -> bool:
        call = {"name": name, "arguments": {"i": [item]}}
        return accepts(tokenizer, constraint, json.dumps([call]))

    assert fits("texts", {"t": "x"})
    assert fits("numbers", 5)
    assert not fits("texts", 5)
    assert not fits("numbers", {"t": "x"})
    assert not constraint.ignored


TREE = {
    "type": "object",
    "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("parameters", "right", "wrong"),
    [
        (TREE, {"kids": [{"kids": []}]}, {"kids": [5]}),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": "#/definitions/F",
                "definitions": {"F": ITEM},
            },
            {"t": "x"},
            {"t": 5},
        ),
        (
            {"$id": "https://example.com/t", "$ref": "https://example.com/t#/$defs/F", "$defs": {"F": ITEM}},
            {"t": ""},
            {},
        ),
        ({"$ref": "#/$defs/Item[int]", "$defs": {"Item[int]": ITEM}}, {"t": ""}, {}),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": ITEM}}, {"a": {"t": ""}}, {"a": 5}),
        (None, {}, {"a": 1}),
        ({}, {"a": 1}, [1]),
        ({"properties": None, "required": None}, {"a": 1}, [1]),
    ],
    ids=str,
)
def test_arguments_match_their_own_schema(
    grammars: GrammarCompiler, tokenizer: Tokenizer, parameters: Any, right: Any, wrong: Any
) -> None:
    functions = [FunctionSchema("other", {"type": "object"}), FunctionSchema("f", parameters)]
    constraint = grammars.compile_calls(functions, single=True)
    for arguments, fits in ((right, True), (wrong, False)):
        text = json.dumps([{"name": "f", "arguments": arguments}])
        assert accepts(tokenizer, constraint, text) == fits, text


IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "propertyNames": {"type": "string"}}, "propertyNames"),
    ({"type": "array", "contains": {}}, "contains"),
    ({"type": "string", "not": {"const": ""}}, "not"),
    ({"if": {}, "then": {}, "else": {}}, "else, if, then"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"type": "string", "format": "color"}, "format 'color'"),
    ({"anyOf": [{"type": "string", "format": "x"}, {"type": "string", "format": "x"}]}, "format 'x'"),
    ({"type": "string", "pattern": "^(?!foo).*$"}, "pattern '^(?!foo).*$'"),
    ({"type": "string", "pattern": r"(a)\1"}, r"pattern '(a)\\1'"),
    ({"type": "string", "pattern": r"\bx\b"}, r"pattern '\\bx\\b'"),
    ({"type": "object", "patternProperties": {"^(?!x)": {}}}, "patternProperties '^(?!x)'"),
    ({"$ref": "https://example.com/x.json"}, "$ref 'https://example.com/x.json'"),
    ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf (it is read as anyOf)"),
]


@pytest.mark.parametrize(
    ("schema", "words"), IGNORED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_words_that_no_grammar_has_narrow_nothing_unless_strict_is_asked_for(
    grammars: GrammarCompiler, schema: dict[str, Any], words: str
) -> None:
    outer = {"type": "object", "properties": {"a": schema}}
    functions = [FunctionSchema("fine", {"type": "object"}, strict=True), FunctionSchema("odd", outer)]
    for _ in range(2):  # also when it is compiled already
        constraint = grammars.compile_calls(functions, single=False)
        assert constraint.ignored == (f"tools: function 'odd': ignored {words}",)
        assert constraint.copy().ignored == constraint.ignored
        with pytest.raises(BadRequest) as caught:
            grammars.compile_calls([*functions, FunctionSchema("strict", outer, strict=True)], single=False)
        assert caught.value.message.startswith(
            "tools: function 'strict': strict is not possible with " + words
        )
        assert caught.value.param == "tools"
    asked_for = {"type": "json_schema", "json_schema": {"name": "x", "schema": outer}}
    made_of_it = made(grammars, body(response_format=asked_for))
    assert made_of_it is not None
    assert made_of_it.ignored == (f"response_format: ignored {words}",)
    asked_for["json_schema"]["strict"] = True  # type: ignore[index]
    with pytest.raises(BadRequest, match=r"response_format: strict is not possible with ") as refused:
        made(grammars, body(response_format=asked_for))
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strnig"}, "Invalid type: strnig"),
        ({"$ref": "#/$defs/X"}, "Pointer '/$defs/X' does not exist"),
        ({"properties": {"a": 5}}, "must be an object or boolean"),
    ],
    ids=str,
)
def test_a_refused_schema_names_its_function(
    grammars: GrammarCompiler, schema: dict[str, Any], words: str
) -> None:
    functions = [
        FunctionSchema("fine", {"type": "object"}),
        FunctionSchema("odd", {"properties": {"a": schema}}),
    ]
    with pytest.raises(BadRequest) as caught:
        grammars.compile_calls(functions, single=False)
    assert caught.value.message.startswith("tools: function 'odd': ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_message_of_several_lines_is_not_cut(grammars: GrammarCompiler) -> None:
    with pytest.raises(BadRequest, match="look-around"):
        made(grammars, body(guided_regex="^(?!foo).*$"))


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({"type": "json_object", "schema": OBJECT}, True),
        ({"type": "json_object", "schema": None}, False),
        ({"type": "json_object"}, False),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}}, True),
        ({"type": "json_schema", "name": "x", "strict": True, "schema": OBJECT}, True),
        ({"type": "json_schema", "json_schema": None, "schema": OBJECT}, True),
    ],
    ids=str,
)
def test_a_schema_is_obeyed_wherever_it_is(
    grammars: GrammarCompiler, tokenizer: Tokenizer, fields: dict[str, Any], own: bool
) -> None:
    constraint = made(grammars, body(response_format=fields))
    assert constraint is not None
    assert accepts(tokenizer, constraint, '{"a": 1}')
    assert accepts(tokenizer, constraint, '{"b": 1}') != own
    assert not accepts(tokenizer, constraint, "[]")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"a":1}', True),
        ('{"a": 1}', True),
        ('{\n    "a": 1\n}', True),
        ('{"a":  1}', False),
        ('{\n\n"a": 1}', False),
        ('{\t"a": 1}', False),
        ('{\n\t"a": 1\n}', True),
        ("{\n" + " " * 33 + '"a": 1}', False),
        (' {"a": 1}', False),
    ],
)
@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_object", "schema": OBJECT}], ids=str
)
def test_json_has_no_runs_of_blanks(
    grammars: GrammarCompiler, tokenizer: Tokenizer, form: dict[str, Any], text: str, fits: bool
) -> None:
    constraint = made(grammars, body(response_format=form))
    assert constraint is not None
    assert accepts(tokenizer, constraint, text) == fits


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"json": OBJECT, "disable_any_whitespace": True}},
        {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
        {
            "structured_outputs": {"disable_any_whitespace": True},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}},
        },
    ],
    ids=str,
)
def test_json_is_compact_where_a_client_wants_no_whitespace(
    grammars: GrammarCompiler, tokenizer: Tokenizer, fields: dict[str, Any]
) -> None:
    constraint = made(grammars, body(**fields))
    assert constraint is not None
    assert accepts(tokenizer, constraint, '{"a":1}')
    for text in ('{"a": 1}', '{ "a":1}', '{"a":1 }', '{"a":1\n}', '{"a" :1}'):
        assert not accepts(tokenizer, constraint, text), text
    loose = made(grammars, body(guided_json=OBJECT))  # the same schema is kept twice
    assert loose is not None
    assert accepts(tokenizer, loose, '{"a": 1}')


def test_an_option_alone_asks_for_no_form() -> None:
    assert not is_requested(body(structured_outputs={"disable_any_whitespace": True}))


def schema_of(value: Any) -> dict[str, Any]:
    """A schema that describes the shape of ``value``."""
    if isinstance(value, dict):
        parts = {name: schema_of(part) for name, part in value.items()}
        return {
            "type": "object",
            "properties": parts,
            "required": list(parts),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        length = {"minItems": len(value), "maxItems": len(value)}
        return {"type": "array", "prefixItems": [schema_of(part) for part in value]} | length
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": kinds[type(value)]}


NAMES = st.text('abc"\\é:,{', max_size=3)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(-10, 10).map(lambda number: round(number, 3))
    | st.text('ab \n"\\:,[{}]é', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(NAMES, VALUES, max_size=3))
def test_json_is_accepted_as_libraries_write_it(
    grammars: GrammarCompiler, tokenizer: Tokenizer, value: dict[str, Any]
) -> None:
    for form in ({"guided_json": schema_of(value)}, {"response_format": {"type": "json_object"}}):
        constraint = made(grammars, body(**form))
        assert constraint is not None
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        indented = (json.dumps(value, ensure_ascii=False, indent=indent) for indent in (2, 4, "\t"))
        for text in (compact, json.dumps(value, ensure_ascii=False), *indented):
            assert accepts(tokenizer, constraint, text), text
        for run in ("  ", "\n\n", " \n", "\n" + " " * 33):
            assert not accepts(tokenizer, constraint, "{" + run + compact[1:]), run
