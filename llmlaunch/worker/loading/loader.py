"""From a name on the command line to something that answers: find, convert, load, choose a strategy."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import lean_imports
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.types import Sampling
from llmlaunch.worker.errors import CanNotServe, Lost
from llmlaunch.worker.loading.locate import locate
from llmlaunch.worker.tokenization.tokenizer import Codec

if TYPE_CHECKING:
    from llmlaunch.worker.engine.engine import Deliver, Engine
    from llmlaunch.worker.engine.structured_output import Guides

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
DEFAULT_CONTEXT = 2048
"""Tokens, for models whose configuration does not tell."""


@dataclass(slots=True)
class Loaded:
    """A model that answers."""

    facts: ModelFacts
    kind: ModelKind
    codec: Codec
    context: int
    """The longest prompt and answer together, in tokens."""
    dtype: str
    device: str
    defaults: Sampling = field(default_factory=Sampling)
    """What a request that says nothing gets: the model's own generation_config."""
    guides: Guides | None = None
    engine: Engine | None = None
    embedder: Any = None
    reranker: Any = None
    reads_prompts: bool = False
    """Whether it can tell the logprobs of prompts."""
    reasoning: bool = False
    """Whether thoughts are told apart from answers."""
    mode: str = ""
    note: str = ""
    """How it runs, for people."""
    warning: str = ""
    """Where that is not as one might expect; ``status`` tells it."""


def settle() -> None:
    """Set what libraries read from the environment when they are imported: no bars, no advice, no spinning."""
    # Threads of OpenMP wait for each other hundreds of times in a step. Waking them takes as long as a small product, so
    # they spin first; but not for longer than that (GNU's count is about 10 ns each): beside other processes they would
    # spin away the time in which those would have finished. ``share`` then goes down to threads that do not wait.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Long texts are tokenized by threads that nobody waits for (``codec``); two are enough, and two texts get on.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("RAYON_NUM_THREADS", "2")


def prepare(config: WorkerConfig, progress: Progress) -> Path:
    """Download and convert so that a later start finds everything; return the folder that will be loaded."""
    settle()
    facts, path = locate(config, progress)
    if facts.format != "gguf":
        return path
    from llmlaunch.worker.loading import convert

    return convert.safetensors(path, progress)


def load(config: WorkerConfig, progress: Progress, deliver: Deliver, lost: Lost) -> Loaded:
    """Everything from the files to a running engine. Takes seconds to minutes; runs in a thread of its own.

    ``lost`` is told, from any thread, when what was loaded can compute no more.

    Raises CanNotServe for what a retry can not mend, other LlmlaunchErrors for what it may.
    """
    settle()
    progress(0, 0, "looking at the model")
    facts, path = locate(config, progress)
    if facts.format == "gguf":
        from llmlaunch.worker.loading import convert

        path = convert.safetensors(path, progress)
    progress(0, 0, "starting torch")
    from llmlaunch.worker.loading import generator, placement, quantised

    lean_imports.done()
    device = placement.choose(config)
    placement.settle(device)
    placement.set_threads(config.threads)
    warning = quantised.check(facts, device)
    if config.load_in:
        quantised.check_load_in(config.load_in, facts, device)
    placement.check_limit(facts.weight_bytes, config)
    with reasons(config.model):
        if facts.kind is ModelKind.GENERATE:
            loaded = generator.load(config, facts, path, device, progress, deliver, lost)
        elif facts.kind is ModelKind.RERANK:
            from llmlaunch.worker.loading import reranker

            loaded = reranker.load(config, facts, path, device, progress, lost)
        else:
            from llmlaunch.worker.loading import embedder

            loaded = embedder.load(config, facts, path, device, progress, lost)
    loaded.warning = "; ".join(filter(None, (loaded.warning, warning)))
    if loaded.warning:
        log.warning("%s", loaded.warning)
    return loaded


@contextlib.contextmanager
def reasons(model: str) -> Iterator[None]:
    """Turn what transformers raises for models that it can not load into CanNotServe."""
    try:
        yield
    except (ImportError, ValueError, KeyError, OSError, NotImplementedError) as error:
        text = str(error).strip() or repr(error)
        first = " ".join(line.strip() for line in text.splitlines() if line.strip())[:600]
        hint = ""
        if "trust_remote_code" in text:
            hint = (
                "if you trust its authors, pass --trust-remote-code (trust_remote_code: true in the manifest)"
            )
        elif isinstance(error, ImportError):
            hint = "install the package that is named, in the environment llmlaunch runs in"
        raise CanNotServe(f"{model} can not be loaded: {first}", hint=hint) from error


def default_sampling(model: Any, seed: int | None) -> Sampling:
    """The authors' advice in generation_config.json. Temperature 0 where they do not speak of sampling."""
    given = getattr(model, "generation_config", None)

    def value(name: str, default: float) -> float:
        found = getattr(given, name, None)
        return default if found is None else found

    return Sampling(
        temperature=value("temperature", 1.0 if getattr(given, "do_sample", False) else 0.0),
        top_p=value("top_p", 1.0),
        top_k=int(value("top_k", 0)),
        min_p=value("min_p", 0.0),
        repetition_penalty=value("repetition_penalty", 1.0),
        seed=seed,
    )


def end_tokens(model: Any, codec: Codec) -> frozenset[int]:
    """The tokens that end an answer: the generation config's, the config's, and the tokenizer's."""
    found: set[int] = set()
    sources: Sequence[Any] = (getattr(model, "generation_config", None), model.config)
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            found.update([value] if isinstance(value, int) else value)
    if codec.end_token is not None:
        found.add(codec.end_token)
    return frozenset(int(token) for token in found)
