"""Structured output: answers constrained to JSON, a JSON schema, a regular expression, a list of choices or a grammar.

llguidance (https://github.com/guidance-ai/llguidance) computes the allowed next tokens, in tens of microseconds. Rows
without a constraint cost nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlaunch.worker.engine import json_schema
from llmlaunch.worker.engine.json_schema import Schema
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import FunctionSchema

if TYPE_CHECKING:
    from torch import Tensor

MAX_COMPILED = 64
"""Number of compiled grammars that are kept for later requests."""
_JSON_LAYOUT = {"whitespace_pattern": r"(\x20|\n(\x20{0,32}|\t{0,8}))?"}
"""Whitespace between JSON tokens: a space, or a new line and its indentation. Small models fill their answers with more."""
_JSON_COMPACT = {"whitespace_flexible": False}
_CALL_LAYOUT = {"whitespace_pattern": r"\x20?"}
"""Of calls, which models write on one line, and which nobody reads."""
_UNIMPLEMENTED = "Unimplemented keys: "
_UNKNOWN_FORMAT = "Unknown format: "


@dataclass(frozen=True, slots=True)
class StructuredOutputRequest:
    """A constraint that a request asks for."""

    kind: str
    """json, json_object, regex, choice, grammar, or "response_format TYPE"."""
    param: str
    """The parameter it came in, for messages."""
    value: Any
    """As the client sent it: JSON of any type, checked here."""
    compact: bool = False
    """Whether JSON has no whitespace between its tokens."""


class GrammarMatcher:
    """Constrains one answer. Used by the engine's thread alone."""

    def __init__(self, matcher: Any, ends: tuple[int, ...], ignored: tuple[str, ...] = ()) -> None:
        self._matcher = matcher
        self._ends = ends
        self.ignored = ignored
        """What the client's schema asks for, but the grammar cannot express: in words, with the place."""

    def mask_logits(self, logits: Tensor) -> None:
        """Set the ``logits`` ``[vocabulary]`` of disallowed tokens to -inf. If nothing else is allowed, the end tokens are."""
        import torch  # requests are parsed before it is imported

        if self._matcher.is_stopped():  # the output is complete, or the matcher failed
            allowed = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        else:
            biases = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
            allowed = torch.zeros(len(logits), dtype=torch.bool)
            size = min(len(biases), len(logits))
            allowed[:size] = biases[:size] > 0
            allowed = allowed.to(logits.device)
        if not bool(allowed.any()):
            allowed[list(self._ends)] = True
        logits.masked_fill_(~allowed, float("-inf"))

    def accept_token(self, token: int) -> None:
        """Advance by ``token``, which was sampled."""
        if token not in self._ends and not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def copy(self) -> GrammarMatcher:
        """A matcher in the same state that advances by itself."""
        return GrammarMatcher(self._matcher.deep_copy(), self._ends, self.ignored)


@dataclass(frozen=True, slots=True)
class _SchemaPart:
    """One schema of a request."""

    where: str
    """For messages."""
    schema: Schema
    strict: bool


