"""Which replica goes on which device, and why. Hardest first: pinned, then several GPUs, then the largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmlaunch.hardware.types import MemoryKind
from llmlaunch.manifest.types import GpuAuto, GpuCpu, GpuPinned, GpuRequest
from llmlaunch.planning.devices import LINK_WORDS, Device, Survey
from llmlaunch.planning.estimate import Origin, VramNeed
from llmlaunch.planning.formatting import listed, size, sizes
from llmlaunch.planning.pool import DevicePool
from llmlaunch.planning.topology import best_set


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """One replica that needs a place."""

    name: str
    group: int
    """Replicas of one model have the same; they are spread over the devices."""
    gpus: GpuRequest
    need: Callable[[int, str], VramNeed | None]
    """From (number of GPUs, GPU's name); None: nothing tells."""
    unsupported: Callable[[int], str]
    """Why the engine cannot run it on so many GPUs (0: the CPU), or empty."""
    unsuited: Callable[[Device], str]
    """Why the engine cannot run it on that very device, or empty."""
    needs_gpu: str
    """Why ``auto`` may not mean the CPU where there is no GPU; empty: it may."""
    without_gpu: str
    """What the user can do then."""
    cpu_words: str
    """What it needs of the CPU's memory, for the reason."""
    cpu_bytes: int = 0
    """What it takes of main memory on the CPU, as far as known."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a replica goes."""

    devices: tuple[Device, ...]
    """Empty: the CPU."""
    claims: tuple[int, ...]
    """Bytes per device."""
    reason: str


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """Why a replica has no place, with the numbers."""

    reason: str


Outcome = Placed | NotPlaced


def place(requests: Sequence[PlacementRequest], pool: DevicePool) -> dict[str, Outcome]:
    """An outcome for every request; what is placed is taken from ``pool``."""
    outcomes: dict[str, Outcome] = {}
    for _, request in sorted(
        enumerate(requests), key=lambda pair: (*_most_constrained_first(pair[1], pool), pair[0])
    ):
        outcome = _place(request, pool)
        if isinstance(outcome, Placed):
            pool.take(outcome.devices, outcome.claims, request.group)
            if not outcome.devices:
                pool.take_main_memory(request.cpu_bytes)
        outcomes[request.name] = outcome
    return outcomes


def _most_constrained_first(request: PlacementRequest, pool: DevicePool) -> tuple[bool, int, int]:
    count = _count(request.gpus)
    names = {device.name for device in pool.survey.devices} if count else ()
    needs = [need.per_gpu for name in names if (need := request.need(count, name))]
    return not isinstance(request.gpus, GpuPinned), -count, -max(needs, default=0)


def _count(gpus: GpuRequest) -> int:
    match gpus:
        case GpuPinned():
            return len(gpus.devices)
        case GpuAuto():
            return gpus.count or 1
        case GpuCpu():
            return 0


def _place(request: PlacementRequest, pool: DevicePool) -> Outcome:
    match request.gpus:
        case GpuCpu():
            return _on_cpu(request, "as asked", pool)
        case GpuPinned():
            return _pinned(request, request.gpus, pool)
        case GpuAuto(count=count):
            if pool.survey.devices:
                return _auto(request, count or 1, pool)
            return _auto_without_gpus(request, count, pool)


def _on_cpu(request: PlacementRequest, why: str, pool: DevicePool) -> Outcome:
    problem = request.unsupported(0)
    if problem:
        return NotPlaced(problem)
    left = pool.main_memory_left()
    if left is not None and request.cpu_bytes > left:
        return NotPlaced(
            f"its weights need {size(request.cpu_bytes)} of main memory on the CPU, and {size(max(0, left))} are left of it, "
            "which the GPU uses, too"
        )
    return Placed((), (), f"on the CPU {why}{request.cpu_words}")


def _auto_without_gpus(request: PlacementRequest, count: int | None, pool: DevicePool) -> Outcome:
    why = pool.note or "this machine has none"
    if count is not None:
        return NotPlaced(f"needs {_gpus(count)} (gpu_count), and no GPU can be used: {why}")
    if request.needs_gpu:
        return NotPlaced(f"{request.needs_gpu}, and none can be used: {why}; {request.without_gpu}")
    return _on_cpu(request, "because no GPU can be used", pool)


def _pinned(request: PlacementRequest, gpus: GpuPinned, pool: DevicePool) -> Outcome:
    found = [pool.survey.find(device) for device in gpus.devices]
    missing = [item for item in found if isinstance(item, str)]
    if missing:
        nothing_known = not pool.survey.devices and not pool.survey.unusable
        return NotPlaced("; ".join(missing) + (_because(pool) if nothing_known else ""))
    devices = tuple(item for item in found if isinstance(item, Device))
    if len(devices) > 1 and any(device.mig for device in devices):
        return NotPlaced("CUDA lets a process use one MIG instance, so it cannot span several devices")
    if len({device.uuid for device in devices}) < len(devices):
        return NotPlaced("lists one device twice")
    problem = request.unsupported(len(devices))
    if problem:
        return NotPlaced(problem)
    unsuited = [why for device in devices if (why := request.unsuited(device))]
    if unsuited:
        return NotPlaced("; ".join(unsuited))
    needs = _needs(request, devices)
    if needs is None:
        return _unknown()
    short = [d for d, n in zip(devices, needs, strict=True) if not pool.fits(d, n)]
    if short:
        states = "; ".join(_state(d, pool, full=True) for d in short)
        return NotPlaced(_with_way_out(f"{_need_words(needs)}; {states}", needs, short, pool))
    return _placed(devices, needs, pool, "as asked")


def _auto(request: PlacementRequest, count: int, pool: DevicePool) -> Outcome:
    problem = request.unsupported(count)
    if problem:
        return NotPlaced(problem)
    candidates = [d for d in pool.survey.devices if count == 1 or not d.mig]
    if len(candidates) < count:
        return NotPlaced(f"needs {_gpus(count)}, and {_gpus(len(candidates))} can be used{_because(pool)}")
    suited = [d for d in candidates if not request.unsuited(d)]
    if len(suited) < count:
        return NotPlaced(_unsuited_words(request, candidates))
    by_name: dict[str, VramNeed] = {}
    for name in {device.name for device in suited}:
        need = request.need(count, name)
        if need is None:
            return _unknown()
        by_name[name] = need
    fitting = [d for d in suited if pool.fits(d, by_name[d.name])]
    certain = [d for d in fitting if d.memory is not MemoryKind.UNKNOWN]
    if len(certain) >= count:
        fitting = certain
    if len(fitting) < count:
        return NotPlaced(_nowhere(request, count, suited, by_name, pool))
    if count > 1:
        slack = {d.position: pool.left[d.position] - by_name[d.name].per_gpu for d in fitting}
        crowd = {d.position: pool.groups[d.position][request.group] for d in fitting}
        devices = best_set(fitting, count, pool.survey.links, crowd, slack)
        return _placed(devices, [by_name[d.name] for d in devices], pool, _link_words(devices, pool.survey))
    device = min(fitting, key=lambda d: _tightness(d, by_name[d.name], request.group, pool))
    why = "the only one that fits" if len(fitting) == 1 else f"the best of {len(fitting)} that fit"
    if by_name[device.name].origin is Origin.NOTHING:
        why = "the emptiest"
    return _placed((device,), [by_name[device.name]], pool, why)


def _tightness(device: Device, need: VramNeed, group: int, pool: DevicePool) -> tuple[int, int, int]:
    """Away from other replicas of its model first, then where the least memory is left over."""
    slack = pool.left[device.position] - need.per_gpu
    if need.origin is Origin.NOTHING:
        slack = -slack
    return pool.groups[device.position][group], slack, device.position


def _needs(request: PlacementRequest, devices: Sequence[Device]) -> list[VramNeed] | None:
    needs = [request.need(len(devices), device.name) for device in devices]
    return [need for need in needs if need is not None] if all(needs) else None


def _placed(devices: tuple[Device, ...], needs: Sequence[VramNeed], pool: DevicePool, why: str) -> Placed:
    where = listed([d.label for d in devices]) if any(d.mig for d in devices) or len(devices) == 1 else (
        "GPUs " + listed([str(d.index) for d in devices])
    )  # fmt: skip
    names = listed(sorted({d.name for d in devices}))
    reason = f"on {where} ({names}), {why}: {_need_words(needs)}; {_free_words(devices, pool)}"
    return Placed(devices, tuple(need.per_gpu for need in needs), reason)


def _free_words(devices: Sequence[Device], pool: DevicePool) -> str:
    if any(device.memory is MemoryKind.UNKNOWN for device in devices):
        return f"how much is free there is not known: {devices[0].memory_error}"
    of = " of main memory" if all(device.memory is MemoryKind.MAIN for device in devices) else ""
    return f"{listed([size(pool.left[d.position]) for d in devices])}{of} free there"


def _need_words(needs: Sequence[VramNeed]) -> str:
    need = max(needs, key=lambda n: n.per_gpu)
    amount = f"{need.count} × {size(need.per_gpu)}" if need.count > 1 else size(need.per_gpu)
    match need.origin:
        case Origin.MANIFEST:
            return f"needs {amount} (vram)"
        case Origin.LEARNED:
            return f"needs {amount} (measured in an earlier run)"
        case Origin.NOTHING:
            return "no `vram` declared: no GPU memory is reserved"
        case Origin.ESTIMATE:
            kept = f", {size(need.main_memory)} of weights in main memory" if need.main_memory else ""
            return f"needs {amount}: {sizes(need.parts, need.per_gpu)}{kept}"


def _state(device: Device, pool: DevicePool, *, full: bool = False) -> str:
    if blocked := pool.blocked(device):
        return blocked
    left = pool.left[device.position]
    if device.memory is MemoryKind.UNKNOWN and not device.total:
        return f"how much memory {device.label} has is not known ({device.memory_error}); write vram: on the model to use it"
    main = device.memory is MemoryKind.MAIN
    text = f"{device.label} has {size(max(0, left))} free of {size(device.total)}{' of main memory' if main else ''}"
    details = []
    if left < device.free:
        details.append(f"this plan takes {size(device.free - left)}")
    if device.holders and full:
        details.append(f"held by {device.holders}")
    elif full and device.free < device.total * 9 // 10:
        by = "" if main else " by processes that the driver does not name"
        details.append(f"{size(device.total - device.free)} are in use{by}")
    return text + (f" ({'; '.join(details)})" if details else "")


def _nowhere(
    request: PlacementRequest,
    count: int,
    candidates: Sequence[Device],
    needs: dict[str, VramNeed],
    pool: DevicePool,
) -> str:
    largest = sorted(candidates, key=lambda d: (bool(pool.blocked(d)), -pool.left[d.position], d.position))
    text = f"{_need_words(list(needs.values()))}; "
    text += ", ".join(_state(d, pool, full=len(largest) <= 4) for d in largest[:4])
    if len(largest) > 4:
        taken = " or take no more" if pool.blocked(largest[-1]) else ""
        text += f", the other {len(largest) - 4} have less or the same{taken}"
    unsuited = _unsuited_words(request, pool.survey.devices)
    text += (f"; {unsuited}" if unsuited else "") + _with_more(request, count, pool)
    return _with_way_out(text, list(needs.values()), candidates, pool)


def _with_way_out(text: str, needs: Sequence[VramNeed], devices: Sequence[Device], pool: DevicePool) -> str:
    """An estimate may be wrong, and what was measured may have been another load. It matters where memory is what lacks."""
    guessed = any(need.origin in (Origin.ESTIMATE, Origin.LEARNED) for need in needs)
    guessed = guessed and not all(pool.blocked(device) for device in devices)
    return f"{text}; if it takes less, write vram: on the model" if guessed and "vram:" not in text else text


def _unsuited_words(request: PlacementRequest, candidates: Sequence[Device]) -> str:
    """Why devices do not suit, once for each kind of them."""
    by_name = {device.name: why for device in reversed(candidates) if (why := request.unsuited(device))}
    return "; ".join(reversed(by_name.values()))


def _with_more(request: PlacementRequest, count: int, pool: DevicePool) -> str:
    """What a larger gpu_count would change, when it would."""
    whole = [d for d in pool.survey.devices if not d.mig and not request.unsuited(d)]
    more = count * 2
    while more <= len(whole):
        needs = [(d, request.need(more, d.name)) for d in whole]
        fits = [n for d, n in needs if n and pool.fits(d, n)]
        if len(fits) >= more and not request.unsupported(more):
            return (
                f"; with gpu_count: {more} it needs {size(max(n.per_gpu for n in fits))} on each, which fits"
            )
        more *= 2
    return ""


def _link_words(devices: Sequence[Device], survey: Survey) -> str:
    kinds = [survey.links[a.position][b.position][0] for i, a in enumerate(devices) for b in devices[i + 1 :]]
    words = next((text for kind, text in LINK_WORDS.items() if kind == min(kinds)), "")
    return f"joined by {words}" if words else "whose links are not known"


def _because(pool: DevicePool) -> str:
    return f" ({pool.note})" if pool.note else ""


def _unknown() -> NotPlaced:
    return NotPlaced(
        "its files do not tell how large it is, so its VRAM cannot be estimated; write vram: on the model"
    )


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs" if count else "no GPU"
