"""Weights of linear layers in the order in which the CPU's matrix units read them.

PyTorch hands a bfloat16 product to oneDNN, which brings the weights into its own blocked layout for each call, and
forgets it: most of the time of a decode. Here they are reordered once. The products are the same, bit for bit.

In float32 oneDNN's products with such weights take a tenth less than PyTorch's own, and differ in the last bits.
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
"""Of a pass: what oneDNN chooses the blocks for. Others work as well, and nearly as fast."""


class Joined(nn.Module):
    """Linear layers that read the same; their outputs one behind the other."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([part(inputs) for part in self.parts], -1)


class PackedLinear(nn.Module):
    """Linear layers, one or several that read the same, of which only the reordered weights are kept."""

    def __init__(self, *parts: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = parts[0].in_features, sum(part.out_features for part in parts)
        self.bias = _joined_bias(parts)
        weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
        # Neither a parameter nor a buffer: tensors in this layout can not be viewed, moved or stored.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), EXPECTED_TOKENS)

    @property
    def weight(self) -> Tensor:
        """``[out, in]``, in the usual order again: a copy, made for each call."""
        dense: Tensor = self._packed.to_dense()
        return dense

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, "none", [], "")
        return found


def pays(model: Any, *, last_bits: bool = True) -> bool:
    """Whether ``model``'s products are faster with packed weights: bfloat16 on a CPU that oneDNN computes it on.

    Without ``last_bits``, which says that they matter, float32 as well.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if not on_cpu or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if model.dtype == torch.float32:
        return not last_bits and platform.machine() in ("x86_64", "AMD64")
    return model.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(model: Any, dtype: torch.dtype = torch.bfloat16) -> int:
    """Reorder the weights in ``dtype`` of every plain linear layer in place; return how many there were.

    Weights that are also used elsewhere (an output layer tied to the embedding) stay there, too.
    """
    count = _pack_inside(model, dtype)
    released = release()
    log.info(
        "packed the weights of %d linear layers, %d MiB of the file are no longer held", count, released >> 20
    )
    return count


def _pack_inside(parent: nn.Module, dtype: torch.dtype) -> int:
    count = 0
    for name, child in list(parent.named_children()):
        parts = list(child.parts) if isinstance(child, Joined) else [child]
        plain = [part for part in parts if _plain(part, dtype)]
        if len(plain) == len(parts):
            setattr(parent, name, PackedLinear(*plain))
            count += len(parts)
        else:
            count += _pack_inside(child, dtype)
    return count


def _plain(layer: nn.Module, dtype: torch.dtype) -> TypeGuard[nn.Linear]:
    """Subclasses, of weights as well, compute something of their own; hooks move weights about."""
    return (
        type(layer) is nn.Linear
        and type(layer.weight) is nn.Parameter
        and layer.weight.dtype == dtype
        and not hooked(layer)
    )


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"))


def _joined_bias(parts: Sequence[nn.Linear]) -> Tensor | None:
    if len(parts) == 1 or all(part.bias is None for part in parts):
        return parts[0].bias
    return torch.cat(
        [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias for part in parts]
    ).detach()


def release() -> int:
    """Give back the pages of weight files that were only read to be packed; return how many bytes.

    They are read again from the system's cache when something (an embedding) is looked up in them.
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
    """Start, end and resident bytes of mapped safetensors files in which no page is other than in the file."""
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
