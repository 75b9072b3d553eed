"""Traces of splitwise-sim (Patel et al., ISCA 2024), https://github.com/Mutinifni/splitwise-sim.

``arrival_timestamp`` in seconds, ``prompt_size`` and ``token_size`` in tokens; ``batch_size`` is 1, as its own traces
have it: a row that stands for several requests is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simslm.workload.readers.fields import ONE, SECONDS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import csv_pieces

FIELDS = {"arrival_timestamp": SECONDS, "prompt_size": TOKENS, "token_size": TOKENS}
OPTIONAL = {"batch_size": ONE}
REMEDY = "splitwise has the columns arrival_timestamp,prompt_size,token_size, and batch_size 1 in every row"


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    for columns in csv_pieces(path, FIELDS, REMEDY, OPTIONAL):
        yield keep_requests(columns["arrival_timestamp"], 1, columns["prompt_size"], columns["token_size"])
