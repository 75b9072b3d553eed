"""Several classes of requests in one workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.classes import Traffic, TrafficClass
from simslm.workload.origin import Origin
from simslm.workload.requests import ClosedLoop, ProgramArrays, ProgramClients, RequestArrays
from simslm.workload.streams import stream
from simslm.workload.supply import RequestStream, in_parts, supply


def supply_of(
    traffic: Traffic, seed: int, max_model_len: int, base_dir: Path
) -> RequestArrays | RequestStream:
    """The same as :func:`requests_of`, in pieces where they are too many to hold."""
    if traffic.classes is None and traffic.programs is None:
        stream = supply(traffic, seed, max_model_len, base_dir)
        if stream is not None:
            return stream
    return in_parts(requests_of(traffic, seed, max_model_len, base_dir))


def requests_of(traffic: Traffic, seed: int, max_model_len: int, base_dir: Path) -> RequestArrays:
    """The requests a scenario's workload describes.

    Args:
        traffic: the scenario's workload, in classes or not.
        seed, max_model_len, base_dir: see :func:`~simslm.workload.generate.generate`.

    Raises:
        ScenarioError: a file cannot be used, no request comes out, or classes do not go together.
    """
    origin = Origin(seed, max_model_len, base_dir)
    if traffic.classes is None:
        return origin.requests(traffic)
    workloads = traffic.parts()
    shared = [name for name, each in traffic.classes.items() if each.sharing]
    starts = origin.starts(workloads[shared[0]]) if shared else None
    share_of = _shares([traffic.classes[name] for name in shared], starts, seed)
    parts = []
    for name, workload in workloads.items():
        own, priority = origin.within(name), traffic.classes[name].priority
        if starts is None or name not in shared:
            parts.append(_own(name, own.requests(workload), priority))
        elif len(mine := np.flatnonzero(share_of == shared.index(name))):
            requests = own.arriving(workload, starts.arrival_s[mine], starts.source)
            parts.append(_shared(name, requests, priority, mine, starts.closed_loop is not None))
    return _together(parts, tuple(workloads), None if starts is None else starts.closed_loop)


@dataclass(frozen=True, slots=True)
class _Part:
    """The requests of a class.

    Attributes:
        name: of the class.
        requests: those of the class alone.
        programs: how they follow each other; every request by itself where none waits for another.
        place: of each program among those that arrive together with it.
        priority: of all of them, where the class states one.
        shared: whether they arrive with those of other classes.
    """

    name: str
    requests: RequestArrays
    programs: ProgramArrays
    place: np.ndarray
    priority: int | None
    shared: bool


def _shares(classes: list[TrafficClass], starts: RequestArrays | None, seed: int) -> np.ndarray:
    """The class of each arrival, by its place among ``classes``, drawn by their shares."""
    if starts is None:
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum([1.0 if each.share is None else each.share for each in classes])
    draws = stream(seed, "classes").random(len(starts)) * ends[-1]
    return np.minimum(np.searchsorted(ends, draws, side="right"), len(ends) - 1)


def _own(name: str, requests: RequestArrays, priority: int | None) -> _Part:
    """A class with arrivals of its own."""
    programs = _alone(requests)
    return _Part(name, requests, programs, np.arange(len(programs.start_s)), priority, shared=False)


def _shared(
    name: str, requests: RequestArrays, priority: int | None, mine: np.ndarray, closed: bool
) -> _Part:
    """A class with the part ``mine`` of common arrivals; clients start it where arrivals are ``closed``."""
    programs = _alone(requests)
    if closed:
        programs = replace(programs, start_s=np.full(len(mine), np.nan))
    return _Part(name, requests, programs, mine, priority, shared=True)


def _alone(requests: RequestArrays) -> ProgramArrays:
    """How requests follow each other; requests that do not are programs of one request."""
    if requests.programs is not None:
        return requests.programs
    count, loop = len(requests), requests.closed_loop
    number = np.arange(count)
    clients: tuple[ProgramClients, ...] = ()
    start_s = requests.arrival_s
    if loop is not None:
        clients = (ProgramClients(loop.concurrency, loop.think_time_s, loop.until_s, programs=number),)
        start_s = np.full(count, np.nan)
    none = np.zeros(0, dtype=np.int64)
    return ProgramArrays(
        number, start_s, none, np.zeros(count, dtype=np.int64), np.zeros(count), clients, described=False
    )


def _together(parts: list[_Part], names: tuple[str, ...], loop: ClosedLoop | None) -> RequestArrays:
    """The requests of all classes in the order in which their programs start; those that clients start come first.

    Args:
        parts: the classes that have any.
        names: of all classes.
        loop: what starts the programs of those that share their arrivals; None where arrivals have times.
    """
    counts = [len(part.programs.start_s) for part in parts]
    starts = np.concatenate([part.programs.start_s for part in parts])
    place = np.concatenate([part.place for part in parts])
    ranked = np.lexsort((place, np.nan_to_num(starts, nan=-1.0)))
    rank = np.empty_like(ranked)
    rank[ranked] = np.arange(len(ranked))
    offsets = np.cumsum([0, *counts[:-1]])
    program_of = np.concatenate(
        [rank[offset + part.programs.program_of] for offset, part in zip(offsets, parts, strict=True)]
    )
    order = np.argsort(program_of, kind="stable")
    clients = _clients(parts, offsets, rank, loop)
    described = any(part.programs.described for part in parts)
    columns = _columns(parts, names, order)
    all_in_one_loop = loop is not None and all(part.shared for part in parts)
    if not described and (all_in_one_loop or not clients):
        return RequestArrays(closed_loop=loop, **columns)
    programs = _joined(parts, program_of, order, starts[ranked], clients, described)
    return RequestArrays(programs=programs, **columns)


def _clients(
    parts: list[_Part], offsets: np.ndarray, rank: np.ndarray, loop: ClosedLoop | None
) -> tuple[ProgramClients, ...]:
    """Who starts programs, with the programs' numbers among all."""
    clients = [
        replace(each, programs=rank[offset + each.programs])
        for offset, part in zip(offsets, parts, strict=True)
        for each in part.programs.clients
        if not part.shared
    ]
    if loop is not None:
        mine = [
            rank[offset : offset + len(part.place)]
            for offset, part in zip(offsets, parts, strict=True)
            if part.shared
        ]
        together = np.sort(np.concatenate(mine))
        clients.append(ProgramClients(loop.concurrency, loop.think_time_s, loop.until_s, programs=together))
    return tuple(clients)


