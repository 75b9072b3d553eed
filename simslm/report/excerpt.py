"""Which part of a very long run is drawn: the requests, one after the other, whose TTFT was longest on the mean.

Memory does not grow with the run: its columns are read a row group at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_REQUESTS = 1 << 20
"""Requests up to which all of a run is drawn."""

DRAWN = 1 << 17
"""Requests of an excerpt, at most."""

DRAWN_ITERATIONS = 1 << 20
"""Iterations of an excerpt, about."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of a run.

    Attributes:
        first, last: its first and its last request, by number.
        of: requests of the run.
        begin_s, end_s: arrivals of the two.
        arrivals_s: from the first to the last arrival of the run.
    """

    first: int
    last: int
    of: int
    begin_s: float
    end_s: float
    arrivals_s: float

    @property
    def span_s(self) -> float:
        return self.end_s - self.begin_s

    @property
    def words(self) -> str:
        """Which part of the run it is."""
        return (
            f"Of {self.of:,} requests {self.last - self.first + 1:,} are drawn: those in a row of the longest mean "
            f"TTFT, which arrived from {self.begin_s:,.1f} to {self.end_s:,.1f} s."
        )


def excerpt(directory: Path) -> Excerpt | None:
    """The stretch of a run that is drawn; None where all of it is, or where its files do not tell."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(directory / "requests.parquet") as requests:
            count = requests.metadata.num_rows
            if count <= MOST_REQUESTS:
                return None
            iterations = pq.read_metadata(directory / "iterations.parquet").num_rows
            most = max(1, min(DRAWN, int(DRAWN_ITERATIONS * count / max(iterations, 1))))
            return _slowest(requests, most)
    except (OSError, KeyError, pa.ArrowException):
        return None


def _slowest(requests: Any, most: int) -> Excerpt:
    """The ``most`` consecutive rows of a row group, or fewer, with the longest mean TTFT."""
    found, worst, ends = None, -1.0, []
    for group in range(requests.num_row_groups):
        rows = requests.read_row_group(group, columns=["request_id", "arrival_s", "ttft_s"])
        number, arrival = (rows.column(name).to_numpy() for name in ("request_id", "arrival_s"))
        ttft = np.nan_to_num(rows.column("ttft_s").to_numpy())
        ends += [float(arrival[0]), float(arrival[-1])]
        for begin in range(0, len(ttft), most):
            part = slice(begin, begin + most)
            if len(ttft[part]) >= min(most, len(ttft)) and (mean := float(ttft[part].mean())) > worst:
                worst, found = mean, (number[part][[0, -1]].tolist(), arrival[part][[0, -1]].tolist())
    assert found is not None
    (first, last), (begin_s, end_s) = found
    return Excerpt(first, last, requests.metadata.num_rows, begin_s, end_s, ends[-1] - ends[0])
