"""One request at a time, through transformers' own ``generate``: for models that do not support batching.

``generate`` handles every architecture's cache, encoder and start tokens. It runs in its own thread and asks, through a
logits processor, for each next token. So tokens are sampled by the same code as in a batch, and a request can end at
any token::

    step() ◄── logits ── [ thread: model.generate(…) ]
           ── token ──►
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmlaunch.worker.compute import device as devices
from llmlaunch.worker.engine.sampler import SamplingState, sample
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import EngineLoad, GenerationOutput

NO_TOKEN = -1
"""Never sampled: passed to ``generate`` as its end token, because endings are decided here."""


class _StopGenerating(Exception):  # not an error: it unwinds ``generate``
    pass


@dataclass(slots=True)
class _Channel:
    """The queues between ``step`` and a running ``generate``."""

    logits: queue.SimpleQueue[Tensor | BaseException | None]
    tokens: queue.SimpleQueue[int | None]


class SequentialGeneration:
    """A strategy (see ``strategy``): first come, first served."""

    mode = "one request at a time"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._waiting: deque[AnswerBuilder] = deque()
        self._current: AnswerBuilder | None = None
        self._state: SamplingState | None = None
        self._channel: _Channel | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is running or waiting."""
        return self._current is not None or bool(self._waiting)

    def add(self, answer: AnswerBuilder) -> None:
        """Queue a request."""
        self._waiting.append(answer)

    def remove(self, request_id: str) -> None:
        """Drop a request; if it is running, wait until ``generate`` has returned."""
        if self._current is not None and self._current.request.request_id == request_id:
            self._end()
        else:
            kept = [answer for answer in self._waiting if answer.request.request_id != request_id]
            self._waiting = deque(kept)

    def step(self) -> list[tuple[str, GenerationOutput]]:
        """Compute one token of the current request."""
        if self._current is None:
            self._begin(self._waiting.popleft())
        answer, state, channel = self._current, self._state, self._channel
        if answer is None or state is None or channel is None:
            return []
        logits = channel.logits.get()
        if isinstance(logits, BaseException):
            self._channel = None
            raise logits
        if logits is None:
            self._channel = None
            raise RuntimeError("generate ended before the answer did")
        state.banned = answer.banned
        (token,), (logprob,) = sample(logits, [state])
        output = answer.push(token, logprob)
        if output is not None and output.last:
            self._end()
        else:
            channel.tokens.put(token)
        return [(answer.request.request_id, output)] if output is not None else []

    def recover(self) -> None:
        """End the current request after a failed step. Raises DeviceLostError if the device has failed."""
        self._end()
        devices.check_alive(self._model)

    def load(self) -> EngineLoad:
        """How busy it is: at most one request runs."""
        return EngineLoad(running=int(self._current is not None), waiting=len(self._waiting))

    # -- the generate thread -------------------------------------------------------------------------------------

    def _begin(self, answer: AnswerBuilder) -> None:
        channel = _Channel(queue.SimpleQueue(), queue.SimpleQueue())
        self._current, self._channel = answer, channel
        self._state = SamplingState.of(
            answer.request.sampling, answer.request.prompt, answer.request.constraint
        )
        arguments = (channel, answer.request.prompt, answer.request.stopping.max_tokens)
        threading.Thread(target=self._generate, args=arguments, name="generate", daemon=True).start()

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.tokens.put(None)
            # Two forward passes must not run at once: wait until ``generate`` has returned.
            while not (isinstance(last := self._channel.logits.get(), BaseException) or last is None):
                pass
        self._current = self._state = self._channel = None

    def _generate(self, channel: _Channel, prompt: tuple[int, ...], most: int) -> None:
        from transformers import GenerationConfig, LogitsProcessorList

        def ask(_: Tensor, scores: Tensor) -> Tensor:
            channel.logits.put(scores.detach().clone())
            token = channel.tokens.get()
            if token is None:
                raise _StopGenerating
            forced = torch.full_like(scores, float("-inf"))
            forced[:, token] = 0
            return forced

        device = self._model.get_input_embeddings().weight.device
        own = self._model.generation_config
        settings = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            eos_token_id=[NO_TOKEN],
            pad_token_id=0,
            decoder_start_token_id=own.decoder_start_token_id,
            forced_bos_token_id=own.forced_bos_token_id,
        )
        ids = torch.tensor([prompt], device=device)
        try:
            with torch.inference_mode():
                self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([ask]),
                )
        except _StopGenerating:
            channel.logits.put(None)
        except BaseException as error:
            channel.logits.put(error)
        else:
            channel.logits.put(None)
