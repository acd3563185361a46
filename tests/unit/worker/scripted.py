"""The worker's whole HTTP side with a model that says what it is told to: for protocols, without weights."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import httpx
import openai
from starlette.types import ASGIApp

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.api.generation.inflight import hand_over
from llmlaunch.worker.api.routes import application
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.engine import GenerationEngine
from llmlaunch.worker.engine.structured_output import GrammarCompiler
from llmlaunch.worker.errors import EngineFault
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.state import WorkerState
from llmlaunch.worker.tokenization.fill_in_middle import form_of
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import EngineLoad, GenerationOutput, GenerationRequest, TokenLogprob
from tests.unit.worker import tiny

FAULT = "\x00"
"""In a script: there the engine fails."""


class Script:
    """A strategy: the n-th request is answered with the n-th text, letter by letter; the last text serves all others."""

    mode = "script"

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], marks: Sequence[str] = ()) -> None:
        self._codec = tokenizer
        self._letters = re.compile("|".join((*map(re.escape, marks), ".")), re.DOTALL)
        self._texts = list(texts)
        self._running: dict[str, tuple[AnswerBuilder, list[int]]] = {}
        self.prompts: list[str] = []
        self.asked: list[GenerationRequest] = []
        self.steps: threading.Semaphore | None = None
        """Released once for each step that the engine may take; None: it may take all."""

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def add(self, answer: AnswerBuilder) -> None:
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        tokens = [
            -1 if letter == FAULT else self._codec.encode(letter, special=False)
            for letter in self._letters.findall(text)
        ]
        flat = [t for item in tokens for t in (item if isinstance(item, list) else [item])]
        self.asked.append(answer.request)
        self.prompts.append(self._codec.decode(answer.request.prompt))
        self._running[answer.request.request_id] = (answer, [*flat, tiny.END])

    def remove(self, request_id: str) -> None:
        self._running.pop(request_id, None)

    def step(self) -> list[tuple[str, GenerationOutput]]:
        news: list[tuple[str, GenerationOutput]] = []
        if self.steps is not None and not self.steps.acquire(timeout=0.01):
            return news
        for name, (answer, tokens) in list(self._running.items()):
            token = tokens.pop(0)
            if token < 0:
                self.remove(name)
                news.append((name, GenerationOutput(error=EngineFault("the engine failed"))))
                continue
            wants = answer.request.sampling.logprobs is not None
            output = answer.push(token, TokenLogprob(token, -0.5) if wants else None)
            if output is not None:
                news.append((name, output))
                if output.last:
                    self.remove(name)
        return news

    def recover(self) -> None:
        self._running.clear()

    def load(self) -> EngineLoad:
        return EngineLoad(running=len(self._running))


class Served:
    """A worker in this process."""

    def __init__(self, script: Script, app: ASGIApp, http: httpx.AsyncClient) -> None:
        self.script = script
        self.app = app
        self.http = http
        self.openai = openai.AsyncOpenAI(
            base_url="http://worker/v1",
            api_key="none",
            max_retries=0,
            http_client=cast(
                "Any", http
            ),  # httpx's clients are welcome, too; the SDK's types name only httpx2's
        )


@contextlib.asynccontextmanager
async def served(
    *texts: str,
    reasoning: bool = False,
    context: int = 4000,
    opening: str = "",
    template: str = "",
    marks: Sequence[str] = (),
) -> AsyncIterator[Served]:
    """A worker that serves the model "m", which answers with ``texts``.

    ``template``: its chat template; ``opening``: what that ends with; ``marks``: special tokens, which it may also write.
    """
    tokenizer = tiny.tokenizer(marks)
    tokenizer.chat_template = (template or tokenizer.chat_template) + opening
    tokenizer = Tokenizer(tokenizer)
    script = Script(tokenizer, texts, marks)
    loop = asyncio.get_running_loop()

    def deliver(bundle: Any) -> None:
        loop.call_soon_threadsafe(hand_over, bundle)

    engine = GenerationEngine(
        script,
        decode=lambda tokens, skip: tokenizer.decode(tokens, skip_special=skip),
        ends=frozenset({tiny.END}),
        deliver=deliver,
        lost=tiny.never_lost,
    )
    engine.start()
    service = Service(WorkerConfig(model="m", names=("m",)), WorkerState(needs_controller=False))
    service.serve(
        LoadedGenerator(
            facts=ModelFacts(source="m", path="m", local=True, format="safetensors"),
            tokenizer=tokenizer,
            context=context,
            dtype="float32",
            device="cpu",
            mode="scripted",
            engine=engine,
            grammars=GrammarCompiler(tokenizer, frozenset({tiny.END})),
            reasoning=reasoning,
            middle=form_of(tokenizer.token_of),
        )
    )
    app = application(service)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
            yield Served(script, app, http)
    finally:
        await asyncio.to_thread(engine.stop)
