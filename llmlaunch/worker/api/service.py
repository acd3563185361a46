"""What the endpoints share: the worker's configuration, its state, and the model once it is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmlaunch.models.facts import ModelKind
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.types import Load
from llmlaunch.worker.errors import BadRequest, Unavailable, UnknownModel
from llmlaunch.worker.metrics import Metrics
from llmlaunch.worker.state import State, Status
from llmlaunch.worker.tokenization.threads import Apart

if TYPE_CHECKING:
    from llmlaunch.worker.engine.engine import Engine
    from llmlaunch.worker.loading.loader import Loaded

DOES = {
    ModelKind.GENERATE: "write text",
    ModelKind.EMBED: "make embeddings",
    ModelKind.RERANK: "compare texts",
}
ADDRESS = {
    ModelKind.GENERATE: "/v1/chat/completions",
    ModelKind.EMBED: "/v1/embeddings",
    ModelKind.RERANK: "/v1/rerank",
}


class Front:
    """Lives in the event loop."""

    def __init__(self, config: WorkerConfig, state: State) -> None:
        self.config = config
        self.state = state
        self.metrics = Metrics()
        self.created = int(time.time())
        self._loaded: Loaded | None = None
        self.idle = asyncio.Event()
        """Set while no call is being answered."""
        self.idle.set()
        self._calls = 0
        self.preparing = Apart(2, "preparing")
        self.counting = Apart(1, "counting")
        """Texts of any length, for whoever only wants to know their tokens: nobody else waits for them."""

    def serve(self, loaded: Loaded) -> None:
        """From now on answer with ``loaded``."""
        self._loaded = loaded
        self.state.status = Status.OK

    @property
    def model(self) -> Loaded | None:
        return self._loaded

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around everything that computes an answer, and sends it: the end waits for it."""
        self._calls += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self.idle.set()

    # -- what requests need --------------------------------------------------------------------------------------

    def loaded(self) -> Loaded:
        """Raises Unavailable while loading or draining."""
        if self.state.status is Status.DRAINING:
            raise Unavailable("the worker is shutting down")
        if self._loaded is None:
            raise Unavailable(f"the model is not loaded yet: {self.state.sentence()}", code="loading")
        return self._loaded

    def check_name(self, name: str) -> None:
        """Raises UnknownModel for a name that is not this worker's: nothing is answered under another's name."""
        if name not in self.config.names:
            raise UnknownModel(
                f"the model {name!r} does not exist here; this worker serves {', '.join(self.config.names)}",
                param="model",
            )

    def serving(self, kind: ModelKind, name: str) -> Loaded:
        """The model, if it is called ``name`` and is of ``kind``."""
        self.check_name(name)
        loaded = self.loaded()
        if loaded.kind is not kind:
            raise BadRequest(f"{name} does not {DOES[kind]}; it is for {ADDRESS[loaded.kind]}", param="model")
        return loaded

    @property
    def engine(self) -> Engine:
        engine = self.loaded().engine
        if engine is None:
            raise BadRequest(f"{self.config.names[0]} does not write text", param="model")
        return engine

    def close(self) -> None:
        """Give up what is still being prepared."""
        self.preparing.close()
        self.counting.close()

    # -- what others ask -----------------------------------------------------------------------------------------

    def load(self) -> Load:
        if self._loaded is None or self._loaded.engine is None:
            return Load(running=self._calls)
        return self._loaded.engine.load()

    @property
    def queue_length(self) -> int:
        """Requests that are not over."""
        engine = self._loaded.engine if self._loaded is not None else None
        return engine.pending if engine is not None else self._calls

    def worker_status(self) -> dict[str, Any]:
        return {"model_names": list(self.config.names), "speed": 1, "queue_length": self.queue_length}

    def card(self, name: str) -> dict[str, Any]:
        card = {"id": name, "object": "model", "created": self.created, "owned_by": "llmlaunch"}
        extra: dict[str, Any] = {"root": self.config.names[0], "parent": None, "permission": []}
        if self._loaded is not None:
            extra["max_model_len"] = self._loaded.context
        return card | extra

    def report(self) -> dict[str, Any]:
        """/health and /ready."""
        report = self.state.report() | {
            "model_names": list(self.config.names),
            "registered": self.state.registered if self.config.controller_address else None,
            "queue_length": self.queue_length,
        }
        if self._loaded is not None:
            loaded = self._loaded
            report |= {
                "kind": str(loaded.kind),
                "mode": loaded.mode,
                "device": loaded.device,
                "dtype": loaded.dtype,
                "max_model_len": loaded.context,
                "detail": loaded.note,
                "warning": loaded.warning,
            }
        return report
