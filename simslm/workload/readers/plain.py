"""The project's own CSV: ``arrival_s,prompt_tokens,output_tokens``."""

from __future__ import annotations

from pathlib import Path

from simslm.workload.readers.fields import LENGTH, SECONDS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import read_csv

FIELDS = {"arrival_s": SECONDS, "prompt_tokens": LENGTH, "output_tokens": LENGTH}
REMEDY = "csv has the columns arrival_s,prompt_tokens,output_tokens"


def read(path: Path) -> Recording:
    """The requests of one file; here every row has to be one."""
    columns = read_csv(path, FIELDS, REMEDY)
    return keep_requests(columns["arrival_s"], 1, columns["prompt_tokens"], columns["output_tokens"])
