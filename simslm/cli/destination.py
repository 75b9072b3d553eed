"""The place of results: checked before the work is done, made only after it."""

from __future__ import annotations

import os
from pathlib import Path

from simslm.errors import UsageError


def free_place(directory: Path) -> Path:
    """The same path, when a directory can be there and be written to; nothing is made yet.

    Raises:
        UsageError: it cannot.
    """
    nearest = _nearest(directory)
    if not nearest.is_dir():
        raise UsageError(
            "is a file, not a directory", where=str(directory), remedy="choose another with `-o`"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot be written to (no permission for {nearest})",
            where=str(directory),
            remedy="choose another with `-o`",
        )
    return directory


def _nearest(directory: Path) -> Path:
    """The directory, or the nearest above it that is there."""
    nearest = directory
    while not _exists(nearest, directory):
        nearest = nearest.parent
    return nearest


def _exists(path: Path, directory: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"no directory can be made there ({reason})",
            where=str(directory),
            remedy="choose another with `-o`",
        ) from None
    return True