def _joined(
    parts: list[_Part],
    program_of: np.ndarray,
    order: np.ndarray,
    start_s: np.ndarray,
    clients: tuple[ProgramClients, ...],
    described: bool,
) -> ProgramArrays:
    """How the requests of all parts follow each other, in a new order of theirs."""
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    counts = np.concatenate([np.diff(part.programs.parent_ends, prepend=0) for part in parts])
    first = np.cumsum([0, *(len(part.requests) for part in parts[:-1])])
    parents = np.concatenate(
        [number[offset + part.programs.parents] for offset, part in zip(first, parts, strict=True)]
    )
    ends = np.cumsum(counts)
    ordered = [parents[ends[each] - counts[each] : ends[each]] for each in order[counts[order] > 0].tolist()]
    delays_s = np.concatenate([part.programs.delay_s for part in parts])
    return ProgramArrays(
        program_of[order],
        start_s,
        np.concatenate(ordered) if ordered else np.zeros(0, dtype=np.int64),
        np.cumsum(counts[order]),
        delays_s[order],
        clients,
        described,
    )


def _columns(parts: list[_Part], names: tuple[str, ...], order: np.ndarray) -> dict[str, Any]:
    """The columns of all parts, in a new order."""
    each = [part.requests for part in parts]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in each])[order]
        for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens")
    }
    columns["class_of"] = np.repeat(
        [names.index(part.name) for part in parts], [len(one) for one in each]
    ).astype(np.int64)[order]
    columns["classes"] = names
    columns["priority"] = _or_default(
        [_priority(part) for part in parts], 0, order, [len(one) for one in each]
    )
    columns["patience_s"] = _or_default(
        [one.patience_s for one in each], math.inf, order, [len(one) for one in each]
    )
    columns["session_id"] = _sessions(each, order)
    columns["source"] = "; ".join(f"{part.name}: {part.requests.source}" for part in parts)
    columns["notes"] = tuple(f"{part.name}: {note}" for part in parts for note in part.requests.notes)
    columns["dropped"] = {
        f"{part.name}: {reason}": count for part in parts for reason, count in part.requests.dropped.items()
    }
    return columns | _units(parts, order)


