"""What a failure leads to: a retry at once, a later one, or none; and the message for it."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.core.restart import Policy, delay, retry_delay
from llmlaunch.supervision.core.types import Death, Exited, Phase, Record, Why

_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
            9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
            24: "SIGXCPU", 31: "SIGSYS"}  # fmt: skip
_NOTHING_RAN = frozenset({Why.SPAWN, Why.PORT})


def signal_name(code: int | None) -> str:
    """``SIGKILL`` for -9; empty for an exit code."""
    return _SIGNALS.get(-code, f"signal {-code}") if code is not None and code < 0 else ""


def describe_exit(event: Exited, starting: bool) -> str:
    """How a process ended: "was killed by SIGKILL while starting: the kernel had run out of memory"."""
    if event.code is None:
        text = "was killed along with its shim"
    elif event.code < 0:
        text = f"was killed by {signal_name(event.code)}"
    else:
        text = f"exited with code {event.code}"
    text += " while starting" if starting else ""
    if event.out_of_memory:
        text += "; the kernel's OOM killer was at work at the time"
    if event.last_line and event.code is not None and event.code >= 0:
        return f"{text}: {event.last_line}"
    return text + _log_of(event)


def _log_of(event: Exited) -> str:
    """What is in the log of a process that was killed, and could not say why: it may have nothing to do with it."""
    if not event.last_line:
        return ""
    return f"; its log says: {event.last_line}" if event.is_error else f"; its last line: {event.last_line}"


def after_failure(
    record: Record, ended: Exited | None, spec: ProcessSpec, now: float, jitter: float, policy: Policy
) -> Record:
    """``record`` after a failure, when nothing of the process is left: in BACKOFF or FAILED. Its cause says what failed.

    ``ended`` is the end of its process, if there was one. A component that has been READY is retried without limit, since its
    flags work, and so is a failure that others may fix. The delays grow, and after too many failed starts in a row the phase is
    FAILED, so that whoever waits for it learns of it. A start that made no progress is tried once more.
    """
    cause, failures = record.cause, record.failures + 1
    if ended is not None and ended.is_error and cause.why in (Why.START_TIMEOUT, Why.UNHEALTHY):
        cause = replace(cause, text=cause.text + _log_of(ended))
        record = replace(record, cause=cause)
    stalled_again = (
        record.last is not None and record.last.why is cause.why is Why.START_TIMEOUT and failures > 1
    )
    death = Death(record.incarnation, now, cause.why, cause.text)
    if ended is not None:
        death = replace(death, code=ended.code, out_of_memory=ended.out_of_memory, last_line=ended.last_line)
    record = replace(record, failures=failures, last=death)
    most = policy.max_failures if spec.restart_max is None else spec.restart_max
    if most == 0:
        words = f"{cause.text}; not restarted (`restart: never`)"
        return replace(record, phase=Phase.FAILED, cause=replace(cause, text=words, permanent=True))
    if stalled_again and spec.restart_max is None and not record.proven:
        # Each try holds its GPUs for as long as the first one, and nothing suggests that it would go another way.
        words = f"twice {cause.text}; not tried again; `start_timeout:` allows more time"
        cause = replace(cause, text=words, permanent=True)
        record = replace(record, cause=cause)
    if cause.permanent and not record.proven:
        return replace(record, phase=Phase.FAILED)
    if cause.why is not Why.MEMORY and (record.was_ready or failures < most):
        again = now + delay(policy, failures, record.was_ready, jitter)
        return replace(record, phase=Phase.BACKOFF, deadline=again)
    gave_up = record.gave_up + 1
    wait = spec.restart_delay_s
    if wait is None:
        wait = retry_delay(policy, failures, gave_up, cause.why not in _NOTHING_RAN, jitter)
    if failures > 1 and cause.why is not Why.MEMORY:
        cause = replace(cause, text=f"{failures} failed starts in a row; the last one: {cause.text}")
    cause = replace(cause, permanent=False)
    return replace(record, phase=Phase.FAILED, gave_up=gave_up, cause=cause, deadline=now + wait)
