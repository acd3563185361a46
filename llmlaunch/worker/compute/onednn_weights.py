"""Weights of linear layers in the blocked layout that the CPU's matrix units read.

For a bfloat16 product PyTorch calls oneDNN, which reorders the weights into its own blocked layout in each call and
discards it: most of the time of a decode. Here they are reordered once. The products are the same, bit for bit.

In float32, oneDNN's products with such weights take up to two fifths less time than PyTorch's own (most for 4 to 16 tokens), and
differ in the last bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

EXPECTED_TOKENS = 32
"""Number of tokens in a pass for which oneDNN chooses its blocks. Other numbers work as well, and almost as fast."""


class JoinedLinear(nn.Module):
    """Linear layers with the same input; their outputs are concatenated."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of all layers for ``inputs`` ``[…, in]``, joined along the last dimension."""
        return torch.cat([part(inputs) for part in self.parts], -1)


class PackedLinear(nn.Module):
    """One or several linear layers with the same input, of which only the reordered weights are kept."""

    def __init__(self, *parts: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = parts[0].in_features, sum(part.out_features for part in parts)
        self.bias = _joined_bias(parts)
        weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
        # Neither a parameter nor a buffer: tensors in this layout cannot be viewed, moved or saved.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), EXPECTED_TOKENS)

    @property
    def weight(self) -> Tensor:
        """``[out, in]`` in the usual layout: a copy, made on each access."""
        dense: Tensor = self._packed.to_dense()
        return dense

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` ``[…, in]`` → ``[…, out]``. Only for the device and type that the weights were reordered for."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, "none", [], "")
        return found


def supports(dtype: torch.dtype) -> bool:
    """Whether products with reordered weights of ``dtype`` are faster on this CPU: bfloat16 where oneDNN has it, and float32 on x86."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.float32:
        return platform.machine() in ("x86_64", "AMD64")
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_faster(model: Any) -> bool:
    """Whether packed weights make ``model`` faster: it is on a CPU, in a type that :func:`supports` knows."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return on_cpu and supports(model.dtype)


def pack(model: Any, dtype: torch.dtype = torch.bfloat16) -> int:
    """Reorder the weights in ``dtype`` of every plain linear layer in place; return the number of layers.

    Weights that are also used elsewhere (an output layer tied to the embedding) are kept there, too.
    """
    count = _pack_inside(model, dtype)
    released = release_mapped_files()
    log.info(
        "packed the weights of %d linear layers; released %d MiB of mapped weight files",
        count,
        released >> 20,
    )
    return count


def _pack_inside(parent: nn.Module, dtype: torch.dtype) -> int:
    count = 0
    for name, child in list(parent.named_children()):
        parts = list(child.parts) if isinstance(child, JoinedLinear) else [child]
        plain = [part for part in parts if _plain(part, dtype)]
        if len(plain) == len(parts):
            setattr(parent, name, PackedLinear(*plain))
            count += len(parts)
        else:
            count += _pack_inside(child, dtype)
    return count


def _plain(layer: nn.Module, dtype: torch.dtype) -> TypeGuard[nn.Linear]:
    """Whether the layer may be packed. Subclasses, of weights as well, compute something else; hooks move weights."""
    return (
        type(layer) is nn.Linear
        and type(layer.weight) is nn.Parameter
        and layer.weight.dtype == dtype
        and not has_hooks(layer)
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether calling ``module`` also runs hooks, PyTorch's or accelerate's."""
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"))


def _joined_bias(parts: Sequence[nn.Linear]) -> Tensor | None:
    if len(parts) == 1 or all(part.bias is None for part in parts):
        return parts[0].bias
    return torch.cat(
        [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias for part in parts]
    ).detach()


def release_mapped_files() -> int:
    """Release the pages of weight files that were only read to be packed; return the number of bytes.

    If they are needed again (by an embedding lookup), they are read from the page cache.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    released = 0
    with contextlib.suppress(OSError):
        for start, end, resident in _unchanged_maps(Path("/proc/self/smaps").read_text()):
            if libc.madvise(start, end - start, mmap.MADV_DONTNEED) == 0:
                released += resident
    return released


def _unchanged_maps(smaps: str) -> Iterator[tuple[int, int, int]]:
    """Start, end and resident bytes of mapped safetensors files that have no modified pages."""
    region: tuple[int, int] | None = None
    sizes: dict[str, int] = {}
    for line in [*smaps.splitlines(), "0-0"]:
        key, _, rest = line.partition(":")
        if " " not in key and rest:
            sizes[key] = int(rest.split()[0]) << 10 if rest.strip().endswith("kB") else 0
            continue
        if region is not None and not sizes.get("Anonymous", 1):
            yield *region, sizes.get("Rss", 0)
        start, _, end = line.split(" ", 1)[0].partition("-")
        region = (int(start, 16), int(end, 16)) if line.endswith(".safetensors") else None
        sizes = {}
