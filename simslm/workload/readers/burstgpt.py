"""BurstGPT traces (Wang et al. 2024, arXiv:2401.17644), https://github.com/HPMLL/BurstGPT.

``Timestamp`` in seconds, whole in BurstGPT_1 and with a fraction in BurstGPT_3, which also has sessions (blank
for single calls) and how long each answer took, in whole seconds. A row without response tokens is a request that
failed: dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simslm.workload.readers.fields import ELAPSED, LABEL, SECONDS, TOKENS
from simslm.workload.readers.recording import Numbering, Recording, keep_requests
from simslm.workload.readers.table import csv_pieces

FIELDS = {"Timestamp": SECONDS, "Request tokens": TOKENS, "Response tokens": TOKENS}
OPTIONAL = {"Session ID": LABEL, "Elapsed time": ELAPSED}
REMEDY = "burstgpt has the columns Timestamp, Request tokens, Response tokens"


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    sessions = Numbering()
    for columns in csv_pieces(path, FIELDS, REMEDY, OPTIONAL):
        yield keep_requests(
            columns["Timestamp"],
            1,
            columns["Request tokens"],
            columns["Response tokens"],
            "failed (no response)",
            session_id=sessions(columns["Session ID"]) if "Session ID" in columns else None,
            elapsed_s=columns.get("Elapsed time"),
        )
