"""What request bodies have in common, and how they are parsed. Each endpoint's own body is in its package or module.

Fields beyond OpenAI's have vLLM's names. Unknown fields are ignored, and ``null`` means the default, as in OpenAI's API.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from llmlaunch.worker.errors import BadRequest


def _without_fraction(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_without_fraction)]
"""A whole number. Languages that have only one type of number may write 4 as ``4.0``."""
TokenCount = Annotated[Whole, Field(ge=0)]
TokensToKeep = Annotated[Whole, Field(ge=-1)]
"""Tokens of a text to keep when it is truncated; -1: all that fit."""
MAX_CHOICES = 128
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20

TEXT_INPUT = "a string, a list of strings, a list of token ids, or a list of such lists"
"""The forms of a prompt or input, for messages."""

Body = TypeVar("Body", bound="RequestBody")


class RequestBody(BaseModel):
    """Any JSON body that a client sends."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    unions: ClassVar[dict[str, str]] = {}
    """Fields of several types, and what each must be, for messages; those of messages as "messages.content"."""


class StreamOptions(RequestBody):
    """OpenAI's stream_options, with vLLM's continuous_usage_stats."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationBody(RequestBody):
    """Fields that chat, completions and responses share."""

    unions: ClassVar = {
        "stop": f"a string or a list of up to {MAX_STOPS} strings",
        "guided_json": "a JSON schema, as an object or a string",
        "logit_bias": "an object with a number from -100 to 100 for each token id",
    }

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Whole | None = Field(None, ge=-(2**63), lt=2**64)
    n: Whole | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: TokenCount | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: Whole | None = None
    response_format: dict[str, Any] | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = Field(None, min_length=1)
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None
    user: str | None = None

    @property
    def streams_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def streams_continuous_usage(self) -> bool:
        """Whether every chunk of a stream has the token counts so far."""
        options = self.stream_options
        return options is not None and bool(options.include_usage and options.continuous_usage_stats)


class TruncatableBody(RequestBody):
    """A body whose texts may be truncated."""

    truncate: bool | None = None
    truncate_prompt_tokens: TokensToKeep | None = None


def parse(kind: type[Body], body: bytes) -> Body:
    """Return the JSON ``body`` as ``kind``. Raises BadRequest naming the first invalid parameter."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error, kind.unions, body) from error


def _bad_request(error: ValidationError, unions: dict[str, str], body: bytes) -> BadRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    kind = first["type"]
    if kind == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    if not first["loc"]:
        return BadRequest("the body must be a JSON object")
    where, expected = _place(first["loc"], json.loads(body), unions)
    if kind == "missing":
        return BadRequest(f"{where} is missing", param=where, code="missing_required_parameter")
    if expected is not None:
        return BadRequest(f"{where} must be {expected}", param=where)
    if kind in ("dict_type", "model_type"):  # the library's own words name classes
        return BadRequest(f"{where} must be an object, not {_short(first['input'])}", param=where)
    shown = "" if kind in ("too_short", "too_long") else f", not {_short(first['input'])}"
    return BadRequest(f"{where}: {_lower(first['msg'])}{shown}", param=where)


def _place(location: tuple[int | str, ...], document: Any, unions: dict[str, str]) -> tuple[str, str | None]:
    """Where ``location`` is in ``document``, as ``messages[0].role``; and what must be there, if it is one of ``unions``.

    A union gives one error for each of its members, with the member's name in the location, and misleading ones.
    """
    path = field = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
            document = document[part] if isinstance(document, list) else None
            continue
        if field and not (isinstance(document, dict) and part in document) and part != location[-1]:
            continue
        path += f".{part}" if path else part
        field += f".{part}" if field else part
        if field in unions and isinstance(document, dict) and part in document:
            return path, unions[field]
        document = document.get(part) if isinstance(document, dict) else None
    return path, None


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
