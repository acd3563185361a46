"""Answers that must have a form: JSON, a JSON schema, a regular expression, one of several texts, a grammar.

llguidance (https://github.com/guidance-ai/llguidance) computes which tokens may come next, in tens of microseconds. Rows
without a form pay nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Codec

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 64
"""Compiled forms that are kept for the next request with the same one."""
SPACE = r"[\x20\n]{0,12}"
"""Between JSON's tokens: enough for indentation, and not without end, which small models would use."""


class Guide:
    """Follows one answer. Used by the engine's thread alone."""

    def __init__(self, matcher: Any, ends: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._ends = ends

    def restrict(self, logits: Tensor) -> None:
        """Make impossible in ``logits`` ``[vocabulary]`` what may not come next. Something always may: the end does."""
        import torch  # requests are understood before it is there

        if self._matcher.is_stopped():  # the form is complete, or the matcher gave up
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

    def take(self, token: int) -> None:
        """``token`` was drawn."""
        if token not in self._ends and not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def copy(self) -> Guide:
        return Guide(self._matcher.deep_copy(), self._ends)


class Guides:
    """Makes guides for one model. Thread-safe; slow the first time, and for each form the first time."""

    def __init__(self, codec: Codec, ends: frozenset[int]) -> None:
        self._codec = codec
        self._ends = tuple(sorted(end for end in ends if end < codec.vocabulary))
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._made: OrderedDict[str, Guide] = OrderedDict()

    def of(self, body: GenerationBody) -> Guide | None:
        """The guide that ``body`` asks for, or None. Raises BadRequest for a form that can not be."""
        wanted = _wanted(body)
        return self._guide(*wanted) if wanted is not None else None

    def of_schema(self, schema: dict[str, Any], param: str) -> Guide:
        """A guide to JSON of ``schema``, which ``param`` of the request asks for. Raises BadRequest."""
        return self._guide(param, _schema(schema, param))

    def _guide(self, param: str, grammar: str) -> Guide:
        with self._lock:
            if grammar not in self._made:
                self._made[grammar] = self._make(param, grammar)
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(grammar)
            return self._made[grammar].copy()

    def _make(self, param: str, grammar: str) -> Guide:
        from llguidance import LLMatcher

        if self._tokenizer is None:
            self._tokenizer = self._codec.guidance_tokenizer(self._ends)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise BadRequest(f"{param}: {_first(matcher.get_error())}", param=param)
        return Guide(matcher, self._ends)


def asked(body: GenerationBody) -> bool:
    """Whether ``body`` asks for a form at all."""
    return bool(_fields(body)) or _format(body) not in (None, "text") or bool(getattr(body, "tools", None))


def _format(body: GenerationBody) -> str | None:
    return None if body.response_format is None else str(body.response_format.get("type", "text"))


def _fields(body: GenerationBody) -> dict[str, tuple[str, Any]]:
    """vLLM's ways to ask: kind → (parameter, value)."""
    found: dict[str, tuple[str, Any]] = {}
    for kind in ("json", "regex", "choice", "grammar"):
        value = getattr(body, f"guided_{kind}")
        if value is not None:
            found[kind] = (f"guided_{kind}", value)
    for kind, value in (body.structured_outputs or {}).items():
        if value is not None and value is not False:
            found[kind] = ("structured_outputs", value)
    return found


def _wanted(body: GenerationBody) -> tuple[str, str] | None:
    """The parameter that asks for a form, and the form as llguidance reads it."""
    found = _fields(body)
    kind = _format(body)
    if kind not in (None, "text"):
        found[f"response_format {kind}"] = ("response_format", body.response_format)
    if len(found) > 1:
        names = ", ".join(sorted({param for param, _ in found.values()}))
        raise BadRequest(
            f"an answer can have one form alone, not several ({names})", param=names.split(",")[0]
        )
    for kind, (param, value) in found.items():
        return param, _grammar(kind, param, value)
    return None


def _grammar(kind: str, param: str, value: Any) -> str:
    from llguidance import LLMatcher

    if kind == "regex" and isinstance(value, str):
        return str(LLMatcher.grammar_from_regex(value))
    if kind == "grammar" and isinstance(value, str):
        return str(LLMatcher.grammar_from_lark(value))
    if kind == "choice" and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return str(LLMatcher.grammar_from_regex("|".join(map(_literally, value))))
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
        f"{param}: {kind.removeprefix('response_format ')!r} is not a form that is known", param=param
    )


def _literally(text: str) -> str:
    """``text`` as a regular expression for itself."""
    return "".join("\\" + letter if letter in r".^$*+?{}[]\|()/-&~#" else letter for letter in text)


def _schema(value: Any, param: str) -> str:
    from llguidance import LLMatcher

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{param}: no valid JSON: {error}", param=param) from error
    if not isinstance(value, dict):
        raise BadRequest(f"{param}: a JSON schema is an object", param=param)
    try:
        return str(LLMatcher.grammar_from_json_schema(value, defaults={"whitespace_pattern": SPACE}))
    except ValueError as error:
        raise BadRequest(f"{param}: {_first(str(error))}", param=param) from error


def _first(message: str) -> str:
    """The part of a library's message that a person can use."""
    line = re.split(r"\n|<state>|Traceback", message.strip())[0]
    return line[:300] or "can not be understood"
