"""A recorded trace as the requests of a run: a window of it, thinned, scaled, superposed, repeated.

What scaling keeps of the burstiness, and what it does not:

- ``time_scale`` keeps the gaps' coefficient of variation exactly, and moves every swing of the rate to another
  length of time.
- ``rate_scale`` keeps the rate curve over windows, and the law of the gaps that are short against a window.
- ``thin`` by request keeps the rate curve; what the variance of counts has beyond that of a Poisson process shrinks
  with the share (index of dispersion ``1 + share * (I - 1)``). By session, the requests of a session keep their gaps.
- ``copies`` keep the index of dispersion of counts in windows that are short against the shift, as variances of
  independent counts add; swings of the rate that are longer even out, and gaps get closer to exponential, as those of
  any superposition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import MOST_REQUESTS, ClosedLoopArrivals
from simslm.scenario.programs import Sessions
from simslm.scenario.workload import RateScale, Replay, Thinning, Workload
from simslm.workload.arrivals import arrival_times, clients_of
from simslm.workload.readers import FORMATS, OPTIONAL, Recording, detect, read_pieces, read_trace
from simslm.workload.streams import Streams

IMAGES = "{images:,} images come with the prompts of {prompts:,} requests: what encoding them takes is not simulated"


@dataclass(frozen=True, slots=True)
class Played:
    """Which requests of a recording are played, and when.

    Attributes:
        times_s: float64, never decreasing, seconds.
        rows: of the recording, int64.
        copies: how often the request had been played before, each time by others, int64.
    """

    times_s: np.ndarray
    rows: np.ndarray
    copies: np.ndarray

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def span_s(self) -> float:
        """From the first request to where the next one would be, a mean gap after the last."""
        count = len(self.times_s)
        return float(self.times_s[-1] - self.times_s[0]) * count / (count - 1) if count > 1 else 0.0

    def only(self, keep: Any) -> Played:
        """The requests of a mask or a slice."""
        return Played(self.times_s[keep], self.rows[keep], self.copies[keep])

    def at(self, times_s: np.ndarray) -> Played:
        """The same requests at other times, in order of those; ties as they were."""
        order = np.argsort(times_s, kind="stable")
        return Played(times_s[order], self.rows[order], self.copies[order])


def replayed(workload: Workload, streams: Streams, base_dir: Path) -> dict[str, Any]:
    """The columns of a replay: requests by arrival, ties in the file's order, the first at time 0.

    Raises:
        ScenarioError: the file cannot be used, or nothing of it is left.
    """
    replay = workload.replay
    assert replay is not None
    path = base_dir / replay.path
    recording, name = read_trace(path, replay.format, **replay.dialect)
    _check_some(recording, len(recording), path, "choose another file or format")
    _check_timed(recording, workload, path)
    _check_chained(recording.chained, workload, path)
    order = np.argsort(recording.ticks, kind="stable")
    played = Played(recording.arrival_s()[order], order, np.zeros(len(order), dtype=np.int64))
    played = _scaled(played, recording, replay, streams, path)
    columns = _columns(played, recording, Seen(), whole=True)
    columns["source"] = f"replayed: {name} {path.name}"
    if workload.arrivals is not None:
        columns["arrival_s"] = arrival_times(workload.arrivals, len(played), None, streams["arrivals"])
        columns["source"] += f" with {workload.arrivals.process} arrivals"
    if isinstance(workload.arrivals, ClosedLoopArrivals):
        columns["closed_loop"] = clients_of(workload.arrivals, None)
    return columns


def in_order(workload: Workload, base_dir: Path, least: int) -> dict[str, int] | None:
    """What a file of more than ``least`` requests drops, where it can be played a piece at a time; else None.

    It can if it is in order of time, and what is asked for needs no more of it than has been read.
    """
    replay = workload.replay
    assert replay is not None
    by_session = replay.thin is not None and replay.thin.by == "session"
    again = replay.rate_scale is not None or replay.copies > 1 or replay.repeat > 1
    if by_session or again or workload.arrivals is not None:
        return None
    last, known, count, dropped = None, set(), 0, Counter[str]()
    for piece in read_pieces(base_dir / replay.path, replay.format, **replay.dialect):
        dropped.update(piece.dropped)
        if not len(piece):
            continue
        if (
            not piece.timed
            or (last is not None and piece.ticks[0] < last)
            or np.any(np.diff(piece.ticks) < 0)
        ):
            return None
        if piece.chained:
            return None
        known.add(tuple(getattr(piece, name) is None for name in ("units", *OPTIONAL)))
        last, count = piece.ticks[-1], count + len(piece)
    return dict(dropped) if len(known) == 1 and count > least else None


def replayed_pieces(workload: Workload, streams: Streams, base_dir: Path) -> Iterator[dict[str, Any]]:
    """The columns of a replay that is :func:`in_order`, in pieces; :func:`in_order` has counted what is dropped.

    Raises:
        ScenarioError: the file cannot be used, or nothing of it is left.
    """
    replay = workload.replay
    assert replay is not None
    path = base_dir / replay.path
    source = f"replayed: {detect(path) if replay.format == 'auto' else replay.format} {path.name}"
    trimmed, seen, first = Trimmed(replay, streams), Seen(), None
    left = replay.limit or MOST_REQUESTS
    for recording in read_pieces(path, replay.format, **replay.dialect):
        first = recording.ticks[0] if first is None and len(recording) else first
        rows = np.arange(len(recording))
        played = Played(recording.arrival_s(first), rows, np.zeros_like(rows))
        played = trimmed.scaled(trimmed.thinned(trimmed.windowed(played), recording, path))
        played = played.only(slice(left))
        left -= len(played)
        columns = _columns(played, recording, seen)
        if len(played):
            yield columns | {"source": source}
        if replay.limit is None and left <= 0:
            raise ScenarioError(
                f"holds more than {MOST_REQUESTS:,} requests", where=str(path), remedy="state a limit"
            )
        if not left:
            return


class Beginning:
    """Puts the first of all requests at time 0, whichever piece it comes in."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    def __call__(self, played: Played) -> Played:
        if self._first_s is None and len(played):
            self._first_s = float(played.times_s[0])
        return played.at(played.times_s - self._first_s) if len(played) else played


