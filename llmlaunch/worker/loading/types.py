"""What loading a model gives: one class for each kind of model, and the callback that reports progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.output.tool_calls.formats import ModelOutput
from llmlaunch.worker.tokenization.fill_in_middle import MiddleForm
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import Sampling

if TYPE_CHECKING:  # these import torch, which the API does without until a model is loaded
    from llmlaunch.worker.engine.embedder import Embedder
    from llmlaunch.worker.engine.engine import GenerationEngine
    from llmlaunch.worker.engine.reranker import Reranker
    from llmlaunch.worker.engine.structured_output import GrammarCompiler

ReportProgress = Callable[[int, int, str], None]
"""Called with the bytes done, the bytes in total (0: unknown), and what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What the kinds of models have in common."""

    kind: ClassVar[ModelKind]
    facts: ModelFacts
    tokenizer: Tokenizer
    context: int
    """Maximum length of prompt and answer together, in tokens."""
    dtype: str
    dtype_reason: str = ""
    """Why it is computed in another type than it is stored in, or is not although that would be faster."""
    device: str
    mode: str
    """How requests share the model, for people."""
    note: str = ""
    """Details of how it runs, for people."""
    warning: str = ""
    """Set if it runs other than expected; shown by ``status``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedGenerator(LoadedModel):
    """A model that generates text, behind a running engine."""

    kind: ClassVar[ModelKind] = ModelKind.GENERATE
    engine: GenerationEngine
    grammars: GrammarCompiler
    defaults: Sampling = field(default_factory=Sampling)
    """Defaults from the model's own generation_config."""
    reads_prompts: bool = False
    """Whether it can return the logprobs of prompt tokens."""
    reasoning: bool = False
    """Whether reasoning is separated from the answer."""
    output: ModelOutput = field(default_factory=ModelOutput)
    """How it writes tool calls."""
    middle: MiddleForm | None = None
    """How it is asked for the text between a prefix and a suffix; None: it was not trained for that."""
    hidden_markers: frozenset[str] = frozenset()
    """Markers of reasoning and calls that are special tokens: they must be decoded to be recognized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEmbedder(LoadedModel):
    """A model that turns texts into embeddings."""

    kind: ClassVar[ModelKind] = ModelKind.EMBED
    embedder: Embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedReranker(LoadedModel):
    """A model that scores how well documents answer a query."""

    kind: ClassVar[ModelKind] = ModelKind.RERANK
    reranker: Reranker


Loaded = LoadedGenerator | LoadedEmbedder | LoadedReranker
