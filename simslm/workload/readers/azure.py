"""Azure LLM inference traces of 2023 (Splitwise, ISCA 2024) and 2024 (DynamoLLM, HPCA 2025).

https://github.com/Azure/AzurePublicDataset: ``TIMESTAMP,ContextTokens,GeneratedTokens``. The files of 2023
have seven fractional digits, no time zone, CRLF line ends and no newline after the last row; those of 2024
have six digits and ``+00:00``. Both forms, and any mix of digits, are read exactly, in nanoseconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from simslm.workload.readers.fields import TIMESTAMP, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import blame, read_csv

FIELDS = {"TIMESTAMP": TIMESTAMP, "ContextTokens": TOKENS, "GeneratedTokens": TOKENS}
REMEDY = "the azure formats have the columns TIMESTAMP,ContextTokens,GeneratedTokens"
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def read(path: Path) -> Recording:
    """The requests of one file."""
    columns = read_csv(path, FIELDS, REMEDY)
    ticks = _nanoseconds(columns["TIMESTAMP"], path)
    return keep_requests(ticks, 10**9, columns["ContextTokens"], columns["GeneratedTokens"])


def _nanoseconds(texts: Any, path: Path) -> np.ndarray:
    """Time stamps as int64 nanoseconds; the first says whether all have a time zone."""
    import pyarrow as pa

    zoned = len(texts) > 0 and _ZONE.search(texts[0].as_py()) is not None
    try:
        times = texts.cast(pa.timestamp("ns", tz="UTC" if zoned else None))
    except pa.ArrowException:
        blame(path, FIELDS, REMEDY, "TIMESTAMP has a time zone in some rows and none in others")
    return times.cast(pa.int64()).to_numpy()
