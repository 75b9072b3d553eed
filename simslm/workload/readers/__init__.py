"""Recorded traces in their original file formats, one module per format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simslm.workload.readers import azure, burstgpt, llmservingsim, mooncake, plain, vidur
from simslm.workload.readers.recording import Recording

READERS: dict[str, Callable[[Path], Recording]] = {
    "azure-2023": azure.read,
    "azure-2024": azure.read,
    "burstgpt": burstgpt.read,
    "mooncake": mooncake.read,
    "vidur": vidur.read,
    "llmservingsim": llmservingsim.read,
    "csv": plain.read,
}
"""By ``replay.format``: from a file to its requests."""
