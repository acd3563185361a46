"""Inputs without a fuzzing engine: seeds, damaged at random and always in the same way."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.fuzz.seeds import WORDS


def mutations(seeds: list[bytes], count: int, seed: int, head: int = 1) -> Iterator[bytes]:
    """``count`` inputs; the first ``head`` bytes of each are at random."""
    draw = random.Random(seed)
    for _ in range(count):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((0, 1, 1, 2, 4, 8))):
            _damage(data, seeds, draw)
        yield bytes(draw.choice((0, 0, 1, 7, draw.randrange(256))) for _ in range(head)) + bytes(data)


def _damage(data: bytearray, seeds: list[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    size = draw.choice((0, 1, 2, 5, 20))
    match draw.randrange(6):
        case 0:
            del data[at : at + size]
        case 1:
            data[at:at] = draw.choice(WORDS)
        case 2:
            data[at : at + size] = draw.choice(WORDS)
        case 3:
            data[at:at] = data[at : at + draw.choice((1, 10, 100))]
        case 4 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case _:
            other = draw.choice(seeds)
            start = draw.randrange(len(other) + 1)
            data[at:] = other[start:]
