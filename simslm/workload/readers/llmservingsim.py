"""LLMServingSim workloads (Cho et al., IISWC 2024), https://github.com/casys-kaist/LLMServingSim: JSON lines.

``arrival_time_ns`` in whole nanoseconds, ``input_toks`` and ``output_toks`` in tokens.
Token ids are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simslm.workload.readers.fields import NANOSECONDS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import json_pieces

FIELDS = {"arrival_time_ns": NANOSECONDS, "input_toks": TOKENS, "output_toks": TOKENS}
REMEDY = "llmservingsim has one JSON object per line with arrival_time_ns, input_toks and output_toks"


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    for columns in json_pieces(path, FIELDS, REMEDY):
        yield keep_requests(columns["arrival_time_ns"], 10**9, columns["input_toks"], columns["output_toks"])
