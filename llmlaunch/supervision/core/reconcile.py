"""Compares the plan with what runs: what to change, what may start now, and what stops first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmlaunch.planning.formatting import size
from llmlaunch.planning.naming import STOP_GRACE
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.types import DOWN_PHASES, LIVE_PHASES, OPEN, Gate, Phase, Record


@dataclass(frozen=True, slots=True)
class Slot:
    """A component: its state, and what it was and will be started from."""

    record: Record
    spec: ProcessSpec
    """What runs, or ran last."""
    successor: ProcessSpec | None = None
    """What replaces ``spec`` once nothing of it runs."""
    leaving: bool = False
    """No longer in the plan; dropped once it is down."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of components, in plan order. A component in ``keep`` may have a new spec that its running process does not notice."""

    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def same_process(a: ProcessSpec, b: ProcessSpec) -> bool:
    """Whether a process started from ``a`` is what ``b`` asks for.

    What only the supervisor and the planner use may differ: reasons, estimates, timeouts, and which values are secret. A replica
    is not restarted because the planner found another number of free bytes.
    """
    return (
        replace(
            a,
            argv=b.argv if _argv_without_grace(a) == _argv_without_grace(b) else a.argv,
            reason=b.reason,
            engine_reason=b.engine_reason,
            engine_auto=b.engine_auto,
            needs=b.needs,
            vram_bytes=b.vram_bytes,
            vram_per_gpu=b.vram_per_gpu,
            kind=b.kind,
            max_concurrency=b.max_concurrency,
            request_timeout_s=b.request_timeout_s,
            max_model_len=b.max_model_len,
            engine_model=b.engine_model,
            progress_patterns=b.progress_patterns,
            ready_path=b.ready_path,
            live_path=b.live_path,
            probe_timeout_s=b.probe_timeout_s,
            probe_failures=b.probe_failures,
            restart_max=b.restart_max,
            restart_delay_s=b.restart_delay_s,
            start_timeout_s=b.start_timeout_s,
            stop_grace_s=b.stop_grace_s,
            secret_env=b.secret_env,
            argv_shown=b.argv_shown,
            learning_key=b.learning_key,
            log_max_bytes=b.log_max_bytes,
            log_keep=b.log_keep,
            api_keys_file=b.api_keys_file,
            api_keys_variable=b.api_keys_variable,
        )
        == b
    )


def _argv_without_grace(spec: ProcessSpec) -> tuple[str, ...]:
    """A gateway is not restarted because a model wants more or less time to stop."""
    if spec.component is not Component.API or STOP_GRACE not in spec.argv:
        return spec.argv
    at = spec.argv.index(STOP_GRACE)
    return spec.argv[:at] + spec.argv[at + 2 :]


def spec_kept(running: ProcessSpec, wanted: ProcessSpec) -> ProcessSpec:
    """``wanted`` for a process that was started from ``running`` and goes on.

    A gateway ends its open streams with its own grace, which it was told at its start. It must not be killed before.
    """
    if wanted.component is not Component.API:
        return wanted
    return replace(wanted, stop_grace_s=max(running.stop_grace_s, wanted.stop_grace_s))


def reconcile(wanted: Sequence[ProcessSpec], slots: Mapping[str, Slot], restart_down: bool) -> Changes:
    """The changes that lead to a new plan. ``restart_down``: stopped and failed components start again.

    A failed component whose spec changed starts again in any case; one that was stopped by hand stays down unless
    ``restart_down``.
    """
    start, restart, keep = [], [], []
    for spec in wanted:
        slot = slots.get(spec.name)
        if slot is None:
            start.append(spec.name)
            continue
        changed = not same_process(slot.successor or slot.spec, spec) or slot.leaving
        down = slot.record.phase in DOWN_PHASES or (
            slot.record.phase is Phase.STOPPING and not slot.record.wanted
        )
        if down and (restart_down or slot.leaving or (changed and slot.record.phase is Phase.FAILED)):
            start.append(spec.name)
        elif changed and not down:
            restart.append(spec.name)
        else:
            keep.append(spec.name)
    names = {spec.name for spec in wanted}
    remove = [name for name, slot in slots.items() if name not in names and not slot.leaving]
    return Changes(tuple(start), tuple(restart), tuple(remove), tuple(keep))


def gate(
    name: str,
    slots: Mapping[str, Slot],
    free: Mapping[str, int] | None,
    labels: Mapping[str, str] | None = None,
) -> Gate:
    """Whether the PENDING component ``name`` may start now, or what it waits for.

    ``free`` is free memory in bytes by GPU UUID; None: unknown, and nothing waits for it. ``labels`` has the name of each GPU
    for messages, by UUID.
    """
    spec, labels = slots[name].spec, labels or {}
    for need in spec.needs:
        if need in slots and slots[need].record.phase is not Phase.READY:
            return Gate(False, f"waiting for {need}")
    for other, slot in slots.items():
        if other == name or slot.record.phase not in LIVE_PHASES:
            continue
        shared = set(spec.gpus) & set(slot.spec.gpus)
        if shared and slot.record.phase is not Phase.READY:
            doing = "starts on" if slot.record.phase is Phase.STARTING else "leaves"
            return Gate(False, f"waiting while {other} {doing} {_label(min(shared), labels)}")
        going = slot.record.phase is Phase.STOPPING or slot.successor is not None
        if going and slot.spec.port == spec.port:
            return Gate(False, f"waiting for port {spec.port}, which {other} is about to release")
    return _memory_gate(spec, free, labels)


def _memory_gate(spec: ProcessSpec, free: Mapping[str, int] | None, labels: Mapping[str, str]) -> Gate:
    for uuid, needed in zip(spec.gpus, spec.vram_per_gpu, strict=False):
        has = (free or {}).get(uuid)
        if has is not None and has < needed:
            where = _label(uuid, labels)
            words = f"waiting for VRAM: needs {size(needed)} on {where}, which has {size(has)} free"
            return Gate(False, words, timed=True)
    return OPEN


def _label(uuid: str, labels: Mapping[str, str]) -> str:
    return labels.get(uuid, uuid)


def needs_memory_reading(spec: ProcessSpec) -> bool:
    """Whether free GPU memory has to be read before ``spec`` may start."""
    return bool(spec.gpus) and any(spec.vram_per_gpu)


def next_to_stop(slots: Mapping[str, Slot]) -> tuple[str, ...]:
    """What a shutdown stops now: gateways first, so that requests in flight finish, then everything else."""
    gateways = [n for n, s in slots.items() if s.spec.component is Component.API and not _is_down(s)]
    return tuple(gateways or [n for n, s in slots.items() if not _is_down(s)])


def all_down(slots: Mapping[str, Slot]) -> bool:
    """Whether nothing of the deployment runs, or will be started."""
    return all(_is_down(slot) for slot in slots.values())


def _is_down(slot: Slot) -> bool:
    return slot.record.phase in DOWN_PHASES
