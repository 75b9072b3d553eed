"""Traces of Vidur (Agrawal et al., MLSys 2024), https://github.com/microsoft/vidur, with arrival times.

``arrived_at`` in seconds, ``num_prefill_tokens`` and ``num_decode_tokens``. Vidur also ships files of lengths
alone; their columns serve as empirical distributions.
"""

from __future__ import annotations

from pathlib import Path

from simslm.workload.readers.fields import SECONDS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import read_csv

FIELDS = {"arrived_at": SECONDS, "num_prefill_tokens": TOKENS, "num_decode_tokens": TOKENS}
REMEDY = (
    "vidur has the columns arrived_at,num_prefill_tokens,num_decode_tokens; a file without arrival times can "
    "serve as lengths: prompt_tokens: {dist: empirical, file: ..., column: num_prefill_tokens}"
)


def read(path: Path) -> Recording:
    """The requests of one file."""
    columns = read_csv(path, FIELDS, REMEDY)
    return keep_requests(
        columns["arrived_at"], 1, columns["num_prefill_tokens"], columns["num_decode_tokens"]
    )
