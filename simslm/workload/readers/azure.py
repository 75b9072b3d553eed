"""Azure LLM inference traces: 2023 (Splitwise, ISCA 2024), 2024 (DynamoLLM, HPCA 2025), 2025 (ModServe, SoCC 2025).

https://github.com/Azure/AzurePublicDataset: ``TIMESTAMP,ContextTokens,GeneratedTokens``. The files of 2023
have seven fractional digits, no time zone, CRLF line ends and no newline after the last row; those of 2024
have six digits and ``+00:00``; those of 2025 ``Z``, and ``NumImages`` beside the tokens. All forms, and any mix of
digits, are read exactly, in nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simslm.workload.readers.fields import COUNT, TIMESTAMP, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import blame, csv_pieces

FIELDS = {"TIMESTAMP": TIMESTAMP, "ContextTokens": TOKENS, "GeneratedTokens": TOKENS}
MULTIMODAL = {**FIELDS, "NumImages": COUNT}
REMEDY = (
    "the azure formats have the columns TIMESTAMP,ContextTokens,GeneratedTokens, and azure-2025 NumImages"
)
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def zoned(row: dict[str, Any]) -> bool:
    """Whether the time stamp of a row names its time zone."""
    return _ZONE.search(row["TIMESTAMP"]) is not None


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    return _read(path, FIELDS)


def read_multimodal(path: Path) -> Iterator[Recording]:
    """The requests of one file, with the images of each."""
    return _read(path, MULTIMODAL)


def _read(path: Path, fields: dict[str, Any]) -> Iterator[Recording]:
    with_zone = None
    for columns in csv_pieces(path, fields, REMEDY):
        texts = columns["TIMESTAMP"]
        if with_zone is None and len(texts):
            with_zone = _ZONE.search(texts[0].as_py()) is not None
        yield keep_requests(
            _nanoseconds(texts, bool(with_zone), path),
            10**9,
            columns["ContextTokens"],
            columns["GeneratedTokens"],
            images=columns.get("NumImages"),
        )


def _nanoseconds(texts: Any, with_zone: bool, path: Path) -> np.ndarray:
    """Time stamps as int64 nanoseconds; the file's first says whether all have a time zone."""
    import pyarrow as pa

    try:
        times = texts.cast(pa.timestamp("ns", tz="UTC" if with_zone else None))
    except pa.ArrowException:
        blame(path, FIELDS, REMEDY, "TIMESTAMP has a time zone in some rows and none in others")
    return times.cast(pa.int64()).to_numpy()
