"""One run as a result file has it, before the settings that the file lacks are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simslm.catalog.models import named_model
from simslm.errors import UsageError
from simslm.plain import is_list, is_section
from simslm.runs.table import CountedWindow, Lengths

RECORDED = "recorded"
"""The cell of the column of arrivals where the times are known."""

AT_ONCE_S, AT_ONCE_SHARE = 0.5, 0.02
"""Requests that arrive within so many seconds, or within this share of the duration, are a burst."""


@dataclass(frozen=True)
class ClientRun:
    """One run as a benchmarking client saw it.

    Attributes:
        tool: that wrote the file.
        where: the file, and the run in it.
        cells: texts by column of ``RUNS.csv``.
        lengths: prompt and output tokens of its requests, None where the file has only their sums.
        unknown: why a column has no text, by column.
        arrival_s: when they were sent, in the order of the lengths; None where the file does not say.
        window: the part of the run that was measured; None for all of it.
        notes: what a reader of its figures should know.
    """

    tool: str
    where: str
    cells: Mapping[str, str]
    lengths: Lengths | None = None
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    arrival_s: tuple[float, ...] | None = None
    window: CountedWindow | None = None
    notes: tuple[str, ...] = ()


def figures(values: Mapping[str, Any]) -> dict[str, str]:
    """The numbers among some values as texts; a value that is no number was not measured."""
    return {
        name: repr(float(value))
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def need(mapping: Any, keys: Sequence[str], where: str) -> Any:
    """The value at some keys, one inside the other.

    Raises:
        UsageError: nothing does.
    """
    value = mapping
    for key in keys:
        if not is_section(value) or value.get(key) is None:
            raise UsageError(f"{'.'.join(keys)}: is missing", where=where, remedy="was the run completed?")
        value = value[key]
    return value


def model_cell(repository: Any) -> tuple[str, str]:
    """The column's text, or none and why: the catalogue's name of what a client calls the model."""
    if not repository:
        return "", ""
    name = named_model(str(repository))
    return (name, "") if name else ("", f"{repository} is not in the catalogue under that name")


def sent_times(times: Any, count: int, where: str) -> tuple[float, ...] | None:
    """When each of some requests was sent, in seconds from the first; None where that is not known of each.

    Raises:
        UsageError: the times are no numbers.
    """
    if not is_list(times) or len(times) != count:
        return None
    if not all(type(each) in (int, float) for each in times):
        raise UsageError("times of requests: expected numbers of seconds", where=where)
    first = min(times)
    return tuple(float(each) - first for each in times)


def at_once(arrival_s: tuple[float, ...], duration_s: float) -> bool:
    """Whether requests came in one burst."""
    return max(arrival_s) <= max(AT_ONCE_S, AT_ONCE_SHARE * duration_s)


def lengths_of(prompts: Any, outputs: Any, where: str) -> Lengths:
    """Two lists of whole numbers of tokens, as long as each other.

    Raises:
        UsageError: they are not.
    """
    lists: list[tuple[int, ...]] = []
    for name, column in (("prompt", prompts), ("output", outputs)):
        if not is_list(column) or not all(type(each) is int and each >= 1 for each in column):
            raise UsageError(f"{name} lengths: expected whole numbers of tokens, 1 or more each", where=where)
        lists.append(tuple(column))
    if len(lists[0]) != len(lists[1]) or not lists[0]:
        raise UsageError(f"{len(lists[0])} prompt lengths but {len(lists[1])} output lengths", where=where)
    return lists[0], lists[1]


def describe(lengths: Lengths | None) -> str:
    """The workload's name: ``fixed`` where all requests are alike, or where nothing else is known."""
    alike = lengths is None or all(len(set(column)) == 1 for column in lengths)
    return "fixed" if alike else "recorded"
