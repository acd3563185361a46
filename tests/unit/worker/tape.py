"""A recorder for CPUs that is as strict as CUDA graphs: a replay runs no Python of the model, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FROM_HOST = {"lift_fresh", "_local_scalar_dense", "item", "nonzero"}
"""Operations that bring numbers from Python or wait for some: no CUDA graph can hold them."""


class Tape(TorchDispatchMode):
    """The operations of what runs within, each with its own arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation.overloadpacket.__name__ in FROM_HOST:
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


class TapeRecorder:
    """``gain``: how much quicker a replay seems to be. ``growth``: bytes that each recording seems to take."""

    def __init__(self, gain: float = 2.0, growth: int = 1) -> None:
        self._gain = gain
        self._growth = growth
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

        return replay

    def seconds(self, work: Callable[[], object]) -> float:
        before = self.replays
        work()
        return 1.0 if self.replays == before else 1.0 / self._gain

    def used(self) -> int:
        return self.recordings * self._growth
