"""What a campaign has measured so far, on disk at once: one JSON line per finished visit.

The first line says which campaign it is. A process cut off while writing leaves a half line at the end, which
is dropped when the campaign resumes; everything before it is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simslm.errors import UsageError

Key = tuple[str, str, int]
"""Kind of the entry, its label, and the visit's number."""


class Journal:
    """Finished visits by key.

    Args:
        path: the file; made with the first entry.
        header: what makes two campaigns the same; resuming another is refused.

    Raises:
        UsageError: when the file belongs to another campaign.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: dict[Key, list[dict[str, Any]]] = {}
        lines = _whole_lines(path)
        if lines:
            self._resume(lines, dict(header))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(header)) + "\n")

    def add(self, key: Key, rows: list[dict[str, Any]]) -> None:
        """Keep the rows of a finished visit; on disk when this returns."""
        self.entries[key] = rows
        with self.path.open("a") as sink:
            sink.write(json.dumps([*key, rows]) + "\n")
            sink.flush()
            os.fsync(sink.fileno())

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """All rows of one kind, with their ``visit``, numbered by ``repeat`` within each label in that order."""
        counts: dict[str, int] = {}
        numbered = []
        for (_, label, visit), rows in sorted(e for e in self.entries.items() if e[0][0] == kind):
            for row in rows:
                numbered.append(row | {"repeat": counts.setdefault(label, 0), "visit": visit})
                counts[label] += 1
        return numbered

    def remove(self) -> None:
        """Forget everything, on disk too."""
        self.path.unlink(missing_ok=True)

    def _resume(self, lines: list[str], header: dict[str, Any]) -> None:
        found = json.loads(lines[0])
        if found != header:
            differing = [key for key in {*found, *header} if found.get(key) != header.get(key)]
            raise UsageError(
                f"an interrupted campaign is here that differs in {', '.join(sorted(differing))}",
                where=str(self.path),
                remedy="resume it with its own settings, or delete that file to start afresh",
            )
        for line in lines[1:]:
            kind, label, visit, rows = json.loads(line)
            self.entries[kind, label, visit] = rows


def _whole_lines(path: Path) -> list[str]:
    """The file's complete lines; a half line at its end is cut off the file too."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))
    return whole.decode().splitlines()
