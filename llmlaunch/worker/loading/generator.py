"""Loading a model that writes text."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import fused_layers, onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine import batching_support
from llmlaunch.worker.engine.batching import Batching
from llmlaunch.worker.engine.engine import Deliver, Engine
from llmlaunch.worker.engine.strategy import Strategy
from llmlaunch.worker.engine.structured_output import Guides
from llmlaunch.worker.errors import Lost
from llmlaunch.worker.kv import graphs
from llmlaunch.worker.kv.cache import ATTENTION
from llmlaunch.worker.loading import placement, quantised
from llmlaunch.worker.loading.loader import DEFAULT_CONTEXT, Loaded, Progress, default_sampling, end_tokens
from llmlaunch.worker.output import reasoning
from llmlaunch.worker.tokenization.tokenizer import Codec

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig,
    facts: ModelFacts,
    path: Path,
    device: str,
    progress: Progress,
    deliver: Deliver,
    lost: Lost,
) -> Loaded:
    """The model in ``path`` on ``device``, with its tokenizer, behind a running engine."""
    began = time.perf_counter()
    settings = AutoConfig.from_pretrained(path, trust_remote_code=config.trust_remote_code)
    codec = Codec(AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust_remote_code))
    model = _weights(config, settings, path, device, progress)
    context = _context(model, config)
    strategy, context, note, warning = _strategy(model, config, device, context)
    ends = end_tokens(model, codec)
    share = placement.sharing(config, device)
    if share:
        codec.making_room = share.making_room
    engine = Engine(
        strategy,
        decode=lambda tokens, skip: codec.decode(tokens, skip_special=skip),
        ends=ends,
        deliver=deliver,
        lost=lost,
        most=config.max_concurrency + config.max_queue,
        before_step=share.adjust if share else lambda: None,
    )
    engine.start()
    log.info(
        "loaded %s in %.1f s: %s on %s, %s",
        config.model, time.perf_counter() - began, _name(model.dtype), device, strategy.mode,
    )  # fmt: skip
    return Loaded(
        facts=facts,
        kind=ModelKind.GENERATE,
        codec=codec,
        context=context,
        dtype=_name(model.dtype),
        device=device,
        defaults=default_sampling(model, config.seed),
        guides=Guides(codec, ends),
        engine=engine,
        reasoning=config.reasoning == "auto" and reasoning.thinks(codec),
        reads_prompts=isinstance(strategy, Batching),
        mode=strategy.mode,
        note=note,
        warning=warning,
    )


def _weights(config: WorkerConfig, settings: Any, path: Path, device: str, progress: Progress) -> Any:
    automatic: Any = AutoModelForCausalLM
    if settings.is_encoder_decoder:
        from transformers import AutoModelForSeq2SeqLM

        automatic = AutoModelForSeq2SeqLM
    dtype: Any = "auto" if config.dtype == "auto" else getattr(torch, config.dtype)
    with counted(path, progress):
        model = automatic.from_pretrained(
            path,
            config=settings,
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            **placement.device_map(device, config),
            **quantised.packing(config, device),
        )
    return model.eval()


@contextlib.contextmanager
def counted(path: Path, progress: Progress) -> Iterator[None]:
    """Tell how many bytes of the weights are loaded, as transformers goes through their list."""
    total = sum(file.stat().st_size for file in path.glob("*.safetensors")) or sum(
        file.stat().st_size for file in path.glob("*.bin")
    )

    class Bar:
        def __init__(self, items: Any = (), *_: Any, **__: Any) -> None:
            self.items = items

        def __iter__(self) -> Iterator[Any]:
            items = list(self.items)
            for at, item in enumerate(items):
                progress(total * at // len(items), total, "loading weights")
                yield item

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

    progress(0, total, "loading weights")
    before = hf_logging.set_tqdm_hook(lambda _, arguments, keywords: Bar(*arguments, **keywords))
    try:
        yield
    finally:
        hf_logging.set_tqdm_hook(before)
    progress(total, total, "loading weights")


def _context(model: Any, config: WorkerConfig) -> int:
    text = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
    own = next((value for name in names if isinstance(value := getattr(text, name, None), int)), None)
    if config.max_model_len is None:
        return own or DEFAULT_CONTEXT
    if own and config.max_model_len > own:
        log.warning("--max-model-len %d is more than the model's %d", config.max_model_len, own)
        return own
    return config.max_model_len


def _strategy(model: Any, config: WorkerConfig, device: str, context: int) -> tuple[Strategy, int, str, str]:
    """How requests share the model, the context that leaves, how that is in words, and what should not surprise."""
    why = batching_support.why_not_slots(model)
    if not why:
        model.set_attn_implementation(ATTENTION)
        if model.config.model_type not in batching_support.VERIFIED:
            why = batching_support.trial(model)
    if why:
        from llmlaunch.worker.engine.sequential import OneAtATime

        model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
        warning = f"requests run one at a time, because {why}"
        return OneAtATime(model), context, warning, warning
    fused_layers.fuse(model)
    if onednn_weights.pays(model):
        onednn_weights.pack(model)
    room, words = placement.capacity(model, config, device, context)
    log.info("%s", words)
    batching = Batching(
        model,
        room,
        reuse=config.prefix_reuse,
        prompt_tokens=placement.prompt_tokens(device, context),
        strict_seeds=config.strict_seeds,
        recorder=graphs.recorder(model) if config.cuda_graphs else None,
    )
    if device != "cpu":
        batching.reserve()
    return batching, min(context, room.columns), words, ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
