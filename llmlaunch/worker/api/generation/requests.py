"""Makes the engine's requests for the answers to one prompt: stopping criteria, sampling and structured output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmlaunch.worker.api.generation import response_format
from llmlaunch.worker.api.generation.sampling import sampling_parameters
from llmlaunch.worker.api.ids import new_id
from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.engine.structured_output import GrammarMatcher
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import FunctionSchema, GenerationRequest, StoppingCriteria


@dataclass(frozen=True, slots=True)
class CallsOnly:
    """That an answer must consist of function calls."""

    functions: tuple[FunctionSchema, ...]
    single: bool
    """Whether there must be exactly one."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options whose field and default differ between endpoints."""

    prompt_param: str
    """The field that has the prompt, for messages."""
    prompt_words: str = ""
    """What the prompt consists of, for messages; empty: ``prompt_param``."""
    max_tokens: int | None = None
    """None: as many as fit the context."""
    count: int = 1
    """Number of answers."""
    logprobs: int | None = None
    """As in Sampling."""
    prompt_logprobs: int | None = None
    """As in GenerationRequest."""
    calls: CallsOnly | None = None
    """The calls that the answers must consist of, whatever else the body asks for."""
    middle_ends: frozenset[int] = frozenset()
    """As in StoppingCriteria."""
    skip_special_tokens: bool = True
    """The default where the body says nothing."""


def generation_requests(
    body: GenerationBody, loaded: LoadedGenerator, prompt: Sequence[int], options: AnswerOptions
) -> list[GenerationRequest]:
    """Return one request for each answer to ``prompt``. All but the first wait for the first one's prefill.

    Raises ContextOverflow with the counts, BadRequest.
    """
    if body.stream_options is not None and not body.stream:
        raise BadRequest("stream_options is only allowed with stream: true", param="stream_options")
    stopping = _stopping_criteria(body, loaded, len(prompt), options)
    first = new_id("req")
    constraint = _constraint(body, loaded, options.calls)
    skip_special = (
        options.skip_special_tokens if body.skip_special_tokens is None else body.skip_special_tokens
    )
    return [
        GenerationRequest(
            request_id=first if choice == 0 else f"{first}-{choice}",
            prompt=tuple(prompt),
            sampling=sampling_parameters(body, loaded, logprobs=options.logprobs, choice=choice),
            stopping=stopping,
            skip_special_tokens=skip_special,
            priority=body.priority or 0,
            after=first if choice else "",
            prompt_logprobs=options.prompt_logprobs,
            constraint=constraint.copy() if constraint is not None else None,
        )
        for choice in range(options.count)
    ]


def _stopping_criteria(
    body: GenerationBody, loaded: LoadedGenerator, prompt_tokens: int, options: AnswerOptions
) -> StoppingCriteria:
    max_tokens = _max_tokens(prompt_tokens, loaded.context, options)
    stop = [body.stop] if isinstance(body.stop, str) else (body.stop or [])
    _check_stop_tokens(body, loaded.tokenizer)
    min_tokens = body.min_tokens or 0
    if min_tokens > max_tokens:
        raise BadRequest(
            f"min_tokens: {min_tokens} is more than the maximum of {max_tokens} tokens", param="min_tokens"
        )
    return StoppingCriteria(
        max_tokens=max_tokens,
        open_ended=options.max_tokens is None,
        min_tokens=min_tokens,
        stop=tuple(filter(None, stop)),  # many clients send "" for none
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        middle_ends=options.middle_ends,
        ignore_eos=bool(body.ignore_eos),
        include_stop=bool(body.include_stop_str_in_output),
    )


def _max_tokens(prompt_tokens: int, context: int, options: AnswerOptions) -> int:
    """The length of the longest answer, in tokens. Raises ContextOverflow with the counts."""
    requested = options.max_tokens
    room = context - prompt_tokens
    if room < (0 if requested == 0 else 1) or (requested is not None and requested > room):
        answer = f"{requested} for the answer" if requested is not None else "at least 1 for the answer"
        needed = prompt_tokens + (1 if requested is None else requested)
        where = options.prompt_words or options.prompt_param
        excess = f"your request needs {needed} tokens: {prompt_tokens} in the {where} and {answer}"
        raise ContextOverflow.of(context, excess, options.prompt_param)
    return room if requested is None else requested


def _check_stop_tokens(body: GenerationBody, tokenizer: Tokenizer) -> None:
    for token in body.stop_token_ids or ():
        if not 0 <= token < tokenizer.vocabulary:
            raise BadRequest(
                f"stop_token_ids: {token} is not a token id of this model", param="stop_token_ids"
            )


def _constraint(
    body: GenerationBody, loaded: LoadedGenerator, calls: CallsOnly | None
) -> GrammarMatcher | None:
    if calls is not None:
        return loaded.grammars.compile_calls(calls.functions, single=calls.single)
    requested = response_format.requested(body)
    return loaded.grammars.compile(requested) if requested is not None else None
