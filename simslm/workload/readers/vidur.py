"""Traces of Vidur (Agrawal et al., MLSys 2024), https://github.com/microsoft/vidur.

``arrived_at`` in seconds, ``num_prefill_tokens`` and ``num_decode_tokens``. Vidur also ships files of lengths
alone: they replay with arrivals of the scenario's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simslm.workload.readers.fields import SECONDS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import csv_pieces

LENGTHS = {"num_prefill_tokens": TOKENS, "num_decode_tokens": TOKENS}
FIELDS = {"arrived_at": SECONDS, **LENGTHS}
REMEDY = (
    "vidur has the columns arrived_at,num_prefill_tokens,num_decode_tokens; a file without arrival times is "
    "vidur-lengths, replayed with arrivals: {process: ...} beside replay"
)


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    for columns in csv_pieces(path, FIELDS, REMEDY):
        yield keep_requests(
            columns["arrived_at"], 1, columns["num_prefill_tokens"], columns["num_decode_tokens"]
        )


def read_lengths(path: Path) -> Iterator[Recording]:
    """The requests of a file without arrival times, all at 0."""
    for columns in csv_pieces(path, LENGTHS, REMEDY):
        prompts = columns["num_prefill_tokens"]
        yield keep_requests(np.zeros(len(prompts)), 1, prompts, columns["num_decode_tokens"], timed=False)
