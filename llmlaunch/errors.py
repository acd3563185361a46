"""Every error a user can cause, as one tree.

::

    LlmlaunchError                  exit 1
    ├── UsageError                  exit 2   the command line is wrong
    ├── ManifestError               exit 2   carries every Problem found in one file
    ├── ModelError                  exit 1   a model cannot be found or understood
    ├── HardwareError               exit 1   a device was named that is not there
    ├── PlanError                   exit 1   something does not fit
    ├── PortTakenError              exit 1   a requested port is held by somebody else
    ├── NotRunningError             exit 3   there is no such deployment now
    ├── StartError                  exit 1   a component failed, with its reason
    ├── DeadlineError               exit 4   the time given by the user is over
    └── ControlError                exit 1   the supervisor refused, or does not answer

Libraries raise these; only ``cli/`` prints them and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LlmlaunchError(Exception):
    """Base of all errors that end in one clear message.

    ``code`` is a stable identifier for scripts, ``message`` says what, where and why, ``hint`` what to do.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code


class UsageError(LlmlaunchError):
    """The command line, a file that it names, or a flag is wrong."""

    code = "usage"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a manifest. ``line`` and ``column`` count from 1; 0 means "the file as a whole"."""

    file: str
    line: int
    column: int
    message: str
    expected: str = ""
    suggestion: str = ""

    @property
    def where(self) -> str:
        """``file:line:column``, or the file alone for what concerns all of it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.suggestion:
            text += f"; did you mean {self.suggestion!r}?"
        return text


class ManifestError(LlmlaunchError):
    """All mistakes of one manifest at once, in file order."""

    code = "manifest"
    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        super().__init__("\n".join(map(str, problems)), hint=hint)
        self.problems = tuple(problems)


class ModelError(LlmlaunchError):
    """A model cannot be found, read or understood."""

    code = "model"


class HardwareError(LlmlaunchError):
    """A device was named that this machine does not have, or a description of hardware cannot be read."""

    code = "hardware"


class PlanError(LlmlaunchError):
    """Something does not fit, or could not start as planned."""

    code = "plan"


class PortTakenError(LlmlaunchError):
    """A requested port is held by somebody else."""

    code = "port_taken"


class NotRunningError(LlmlaunchError):
    """No deployment of that name runs now."""

    code = "not_running"
    exit_code = 3


class StartError(LlmlaunchError):
    """A component failed, with its reason."""

    code = "start"


class DeadlineError(LlmlaunchError):
    """The time given by the user is over."""

    code = "deadline"
    exit_code = 4


class ControlError(LlmlaunchError):
    """The supervisor refused a request, or does not answer."""

    code = "control"
