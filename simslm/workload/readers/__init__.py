"""Recorded traces in their original file formats, one module per format, read piece by piece."""

from __future__ import annotations

from simslm.workload.readers.formats import FORMATS, Format, detect, read_pieces, read_trace, rows_at_most
from simslm.workload.readers.recording import Recording

__all__ = ["FORMATS", "Format", "Recording", "detect", "read_pieces", "read_trace", "rows_at_most"]
