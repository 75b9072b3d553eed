"""The errors simslm raises on purpose, and the exit code each one means.

    SimslmError
    ├── UsageError        2  the command or an argument makes no sense
    ├── ScenarioError     2  a scenario or a workload file is wrong
    ├── TraceError        3  a trace is missing, damaged or of another model
    ├── InfeasibleError   4  the question is sound and the answer is no: the model does not fit, nothing meets the SLO
    └── DeviceError       5  the machine could not do what was asked

Every message says what is wrong, where, and what to do next. Anything else that escapes is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


class SimslmError(Exception):
    """What went wrong, where, and the remedy.

    Args:
        message: one sentence: what was found and what was expected.
        where: the place, e.g. ``scenario.yaml:6`` or a file path; empty when there is none.
        remedy: what to do next; empty when the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message = message
        self.where = where
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class UsageError(SimslmError):
    exit_code = 2


class ScenarioError(SimslmError):
    """One or more faults in a scenario; ``problems`` holds one line for each, all found at once."""

    exit_code = 2

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", problems: Sequence[str] = ()
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.problems = tuple(problems) or (str(self),)


class TraceError(SimslmError):
    exit_code = 3


class InfeasibleError(SimslmError):
    exit_code = 4


class DeviceError(SimslmError):
    exit_code = 5


def nearest(name: str, candidates: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest candidate, or an empty string when none is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
