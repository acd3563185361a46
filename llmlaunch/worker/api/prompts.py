"""From a request body to engine requests: tokenized prompts, sampling parameters, stop conditions. Errors name the parameter."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from llmlaunch.worker.api import response_format
from llmlaunch.worker.api.protocol import CuttingBody, GenerationBody, Message
from llmlaunch.worker.engine.structured_output import GrammarMatcher
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import Tokenizer, TooLong
from llmlaunch.worker.types import GenerationRequest, Sampling, StoppingCriteria

Value = TypeVar("Value")
Given = str | list[int] | list[str] | list[list[int]]

TEMPLATE_ARGUMENTS = (
    "conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)  # fmt: skip
"""Arguments of transformers' ``apply_chat_template`` that are not template variables."""


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in the form that chat templates know: text content, and "system" instead of the newer developer role.

    Raises BadRequest for parts that are not text, and for malformed tool calls.
    """
    plain: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        fields = message.model_dump(exclude_none=True)
        _check_calls(fields.get("tool_calls"), f"messages[{index}].tool_calls")
        fields["content"] = _text(message, index)
        if message.role == "developer":
            fields["role"] = "system"
        plain.append(fields)
    return plain


def _check_calls(calls: Any, where: str) -> None:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise BadRequest(f"{where} must be a list of calls", param=where)
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest(
                f'{where}[{at}] must be {{"id", "type": "function", "function": {{"name", "arguments"}}}}',
                param=f"{where}[{at}]",
            )


def _text(message: Message, index: int) -> str:
    if message.content is None:
        if message.role in ("assistant", "tool", "function"):
            return ""
        raise BadRequest(f"messages[{index}].content is missing", param=f"messages[{index}].content")
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for at, part in enumerate(message.content):
        where = f"messages[{index}].content[{at}]"
        kind = part.get("type")
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise BadRequest(f"{where}: this model only supports text, not {kind!r}", param=where)
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise BadRequest(f"{where}.text must be a string", param=f"{where}.text")
        texts.append(text)
    return "".join(texts)


def token_lists(
    given: Given,
    tokenizer: Tokenizer,
    param: str,
    read: Callable[[str, str], list[int]],
) -> list[list[int]]:
    """A prompt or input in any of its four forms (text, texts, token ids, lists of token ids) as lists of token ids.

    ``read`` tokenizes a text, and gets its name for messages. Raises BadRequest for empty texts and invalid tokens.
    """
    if not isinstance(given, str) and given and isinstance(given[0], int):
        return [known_tokens(cast(Sequence[int], given), tokenizer, param)]
    found = []
    for at, item in enumerate([given] if isinstance(given, str) else given):
        where = param if isinstance(given, str) else f"{param}[{at}]"
        if not item:
            raise BadRequest(f"{where} is empty", param=param)
        ids = (
            read(item, where)
            if isinstance(item, str)
            else known_tokens(cast(list[int], item), tokenizer, where)
        )
        if not ids:
            raise BadRequest(f"{where} has no tokens", param=param)
        found.append(ids)
    if not found:
        raise BadRequest(f"{param} is empty", param=param)
    return found


def count(given: Given) -> int:
    """Number of prompts or inputs."""
    return 1 if isinstance(given, str) or (given and isinstance(given[0], int)) else len(given)


def encoded(
    text: str, loaded: LoadedGenerator, where: str, *, special: bool = True, last: int | None = None
) -> list[int]:
    """Tokens of a text, or its ``last`` ones. Raises ContextOverflow if it is known early that they exceed the context."""
    if last is not None:
        return loaded.tokenizer.encode_end(text, last, special=special)
    try:
        return loaded.tokenizer.encode(text, special=special, most=loaded.context)
    except TooLong as error:
        raise ContextOverflow(
            f"this model's context is {loaded.context} tokens, but {where} has {error.tokens}",
            param=where.split("[")[0],
        ) from error


def kept(asked: int | None, answer: int | None, context: int) -> int | None:
    """How many of a prompt's last tokens truncate_prompt_tokens (``asked``) keeps; ``answer``: requested answer tokens.

    None: the prompt is not truncated. Raises BadRequest.
    """
    if asked is None:
        return None
    return max(1, context - (1 if answer is None else answer)) if asked == -1 else longest(asked, context)


def longest(asked: int, context: int) -> int:
    """What truncate_prompt_tokens means for a model with a context of ``context`` tokens. Raises BadRequest."""
    if asked == 0 or asked > context:
        raise BadRequest(
            f"truncate_prompt_tokens: {asked} is neither -1 nor between 1 and this model's context of {context} tokens",
            param="truncate_prompt_tokens",
        )
    return context if asked == -1 else asked


def cut_to(body: CuttingBody, context: int) -> int | None:
    """The number of tokens that texts are truncated to; None: longer texts are refused. Raises BadRequest."""
    if body.truncate_prompt_tokens is not None:
        return longest(body.truncate_prompt_tokens, context)
    return context if body.truncate else None


def known_tokens(ids: Sequence[int], tokenizer: Tokenizer, where: str) -> list[int]:
    if ids:
        for token in (min(ids), max(ids)):  # there may be millions
            if not 0 <= token < tokenizer.vocabulary:
                raise BadRequest(
                    f"{where}: {token} is not a token id of this model, which has {tokenizer.vocabulary} tokens",
                    param=where.split("[")[0],
                )
    return list(ids)


def sampling(
    body: GenerationBody, loaded: LoadedGenerator, *, logprobs: int | None, choice: int = 0
) -> Sampling:
    """Sampling parameters of the ``choice``-th answer. Answers to one seeded request differ, each reproducibly."""
    own = loaded.defaults
    top_k = max(0, _or(body.top_k, own.top_k))
    top_p = _or(body.top_p, own.top_p)
    if top_p == 0:
        top_p, top_k = 1.0, 1
    seed = _or(body.seed, own.seed)
    return Sampling(
        temperature=_temperature(body, own),
        top_p=top_p,
        top_k=top_k,
        min_p=_or(body.min_p, own.min_p),
        repetition_penalty=_or(body.repetition_penalty, own.repetition_penalty),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_bias(body.logit_bias or {}, loaded.tokenizer),
        seed=None if seed is None else seed + choice,
        logprobs=logprobs,
    )


def _temperature(body: GenerationBody, own: Sampling) -> float:
    """The request's temperature, else the model's; 0 if neither asks for sampling, as in transformers' ``generate``.

    A request that asks for sampling otherwise (top_p, a seed, several answers) gets OpenAI's default of 1.
    """
    if body.temperature is not None:
        return body.temperature
    if own.temperature > 0:
        return own.temperature
    asked = (body.top_p, body.top_k, body.min_p, body.seed)
    several = (body.n or 1) > 1 or (getattr(body, "best_of", None) or 1) > 1
    return 1.0 if several or any(value is not None for value in asked) else 0.0


def _or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _bias(given: dict[str, float], tokenizer: Tokenizer) -> tuple[tuple[int, float], ...]:
    bias: list[tuple[int, float]] = []
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and int(key) < tokenizer.vocabulary):
            raise BadRequest(
                f"logit_bias: {key!r} is not a token id of this model, which has {tokenizer.vocabulary} tokens",
                param="logit_bias",
            )
        bias.append((int(key), value))
    return tuple(bias)


def stopping_criteria(
    body: GenerationBody, tokenizer: Tokenizer, *, prompt: int, asked: int | None, context: int, param: str
) -> StoppingCriteria:
    """When an answer to a prompt of ``prompt`` tokens ends; ``asked``: requested tokens (None: as many as fit).

    Raises ContextOverflow with the counts.
    """
    room = context - prompt
    if room < (0 if asked == 0 else 1) or (asked is not None and asked > room):
        wanted = f"{asked} for the answer" if asked is not None else "at least 1 for the answer"
        raise ContextOverflow(
            f"this model's context is {context} tokens; the request needs {prompt + (1 if asked is None else asked)}: "
            f"{prompt} in the prompt and {wanted}",
            param=param,
        )
    most = room if asked is None else asked
    stop = [body.stop] if isinstance(body.stop, str) else (body.stop or [])
    if not all(stop):
        raise BadRequest("stop: stop strings must not be empty", param="stop")
    for token in body.stop_token_ids or ():
        if not 0 <= token < tokenizer.vocabulary:
            raise BadRequest(
                f"stop_token_ids: {token} is not a token id of this model", param="stop_token_ids"
            )
    least = body.min_tokens or 0
    if least > most:
        raise BadRequest(f"min_tokens: {least} is more than the maximum of {most} tokens", param="min_tokens")
    return StoppingCriteria(
        max_tokens=most,
        open_ended=asked is None,
        min_tokens=least,
        stop=tuple(stop),
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        include_stop=bool(body.include_stop_str_in_output),
    )


def choices(
    body: GenerationBody,
    loaded: LoadedGenerator,
    prompt: list[int],
    stopping: StoppingCriteria,
    *,
    logprobs: int | None,
    count: int,
    schema: dict[str, Any] | None = None,
    skip_special: bool = True,
    prompt_logprobs: int | None = None,
) -> list[GenerationRequest]:
    """One request for each of ``count`` answers. All but the first wait for the first one's prompt.

    ``schema``: a JSON schema that the answers must match, whatever else ``body`` asks for.
    """
    first = new_id("req")
    constraint = _constraint(body, loaded, schema)
    return [
        GenerationRequest(
            request_id=first if choice == 0 else f"{first}-{choice}",
            prompt=tuple(prompt),
            sampling=sampling(body, loaded, logprobs=logprobs, choice=choice),
            stopping=stopping,
            skip_special_tokens=_or(body.skip_special_tokens, skip_special),
            priority=body.priority or 0,
            after=first if choice else "",
            prompt_logprobs=prompt_logprobs,
            constraint=constraint.copy() if constraint is not None else None,
        )
        for choice in range(count)
    ]


def _constraint(
    body: GenerationBody, loaded: LoadedGenerator, schema: dict[str, Any] | None
) -> GrammarMatcher | None:
    if schema is not None:
        return loaded.grammars.of_schema(schema, "tools")
    asked = response_format.wanted(body)
    return loaded.grammars.of(asked) if asked is not None else None
