"""Continuous batching: the scheduler's decisions carried out on the slot cache."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from llmlaunch.worker.answer import Answer
from llmlaunch.worker.sampler import Voice, sample
from llmlaunch.worker.scheduler import Capacity, Copy, Scheduler, Span, Step, Ticket
from llmlaunch.worker.slots import SlotCache
from llmlaunch.worker.values import Load, Piece

PATIENCE = 2.0
"""A step that also computes prompts may take this many times as long as one that only decodes."""
SMALLEST_CHUNK = 16


class Pacer:
    """How many prompt tokens a step may take on beside the decodes, learned from how long steps took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._decode_s = 0.0
        self._prompt_token_s = 0.0

    def budget(self, decoding: int) -> int:
        """Tokens. Nobody waits while nothing decodes: then it is always the same, so that rounding is, too."""
        if not decoding:
            return self._most
        if not (self._decode_s and self._prompt_token_s):
            return min(self._most, 4 * SMALLEST_CHUNK)
        tokens = int((PATIENCE - 1) * self._decode_s / self._prompt_token_s)
        return max(SMALLEST_CHUNK, min(self._most, tokens))

    def learn(self, decoded: int, prompt: int, seconds: float) -> None:
        if decoded and not prompt:
            self._decode_s = _blend(self._decode_s, seconds)
        elif prompt >= SMALLEST_CHUNK:
            beside = self._decode_s if decoded else 0.0
            self._prompt_token_s = _blend(self._prompt_token_s, max(seconds - beside, 1e-6) / prompt)


def _blend(old: float, new: float) -> float:
    return new if not old else 0.8 * old + 0.2 * new


class Batching:
    """All running requests share each pass through the model. See ``scheduler`` and ``slots``."""

    mode = "continuous batching"

    def __init__(
        self, model: Any, capacity: Capacity, *, reuse: bool = True, prompt_tokens: int = 2048
    ) -> None:
        """``prompt_tokens``: the most that one step computes of prompts, when nothing else waits for it."""
        self._model = model
        self._capacity = capacity
        self._reuse = reuse
        self._exact = model.dtype == torch.float32
        self._pacer = Pacer(prompt_tokens)
        self._answers: dict[str, Answer] = {}
        self._voices: dict[str, Voice] = {}
        self._fresh()

    def _fresh(self) -> None:
        layers = self._model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(layers, self._capacity.rows, self._capacity.columns)
        self.scheduler = Scheduler(self._capacity)

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def add(self, answer: Answer) -> None:
        request = answer.request
        # Computing fewer tokens rounds otherwise: below float32 that may change a seeded answer.
        reuse = self._reuse and (self._exact or request.sampling.seed is None)
        self.scheduler.add(
            Ticket(
                request.request_id,
                request.prompt,
                request.ending.max_tokens,
                priority=request.priority,
                reuse=reuse,
                after=request.after,
            )
        )
        self._answers[request.request_id] = answer
        self._voices[request.request_id] = Voice.of(request.sampling, request.prompt, request.guide)

    def remove(self, request_id: str) -> None:
        self.scheduler.remove(request_id)
        self._answers.pop(request_id, None)
        self._voices.pop(request_id, None)

    @torch.inference_mode()
    def step(self) -> list[tuple[str, Piece]]:
        began = time.perf_counter()
        step = self.scheduler.step(self._pacer.budget(self.scheduler.decoding()))
        self._move(step)
        if not step.spans:
            return []
        logits = self._cache.run(self._model, step.spans)
        spans = [span for span in step.spans if span.samples]
        news = self._speak(spans, logits) if logits is not None else []
        prompt = sum(len(span.tokens) for span in step.spans if span.prompt)
        decoded = sum(not span.prompt for span in step.spans)
        self._pacer.learn(decoded, prompt, time.perf_counter() - began)
        return news

    def _move(self, step: Step) -> None:
        for move in step.moves:
            if isinstance(move, Copy):
                self._cache.copy(move.source, move.target, move.columns)
            else:
                self._cache.drop(move.row)

    def _speak(self, spans: list[Span], logits: torch.Tensor) -> list[tuple[str, Piece]]:
        """Draw a token for every span that wants one, and say what it makes certain."""
        voices = [self._voices[span.request_id] for span in spans]
        for span, voice in zip(spans, voices, strict=True):
            voice.banned = self._answers[span.request_id].banned
        tokens, logprobs = sample(logits, voices)
        news: list[tuple[str, Piece]] = []
        for span, token, logprob in zip(spans, tokens, logprobs, strict=True):
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
        self._fresh()

    def load(self) -> Load:
        return Load(self.scheduler.running, self.scheduler.waiting, self.scheduler.kv_used)