def _priority(part: _Part) -> np.ndarray | None:
    if part.priority is None:
        return part.requests.priority
    return np.full(len(part.requests), part.priority, dtype=np.int64)


def _or_default(
    found: list[np.ndarray | None], default: float, order: np.ndarray, counts: list[int]
) -> np.ndarray | None:
    """A column that some parts have, a default where they do not; None where none has it."""
    if all(each is None for each in found):
        return None
    filled = [
        np.full(count, default) if each is None else each for each, count in zip(found, counts, strict=True)
    ]
    return np.concatenate(filled).astype(type(default))[order]


def _sessions(parts: list[RequestArrays], order: np.ndarray) -> np.ndarray | None:
    """Sessions, numbered on from class to class; -1 for none."""
    if all(part.session_id is None for part in parts):
        return None
    numbers, first = [], 0
    for part in parts:
        own = np.full(len(part), -1) if part.session_id is None else part.session_id
        numbers.append(np.where(own >= 0, own + first, -1))
        first += int(own.max()) + 1
    return np.concatenate(numbers)[order]


def _units(parts: list[_Part], order: np.ndarray) -> dict[str, Any]:
    """The units of all parts: no two classes share any."""
    known = {part.requests.unit_tokens for part in parts if part.requests.units is not None}
    if not known:
        return {}
    if len(known) > 1:
        sizes = ", ".join(
            f"{part.name} of {part.requests.unit_tokens}" for part in parts if part.requests.units is not None
        )
        raise ScenarioError(
            f"workload.classes: prefixes are known in units of different numbers of tokens ({sizes})",
            remedy="replay traces with prefix hashes by themselves, or leave out prefixes and programs beside them",
        )
    columns: dict[str, Any] = {"unit_tokens": known.pop()}
    columns["units"] = _Interleaved([part.requests.units for part in parts], parts, order)
    contexts = [part.requests.context_units for part in parts]
    if any(each is not None for each in contexts):
        columns["context_units"] = _Interleaved(contexts, parts, order)
    return columns


class _Interleaved(Sequence[Sequence[int]]):
    """The units of several classes under numbers that no two of them have in common.

    Args:
        units: of each class, None where they are not known.
        parts: the classes.
        order: the requests of all classes, one class after the other, in their new order.
    """

    def __init__(
        self, units: list[Sequence[Sequence[int]] | None], parts: list[_Part], order: np.ndarray
    ) -> None:
        self._units = units
        counts = [len(part.requests) for part in parts]
        self._part = np.repeat(np.arange(len(parts)), counts)[order]
        self._row = np.concatenate([np.arange(count) for count in counts])[order]

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Sequence[int]:  # type: ignore[override]
        part, classes = int(self._part[index]), len(self._units)
        units = self._units[part]
        found = () if units is None else units[int(self._row[index])]
        if isinstance(found, range):
            return range(found.start * classes + part, found.stop * classes + part, classes)
        return tuple(unit * classes + part for unit in found)
