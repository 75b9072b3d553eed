"""Mooncake traces (Qin et al., FAST 2025), https://github.com/kvcache-ai/Mooncake: one JSON object per line.

``timestamp`` in whole milliseconds, ``input_length`` and ``output_length`` in tokens. ``hash_ids``, one for every
512 tokens of the prompt, name the prefixes that prompts share; a line may have fewer, or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.workload.prefixes import Chains
from simslm.workload.readers.fields import HASHES, TICKS, TOKENS
from simslm.workload.readers.recording import Recording, keep_requests
from simslm.workload.readers.table import json_pieces, line_of

UNIT_TOKENS = 512
"""Tokens that one hash stands for."""

COUNTED = {"timestamp": TICKS, "input_length": TOKENS, "output_length": TOKENS}
FIELDS = {**COUNTED, "hash_ids": HASHES}
REMEDY = (
    "mooncake has one JSON object per line with timestamp (ms), input_length and output_length, and may have "
    "hash_ids, one for every 512 tokens of the prompt"
)


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    chains, rows = Chains(UNIT_TOKENS), 0
    for columns in json_pieces(path, FIELDS, REMEDY):
        prompts = columns["input_length"]
        hashes = _rows(columns["hash_ids"])
        known = any(hashes)
        if known:
            _check(path, hashes, prompts, rows)
        yield keep_requests(
            columns["timestamp"],
            1000,
            prompts,
            columns["output_length"],
            units=chains(hashes, prompts.tolist()) if known else None,
            unit_tokens=UNIT_TOKENS if known else 0,
        )
        rows += len(prompts)


def _rows(hashes: Any) -> list[list[int]]:
    """A pyarrow array of lists as lists, empty where there is none."""
    lengths = hashes.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = hashes.flatten().to_pylist()
    return [flat[start:end] for start, end in pairwise([0, *np.cumsum(lengths).tolist()])]


def _check(path: Path, hashes: list[list[int]], prompts: np.ndarray, before: int) -> None:
    """No prompt has more hashes than units; ``before`` rows of the file went before."""
    most = -(-prompts // UNIT_TOKENS)
    found = np.array([len(row) for row in hashes])
    wrong = np.flatnonzero(found > most)
    if len(wrong):
        row = int(wrong[0])
        raise ScenarioError(
            f"hash_ids: expected at most {most[row]} for {prompts[row]} prompt tokens, found {found[row]}",
            where=f"{path}:{line_of(path, before + row)}",
            remedy=REMEDY,
        )
