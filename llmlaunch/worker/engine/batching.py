"""Continuous batching: carries out the scheduler's decisions on the KV cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from llmlaunch.worker.compute import device as devices
from llmlaunch.worker.engine.prefill_budget import PrefillBudget
from llmlaunch.worker.engine.sampler import SamplingState, logprobs, sample
from llmlaunch.worker.engine.scheduled_request import ScheduledRequest
from llmlaunch.worker.engine.scheduler import Scheduler, Step
from llmlaunch.worker.kv import graphs
from llmlaunch.worker.kv.cache import KVCache
from llmlaunch.worker.kv.types import Capacity, CopyColumns, Span
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import EngineLoad, GenerationOutput, GenerationRequest

EXPECTED_TOKENS = 512
"""Tokens of room reserved for an answer without a limit; it takes more as it grows beyond them."""
PROMPT_LOGPROBS_TOKENS = 256
"""Maximum number of prompt tokens in a step while a request wants prompt logprobs."""


def _sampled_rows(spans: Sequence[Span], all_logits: set[str]) -> list[int]:
    """Indexes of the logits of a pass that are sampled from."""
    wanted: list[int] = []
    at = 0
    for span in spans:
        at += len(span.tokens) if span.request_id in all_logits else int(span.samples)
        if span.samples:
            wanted.append(at - 1)
    return wanted


class ContinuousBatching:
    """A strategy (see ``strategy``): all running requests share each forward pass. See ``scheduler`` and ``kv.cache``."""

    mode = "continuous batching"

    def __init__(
        self,
        model: Any,
        capacity: Capacity,
        *,
        reuse: bool = True,
        prompt_tokens: int = 2048,
        strict_seeds: bool = False,
        recorder: graphs.Recorder | None = None,
    ) -> None:
        """``prompt_tokens``: maximum number of prompt tokens in one step while nothing decodes.

        ``strict_seeds``: requests with a seed are computed by themselves, in chunks that are always the same.

        ``recorder``: records steps that only decode, which are then replayed where that is faster.
        """
        self._model = model
        self._graphs = graphs.CudaGraphs(model, recorder) if recorder else None
        self._capacity = capacity
        self._reuse = reuse
        self._exact = model.dtype == torch.float32
        self._strict_seeds = strict_seeds
        self._exclusive: set[str] = set()
        """Requests that share no forward pass with others."""
        self._prefill = PrefillBudget(prompt_tokens)
        self._answers: dict[str, AnswerBuilder] = {}
        self._states: dict[str, SamplingState] = {}
        self._prompt_logprobs: set[str] = set()
        """Requests that want the logprobs of their prompts."""
        self._preempted = 0
        """Preemptions by earlier schedulers, before a recovery."""
        self._reset()

    def _reset(self) -> None:
        layers = self._model.config.get_text_config().num_hidden_layers
        spare = graphs.SPARE_COLUMNS if self._graphs else 0
        self._cache = KVCache(layers, self._capacity.rows, self._capacity.columns, spare)
        if self._graphs:
            self._graphs.reset()
        self.scheduler = Scheduler(self._capacity)

    @torch.inference_mode()
    def reserve(self) -> None:
        """Allocate the cache's memory now, before the first request comes and the memory may be gone.

        Computes one token: the shape of its keys is needed, and the device's libraries allocate their memory, too.
        """
        self._cache.run(self._model, [Span("reserve", 0, 0, (0,), samples=True, prompt=True)])

    @property
    def busy(self) -> bool:
        """Whether any request is running or waiting."""
        return self.scheduler.busy

    def add(self, answer: AnswerBuilder) -> None:
        """Queue a request. Raises ValueError if the cache can never hold it."""
        request = answer.request
        repeatable = self._repeatable(request)
        exclusive = self._strict_seeds and repeatable
        prompt_logprobs = request.prompt_logprobs is not None  # reused columns have no logits
        self.scheduler.add(
            ScheduledRequest(
                request.request_id,
                request.prompt,
                request.stopping.max_tokens,
                priority=request.priority,
                reuse=self._reuse and not (repeatable or prompt_logprobs),
                after=request.after,
                # After a preemption its answer is computed again, in other chunks, which rounds differently.
                expected=EXPECTED_TOKENS
                if request.stopping.open_ended and not (repeatable or prompt_logprobs)
                else None,
                fixed_chunks=exclusive,
            )
        )
        if prompt_logprobs:
            self._prompt_logprobs.add(request.request_id)
        if exclusive:
            self._exclusive.add(request.request_id)
        self._answers[request.request_id] = answer
        self._states[request.request_id] = SamplingState.of(
            request.sampling, request.prompt, request.constraint
        )

    def _repeatable(self, request: GenerationRequest) -> bool:
        """Whether the request must be rounded the same way every time: below float32 rounding may change a seeded answer.

        Reusing a prefix rounds differently, and so may the replay of a step.
        """
        return request.sampling.seed is not None and (self._strict_seeds or not self._exact)

    def remove(self, request_id: str) -> None:
        """Drop a request; its row becomes free. Does nothing if it is unknown."""
        self.scheduler.remove(request_id)
        self._answers.pop(request_id, None)
        self._states.pop(request_id, None)
        self._prompt_logprobs.discard(request_id)
        self._exclusive.discard(request_id)

    @torch.inference_mode()
    def step(self) -> list[tuple[str, GenerationOutput]]:
        """Schedule, compute and sample one step; return the new output by request id."""
        began = time.perf_counter()
        graph_steps = self._graphs.steps if self._graphs else 0
        decoding = self.scheduler.decoding()
        budget = self._prefill.tokens(decoding)
        # Logits of whole prompts are large: one vocabulary per token.
        if self._prompt_logprobs:
            step = self.scheduler.step(min(budget, PROMPT_LOGPROBS_TOKENS))
        else:
            step = self.scheduler.step(budget, lambda prompts: self._prefill.burst(decoding, prompts))
        self._apply_moves(step)
        if not step.spans:
            return []
        together = tuple(span for span in step.spans if span.request_id not in self._exclusive)
        alone = [(span,) for span in step.spans if span.request_id in self._exclusive]
        outputs: list[tuple[str, GenerationOutput]] = []
        for spans in [together, *alone] if together else alone:
            outputs += self._forward(spans)
        prompt = sum(len(span.tokens) for span in step.spans if span.prompt)
        decoded = sum(not span.prompt for span in step.spans)
        # Steps with prompts are never replayed, so their cost is compared with steps that are not replayed either.
        if self._graphs is None or self._graphs.steps == graph_steps:
            self._prefill.observe(decoded, prompt, time.perf_counter() - began)
        return outputs

    def _forward(self, computed: tuple[Span, ...]) -> list[tuple[str, GenerationOutput]]:
        """Compute spans in one forward pass, and return the resulting outputs."""
        all_logits = self._prompt_logprobs & {span.request_id for span in computed if span.prompt}
        logits = None
        requests = (self._answers[span.request_id].request for span in computed)
        if self._graphs and not all_logits and not any(map(self._repeatable, requests)):
            logits = self._graphs.run(self._cache, computed)
        if logits is None:
            logits = self._cache.run(self._model, computed, all_logits)
        outputs = (
            self._add_prompt_logprobs(computed, logits, all_logits)
            if all_logits and logits is not None
            else []
        )
        if all_logits and logits is not None:
            logits = logits[_sampled_rows(computed, all_logits)]
        ended = {name for name, _ in outputs}
        spans = [span for span in computed if span.samples]
        if logits is not None and spans:
            kept = [at for at, span in enumerate(spans) if span.request_id not in ended]
            if len(kept) < len(spans):
                spans, logits = [spans[at] for at in kept], logits[kept]
            outputs += self._sample(spans, logits) if spans else []
        return outputs

    def _apply_moves(self, step: Step) -> None:
        for move in step.moves:
            if isinstance(move, CopyColumns):
                self._cache.copy(move.source, move.target, move.columns)
            else:
                self._cache.drop(move.row)

    def _add_prompt_logprobs(
        self, spans: Sequence[Span], logits: torch.Tensor, all_logits: set[str]
    ) -> list[tuple[str, GenerationOutput]]:
        """Add the prompt logprobs that were requested; finish the requests that want nothing else."""
        outputs: list[tuple[str, GenerationOutput]] = []
        at = 0
        for span in spans:
            if span.request_id not in all_logits:
                at += span.samples
                continue
            answer = self._answers[span.request_id]
            prompt = answer.request.prompt
            following = prompt[span.start + 1 : span.start + 1 + len(span.tokens)]
            rows = logits[at : at + len(following)].float()
            want = [answer.request.prompt_logprobs] * len(following)
            answer.add_prompt_logprobs(
                [found for found in logprobs(rows, following, want) if found is not None]
            )
            at += len(span.tokens)
            output = answer.end_of_prompt() if span.samples else None
            if output is not None:
                self.remove(span.request_id)
                outputs.append((span.request_id, output))
        return outputs

    def _sample(self, spans: list[Span], logits: torch.Tensor) -> list[tuple[str, GenerationOutput]]:
        """Sample a token for every span that wants one, and return the resulting outputs."""
        states = [self._states[span.request_id] for span in spans]
        for span, state in zip(spans, states, strict=True):
            state.banned = self._answers[span.request_id].banned
        tokens, found = sample(logits, states)
        outputs: list[tuple[str, GenerationOutput]] = []
        for span, token, logprob in zip(spans, tokens, found, strict=True):
            self.scheduler.advance(span.request_id, token)
            output = self._answers[span.request_id].push(token, logprob)
            if output is None:
                continue
            outputs.append(
                (span.request_id, replace(output, cached_tokens=self.scheduler.cached(span.request_id)))
            )
            if output.last:
                self.remove(span.request_id)
        return outputs

    def recover(self) -> None:
        """Replace the cache after a failed step. Raises DeviceLostError if the device has failed, too."""
        devices.check_alive(self._model)
        self._preempted += self.scheduler.preempted
        self._cache.release()
        self._reset()

    def load(self) -> EngineLoad:
        """How busy it is; preemptions are counted since the worker started."""
        return EngineLoad(
            self.scheduler.running,
            self.scheduler.waiting,
            self.scheduler.kv_used,
            self._preempted + self.scheduler.preempted,
        )