class Trimmed:
    """What a replay asks for that needs no more than has been read: done to one piece after the other."""

    def __init__(self, replay: Replay, streams: Streams) -> None:
        self._replay, self._streams = replay, streams
        self._window, self._rest = Beginning(), Beginning()

    def windowed(self, played: Played) -> Played:
        """The requests from ``from_s`` to ``to_s``."""
        begin_s, end_s = self._replay.from_s, self._replay.to_s
        if begin_s is None and end_s is None:
            return played
        times_s = played.times_s
        return self._window(
            played.only((times_s >= (begin_s or 0.0)) & (times_s < (math.inf if end_s is None else end_s)))
        )

    def thinned(self, played: Played, recording: Recording, path: Path) -> Played:
        """The requests that ``thin`` keeps."""
        thin = self._replay.thin
        if thin is None:
            return played
        return self._rest(played.only(_kept(played, recording, thin, self._streams["thinning"], path)))

    def scaled(self, played: Played) -> Played:
        """At the times that ``time_scale`` says; infinite ones are refused with all that are too late."""
        with np.errstate(over="ignore", invalid="ignore"):
            return played.at(played.times_s * self._replay.time_scale)


def _scaled(played: Played, recording: Recording, replay: Replay, streams: Streams, path: Path) -> Played:
    """What a replay asks for, in its order; the first request at time 0."""
    trimmed = Trimmed(replay, streams)
    played = trimmed.windowed(played)
    _check_some(recording, len(played), path, "move from_s and to_s")
    played = trimmed.thinned(played, recording, path)
    _check_some(recording, len(played), path, "thin it less")
    if replay.rate_scale is not None:
        _check_count(len(played) * replay.rate_scale.factor, path)
        played = rate_scaled(played, replay.rate_scale)
        _check_some(recording, len(played), path, "scale it less, or in longer windows")
    if replay.copies > 1:
        _check_count(len(played) * replay.copies, path)
        played = superposed(played, replay.copies)
    played = trimmed.scaled(played)
    if replay.repeat > 1:
        played = _repeated(played, replay, path)
    return played.only(slice(replay.limit))


