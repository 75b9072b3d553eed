"""The kinds of field a trace has: how a whole column is checked at once, and how one text is.

The column check is fast and says only that something is wrong; the text check then finds the row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from simslm.scenario.arrivals import LONGEST_S

LARGEST = 2**53
"""Whole numbers up to here are exact as doubles too."""
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Field:
    """A kind of field.

    Attributes:
        expected: what it should hold, for messages.
        arrow: the name of the pyarrow type a column of it is read as; ``list`` for lists of whole numbers.
        accepts: whether one value, text from a CSV file or a value from a JSON line, is right.
        least: the smallest number allowed.
        blank: what stands for an empty field; None where none may be empty.
        most: the largest number allowed.
    """

    expected: str
    arrow: str
    accepts: Callable[[Any], bool]
    least: float = 0
    blank: Any = None
    most: float = LARGEST

    def holds(self, column: np.ndarray) -> bool:
        """Whether every number of a column is right."""
        if self.arrow == "float64":
            return self.within(column)
        return not len(column) or (int(column.min()) >= self.least and int(column.max()) <= self.most)

    def within(self, numbers: np.ndarray) -> bool:
        """Whether numbers lie within the limits."""
        return bool(((numbers >= self.least) & (numbers <= self.most)).all())


def _number(value: Any) -> float:
    """The value as a float; NaN for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _whole(value: Any, least: int, most: int) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[+-]?\d{1,19}", value.strip()) is not None and least <= int(value) <= most
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _hashes(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(each) is int for each in value)
    return value is None or (whole and all(-(2**63) <= each < 2**63 for each in value))


def _seconds(value: Any) -> bool:
    return -LONGEST_S <= _number(value) <= LONGEST_S


def _finite(value: Any) -> bool:
    return -LARGEST <= _number(value) <= LARGEST


def _finite_or_none(value: Any) -> bool:
    return value is None or _finite(value)


def _priority(value: Any) -> bool:
    return value in ("", None) or _whole(value, -LARGEST, LARGEST)


def _label(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _patience(value: Any) -> bool:
    return value in ("", None) or 0 <= _number(value) <= LARGEST


def _timestamp(value: Any) -> bool:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value[:19])
    except ValueError:
        return False
    return True


def _whole_field(expected: str, least: int, most: int = LARGEST) -> Field:
    return Field(expected, "int64", lambda value: _whole(value, least, most), least, most=most)


TOKENS = _whole_field("a whole number of tokens, 0 or more", 0)
LENGTH = _whole_field("a whole number of tokens, 1 or more", 1)
COUNT = _whole_field("a whole number, 0 or more", 0)
ONE = _whole_field("1", 1, 1)
NUMBER = Field("a number, at most 2**53 either way", "float64", _finite, -LARGEST)
NUMBER_OR_NONE = Field(
    "a number, at most 2**53 either way, or nothing", "float64", _finite_or_none, -LARGEST, blank=math.nan
)
WHOLE = _whole_field("a whole number", -LARGEST)
NANOSECONDS = _whole_field("a whole number of nanoseconds, at most 2**32 s either way", -(2**62), 2**62)
PRIORITY = Field("a whole number, or nothing for 0", "int64", _priority, -LARGEST, blank=0)
SECONDS = Field(
    "a number of seconds, at most 2**32 either way (divide times in ms, us or ns)",
    "float64",
    _seconds,
    -LONGEST_S,
    most=LONGEST_S,
)
SECONDS_OR_NONE = Field(
    SECONDS.expected,
    "float64",
    lambda value: value is None or _seconds(value),
    -LONGEST_S,
    blank=math.nan,
    most=LONGEST_S,
)
QUOTED_SECONDS = Field(
    "a text of a number of seconds, at most 2**32 either way",
    "string",
    lambda value: isinstance(value, str) and _seconds(value),
    -LONGEST_S,
    most=LONGEST_S,
)
PATIENCE = Field("a number of seconds, 0 or more, or nothing for ever", "float64", _patience, blank=math.inf)
ELAPSED = Field(
    "a number of seconds, 0 or more, or nothing where it is not known", "float64", _patience, blank=math.nan
)
LABEL = Field("a name, or nothing", "string", _label, blank="")
"""In JSON a whole number will do too, as long as all rows have one."""
HASHES = Field("a list of whole numbers of 64 bits", "list", _hashes, blank=())
TIMESTAMP = Field("a date and time like 2023-11-16 18:15:46.6805900", "string", _timestamp)