class GrammarCompiler:
    """Compiles grammars for one model. Thread-safe; slow on first use, and for each new grammar."""

    def __init__(self, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = tuple(sorted(end for end in ends if end < tokenizer.vocabulary))
        self._lock = threading.Lock()
        self._vocabulary: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        """llguidance's matchers, by grammar: valid or not."""

    def compile(self, wanted: StructuredOutputRequest) -> GrammarMatcher:
        """The constraint that a request asks for. Raises BadRequest if it is invalid."""
        if (part := _schema_part(wanted)) is not None:
            layout = _JSON_COMPACT if wanted.compact else _JSON_LAYOUT
            return self._compile_schema(part.schema, [part], wanted.param, layout)
        matcher = self._matcher(_grammar(wanted.kind, wanted.param, wanted.value))
        if matcher.is_error():
            raise BadRequest(f"{wanted.param}: {_summary(matcher.get_error())}", param=wanted.param)
        return GrammarMatcher(matcher, self._ends)

    def compile_calls(self, functions: Sequence[FunctionSchema], *, single: bool) -> GrammarMatcher:
        """A constraint to a list of calls of ``functions``; ``single``: to one call. Raises BadRequest naming a function."""
        parts = [
            _SchemaPart(f"tools: function {function.name!r}", function.parameters, function.strict)
            for function in functions
            if function.parameters is not None
        ]
        try:
            schema = json_schema.calls_schema(functions, single=single)
        except RecursionError as error:
            raise BadRequest("tools: the parameters are nested too deeply", param="tools") from error
        return self._compile_schema(schema, parts, "tools", _CALL_LAYOUT)

    def _compile_schema(
        self, schema: Schema, parts: Sequence[_SchemaPart], param: str, layout: dict[str, Any]
    ) -> GrammarMatcher:
        matcher = self._matcher(_json_grammar(schema, layout))
        left_out: list[str] = []
        if matcher.is_error():
            schema, left_out = json_schema.without(schema, _is_bad_pattern)
            if left_out:
                matcher = self._matcher(_json_grammar(schema, layout))
        if matcher.is_error():
            raise BadRequest(_refusal(parts, param, matcher.get_error()), param=param)
        if not left_out and not matcher.get_grammar_warnings():
            return GrammarMatcher(matcher, self._ends)
        # Only now is it worth the time to find out which part has them.
        ignored = [(part, words) for part in parts if (words := _ignored_words(part.schema))]
        for part, words in ignored:
            if part.strict:
                raise BadRequest(
                    f"{part.where}: strict is not possible with {', '.join(words)}: this engine cannot enforce "
                    "it. Leave it out, or set strict to false to have it ignored",
                    param=param,
                )
        found = tuple(f"{part.where}: ignored {', '.join(words)}" for part, words in ignored)
        return GrammarMatcher(matcher, self._ends, found)

    def _matcher(self, grammar: str) -> Any:
        """A new matcher of llguidance, which may be in its error state."""
        from llguidance import LLMatcher

        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = self._tokenizer.guidance_tokenizer(self._ends)
            if grammar not in self._compiled:
                self._compiled[grammar] = LLMatcher(self._vocabulary, grammar, log_level=0)
                if len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return self._compiled[grammar].deep_copy()


def _grammar(kind: str, param: str, value: Any) -> str:
    from llguidance import LLMatcher

    if kind == "regex" and isinstance(value, str):
        return str(LLMatcher.grammar_from_regex(value))
    if kind == "grammar" and isinstance(value, str):
        return str(LLMatcher.grammar_from_lark(value))
    if kind == "choice" and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return str(LLMatcher.grammar_from_regex("|".join(map(_escaped, value))))
    raise BadRequest(
        f"{param}: unknown type or invalid value of {kind.removeprefix('response_format ')!r}", param=param
    )


def _schema_part(wanted: StructuredOutputRequest) -> _SchemaPart | None:
    """The JSON schema that a request asks for; None if it asks for another form. Raises BadRequest."""
    kind, param, value = wanted.kind, wanted.param, wanted.value
    if kind == "json":
        return _SchemaPart(param, _read_schema(value, param), strict=False)
    if kind == "json_object":
        return _SchemaPart(param, {"type": "object"}, strict=False)
    if kind == "response_format json_object":
        # The schema is an extension of llama.cpp and Together.
        given = value.get("schema")
        schema = {"type": "object"} | ({} if given is None else _read_schema(given, f"{param}.schema"))
        return _SchemaPart(param, schema, strict=False)
    if kind != "response_format json_schema":
        return None
    outer = value.get("json_schema")
    if outer is None:  # as in the Responses API: flat
        outer = value
    if not isinstance(outer, dict) or outer.get("schema") is None:
        raise BadRequest("response_format.json_schema.schema is missing", param=param)
    schema = _read_schema(outer["schema"], f"{param}.json_schema.schema")
    return _SchemaPart(param, schema, strict=outer.get("strict") is True)


def _escaped(text: str) -> str:
    """``text`` escaped as a regular expression."""
    return "".join("\\" + letter if letter in r".^$*+?{}[]\|()/-&~#" else letter for letter in text)


def _read_schema(value: Any, where: str) -> Schema:
    param = where.split(".")[0]
    try:
        if isinstance(value, str):
            value = json.loads(value)
        if not isinstance(value, dict):
            raise BadRequest(f"{where}: a JSON schema must be an object", param=param)
        return json_schema.normalized(value)
    except ValueError as error:
        raise BadRequest(f"{where} is not valid JSON: {error}", param=param) from error
    except RecursionError as error:
        raise BadRequest(f"{where} is nested too deeply", param=param) from error


def _json_grammar(schema: Schema, layout: dict[str, Any] = _JSON_LAYOUT) -> str:
    from llguidance import LLMatcher

    # Lenient: words that no grammar can express narrow nothing; the matcher's warnings name them.
    defaults: Any = {"lenient": True} | layout
    return str(LLMatcher.grammar_from_json_schema(schema, defaults=defaults))


def _check(schema: Schema) -> tuple[str, list[str]]:
    """The error in ``schema`` alone, if there is one, and the library's warnings about it."""
    from llguidance import LLMatcher

    wrong, messages = LLMatcher.validate_grammar_with_warnings(_json_grammar(schema))
    return (messages[0], []) if wrong else ("", messages)


def _is_bad_pattern(pattern: str) -> bool:
    return bool(_check({"type": "string", "pattern": pattern})[0])


def _ignored_words(schema: Schema) -> list[str]:
    """What ``schema`` asks for, but its grammar cannot express."""
    schema, words = json_schema.without(json_schema.normalized(schema), _is_bad_pattern)
    for warning in _check(schema)[1]:
        warning = re.sub(r" \(\d+ times\)$", "", warning)
        if warning.startswith(_UNIMPLEMENTED):
            words += json.loads(warning.removeprefix(_UNIMPLEMENTED))
        elif warning.startswith(_UNKNOWN_FORMAT):
            words.append(f"format {json_schema.shortened(warning.removeprefix(_UNKNOWN_FORMAT))}")
        else:
            words.append("oneOf (it is read as anyOf)" if warning.startswith("oneOf") else _summary(warning))
    return list(dict.fromkeys(words))


def _refusal(parts: Sequence[_SchemaPart], param: str, error: str) -> str:
    """The message for a schema that the library rejects with ``error``: which of the ``parts`` is wrong, and why."""
    for part in parts:
        schema, _ = json_schema.without(json_schema.normalized(part.schema), _is_bad_pattern)
        if own := _check(schema)[0]:
            return f"{part.where}: {_summary(own)}"
    return f"{param}: {_summary(error)}"


def _summary(message: str) -> str:
    """The useful part of a library's error message, on one line."""
    text = re.split(r"<state>|Traceback", message.strip())[0]
    return " ".join(text.split())[:300] or "invalid grammar"
