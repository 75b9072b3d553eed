"""Runs compared with the first of them: what differs in their scenarios, and by how much their figures differ.

Everything here is a function of tables (:class:`~simslm.comparison.contrast.Run`); nothing reads or writes a file.
"""

from __future__ import annotations

from simslm.comparison.changed_settings import Change
from simslm.comparison.compare import compare
from simslm.comparison.contrast import Comparison, Configuration, Contrast, Pairing, Run
from simslm.comparison.delta import Delta
from simslm.comparison.pairs import PairedLatency

__all__ = [
    "Change",
    "Comparison",
    "Configuration",
    "Contrast",
    "Delta",
    "PairedLatency",
    "Pairing",
    "Run",
    "compare",
]
