"""Answers with a form have it, whatever the model would rather say: here it says random bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.generation.response_format import is_requested, requested
from llmlaunch.worker.engine.structured_output import GrammarCompiler, GrammarMatcher
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationRequest, Sampling, StoppingCriteria
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
