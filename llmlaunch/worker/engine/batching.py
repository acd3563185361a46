"""Continuous batching: the scheduler's decisions carried out on the slot cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from llmlaunch.worker.engine.sampler import Voice, logprobs, sample
from llmlaunch.worker.engine.scheduler import Capacity, Copy, Scheduler, Span, Step, Ticket, Unread
from llmlaunch.worker.engine.types import GenerationRequest, Load, Piece
from llmlaunch.worker.kv import graphs
from llmlaunch.worker.kv.cache import SlotCache
from llmlaunch.worker.loading import placement
from llmlaunch.worker.output.answer import Answer

PATIENCE = 2.0
"""A step that also computes prompts may take this many times as long as one that only decodes."""
MOST_BURST_S = 0.8
"""Seconds that a step may take on at most so that many prompts at once get their first tokens."""
FIRST_TOKEN = 4
"""Ordinary pauses of one running stream that each further first token is worth."""
SMALLEST_CHUNK = 16
EXPECTED_TOKENS = 512
"""Of an answer that nobody bounded: room is held for so many, and taken as it grows beyond them."""
READING_TOKENS = 256
"""Of prompts a step, while somebody wants their logprobs."""


class Pacer:
    """How many prompt tokens a step may take on beside the decodes, learned from how long steps took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._decode_s = 0.0
        self._prompt_s = 0.0
        self._prompt_tokens = 0.0
        """Both of a usual step that computes prompts."""

    @property
    def _prompt_token_s(self) -> float:
        """Seconds that a token of a prompt adds to a step; 0 when it is not known.

        Weights are read once for all tokens of a step, which is most of what a decode takes.
        """
        if not self._prompt_tokens:
            return 0.0
        return max(self._prompt_s - self._decode_s, self._prompt_s / 4) / self._prompt_tokens

    def budget(self, decoding: int) -> int:
        """Tokens. Nobody waits while nothing decodes: then it is always the same, so that rounding is, too."""
        if not decoding:
            return self._most
        if not self._decode_s:
            return 1  # as good as a step that only decodes, which may never come while prompts do
        if not self._prompt_token_s:
            return SMALLEST_CHUNK
        tokens = int((PATIENCE - 1) * self._decode_s / self._prompt_token_s)
        return max(SMALLEST_CHUNK, min(self._most, tokens))

    def burst(self, decoding: int, prompts: Sequence[Unread]) -> int:
        """Tokens, so that the first of ``prompts`` are complete in this step.

        Those who speak lose the same time to the prompts in either way: at once, or in many steps of which each takes
        longer. So first tokens that come together buy one long pause; more of it the more they are, and the fewer have
        to wait for them. One alone buys none, nor do prompts that do not come to their end, nor the last piece of one
        that has been read in pieces: beside those, streams go on in ordinary steps.
        """
        if not (decoding and self._decode_s and self._prompt_token_s):
            return 0
        most, total, complete = 0, 0, 0
        for prompt in prompts:
            total += prompt.tokens
            complete += not prompt.begun
            worth = min(MOST_BURST_S, FIRST_TOKEN * self._decode_s * (complete - 1) / decoding)
            if total <= self._most and total * self._prompt_token_s <= worth:
                most = total
        return most

    def learn(self, decoded: int, prompt: int, seconds: float) -> None:
        if decoded and prompt <= 1:
            self._decode_s = _blend(self._decode_s, seconds)
        elif prompt >= SMALLEST_CHUNK:
            self._prompt_s = _blend(self._prompt_s, seconds)
            self._prompt_tokens = _blend(self._prompt_tokens, prompt)


def _lasts(spans: Sequence[Span], every: set[str]) -> list[int]:
    """Of the logits of a pass, those that are drawn from."""
    wanted: list[int] = []
    at = 0
    for span in spans:
        at += len(span.tokens) if span.request_id in every else int(span.samples)
        if span.samples:
            wanted.append(at - 1)
    return wanted


def _blend(old: float, new: float) -> float:
    return new if not old else 0.8 * old + 0.2 * new