def _kept(
    played: Played, recording: Recording, thin: Thinning, rng: np.random.Generator, path: Path
) -> np.ndarray:
    """A mask of the requests that stay."""
    draws = rng.random(len(played))
    if thin.by == "session":
        if recording.session_id is None:
            raise ScenarioError("has no sessions to thin it by", where=str(path), remedy="thin by: request")
        sessions = recording.session_id[played.rows]
        _, first, whose = np.unique(sessions, return_index=True, return_inverse=True)
        # The draw of its first request decides for a session, so that all of it stays or goes.
        draws = np.where(sessions < 0, draws, draws[first][whose])
    return draws < thin.share


def rate_scaled(played: Played, scale: RateScale) -> Played:
    """Each window played ``factor`` times, in its own time: see :class:`~simslm.scenario.workload.RateScale`."""
    times_s, factor = played.times_s, scale.factor
    window = np.floor(times_s / scale.window_s)
    begin_s = window * scale.window_s
    # The last window is as long as the recording lasts: played in a whole one its rate would fall.
    length_s = np.minimum(scale.window_s, max(played.span_s, times_s[-1]) - begin_s)
    length_s = np.where(length_s > 0, length_s, scale.window_s)
    rounds = []
    for copy in range(math.ceil(factor)):
        offset_s = (copy * length_s + times_s - begin_s) / factor
        fits = offset_s < length_s
        rounds.append(
            Played(
                (begin_s + offset_s)[fits],
                played.rows[fits],
                played.copies[fits] * math.ceil(factor) + copy,
            )
        )
    return _anchored(_merged(rounds))


def superposed(played: Played, copies: int) -> Played:
    """So many copies, each shifted round the span by an equal part of it."""
    span_s = played.span_s
    rounds = [
        Played(
            # Round the span, not beyond it: every window keeps the same number of copies of the whole.
            (played.times_s + copy * span_s / copies) % span_s if span_s else played.times_s,
            played.rows,
            played.copies * copies + copy,
        )
        for copy in range(copies)
    ]
    return _anchored(_merged(rounds))


