"""The project's own CSV: ``arrival_s,prompt_tokens,output_tokens``, and where wanted ``priority``, ``session_id``
(any text, blank or -1 for none) and ``patience_s`` (blank for ever)."""

from __future__ import annotations

from pathlib import Path

from simslm.workload.readers.fields import LABEL, LENGTH, PATIENCE, SECONDS, TICKS
from simslm.workload.readers.recording import Recording, keep_requests, sessions
from simslm.workload.readers.table import read_csv

FIELDS = {"arrival_s": SECONDS, "prompt_tokens": LENGTH, "output_tokens": LENGTH}
OPTIONAL = {"priority": TICKS, "session_id": LABEL, "patience_s": PATIENCE}
REMEDY = (
    "csv has the columns arrival_s,prompt_tokens,output_tokens and may have priority,session_id,patience_s"
)


def read(path: Path) -> Recording:
    """The requests of one file; here every row has to be one."""
    columns = read_csv(path, FIELDS, REMEDY, OPTIONAL)
    return keep_requests(
        columns["arrival_s"],
        1,
        columns["prompt_tokens"],
        columns["output_tokens"],
        priority=columns.get("priority"),
        session_id=sessions(columns["session_id"]) if "session_id" in columns else None,
        patience_s=columns.get("patience_s"),
    )
