"""What clients may send: OpenAI's fields, and those beyond them under vLLM's names. Unknown fields are ignored.

``null`` means the default everywhere, as OpenAI has it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmlaunch.worker.errors import BadRequest

Tokens = Annotated[int, Field(ge=0)]
Longest = Annotated[int, Field(ge=-1)]
"""Tokens of a text that are kept; -1: all that fit."""
MOST_CHOICES = 128
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20

UNIONS = {
    "stop": f"a string or a list of up to {MOST_STOPS} strings",
    "prompt": "a string, a list of strings, a list of token ids, or a list of such lists",
    "input": "a string, a list of strings, a list of token ids, or a list of such lists",
    "text_1": "a string or a list of strings",
    "text_2": "a string or a list of strings",
    "documents": "a list of strings, or of objects with a text",
    "guided_json": "a JSON schema, as an object or a string",
    "tool_choice": "a string or an object",
}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

Body = TypeVar("Body", bound="RequestBody")


class RequestBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    unions: ClassVar[dict[str, str]] = UNIONS


class StreamOptions(RequestBody):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationBody(RequestBody):
    """Fields that chat, completions and responses share."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Tokens | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = None
    response_format: dict[str, Any] | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = Field(None, min_length=1)
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None
    user: str | None = None


class Message(RequestBody):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None


class ChatBody(GenerationBody):
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    truncate_prompt_tokens: Longest | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    include_reasoning: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ResponsesBody(GenerationBody):
    unions = UNIONS | {
        "input": "a string or a list of items",
        "prompt": "an object",
        "conversation": "a string or an object",
    }
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    previous_response_id: str | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(GenerationBody):
    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    truncate_prompt_tokens: Longest | None = None
    add_special_tokens: bool | None = None


class CuttingBody(RequestBody):
    """A body whose texts may be truncated."""

    truncate: bool | None = None
    truncate_prompt_tokens: Longest | None = None


class EmbeddingBody(CuttingBody):
    model: str
    input: str | list[int] | list[str] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


class NamedEmbeddingBody(EmbeddingBody):
    """For the path that names the model."""

    model: str = ""


class RerankBody(CuttingBody):
    model: str
    query: str = Field(min_length=1)
    documents: list[str | dict[str, Any]] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


class ScoreBody(CuttingBody):
    model: str
    text_1: str | Annotated[list[str], Field(min_length=1)]
    text_2: str | Annotated[list[str], Field(min_length=1)]


class TokenizeBody(RequestBody):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None


class DetokenizeBody(RequestBody):
    model: str | None = None
    tokens: list[int]


class CountBody(RequestBody):
    """FastChat's /count_token."""

    model: str | None = None
    prompt: str


class TokenCheck(RequestBody):
    model: str
    prompt: str
    max_tokens: int = Field(0, ge=0)


class TokenCheckBody(RequestBody):
    """FastChat's /api/v1/token_check."""

    prompts: list[TokenCheck] = Field(min_length=1)


def parse(kind: type[Body], body: bytes) -> Body:
    """``body`` as ``kind``. Raises BadRequest naming the first invalid parameter."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _complaint(error, kind.unions) from error


def _complaint(error: ValidationError, unions: dict[str, str]) -> BadRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    names = [str(part) for part in first["loc"]]
    if not names:
        return BadRequest("the body must be a JSON object")
    param = names[0]
    # A union gives one error for each of its members, and misleading ones.
    if param in unions and first["type"] != "missing":
        return BadRequest(f"{param} must be {unions[param]}", param=param)
    where = _path(names) if param in ("messages", "prompts") else param
    if first["type"] == "missing":
        return BadRequest(f"{where} is missing", param=where, code="missing_required_parameter")
    shown = "" if first["type"] in ("too_short", "too_long") else f", not {_short(first['input'])}"
    return BadRequest(f"{where}: {_lower(first['msg'])}{shown}", param=where)


def _path(names: list[str]) -> str:
    """``messages, 0, role`` as ``messages[0].role``."""
    path = names[0]
    for name in names[1:]:
        path += f"[{name}]" if name.isdigit() else f".{name}"
    return path


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
