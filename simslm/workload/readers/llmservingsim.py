"""LLMServingSim workloads (Cho et al., IISWC 2024), https://github.com/casys-kaist/LLMServingSim: JSON lines.

``arrival_time_ns`` in whole nanoseconds, ``input_toks`` and ``output_toks`` in tokens.
Token ids are not used.
"""

from __future__ import annotations

from pathlib import Path

from simslm.workload.readers.fields import TICKS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import read_json_lines

FIELDS = {"arrival_time_ns": TICKS, "input_toks": TOKENS, "output_toks": TOKENS}
REMEDY = "llmservingsim has one JSON object per line with arrival_time_ns, input_toks and output_toks"


def read(path: Path) -> Recording:
    """The requests of one file."""
    columns = read_json_lines(path, FIELDS, REMEDY)
    return keep_requests(columns["arrival_time_ns"], 10**9, columns["input_toks"], columns["output_toks"])
