"""What an exception means to the person at the terminal: its lines and its exit code."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from simslm.errors import DeviceError, ScenarioError, SimslmError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + the number of the signal."""

FAULT = 70
"""Exit code of a fault of simslm's own (``EX_SOFTWARE`` of ``sysexits.h``)."""


class InterruptError(Exception):
    """Ctrl-C, and what it left behind."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The lines to print on stderr, and the exit code."""

    lines: tuple[str, ...]
    exit_code: int


def explain(error: BaseException) -> Failure:
    """The failure that an exception means."""
    if isinstance(error, ScenarioError):
        # All faults of a scenario at once, a line each.
        lines, code = error.problems, error.exit_code
    elif isinstance(error, SimslmError):
        lines, code = (str(error),), error.exit_code
    elif isinstance(error, InterruptError | KeyboardInterrupt):
        lines, code = (str(error) or "interrupted",), INTERRUPTED
    elif isinstance(error, MemoryError):
        lines, code = (f"more memory is needed than this machine gives ({error})",), DeviceError.exit_code
    elif isinstance(error, OSError):
        lines, code = (_system(error),), DeviceError.exit_code
    else:
        lines, code = (_fault(error),), FAULT
    return Failure(tuple(_one_line(line) for line in lines), code)


def _system(error: OSError) -> str:
    """What the operating system refused."""
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason


def _fault(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return (
        f"a fault of simslm's own: {type(error).__name__}: {error} ({place}); "
        "run it again with --debug and report what that shows"
    )


def _one_line(text: str) -> str:
    """Text from files and arguments as one line that cannot steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
