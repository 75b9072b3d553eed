"""Mooncake traces (Qin et al., FAST 2025), https://github.com/kvcache-ai/Mooncake: one JSON object per line.

``timestamp`` in whole milliseconds, ``input_length`` and ``output_length`` in tokens. ``hash_ids``, which
name the blocks of 512 tokens that prompts share, are not used.
"""

from __future__ import annotations

from pathlib import Path

from simslm.workload.readers.fields import TICKS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import read_json_lines

FIELDS = {"timestamp": TICKS, "input_length": TOKENS, "output_length": TOKENS}
REMEDY = "mooncake has one JSON object per line with timestamp (ms), input_length and output_length"
NOTE = "the trace's prefix hashes are not used: no two prompts share a prefix"


def read(path: Path) -> Recording:
    """The requests of one file."""
    columns = read_json_lines(path, FIELDS, REMEDY)
    return keep_requests(
        columns["timestamp"], 1000, columns["input_length"], columns["output_length"], notes=(NOTE,)
    )
