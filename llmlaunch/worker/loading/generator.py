"""Loading a model that generates text."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.compute import fused_layers, onednn_weights, thread_count
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine import batching_support
from llmlaunch.worker.engine.batching import ContinuousBatching
from llmlaunch.worker.engine.engine import Deliver, GenerationEngine
from llmlaunch.worker.engine.strategy import Strategy
from llmlaunch.worker.engine.structured_output import GrammarCompiler
from llmlaunch.worker.errors import OnDeviceLost
from llmlaunch.worker.kv import cuda_recorder, memory
from llmlaunch.worker.kv.cache import ATTENTION
from llmlaunch.worker.loading import dtype, placement, quantised
from llmlaunch.worker.loading.generation_config import default_sampling, end_tokens
from llmlaunch.worker.loading.types import LoadedGenerator, ReportProgress
from llmlaunch.worker.loading.weights import DEFAULT_CONTEXT, weights_progress
from llmlaunch.worker.output import reasoning
from llmlaunch.worker.output.tool_calls.formats import of_template
from llmlaunch.worker.tokenization import fill_in_middle
from llmlaunch.worker.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig,
    facts: ModelFacts,
    path: Path,
    device: str,
    progress: ReportProgress,
    deliver: Deliver,
    lost: OnDeviceLost,
) -> LoadedGenerator:
    """Load the model in ``path`` onto ``device``, with its tokenizer, and start its engine."""
    began = time.perf_counter()
    settings = AutoConfig.from_pretrained(path, trust_remote_code=config.trust_remote_code)
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust_remote_code))
    computing = dtype.choose(config, facts, settings, device)
    model = _weights(config, settings, path, device, computing.name, progress)
    context = _context(model, config)
    # In float32, oneDNN's products differ in the last bits, and its kernels for many lengths take memory.
    packs = computing.name != config.dtype or model.dtype != torch.float32
    strategy, context, note, warning = _strategy(model, config, device, context, packs)
    ends = end_tokens(model, tokenizer)
    adjuster = thread_count.thread_adjuster(config, device)
    if adjuster:
        tokenizer.free_core = adjuster.free_core
    engine = GenerationEngine(
        strategy,
        decode=lambda tokens, skip: tokenizer.decode(tokens, skip_special=skip),
        ends=ends,
        deliver=deliver,
        lost=lost,
        max_requests=config.max_concurrency + config.max_queue,
        before_step=adjuster.adjust if adjuster else lambda: None,
    )
    engine.start()
    log.info(
        "loaded %s in %.1f s: %s on %s, %s",
        config.model, time.perf_counter() - began, dtype.name_of(model.dtype), device, strategy.mode,
    )  # fmt: skip
    output = of_template(tokenizer.template, config.tool_parser)
    return LoadedGenerator(
        facts=facts,
        tokenizer=tokenizer,
        context=context,
        dtype=dtype.name_of(model.dtype),
        dtype_reason=computing.why,
        device=device,
        defaults=default_sampling(model, config.seed),
        grammars=GrammarCompiler(tokenizer, ends),
        engine=engine,
        output=output,
        middle=fill_in_middle.form_of(tokenizer.token_of),
        hidden_markers=frozenset(
            filter(tokenizer.is_special, (*output.markers(tools=True), *reasoning.MARKERS))
        ),
        reasoning=config.reasoning == "auto" and tokenizer.has_marker(reasoning.CLOSE),
        reads_prompts=isinstance(strategy, ContinuousBatching),
        mode=strategy.mode,
        note=note,
        warning=warning,
    )


def _weights(
    config: WorkerConfig, settings: Any, path: Path, device: str, computing: str, progress: ReportProgress
) -> Any:
    automatic: Any = AutoModelForCausalLM
    if settings.is_encoder_decoder:
        from transformers import AutoModelForSeq2SeqLM

        automatic = AutoModelForSeq2SeqLM
    with weights_progress(path, progress):
        model = automatic.from_pretrained(
            path,
            config=settings,
            dtype=dtype.for_transformers(computing),
            trust_remote_code=config.trust_remote_code,
            **placement.device_map(device, config),
            **quantised.load_in_arguments(config, device),
        )
    return model.eval()


def _context(model: Any, config: WorkerConfig) -> int:
    text = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
    own = next((value for name in names if isinstance(value := getattr(text, name, None), int)), None)
    if config.max_model_len is None:
        return own or DEFAULT_CONTEXT
    if own and config.max_model_len > own:
        log.warning("--max-model-len %d exceeds the model's maximum of %d", config.max_model_len, own)
        return own
    return config.max_model_len


def _strategy(
    model: Any, config: WorkerConfig, device: str, context: int, packs: bool
) -> tuple[Strategy, int, str, str]:
    """The strategy for ``model``, the context length it leaves, a description of it, and a warning (often empty).

    ``packs``: whether its weights may be packed.
    """
    why = batching_support.why_unsupported(model)
    if not why:
        model.set_attn_implementation(ATTENTION)
        if model.config.model_type not in batching_support.VERIFIED:
            why = batching_support.trial(model)
    if why:
        from llmlaunch.worker.engine.sequential import SequentialGeneration

        model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
        warning = f"requests run one at a time, because {why}"
        return SequentialGeneration(model), context, warning, warning
    fused_layers.fuse(model)
    if packs and onednn_weights.is_faster(model):
        onednn_weights.pack(model, model.dtype)
    room, words = memory.capacity(model, config, device, context)
    log.info("%s", words)
    batching = ContinuousBatching(
        model,
        room,
        reuse=config.prefix_reuse,
        prompt_tokens=memory.prompt_tokens(device, context),
        strict_seeds=config.strict_seeds,
        recorder=cuda_recorder.recorder(model) if config.cuda_graphs else None,
    )
    if device != "cpu":
        batching.reserve()
    return batching, min(context, room.columns), words, ""