def _repeated(played: Played, replay: Replay, path: Path) -> Played:
    """One after the other, as often as asked for or as the limit needs."""
    times = replay.repeat
    if replay.limit is not None:
        times = min(times, -(-replay.limit // len(played)))
    _check_count(len(played) * times, path)
    span_s, most = played.span_s, int(played.copies.max()) + 1
    return _merged(
        [
            Played(played.times_s + turn * span_s, played.rows, played.copies + turn * most)
            for turn in range(times)
        ]
    )


def _merged(rounds: list[Played]) -> Played:
    together = Played(
        *(np.concatenate([getattr(each, name) for each in rounds]) for name in ("times_s", "rows", "copies"))
    )
    return together.at(together.times_s)


def _anchored(played: Played) -> Played:
    return played.at(played.times_s - played.times_s[0]) if len(played) else played


class Renumbering(dict[int, int]):
    """Numbers sessions in order of first arrival, without gaps."""

    def __call__(self, sessions: np.ndarray) -> np.ndarray:
        """The numbers of some requests' sessions, int64; -1 stays."""
        numbers, first, inverse = np.unique(sessions, return_index=True, return_inverse=True)
        # ``np.unique`` sorts by number; the order that counts is that of the first arrival.
        for number in numbers[np.argsort(first)].tolist():
            if number >= 0:
                self.setdefault(number, len(self))
        return np.array([self.get(number, -1) for number in numbers.tolist()], dtype=np.int64)[inverse]


@dataclass(slots=True)
class Seen:
    """What has been numbered and counted of a recording so far.

    Attributes:
        sessions: their numbers.
        images, prompts: images, and the prompts that they come with.
        dropped: rows that are no requests, by reason.
    """

    sessions: Renumbering = field(default_factory=Renumbering)
    images: int = 0
    prompts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def _columns(played: Played, recording: Recording, seen: Seen, *, whole: bool = False) -> dict[str, Any]:
    """The columns of the played requests; a copy of a request belongs to a session of its own.

    A whole recording without sessions has no column of them; a piece has one, because later pieces may have sessions.
    """
    rows = played.rows
    sessions, units = recording.session_id, recording.units
    if sessions is not None:
        own = played.copies * (int(sessions.max(initial=-1)) + 1)
        sessions = seen.sessions(np.where(sessions[rows] < 0, -1, sessions[rows] + own))
    if recording.images is not None:
        images = recording.images[rows]
        seen.images += int(images.sum())
        seen.prompts += int(np.count_nonzero(images))
    seen.dropped.update(recording.dropped)
    return {
        "arrival_s": played.times_s,
        "prompt_tokens": recording.prompt_tokens[rows],
        "output_tokens": recording.output_tokens[rows],
        "dropped": dict(seen.dropped),
        "notes": (IMAGES.format(images=seen.images, prompts=seen.prompts),) if seen.images else (),
        "priority": None if recording.priority is None else recording.priority[rows],
        "session_id": None if whole and not seen.sessions else sessions,
        "patience_s": None if recording.patience_s is None else recording.patience_s[rows],
        "elapsed_s": None if recording.elapsed_s is None else recording.elapsed_s[rows],
        "pause_s": None if recording.pause_s is None else recording.pause_s[rows],
        "units": None if units is None else _units(units, played),
        "unit_tokens": recording.unit_tokens,
    }


def _units(units: Any, played: Played) -> list[tuple[int, ...]]:
    """The prefixes of each request; a copy's share nothing with those of the others."""
    rows, copies = played.rows.tolist(), played.copies.tolist()
    if not any(copies):
        return [units[row] for row in rows]
    count = 1 + max((chain[-1] for chain in units if chain), default=-1)
    return [
        units[row] if not copy else tuple(unit + copy * count for unit in units[row])
        for row, copy in zip(rows, copies, strict=True)
    ]


def _check_some(recording: Recording, count: int, path: Path, remedy: str) -> None:
    if not count:
        dropped = ", ".join(f"{number} {reason}" for reason, number in recording.dropped.items())
        what = "holds no request" if not len(recording) else "holds no request that is asked for"
        raise ScenarioError(
            f"{what}{f' (dropped: {dropped})' if dropped else ''}", where=str(path), remedy=remedy
        )


def _check_count(count: float, path: Path) -> None:
    if count > MOST_REQUESTS:
        raise ScenarioError(
            f"about {count:.3g} requests; at most {MOST_REQUESTS:,} can be simulated",
            where=str(path),
            remedy="scale or repeat it less, or give limit",
        )


def _no_time(path: Path, replay: Replay) -> str:
    """Which column says it, where the format has one that this file lacks."""
    time = FORMATS[detect(path) if replay.format == "auto" else replay.format].time
    return f" (it has no {time})" if time else ""


def _check_chained(chained: int, workload: Workload, path: Path) -> None:
    """Refuses requests that follow an answer, and so have no time of their own, where nothing waits for the answers."""
    if chained and not isinstance(workload.programs, Sessions):
        raise ScenarioError(
            f"{chained:,} of its requests state a delay after the answer before them, and no time",
            where=str(path),
            remedy="add programs: {kind: sessions, think_time_s: {dist: recorded}} beside replay",
        )


def _check_timed(recording: Recording, workload: Workload, path: Path) -> None:
    """Refuses a file without times unless arrivals are stated beside it and no key needs its times."""
    if recording.timed:
        return
    replay = workload.replay
    assert replay is not None
    asked = [
        name
        for name, default in (
            ("from_s", None),
            ("to_s", None),
            ("rate_scale", None),
            ("copies", 1),
            ("time_scale", 1),
        )
        if getattr(replay, name) != default
    ]
    if asked or workload.arrivals is None:
        remedy = f"remove {', '.join(asked)}" if asked else "give arrivals: {process: ...} beside replay"
        raise ScenarioError(
            f"says nothing of when requests arrive{_no_time(path, replay)}", where=str(path), remedy=remedy
        )
