"""The set of GPUs that a multi-GPU replica works best on: of one kind, without other replicas of its model, and with the best links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb

from llmlaunch.planning.devices import Device

_Score = tuple[int, tuple[int, int], tuple[int, int], int, list[int]]
Links = Sequence[Sequence[tuple[int, int]]]
# Every set is looked at while there are few; beyond that, sets are grown greedily from so many seeds.
_EXHAUSTIVE = 128
_SEEDS = 16


def best_set(
    candidates: Sequence[Device], count: int, links: Links, crowd: Mapping[int, int], slack: Mapping[int, int]
) -> tuple[Device, ...]:
    """``count`` of ``candidates``, sorted by index.

    GPUs of one name when there are enough, because a replica is as slow as its slowest GPU. Then, in this order: few replicas of
    the same model (``crowd``), the best worst link, the best links in all, little memory left over (``slack``). Both maps are
    by position. Exact for few candidates, a bounded greedy search for many.
    """
    names: dict[str, list[Device]] = {}
    for device in candidates:
        names.setdefault(device.name, []).append(device)
    alike = [group for group in names.values() if len(group) >= count]

    def score(devices: tuple[Device, ...]) -> _Score:
        at = sorted(device.position for device in devices)
        pairs = [links[a][b] for a, b in combinations(at, 2)]
        worst = min(pairs)
        lanes = sum(kind for kind, _ in pairs), sum(lanes for _, lanes in pairs)
        return (
            sum(crowd[a] for a in at),
            (-worst[0], -worst[1]),
            (-lanes[0], -lanes[1]),
            sum(slack[a] for a in at),
            at,
        )

    sets = (
        devices
        for group in alike or [list(candidates)]
        for devices in _sets(group, count, links, crowd, slack)
    )
    best: tuple[Device, ...] = min(sets, key=score)
    return tuple(sorted(best, key=lambda device: (device.index, device.position)))


def _sets(
    group: Sequence[Device], count: int, links: Links, crowd: Mapping[int, int], slack: Mapping[int, int]
) -> Iterator[tuple[Device, ...]]:
    if comb(len(group), count) <= _EXHAUSTIVE:
        yield from combinations(group, count)
        return
    seeds = sorted(group, key=lambda d: (crowd[d.position], slack[d.position], d.position))[:_SEEDS]
    for seed in seeds:
        yield _grown(seed, group, count, links, crowd, slack)


def _grown(
    seed: Device,
    group: Sequence[Device],
    count: int,
    links: Links,
    crowd: Mapping[int, int],
    slack: Mapping[int, int],
) -> tuple[Device, ...]:
    """``seed`` and, one after the other, the device that is best linked to those already in."""
    row = links[seed.position]
    rest = {d.position: d for d in group if d is not seed}
    worst = {at: row[at] for at in rest}
    chosen = [seed]
    while len(chosen) < count:
        at = max(rest, key=lambda p: (-crowd[p], worst[p], -slack[p], -p))
        chosen.append(rest.pop(at))
        row = links[at]
        for other in rest:
            worst[other] = min(worst[other], row[other])
    return tuple(chosen)
