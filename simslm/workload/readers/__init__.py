"""Recorded traces in their original file formats, one module per format, read piece by piece."""

from __future__ import annotations

from simslm.workload.readers.formats import (
    FORMATS,
    Format,
    begins_as_trace,
    detect,
    read_pieces,
    read_trace,
    rows_at_most,
)
from simslm.workload.readers.recording import OPTIONAL, Recording

__all__ = [
    "FORMATS",
    "OPTIONAL",
    "Format",
    "Recording",
    "begins_as_trace",
    "detect",
    "read_pieces",
    "read_trace",
    "rows_at_most",
]