class Batching:
    """All running requests share each pass through the model. See ``scheduler`` and ``slots``."""

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
        """``prompt_tokens``: the most that one step computes of prompts, when nothing else waits for it.

        ``strict_seeds``: requests with a seed go through the model by themselves, in pieces that are always the same.

        ``recorder``: steps that only decode are recorded with it, and replayed where that is quicker.
        """
        self._model = model
        self._graphs = graphs.Graphs(model, recorder) if recorder else None
        self._capacity = capacity
        self._reuse = reuse
        self._exact = model.dtype == torch.float32
        self._strict = strict_seeds
        self._apart: set[str] = set()
        """Requests that share no pass with others."""
        self._pacer = Pacer(prompt_tokens)
        self._answers: dict[str, Answer] = {}
        self._voices: dict[str, Voice] = {}
        self._reading: set[str] = set()
        """Requests that want the logprobs of their prompts."""
        self._sent_back = 0
        """By schedulers before this one."""
        self._fresh()

    def _fresh(self) -> None:
        layers = self._model.config.get_text_config().num_hidden_layers
        spare = graphs.SPARE if self._graphs else 0
        self._cache = SlotCache(layers, self._capacity.rows, self._capacity.columns, spare)
        if self._graphs:
            self._graphs.forget()
        self.scheduler = Scheduler(self._capacity)

    @torch.inference_mode()
    def reserve(self) -> None:
        """Take the cache's memory now, rather than when the first request comes and it may be gone.

        Computes one token: its keys show their shape, and what the device's libraries take is taken, too.
        """
        self._cache.run(self._model, [Span("reserve", 0, 0, (0,), samples=True, prompt=True)])

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def add(self, answer: Answer) -> None:
        request = answer.request
        repeatable = self._repeatable(request)
        apart = self._strict and repeatable
        reading = request.prompt_logprobs is not None  # columns that are there already have no logits
        self.scheduler.add(
            Ticket(
                request.request_id,
                request.prompt,
                request.ending.max_tokens,
                priority=request.priority,
                reuse=self._reuse and not (repeatable or reading),
                after=request.after,
                # One that is sent back computes again what it has said, in other pieces.
                expected=EXPECTED_TOKENS if request.ending.open and not (repeatable or reading) else None,
                even=apart,
            )
        )
        if reading:
            self._reading.add(request.request_id)
        if apart:
            self._apart.add(request.request_id)
        self._answers[request.request_id] = answer
        self._voices[request.request_id] = Voice.of(request.sampling, request.prompt, request.guide)

    def _repeatable(self, request: GenerationRequest) -> bool:
        """Whether it must be rounded alike every time: below float32 that may change a seeded answer.

        Computing fewer tokens rounds otherwise, and so may a replay than the step that it stands for.
        """
        return request.sampling.seed is not None and (self._strict or not self._exact)

    def remove(self, request_id: str) -> None:
        self.scheduler.remove(request_id)
        self._answers.pop(request_id, None)
        self._voices.pop(request_id, None)
        self._reading.discard(request_id)
        self._apart.discard(request_id)

    @torch.inference_mode()
    def step(self) -> list[tuple[str, Piece]]:
        began = time.perf_counter()
        otherwise = self._graphs.steps if self._graphs else 0
        decoding = self.scheduler.decoding()
        budget = self._pacer.budget(decoding)
        # Logits of whole prompts are large: a vocabulary for every token.
        if self._reading:
            step = self.scheduler.step(min(budget, READING_TOKENS))
        else:
            step = self.scheduler.step(budget, lambda prompts: self._pacer.burst(decoding, prompts))
        self._move(step)
        if not step.spans:
            return []
        together = tuple(span for span in step.spans if span.request_id not in self._apart)
        alone = [(span,) for span in step.spans if span.request_id in self._apart]
        news: list[tuple[str, Piece]] = []
        for spans in [together, *alone] if together else alone:
            news += self._pass(spans)
        prompt = sum(len(span.tokens) for span in step.spans if span.prompt)
        decoded = sum(not span.prompt for span in step.spans)
        # Steps with prompts are never replayed: what they take is measured against steps that are not, either.
        if self._graphs is None or self._graphs.steps == otherwise:
            self._pacer.learn(decoded, prompt, time.perf_counter() - began)
        return news

    def _pass(self, computed: tuple[Span, ...]) -> list[tuple[str, Piece]]:
        """Push ``computed`` through the model together, and tell what comes of it."""
        every = self._reading & {span.request_id for span in computed if span.prompt}
        logits = None
        requests = (self._answers[span.request_id].request for span in computed)
        if self._graphs and not every and not any(map(self._repeatable, requests)):
            logits = self._graphs.run(self._cache, computed)
        if logits is None:
            logits = self._cache.run(self._model, computed, every)
        news = self._read(computed, logits, every) if every and logits is not None else []
        if every and logits is not None:
            logits = logits[_lasts(computed, every)]
        over = {name for name, _ in news}
        spans = [span for span in computed if span.samples]
        if logits is not None and spans:
            kept = [at for at, span in enumerate(spans) if span.request_id not in over]
            if len(kept) < len(spans):
                spans, logits = [spans[at] for at in kept], logits[kept]
            news += self._speak(spans, logits) if spans else []
        return news

    def _move(self, step: Step) -> None:
        for move in step.moves:
            if isinstance(move, Copy):
                self._cache.copy(move.source, move.target, move.columns)
            else:
                self._cache.drop(move.row)

    def _read(self, spans: Sequence[Span], logits: torch.Tensor, every: set[str]) -> list[tuple[str, Piece]]:
        """Tell the logprobs of prompts that are asked for; end the requests that want nothing else."""
        news: list[tuple[str, Piece]] = []
        at = 0
        for span in spans:
            if span.request_id not in every:
                at += span.samples
                continue
            answer = self._answers[span.request_id]
            prompt = answer.request.prompt
            following = prompt[span.start + 1 : span.start + 1 + len(span.tokens)]
            rows = logits[at : at + len(following)].float()
            want = [answer.request.prompt_logprobs] * len(following)
            answer.read([found for found in logprobs(rows, following, want) if found is not None])
            at += len(span.tokens)
            piece = answer.end_of_prompt() if span.samples else None
            if piece is not None:
                self.remove(span.request_id)
                news.append((span.request_id, piece))
        return news

    def _speak(self, spans: list[Span], logits: torch.Tensor) -> list[tuple[str, Piece]]:
        """Draw a token for every span that wants one, and say what it makes certain."""
        voices = [self._voices[span.request_id] for span in spans]
        for span, voice in zip(spans, voices, strict=True):
            voice.banned = self._answers[span.request_id].banned
        tokens, found = sample(logits, voices)
        news: list[tuple[str, Piece]] = []
        for span, token, logprob in zip(spans, tokens, found, strict=True):
            self.scheduler.advance(span.request_id, token)
            piece = self._answers[span.request_id].push(token, logprob)
            if piece is None:
                continue
            news.append(
                (span.request_id, replace(piece, cached_tokens=self.scheduler.cached(span.request_id)))
            )
            if piece.last:
                self.remove(span.request_id)
        return news

    def recover(self) -> None:
        placement.check_alive(self._model)
        self._sent_back += self.scheduler.sent_back
        self._cache.release()
        self._fresh()

    def load(self) -> Load:
        return Load(
            self.scheduler.running,
            self.scheduler.waiting,
            self.scheduler.kv_used,
            self._sent_back + self.scheduler.sent_back,
        )
