"""The project's own files: ``arrival_s,prompt_tokens,output_tokens``, and where wanted ``priority``, ``session_id``
(any text, blank or -1 for none) and ``patience_s`` (blank for ever), as CSV, as JSON lines, or as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simslm.workload.readers.fields import LABEL, LENGTH, PATIENCE, SECONDS, TICKS
from simslm.workload.readers.recording import Numbering, Recording, keep_requests
from simslm.workload.readers.table import csv_pieces, json_pieces

FIELDS = {"arrival_s": SECONDS, "prompt_tokens": LENGTH, "output_tokens": LENGTH}
OPTIONAL = {"priority": TICKS, "session_id": LABEL, "patience_s": PATIENCE}
REMEDY = "csv, jsonl and parquet have arrival_s,prompt_tokens,output_tokens and may have priority,session_id,patience_s"


def read_csv(path: Path) -> Iterator[Recording]:
    """The requests of a CSV file; here every row has to be one."""
    return requests(csv_pieces(path, FIELDS, REMEDY, OPTIONAL))


def read_json(path: Path) -> Iterator[Recording]:
    """The same of a file with one JSON object per line."""
    return requests(json_pieces(path, FIELDS, REMEDY, OPTIONAL))


def requests(pieces: Iterator[dict[str, Any]]) -> Iterator[Recording]:
    """Requests from columns by their names."""
    sessions = Numbering()
    for columns in pieces:
        yield keep_requests(
            columns["arrival_s"],
            1,
            columns["prompt_tokens"],
            columns["output_tokens"],
            priority=columns.get("priority"),
            session_id=sessions(columns["session_id"]) if "session_id" in columns else None,
            patience_s=columns.get("patience_s"),
        )
