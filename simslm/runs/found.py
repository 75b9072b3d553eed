"""What a result file says of one run, before what it does not say is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simslm.catalog.models import model_entry, model_names
from simslm.errors import UsageError

Lengths = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Found:
    """One run as a benchmarking client saw it.

    Attributes:
        tool: that wrote the file.
        where: the file, and the run in it.
        cells: texts by column of ``RUNS.csv``.
        lengths: prompt and output tokens of its requests, None where the file has only their sums.
        unknown: why a column has no text, by column.
    """

    tool: str
    where: str
    cells: Mapping[str, str]
    lengths: Lengths | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)


def figures(values: Mapping[str, Any]) -> dict[str, str]:
    """The numbers among some values as texts; what is none was not measured."""
    return {
        name: repr(float(value))
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def need(mapping: Any, keys: Sequence[str], where: str) -> Any:
    """What stands at some keys inside one another.

    Raises:
        UsageError: nothing does.
    """
    value = mapping
    for key in keys:
        if not isinstance(value, dict) or value.get(key) is None:
            raise UsageError(f"{'.'.join(keys)}: is missing", where=where, remedy="was the run completed?")
        value = value[key]
    return value


def named_model(repository: Any) -> str | None:
    """The catalogue's name of a Hugging Face repository, None where it has none."""
    for name in model_names():
        if f"/{repository}/" in model_entry(name).source:
            return name
    return None


def lengths_of(prompts: Any, outputs: Any, where: str) -> Lengths:
    """Two lists of whole numbers of tokens, as long as each other.

    Raises:
        UsageError: they are not.
    """
    lists = []
    for name, column in (("prompt", prompts), ("output", outputs)):
        if not isinstance(column, list) or not all(type(each) is int and each >= 1 for each in column):
            raise UsageError(f"{name} lengths: expected whole numbers of tokens, 1 or more each", where=where)
        lists.append(tuple(column))
    if len(lists[0]) != len(lists[1]) or not lists[0]:
        raise UsageError(f"{len(lists[0])} prompt lengths but {len(lists[1])} output lengths", where=where)
    return lists[0], lists[1]


def describe(lengths: Lengths | None) -> str:
    """The workload's name: ``fixed`` where all requests are alike, or where nothing else is known."""
    alike = lengths is None or all(len(set(column)) == 1 for column in lengths)
    return "fixed" if alike else "recorded"
