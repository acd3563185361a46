"""What the endpoints share: the worker's configuration, state and metrics, and the model once it is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from llmlaunch.models.facts import ModelKind
from llmlaunch.worker.background import BackgroundThreads
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import BadRequest, Unavailable, UnknownModel
from llmlaunch.worker.loading.types import Loaded, LoadedGenerator, LoadedModel
from llmlaunch.worker.metrics import WorkerMetrics
from llmlaunch.worker.state import Status, WorkerState
from llmlaunch.worker.types import EngineLoad

if TYPE_CHECKING:
    from llmlaunch.worker.engine.engine import GenerationEngine

Model = TypeVar("Model", bound=LoadedModel)

CAPABILITY = {
    ModelKind.GENERATE: "generate text",
    ModelKind.EMBED: "make embeddings",
    ModelKind.RERANK: "compare texts",
}
ENDPOINT = {
    ModelKind.GENERATE: "/v1/chat/completions",
    ModelKind.EMBED: "/v1/embeddings",
    ModelKind.RERANK: "/v1/rerank",
}


class Service:
    """One worker as its endpoints see it. Used in the event loop alone."""

    def __init__(self, config: WorkerConfig, state: WorkerState) -> None:
        self.config = config
        self.state = state
        self.metrics = WorkerMetrics()
        self.created = int(time.time())
        self._loaded: Loaded | None = None
        self.idle = asyncio.Event()
        """Set while no request is in progress."""
        self.idle.set()
        self._requests = 0
        self.preparing = BackgroundThreads(2, "preparing")
        self.counting = BackgroundThreads(1, "counting")
        """Tokenizes texts of any length for the tokenize endpoints, apart from requests that generate."""

    def serve(self, loaded: Loaded) -> None:
        """Serve ``loaded`` from now on."""
        self._loaded = loaded
        self.state.status = Status.OK

    @property
    def model(self) -> Loaded | None:
        """The model; None while it is loading."""
        return self._loaded

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Wraps everything that computes and sends a response: shutdown waits for it."""
        self._requests += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self.idle.set()

    # -- for requests --------------------------------------------------------------------------------------------

    def loaded(self) -> Loaded:
        """Return the loaded model. Raises Unavailable while loading or draining."""
        if self.state.status is Status.DRAINING:
            raise Unavailable("the worker is shutting down")
        if self._loaded is None:
            raise Unavailable(f"the model is not loaded yet: {self.state.progress_text()}", code="loading")
        return self._loaded

    def check_name(self, name: str) -> None:
        """Raises UnknownModel for a name that this worker does not serve."""
        if name not in self.config.names:
            raise UnknownModel(
                f"model {name!r} does not exist; this worker serves {', '.join(self.config.names)}",
                param="model",
            )

    def loaded_as(self, kind: type[Model], name: str) -> Model:
        """Return the model, if it is called ``name`` and is of ``kind``. Raises ApiError."""
        self.check_name(name)
        loaded = self.loaded()
        if not isinstance(loaded, kind):
            raise BadRequest(
                f"{name} cannot {CAPABILITY[kind.kind]}; use it with {ENDPOINT[loaded.kind]}", param="model"
            )
        return loaded

    @property
    def engine(self) -> GenerationEngine:
        """The engine of a model that generates text. Raises ApiError."""
        return self.loaded_as(LoadedGenerator, self.config.names[0]).engine

    def close(self) -> None:
        """Abandon everything that is still being prepared."""
        self.preparing.close()
        self.counting.close()

    # -- status --------------------------------------------------------------------------------------------------

    def load(self) -> EngineLoad:
        """Return how busy the engine is."""
        if isinstance(self._loaded, LoadedGenerator):
            return self._loaded.engine.load()
        return EngineLoad(running=self._requests)

    @property
    def queue_length(self) -> int:
        """Number of requests that have not ended."""
        return self._loaded.engine.pending if isinstance(self._loaded, LoadedGenerator) else self._requests

    def worker_status(self) -> dict[str, Any]:
        """Return the response to FastChat's /worker_get_status, which is also what the controller gets."""
        return {"model_names": list(self.config.names), "speed": 1, "queue_length": self.queue_length}

    def model_card(self, name: str) -> dict[str, Any]:
        """Return OpenAI's model object for ``name``, with vLLM's fields."""
        card = {"id": name, "object": "model", "created": self.created, "owned_by": "llmlaunch"}
        extra: dict[str, Any] = {"root": self.config.names[0], "parent": None, "permission": []}
        if self._loaded is not None:
            extra["max_model_len"] = self._loaded.context
        return card | extra

    def report(self) -> dict[str, Any]:
        """Return the response to /health and /ready."""
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
                "remark": f"computes in {loaded.dtype}: {loaded.dtype_reason}" if loaded.dtype_reason else "",
            }
        return report
