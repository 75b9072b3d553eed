"""What a search has found out so far, on disk: one line for each trial, written when it is done.

A line is there whole or, after a crash in the middle of it, dropped; so a search that is taken up again loses no
finished trial and repeats none.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from simslm.errors import UsageError
from simslm.search.objectives import finite, from_file
from simslm.search.space import identity
from simslm.search.trial import Attained, Outcome, Trial

NAME = "trials.jsonl"
Key = tuple[str, int, float]
"""A trial without its numbers: the point, the replication, the share of requests."""


def key(trial: Trial) -> Key:
    return identity(trial.parameters), trial.replication, trial.share


class Journal:
    """The file of finished trials in a search's directory; used as a context.

    Args:
        directory: of the search; made if it is not there.
        header: what the trials are about; the same for the same search, and plain JSON.
        resume: go on with what is there.

    Raises:
        UsageError: an unfinished search is there and is not to be taken up again, or is of another scenario, or
            another process works on it, or nothing can be written.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any], resume: bool) -> None:
        self.known: dict[Key, Outcome] = {}
        self.path = directory / NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise UsageError(f"cannot be written ({error.strerror or error})", where=str(directory)) from None
        try:
            self._begin(json.loads(json.dumps(header)), resume)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Writes a trial that is done."""
        values = asdict(outcome) | {"values": {path: finite(each) for path, each in outcome.values.items()}}
        values |= {"changes": dict(outcome.changes), "sampled": dict(outcome.sampled)}
        _append(self._file, {"trial": list(key(trial)), "outcome": values})

    def finish(self) -> None:
        """Notes that nothing is left to do."""
        _append(self._file, {"finished": True})

    def _begin(self, header: dict[str, Any], resume: bool) -> None:
        try:
            # Held until the process ends, also when it is killed: no stale lock file can be left behind.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError("another search is writing here", where=str(self.path.parent)) from None
        lines, size = _lines(self._file)
        if resume and lines:
            self._continue(lines, header)
            # A line that a crash cut in half goes, or the next one would be appended to it.
            self._file.truncate(size)
            return
        if len(lines) > 1 and not any("finished" in line for line in lines):
            raise UsageError(
                f"holds a search that was not finished ({len(lines) - 1:,} trials are)",
                where=str(self.path.parent),
                remedy="continue it with --resume, or choose another directory with `-o`",
            )
        self._file.truncate(0)
        _append(self._file, header)

    def _continue(self, lines: list[dict[str, Any]], header: dict[str, Any]) -> None:
        different = _difference(lines[0], header)
        if different:
            raise UsageError(
                f"holds a search of another scenario: {different}",
                where=str(self.path.parent),
                remedy="choose another directory with `-o`",
            )
        for line in lines[1:]:
            if "trial" in line:
                point, replication, share = line["trial"]
                self.known[point, replication, share] = _outcome(line["outcome"])


def _append(file: BinaryIO, value: Mapping[str, Any]) -> None:
    file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
    file.flush()


def _lines(file: BinaryIO) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a journal, and how many bytes they are."""
    file.seek(0)
    found, size = [], 0
    for line in file:
        try:
            value = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            break
        found.append(value)
        size += len(line)
    return found, size


def _outcome(values: dict[str, Any]) -> Outcome:
    capacity = values.pop("capacity")
    values["values"] = {path: from_file(each) for path, each in values["values"].items()}
    return Outcome(**values, capacity=None if capacity is None else Attained(**capacity))


def _difference(before: Any, now: Any, place: str = "") -> str:
    """Where two headers first differ; empty where they do not."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*before, *now)):
            found = _difference(before.get(name), now.get(name), f"{place}.{name}" if place else name)
            if found:
                return found
        return ""
    return "" if before == now else f"{place} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
