"""Which signals a process of ours acts on.

A signal that was ignored when the process started stays ignored: ``nohup`` ignores SIGHUP, a shell without job control
ignores SIGINT and SIGQUIT for what it puts into the background, and both mean it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Each asks a server to shut down gracefully."""
FROM_A_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
"""Sent by a user, who sends another when the first takes too long."""
_FAULTS = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
_CAN_NOT_BE_HANDLED = {signal.SIGKILL, signal.SIGSTOP}
_END_NOTHING = {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG, signal.SIGWINCH,
}  # fmt: skip


def not_ignored(numbers: Iterable[int]) -> tuple[int, ...]:
    """Those of ``numbers`` that this process does not ignore now. Ask before handlers are installed."""
    return tuple(number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)


def unhandled() -> tuple[int, ...]:
    """Signals that nobody handles and that would end this process without a word, such as SIGUSR1 and SIGALRM.

    A server notes them and goes on.
    """
    known = {*ENDING, *_FAULTS, *_CAN_NOT_BE_HANDLED, *_END_NOTHING}
    others = sorted(number for number in signal.valid_signals() if number not in known)
    return tuple(number for number in others if signal.getsignal(number) is signal.SIG_DFL)


def name(number: int) -> str:
    """``SIGUSR1``; ``signal 40`` for a real-time signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
