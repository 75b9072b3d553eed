"""``STEPS.csv``: iterations measured without a server, all prompts together and then decoding together.

Columns ``model input_len output_len batch prefill_s decode_s decode_steps``; others are ignored, an empty time was
not measured.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.errors import UsageError

BUDGET = 2048
"""Prompt tokens of an iteration: vLLM 0.6.3 prefills whole prompts up to that many."""

_COUNTS = ("input_len", "batch", "decode_steps")
_TIMES = ("prefill_s", "decode_s")


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement: a batch of equal prompts.

    Attributes:
        where: file and line.
        input_len: tokens of each prompt.
        batch: prompts.
        decode_steps: decode iterations.
        prefill_s, decode_s: of all of them; None when not measured.
    """

    where: str
    input_len: int
    batch: int
    decode_steps: int
    prefill_s: float | None
    decode_s: float | None

    @property
    def prefills(self) -> IterationShape:
        """The iterations that prefill, whole prompts up to :data:`BUDGET` tokens each."""
        most = max(BUDGET // self.input_len, 1)
        full, rest = divmod(self.batch, most)
        prompts = np.array([most] * full + ([rest] if rest else []), dtype=float)
        none = np.zeros(len(prompts))
        tokens = prompts * self.input_len
        return IterationShape(none, none, prompts, tokens, none, tokens * (self.input_len + 1) / 2)

    @property
    def decodes(self) -> IterationShape:
        """The decode iterations."""
        context = self.batch * (self.input_len + np.arange(1.0, self.decode_steps + 1))
        none = np.zeros(len(context))
        return IterationShape(np.full(len(context), self.batch), context, none, none, none, none)

    def log_errors(self, cost: CostModel) -> dict[str, float]:
        """Logarithm of computed over measured time, of what was measured."""
        pairs = {"prefill": (self.prefill_s, self.prefills), "decode": (self.decode_s, self.decodes)}
        return {
            kind: math.log(float(cost.evaluate(shapes).latency_s.sum()) / seconds)
            for kind, (seconds, shapes) in pairs.items()
            if seconds
        }


def read_steps(path: Path, model: str) -> list[Step]:
    """The rows of one model.

    Raises:
        UsageError: the file cannot be read, a cell is wrong, or no row is of the model.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            missing = [name for name in ("model", *_COUNTS, *_TIMES) if name not in header]
            if missing:
                raise UsageError(f"lacks the columns {', '.join(missing)}", where=str(path))
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=str(path), remedy="check the path"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot be read as CSV in UTF-8 ({error})", where=str(path)) from None
    steps = [_step(f"{path}:{line}", row) for line, row in rows if row["model"] == model]
    if not steps:
        raise UsageError(f"has no rows of {model}", where=str(path), remedy="leave --offline out")
    return steps


def _step(where: str, row: dict[str, str]) -> Step:
    counts = {name: _number(where, name, row[name], whole=True) for name in _COUNTS}
    times = {name: _number(where, name, row[name]) if row[name] else None for name in _TIMES}
    return Step(
        where, int(counts["input_len"]), int(counts["batch"]), int(counts["decode_steps"]), times["prefill_s"],
        times["decode_s"],
    )  # fmt: skip


def _number(where: str, name: str, text: str, *, whole: bool = False) -> float:
    try:
        value = float(text)
        if not 0 < value < math.inf or (whole and value != int(value)):
            raise ValueError
    except (TypeError, ValueError):
        kind = "a whole number of 1 or more" if whole else "a number above 0"
        raise UsageError(f"{name}: expected {kind}, found {text!r}", where=where) from None
    return value
