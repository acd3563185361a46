"""A recorder for CPUs that is as strict as CUDA graphs: a replay runs no Python of the model, on the same tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FROM_HOST = {
    "lift_fresh", "_local_scalar_dense", "item", "equal", "nonzero", "masked_select", "unique", "_unique2",
    "unique_consecutive", "unique_dim", "repeat_interleave",
}  # fmt: skip
"""Operations that bring numbers from Python or wait for some: no CUDA graph can hold them."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """The operations of what runs within, each with its own arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._entries: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation.overloadpacket.__name__ in FROM_HOST or _by_mask(operation, args):
            raise RuntimeError(f"operation not permitted when stream is capturing: {operation}")
        result = operation(*args, **(kwargs or {}))
        self._entries.append((operation, args, kwargs or {}, result))
        return result

    def play(self) -> None:
        for operation, args, kwargs, result in self._entries:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _by_mask(operation: Any, args: Any) -> bool:
    """Indexed by a mask, of which somebody must count the ones first."""
    name = operation.overloadpacket.__name__
    masks = (torch.bool, torch.uint8)
    return name in ("index", "index_put", "index_put_") and any(
        isinstance(index, Tensor) and index.dtype in masks for index in args[1]
    )


class TapeRecorder:
    """``gain``: how much quicker a replay seems to be. ``growth``: bytes that each recording seems to take."""

    def __init__(self, gain: float = 2.0, growth: int = 1) -> None:
        self._gain = gain
        self._growth = growth
        self._alive: weakref.WeakSet[Callable[[], Tensor]] = weakref.WeakSet()
        self.recordings = 0
        self.replays = 0

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        compute()
        tape = Tape()
        with tape:
            logits = compute()
        self.recordings += 1
        logits.zero_()  # what was computed while recording is no result

        def replay() -> Tensor:
            self.replays += 1
            tape.play()
            return logits

        self._alive.add(replay)
        return replay

    def begin(self) -> None:
        assert not self._alive, "what is replayed no more still holds memory"

    def seconds(self, work: Callable[[], object]) -> float:
        before = self.replays
        work()
        return 1.0 if self.replays == before else 1.0 / self._gain

    def used(self) -> int:
        return len(self._alive) * self._growth
