"""One component's life: ``step(record, event) → (record, commands)``.

::

               gate open              probe ok
     PENDING ─────────────► STARTING ──────────► READY
      ▲   ▲ ▲                │  │  │              │  │
      │   │ │    exit, spawn │  │  │ command,     │  │ command, failed probes
      │   │ │         failed │  │  │ timeout      │  │
      │   │ │                ▼  │  ▼              ▼  │ exit
      │   │ └─ delay over ─ BACKOFF ◄─ STOPPING ◄─┘  │
      │   │                  ▲  │        │ │         │
      │   │                  └──┼────────┼─┼─────────┘
      │   └─ start, restart ────┼── STOPPED│◄── told to stop
      │                         ▼          │
      └─ start, restart, ──── FAILED ◄─────┘    too many failed starts in a row, or one that no retry mends
         a long delay over

    STOPPING:  [SPAWN ─Spawned─►] DRAIN ─Drained · grace over─► TERM ─grace over─► KILL (again and again)
               and every stage ends with Exited, which comes when nothing is left of the tree

A stop leads where its cause says: told to stop → STOPPED, told to restart → PENDING, a failure → BACKOFF or FAILED
(``failure.after_failure``). FAILED lasts for ever only if no retry can mend the fault (a wrong flag, a program that is not there)
or the manifest says ``restart: never``. ``_TRANSITIONS`` lists which event does what in which phase; what is not in it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.failure import after_failure, describe_exit
from llmlaunch.supervision.core.liveness import judge
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Cause,
    Command,
    Commanded,
    Drain,
    Drained,
    Event,
    Exited,
    Kill,
    OfOneProcess,
    Phase,
    Probed,
    Progressed,
    Record,
    Spawn,
    Spawned,
    SpawnFailed,
    Stage,
    Terminate,
    Tick,
    Verb,
    Why,
)

_HOPELESS_EXIT_CODES = frozenset({2, 126, 127})
"""With 2, argparse and llmlaunch's own components (see ``errors.py``) end when their command line is wrong; with 126 and 127, shells
and programs like ``env`` when what they should run is not there."""
_SERVES_NOBODY = frozenset({Why.UNHEALTHY, Why.START_TIMEOUT})
_DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class _Now:
    """What a transition may look at beside the record."""

    spec: ProcessSpec
    time: float
    jitter: float
    policy: Policy


_Result = tuple[Record, tuple[Command, ...]]
_Handler = Callable[[Record, Any, _Now], _Result]


def step(
    record: Record, event: Event, spec: ProcessSpec, now: float, jitter: float, policy: Policy = _DEFAULT
) -> _Result:
    """What ``event`` makes of ``record``, and what must be done about it, in order.

    ``now`` is in seconds of a monotonic clock; ``jitter`` is drawn from [0, 1) for each call.
    """
    if isinstance(event, OfOneProcess) and event.incarnation != record.incarnation:
        return record, ()
    handler = _TRANSITIONS.get((record.phase, type(event)))
    if handler is None:
        return record, ()
    after, commands = handler(record, event, _Now(spec, now, jitter, policy))
    if after.phase is not record.phase:
        after = replace(after, since=now)
    return after, commands


# ── PENDING, BACKOFF and FAILED ──────────────────────────────────────────────────────────────────────────────────


def _pending_tick(record: Record, event: Tick, now: _Now) -> _Result:
    gate = event.gate
    if gate.is_open:
        return _spawn(record, now)
    record = replace(record, waiting=gate.reason)
    if not gate.timed:
        return replace(record, deadline=None), ()
    if record.deadline is None:
        return replace(record, deadline=now.time + now.policy.memory_wait_s), ()
    if now.time < record.deadline:
        return record, ()
    # Nothing ran, so a further try would be this same wait again.
    waited = f"after {now.policy.memory_wait_s:g} s still {gate.reason}; `llmlaunch gpus` shows what uses it"
    return _after_death(replace(record, was_ready=False, cause=Cause(Why.MEMORY, waited)), now)


def _spawn(record: Record, now: _Now) -> _Result:
    record = replace(
        record,
        phase=Phase.STARTING,
        incarnation=record.incarnation + 1,
        deadline=now.time + now.spec.start_timeout_s,
        pid=None,
        was_ready=False,
        failed_probes=0,
        unanswered_since=None,
        last_probe="",
        stage=Stage.NONE,
        waiting="",
        progress="",
        told_progress=False,
        note="",
    )
    return record, (Spawn(record.incarnation),)


def _resting_tick(record: Record, event: Tick, now: _Now) -> _Result:
    """In BACKOFF and FAILED: the next try, if there is to be one, when its time has come."""
    if record.deadline is None or now.time < record.deadline:
        return record, ()
    return _pending(replace(record, restarts=record.restarts + 1)), ()


def _afresh(record: Record) -> Record:
    """PENDING because somebody said so: earlier failures count no more, but the last one is remembered."""
    return _pending(replace(record, wanted=True, failures=0, gave_up=0, proven=False, cause=Cause()))


def _pending(record: Record) -> Record:
    return replace(record, phase=Phase.PENDING, deadline=None, waiting="", stage=Stage.NONE)


# ── STARTING and READY ──────────────────────────────────────────────────────────────────────────────────────────────


def _starting_spawned(record: Record, event: Spawned, now: _Now) -> _Result:
    return replace(record, pid=event.pid), ()


def _starting_probed(record: Record, event: Probed, now: _Now) -> _Result:
    if not event.ok or record.pid is None:
        return replace(record, last_probe="" if event.ok else event.detail), ()
    stable = now.time + now.policy.stable_s
    return replace(
        record,
        phase=Phase.READY,
        was_ready=True,
        proven=True,
        deadline=stable,
        failed_probes=0,
        last_probe="",
        cause=Cause(),
        progress="",
        note=event.detail,
    ), ()


def _starting_progressed(record: Record, event: Progressed, now: _Now) -> _Result:
    told = record.progress if event.counted and record.told_progress else event.text
    return replace(
        record,
        progress=told,
        told_progress=record.told_progress or not event.counted,
        deadline=now.time + now.spec.start_timeout_s,
    ), ()


def _starting_tick(record: Record, event: Tick, now: _Now) -> _Result:
    if record.deadline is None or now.time < record.deadline:
        return record, ()
    text = f"not ready, and no progress for {now.spec.start_timeout_s:g} s"
    if record.progress:
        text += f"; last progress: {record.progress}"
    if record.last_probe:
        text += f"; last probe of {now.spec.ready_path or 'its port'}: {record.last_probe}"
    return _stop(record, Cause(Why.START_TIMEOUT, text), now, drain=False)


def _ready_probed(record: Record, event: Probed, now: _Now) -> _Result:
    record, unhealthy = judge(record, event, now.spec, now.policy, now.time)
    if not unhealthy:
        return record, ()
    return _stop(record, Cause(Why.UNHEALTHY, unhealthy), now, drain=False)


def _ready_tick(record: Record, event: Tick, now: _Now) -> _Result:
    if record.deadline is None or now.time < record.deadline:
        return record, ()
    return replace(record, failures=0, gave_up=0, deadline=None), ()


def _live_exited(record: Record, event: Exited, now: _Now) -> _Result:
    starting = record.phase is Phase.STARTING
    text = describe_exit(event, starting)
    hopeless = starting and event.code in _HOPELESS_EXIT_CODES
    return _after_death(replace(record, cause=Cause(Why.EXIT, text, hopeless)), now, event)


def _spawn_failed(record: Record, event: SpawnFailed, now: _Now) -> _Result:
    if record.phase is Phase.STARTING:
        record = replace(record, cause=Cause(event.why, event.reason, event.permanent))
    return _after_death(record, now)


# ── STOPPING ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stop(record: Record, cause: Cause, now: _Now, drain: bool) -> _Result:
    grace = now.spec.stop_grace_s
    if cause.why in _SERVES_NOBODY:
        grace = min(grace, now.policy.unhealthy_grace_s)
    serving = record.phase is Phase.READY and now.spec.component is Component.WORKER
    record = replace(
        record, phase=Phase.STOPPING, cause=cause, stop_by=now.time + grace, waiting="", progress=""
    )
    if record.pid is None:
        return replace(record, stage=Stage.SPAWN, deadline=None), ()
    if drain and serving and grace > 0:
        record = replace(record, stage=Stage.DRAIN, deadline=record.stop_by)
        return record, (Drain(record.incarnation, grace),)
    return _terminate(record, now)


def _terminate(record: Record, now: _Now) -> _Result:
    least = min(now.spec.stop_grace_s, now.policy.least_term_grace_s)
    if record.cause.why in _SERVES_NOBODY:
        least = min(least, now.policy.unhealthy_grace_s)
    grace = max(record.stop_by - now.time, least, 0.0)
    if grace == 0:
        return _kill(record, now)
    record = replace(record, stage=Stage.TERM, deadline=now.time + grace)
    return record, (Terminate(record.incarnation, grace),)


def _kill(record: Record, now: _Now) -> _Result:
    record = replace(record, stage=Stage.KILL, deadline=now.time + now.policy.kill_again_s)
    return record, (Kill(record.incarnation),)


def _stopping_spawned(record: Record, event: Spawned, now: _Now) -> _Result:
    record = replace(record, pid=event.pid)
    return _kill(record, now) if record.stage is Stage.KILL else _terminate(record, now)


def _stopping_drained(record: Record, event: Drained, now: _Now) -> _Result:
    return _terminate(record, now) if record.stage is Stage.DRAIN else (record, ())


def _stopping_tick(record: Record, event: Tick, now: _Now) -> _Result:
    if record.deadline is None or now.time < record.deadline:
        return record, ()
    return _terminate(record, now) if record.stage is Stage.DRAIN else _kill(record, now)


def _stopping_exited(record: Record, event: Exited, now: _Now) -> _Result:
    return _after_death(record, now, event)


def _after_death(record: Record, now: _Now, ended: Exited | None = None) -> _Result:
    """Nothing of the process is left: where to, by the cause."""
    record = replace(
        record,
        pid=None,
        failed_probes=0,
        unanswered_since=None,
        last_probe="",
        stage=Stage.NONE,
        deadline=None,
        waiting="",
        progress="",
    )
    if not record.wanted:
        return replace(record, phase=Phase.STOPPED), ()
    if record.cause.why is Why.COMMAND:
        return _afresh(record), ()
    return after_failure(record, ended, now.spec, now.time, now.jitter, now.policy), ()


# ── commands of people ──────────────────────────────────────────────────────────────────────────────────────────────


def _stopped(event: Commanded) -> Cause:
    return Cause(Why.COMMAND, event.reason or "stopped by command")


def _restarted(event: Commanded) -> Cause:
    return Cause(Why.COMMAND, event.reason or "restarted by command")


def _command_live(record: Record, event: Commanded, now: _Now) -> _Result:
    """In STARTING and READY."""
    match event.verb:
        case Verb.STOP:
            return _stop(replace(record, wanted=False), _stopped(event), now, event.drain)
        case Verb.RESTART:
            return _stop(replace(record, wanted=True), _restarted(event), now, event.drain)
        case Verb.KILL:
            record = replace(
                record, wanted=False, phase=Phase.STOPPING, cause=_stopped(event), stop_by=now.time
            )
            return _kill(record, now)
    return record, ()


def _command_stopping(record: Record, event: Commanded, now: _Now) -> _Result:
    match event.verb:
        case Verb.STOP:
            return replace(record, wanted=False, cause=_stopped(event)), ()
        case Verb.KILL:
            return _kill(replace(record, wanted=False, cause=_stopped(event)), now)
        case Verb.START if record.wanted:
            return record, ()
    return replace(record, wanted=True, cause=_restarted(event)), ()


def _command_at_rest(record: Record, event: Commanded, now: _Now) -> _Result:
    """In PENDING, BACKOFF, STOPPED and FAILED: no process exists."""
    if event.verb in (Verb.STOP, Verb.KILL):
        cause = record.cause if record.phase is Phase.FAILED else _stopped(event)
        return replace(
            record, wanted=False, phase=Phase.STOPPED, cause=cause, deadline=None, waiting="", progress=""
        ), ()
    if event.verb is Verb.START and record.phase in (Phase.PENDING, Phase.BACKOFF):
        return record, ()
    return _afresh(record), ()


_TRANSITIONS: dict[tuple[Phase, type[Any]], _Handler] = {
    (Phase.PENDING, Tick): _pending_tick,
    (Phase.PENDING, Commanded): _command_at_rest,
    (Phase.STARTING, Spawned): _starting_spawned,
    (Phase.STARTING, SpawnFailed): _spawn_failed,
    (Phase.STARTING, Exited): _live_exited,
    (Phase.STARTING, Probed): _starting_probed,
    (Phase.STARTING, Progressed): _starting_progressed,
    (Phase.STARTING, Tick): _starting_tick,
    (Phase.STARTING, Commanded): _command_live,
    (Phase.READY, Exited): _live_exited,
    (Phase.READY, Probed): _ready_probed,
    (Phase.READY, Tick): _ready_tick,
    (Phase.READY, Commanded): _command_live,
    (Phase.STOPPING, Spawned): _stopping_spawned,
    (Phase.STOPPING, SpawnFailed): _spawn_failed,
    (Phase.STOPPING, Exited): _stopping_exited,
    (Phase.STOPPING, Drained): _stopping_drained,
    (Phase.STOPPING, Tick): _stopping_tick,
    (Phase.STOPPING, Commanded): _command_stopping,
    (Phase.BACKOFF, Tick): _resting_tick,
    (Phase.BACKOFF, Commanded): _command_at_rest,
    (Phase.STOPPED, Commanded): _command_at_rest,
    (Phase.FAILED, Tick): _resting_tick,
    (Phase.FAILED, Commanded): _command_at_rest,
}
