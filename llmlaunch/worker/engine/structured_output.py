"""Structured output: answers constrained to JSON, a JSON schema, a regular expression, a list of choices or a grammar.

llguidance (https://github.com/guidance-ai/llguidance) computes the allowed next tokens, in tens of microseconds. Rows
without a constraint cost nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

MAX_COMPILED = 64
"""Number of compiled grammars that are kept for later requests."""
JSON_WHITESPACE = r"[\x20\n]{0,12}"
"""Whitespace between JSON tokens: enough for indentation, but limited, because small models would go on forever."""


@dataclass(frozen=True, slots=True)
class StructuredOutputRequest:
    """A constraint that a request asks for."""

    kind: str
    """json, json_object, regex, choice, grammar, or "response_format TYPE"."""
    param: str
    """The parameter it came in, for messages."""
    value: Any
    """As the client sent it: JSON of any type, checked here."""


class GrammarMatcher:
    """Constrains one answer. Used by the engine's thread alone."""

    def __init__(self, matcher: Any, ends: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._ends = ends

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
        return GrammarMatcher(self._matcher.deep_copy(), self._ends)


class GrammarCompiler:
    """Compiles grammars for one model. Thread-safe; slow on first use, and for each new grammar."""

    def __init__(self, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = tuple(sorted(end for end in ends if end < tokenizer.vocabulary))
        self._lock = threading.Lock()
        self._vocabulary: Any = None
        self._compiled: OrderedDict[str, GrammarMatcher] = OrderedDict()

    def compile(self, wanted: StructuredOutputRequest) -> GrammarMatcher:
        """The constraint that a request asks for. Raises BadRequest if it is invalid."""
        return self._matcher_for(wanted.param, _grammar(wanted.kind, wanted.param, wanted.value))

    def compile_schema(self, schema: dict[str, Any], param: str) -> GrammarMatcher:
        """A constraint to JSON matching ``schema``, which the parameter ``param`` asks for. Raises BadRequest."""
        return self._matcher_for(param, _schema(schema, param))

    def _matcher_for(self, param: str, grammar: str) -> GrammarMatcher:
        with self._lock:
            if grammar not in self._compiled:
                self._compiled[grammar] = self._compile(param, grammar)
                if len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return self._compiled[grammar].copy()

    def _compile(self, param: str, grammar: str) -> GrammarMatcher:
        from llguidance import LLMatcher

        if self._vocabulary is None:
            self._vocabulary = self._tokenizer.guidance_tokenizer(self._ends)
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        if matcher.is_error():
            raise BadRequest(f"{param}: {_summary(matcher.get_error())}", param=param)
        return GrammarMatcher(matcher, self._ends)


def _grammar(kind: str, param: str, value: Any) -> str:
    from llguidance import LLMatcher

    if kind == "regex" and isinstance(value, str):
        return str(LLMatcher.grammar_from_regex(value))
    if kind == "grammar" and isinstance(value, str):
        return str(LLMatcher.grammar_from_lark(value))
    if kind == "choice" and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return str(LLMatcher.grammar_from_regex("|".join(map(_escaped, value))))
    if kind == "json":
        return _schema(value, param)
    if kind in ("json_object", "response_format json_object"):
        return _schema({"type": "object"}, param)
    if kind == "response_format json_schema":
        outer = value.get("json_schema")
        if not isinstance(outer, dict) or not isinstance(outer.get("schema"), dict):
            raise BadRequest("response_format.json_schema.schema is missing", param=param)
        return _schema(outer["schema"], param)
    raise BadRequest(
        f"{param}: unknown type or invalid value of {kind.removeprefix('response_format ')!r}", param=param
    )


def _escaped(text: str) -> str:
    """``text`` escaped as a regular expression."""
    return "".join("\\" + letter if letter in r".^$*+?{}[]\|()/-&~#" else letter for letter in text)


def _schema(value: Any, param: str) -> str:
    from llguidance import LLMatcher

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{param} is not valid JSON: {error}", param=param) from error
    if not isinstance(value, dict):
        raise BadRequest(f"{param}: a JSON schema must be an object", param=param)
    try:
        return str(
            LLMatcher.grammar_from_json_schema(value, defaults={"whitespace_pattern": JSON_WHITESPACE})
        )
    except ValueError as error:
        raise BadRequest(f"{param}: {_summary(str(error))}", param=param) from error


def _summary(message: str) -> str:
    """The useful part of a library's error message."""
    line = re.split(r"\n|<state>|Traceback", message.strip())[0]
    return line[:300] or "invalid grammar"
