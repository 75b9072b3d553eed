"""Which part of a very long run is drawn: the consecutive requests with the longest mean TTFT.

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
        served_from_s, served_to_s: from when until when they were served; what is drawn of iterations.
        arrivals_s: from the first to the last arrival of the run.
    """

    first: int
    last: int
    of: int
    begin_s: float
    end_s: float
    served_from_s: float
    served_to_s: float
    arrivals_s: float

    @property
    def span_s(self) -> float:
        return self.served_to_s - self.served_from_s

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
    names = ("request_id", "arrival_s", "ttft_s", "first_scheduled_s", "finish_s")
    for group in range(requests.num_row_groups):
        rows = requests.read_row_group(group, columns=list(names))
        columns = {name: rows.column(name).to_numpy() for name in names}
        ttft = np.nan_to_num(columns["ttft_s"])
        ends += [float(columns["arrival_s"].min()), float(columns["arrival_s"].max())]
        for begin in range(0, len(ttft), most):
            part = slice(begin, begin + most)
            # The last part of a row group may hold a few requests only: a mean over them is an outlier, not a
            # stretch.
            if len(ttft[part]) >= min(most, len(ttft)) and (mean := float(ttft[part].mean())) > worst:
                worst, found = mean, {name: column[part] for name, column in columns.items()}
    assert found is not None
    arrival, number = found["arrival_s"], found["request_id"]
    begun, ended = (np.where(np.isnan(found[name]), arrival, found[name]) for name in names[3:])
    served = float(begun.min()), max(float(ended.max()), float(arrival.max()))
    count, arrivals_s = requests.metadata.num_rows, max(ends) - min(ends)
    bounds = float(arrival.min()), float(arrival.max())
    return Excerpt(int(number[0]), int(number[-1]), count, *bounds, *served, arrivals_s)
