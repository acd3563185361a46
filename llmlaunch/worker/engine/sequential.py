"""One request at a time, by transformers' own ``generate``: for models that can not share a cache.

``generate`` knows every architecture's cache, encoder and start tokens. It runs in a thread of its own and asks, through
a logits processor, which token comes next; so tokens are drawn here by the same rules as in a batch, and a request can
end at any token::

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

from llmlaunch.worker.engine.sampler import Voice, sample
from llmlaunch.worker.engine.types import Load, Piece
from llmlaunch.worker.loading import placement
from llmlaunch.worker.output.answer import Answer

NO_TOKEN = -1
"""Never sampled: given to ``generate`` as its end token, because endings are decided here."""


class _Enough(Exception):  # not an error: it unwinds generate
    pass


@dataclass(slots=True)
class _Talk:
    """The two ends of a conversation with a running ``generate``."""

    logits: queue.SimpleQueue[Tensor | BaseException | None]
    tokens: queue.SimpleQueue[int | None]


class OneAtATime:
    """A strategy (see ``strategy``): first come, first served."""

    mode = "one request at a time"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._waiting: deque[Answer] = deque()
        self._current: Answer | None = None
        self._voice: Voice | None = None
        self._talk: _Talk | None = None

    @property
    def busy(self) -> bool:
        return self._current is not None or bool(self._waiting)

    def add(self, answer: Answer) -> None:
        self._waiting.append(answer)

    def remove(self, request_id: str) -> None:
        if self._current is not None and self._current.request.request_id == request_id:
            self._end()
        else:
            kept = [answer for answer in self._waiting if answer.request.request_id != request_id]
            self._waiting = deque(kept)

    def step(self) -> list[tuple[str, Piece]]:
        """One token of the request whose turn it is."""
        if self._current is None:
            self._begin(self._waiting.popleft())
        answer, voice, talk = self._current, self._voice, self._talk
        if answer is None or voice is None or talk is None:
            return []
        logits = talk.logits.get()
        if isinstance(logits, BaseException):
            self._talk = None
            raise logits
        if logits is None:
            self._talk = None
            raise RuntimeError("generate ended before the answer did")
        voice.banned = answer.banned
        (token,), (logprob,) = sample(logits, [voice])
        piece = answer.push(token, logprob)
        if piece is not None and piece.last:
            self._end()
        else:
            talk.tokens.put(token)
        return [(answer.request.request_id, piece)] if piece is not None else []

    def recover(self) -> None:
        self._end()
        placement.check_alive(self._model)

    def load(self) -> Load:
        return Load(running=int(self._current is not None), waiting=len(self._waiting))

    # -- the other thread ----------------------------------------------------------------------------------------

    def _begin(self, answer: Answer) -> None:
        talk = _Talk(queue.SimpleQueue(), queue.SimpleQueue())
        self._current, self._talk = answer, talk
        self._voice = Voice.of(answer.request.sampling, answer.request.prompt, answer.request.guide)
        arguments = (talk, answer.request.prompt, answer.request.ending.max_tokens)
        threading.Thread(target=self._generate, args=arguments, name="generate", daemon=True).start()

    def _end(self) -> None:
        if self._talk is not None:
            self._talk.tokens.put(None)
            # Two passes must not run at once: wait until generate has left.
            while not (isinstance(last := self._talk.logits.get(), BaseException) or last is None):
                pass
        self._current = self._voice = self._talk = None

    def _generate(self, talk: _Talk, prompt: tuple[int, ...], most: int) -> None:
        from transformers import GenerationConfig, LogitsProcessorList

        def ask(_: Tensor, scores: Tensor) -> Tensor:
            talk.logits.put(scores.detach().clone())
            token = talk.tokens.get()
            if token is None:
                raise _Enough
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
        except _Enough:
            talk.logits.put(None)
        except BaseException as error:
            talk.logits.put(error)
        else:
            talk.logits.put(None)
