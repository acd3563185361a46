"""The KV cache, one row per request, and attention over it.

All tokens of a step, whatever requests they belong to, go through the model as one flat sequence ``[1, tokens]``: linear
layers treat each token alike, so decodes and prompt chunks share each read of the weights. Only attention must tell them
apart. It is registered with transformers as :data:`ATTENTION`: the layer's cache writes the step's keys and values into
their rows and passes the whole store to it, and the step's :class:`Layout` says which columns each token reads.

Adjacent rows that decode are computed together. Nothing is ever moved: rows start at column 0 and grow in place.
Steps that only decode may be computed in fixed shapes instead (``graphs``).
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from llmlaunch.worker.kv.layout import Chunk, Layout, SpanLayout
from llmlaunch.worker.kv.types import Span

ATTENTION = "llmlaunch_kv_cache"

_computing = threading.local()
"""The layout of the step that this thread computes: the model calls attention without it."""


class UnsupportedAttention(RuntimeError):
    """The model's attention needs something that a plain KV cache does not support."""


class KVCacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: ``[rows, kv_heads, columns, head_dim]`` each."""

    is_sliding = False

    def __init__(self, cache: KVCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the store, now that the shape of keys and values ``[1, kv_heads, tokens, dim]`` is known."""
        self.keys = self.cache.allocate(key_states)
        self.values = self.cache.allocate(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the step's keys and values ``[1, kv_heads, tokens, dim]`` into their rows; return the whole store."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        layout = current_layout()
        span = layout.single
        if span is not None:
            end = span.start + len(span.tokens)
            self.keys[span.row, :, span.start : end] = key_states[0]
            self.values[span.row, :, span.start : end] = value_states[0]
        else:
            rows, columns = layout.write_positions(key_states.device)
            self.keys[rows, :, columns] = key_states[0].transpose(0, 1)
            self.values[rows, :, columns] = value_states[0].transpose(0, 1)
        return self.keys, self.values

    def get_seq_length(self, *_: Any) -> int:
        """0: the step's positions are given explicitly, so transformers must not add an offset."""
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        """Length and offset of the mask that transformers would build; the layout's own masks are used instead."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Maximum number of tokens in a row."""
        return self.cache.columns

    get_max_cache_shape = get_max_length


class KVCache(Cache):  # type: ignore[misc]
    """The store of all layers, and the layout of the step that is being computed."""

    def __init__(self, layers: int, rows: int, columns: int, spare: int = 0) -> None:
        """``spare``: additional columns at the end of each row that are never read."""
        super().__init__(layers=[KVCacheLayer(self) for _ in range(layers)])
        self.rows = rows
        self.columns = columns
        self._allocated = columns + spare
        self._maps: list[tuple[mmap.mmap, int]] = []

    def release(self) -> None:
        """Free the memory. Layers refer to their cache, a cycle that would wait for the garbage collector."""
        self.layers.clear()

    def allocate(self, like: Tensor) -> Tensor:
        """Allocate a store for keys or values shaped ``[1, kv_heads, tokens, dim]``.

        On a CPU the system provides its pages when they are first written (and takes them back in :meth:`drop`), so
        a long context costs nothing until it is used.
        """
        heads, dim = like.shape[1], like.shape[3]
        shape = (self.rows, heads, self._allocated, dim)
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        row_bytes = heads * self._allocated * dim * like.dtype.itemsize
        pages = mmap.mmap(-1, self.rows * row_bytes)
        # Huge pages would take two MiB for the first token of every head.
        pages.madvise(mmap.MADV_NOHUGEPAGE)
        self._maps.append((pages, row_bytes))
        return torch.frombuffer(pages, dtype=like.dtype).view(shape)

    def copy(self, source: int, target: int, columns: int) -> None:
        """Copy the first ``columns`` of row ``source`` to row ``target``."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[target, :, :columns] = layer.keys[source, :, :columns]
                layer.values[target, :, :columns] = layer.values[source, :, :columns]

    def drop(self, row: int) -> None:
        """Release a row's memory, if the device supports that."""
        page = mmap.PAGESIZE
        for pages, row_bytes in self._maps:
            start = -(-row * row_bytes // page) * page
            end = (row + 1) * row_bytes // page * page
            if end > start:
                pages.madvise(mmap.MADV_DONTNEED, start, end - start)

    def run(self, model: Any, spans: Sequence[Span], all_logits: Collection[str] = ()) -> Tensor | None:
        """Compute the spans in one forward pass. Returns logits ``[wanted, vocabulary]``: of every token for requests in
        ``all_logits``, of the last one for other spans that sample. None if no logits are wanted.
        """
        device = model.get_input_embeddings().weight.device
        layout = SpanLayout(spans, device, model.dtype, all_logits)
        wanted = layout.ends if len(layout.ends) else torch.tensor([layout.size - 1], device=device)
        logits = self.compute(model, layout, layout.tokens, layout.positions, wanted)
        return logits if len(layout.ends) else None

    def compute(
        self, model: Any, layout: Layout, tokens: Tensor, positions: Tensor, wanted: Tensor | int
    ) -> Tensor:
        """One forward pass over ``tokens`` ``[1, tokens]``. Logits ``[wanted, vocabulary]``; 0 means of all tokens."""
        _computing.layout = layout
        try:
            out = model(
                input_ids=tokens,
                position_ids=positions,
                past_key_values=self,
                use_cache=True,
                logits_to_keep=wanted,
            )
        finally:
            _computing.layout = None
        logits: Tensor = out.logits[0]
        return logits


def current_layout() -> Layout:
    """The layout of the step that this thread is computing."""
    layout: Layout | None = getattr(_computing, "layout", None)
    if layout is None:
        raise UnsupportedAttention("attention was called outside of a step")
    return layout


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a flat step. ``query`` is ``[1, heads, tokens, dim]``; ``key`` and ``value`` are the layer's store.

    Returns ``[1, tokens, heads, dim]``. Raises UnsupportedAttention for score caps, sinks and position biases.
    """
    if softcap or s_aux is not None or position_bias is not None:
        raise UnsupportedAttention(f"{type(module).__name__} caps or shifts its attention scores")
    layout = current_layout()
    heads, size, _dim = query.shape[1:]
    kv_heads = key.shape[1]
    shared = heads // kv_heads
    flat = query[0].transpose(0, 1)
    results: list[tuple[int, int, Tensor]] = []
    for index, group in enumerate(layout.groups):
        count = group.last - group.first
        # Query heads that share a key head take the place of a sequence's tokens, so keys need not be copied for them.
        result = functional.scaled_dot_product_attention(
            flat[group.first : group.last].reshape(count, kv_heads, shared, -1),
            key[group.rows, :, : group.columns],
            value[group.rows, :, : group.columns],
            attn_mask=layout.group_mask(index, sliding_window, query.device),
            scale=scaling,
        )
        results.append((group.first, group.last, result.reshape(count, heads, -1)))
    for index, chunk in enumerate(layout.chunks):
        mask = layout.chunk_mask(index, sliding_window, query.device)
        result = _chunk_attention(query, key, value, chunk, mask, scaling)
        results.append((chunk.first, chunk.last, result.transpose(0, 1)))
    if len(results) == 1:
        return results[0][2].contiguous()[None], None
    out = torch.empty(size, heads, value.shape[3], dtype=query.dtype, device=query.device)
    for first, last, result in results:
        out[first:last] = result
    return out[None], None


def _chunk_attention(
    query: Tensor, key: Tensor, value: Tensor, chunk: Chunk, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Attention of a prompt chunk: ``[heads, tokens, dim]``."""
    asking = query[:, :, chunk.first : chunk.last]
    end = chunk.start + chunk.last - chunk.first
    keys, values = key[chunk.row, :, :end], value[chunk.row, :, :end]
    shared = query.shape[1] // key.shape[1]
    if mask is None:
        return functional.scaled_dot_product_attention(
            asking, keys[None], values[None], is_causal=True, scale=scaling, enable_gqa=shared > 1
        )[0]
    # With a mask and shared key heads, CUDA only has the kernel that materializes all scores, gigabytes of them. So key
    # heads take the place of the batch, and each is a view, not a copy, for the query heads that share it.
    heads, size, dim = asking.shape[1:]
    return functional.scaled_dot_product_attention(
        asking[0].reshape(-1, shared, size, dim),
        keys[:, None].expand(-1, shared, -1, -1),
        values[:, None].expand(-1, shared, -1, -1),
        attn_mask=mask,
        scale=scaling,
    ).reshape(heads, size, -1)


AttentionInterface.register(ATTENTION, attend)
