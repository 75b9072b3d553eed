"""Mooncake traces (Qin et al., FAST 2025), https://github.com/kvcache-ai/Mooncake, and their dialects: JSON lines.

``timestamp``, ``input_length`` and ``output_length`` in tokens, and ``hash_ids``, one for each block of the prompt's
tokens, which name the prefixes that prompts share; a line may have fewer, or none. Mooncake has milliseconds and
blocks of 512 tokens, Qwen-Bailian (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon) seconds and blocks of
16, and conversations as chains of ``chat_id`` and ``parent_chat_id``. Tools that write such files (aiperf, Dynamo)
add ``session_id``, ``priority``, and ``delay`` in place of ``timestamp``: milliseconds after the answer before it in
the session. Without either a file holds lengths, as ServeGen's do of batch jobs, to be used with arrivals beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import LONGEST_S
from simslm.workload.prefixes import HashChains
from simslm.workload.readers.fields import HASHES, LABEL, NUMBER, NUMBER_OR_NONE, PRIORITY, TOKENS, WHOLE
from simslm.workload.readers.recording import Numbering, Recording, keep_requests
from simslm.workload.readers.table import Timing, json_pieces, line_of

UNIT_TOKENS, BAILIAN_UNIT_TOKENS = 512, 16
"""Tokens that one hash stands for."""

MILLISECONDS = 1000
"""Ticks of a second, where nothing else is stated."""

LENGTHS = {"input_length": TOKENS, "output_length": TOKENS}
CHATS = {"chat_id": WHOLE, "parent_chat_id": WHOLE, "timestamp": NUMBER, **LENGTHS}
TIMES = {"timestamp": NUMBER_OR_NONE, "delay": NUMBER_OR_NONE}
OPTIONAL = {"hash_ids": HASHES, "session_id": LABEL, "priority": PRIORITY}
REMEDY = (
    "mooncake has one JSON object per line with timestamp (ms), input_length and output_length, and may have "
    "hash_ids (one for every 512 tokens of the prompt), session_id, priority, and delay (ms) in place of timestamp"
)
BAILIAN_REMEDY = (
    "qwen-bailian has one JSON object per line with chat_id, parent_chat_id, timestamp (s), input_length and "
    "output_length, and may have hash_ids, one for every 16 tokens of the prompt"
)


def read(path: Path, ticks_per_s: int | None = None, unit_tokens: int | None = None) -> Iterator[Recording]:
    """The requests of one file.

    Args:
        path: the file.
        ticks_per_s: of its timestamps and delays, 1,000 by default.
        unit_tokens: tokens that one hash stands for, 512 by default.
    """
    clock = _Clock(path, ticks_per_s, Timing(path, "timestamp", REMEDY))
    units = _Units(path, unit_tokens or UNIT_TOKENS, REMEDY)
    sessions = Numbering()
    for columns in json_pieces(path, LENGTHS, REMEDY, TIMES | OPTIONAL):
        session_id = sessions(columns["session_id"]) if "session_id" in columns else None
        times = clock(columns, session_id)
        yield keep_requests(
            times.ticks,
            clock.ticks_per_s,
            columns["input_length"],
            columns["output_length"],
            priority=columns.get("priority"),
            session_id=session_id,
            pause_s=columns["delay"] / clock.ticks_per_s if "delay" in columns else None,
            timed=times.timed,
            chained=times.chained,
            **units(columns),
        )


def read_bailian(
    path: Path, ticks_per_s: int | None = None, unit_tokens: int | None = None
) -> Iterator[Recording]:
    """The requests of one file of Qwen-Bailian; see :func:`read`."""
    units = _Units(path, unit_tokens or BAILIAN_UNIT_TOKENS, BAILIAN_REMEDY)
    chats: dict[int, int] = {}
    for columns in json_pieces(path, CHATS, BAILIAN_REMEDY, {"hash_ids": HASHES}):
        yield keep_requests(
            columns["timestamp"],
            ticks_per_s or 1,
            columns["input_length"],
            columns["output_length"],
            session_id=_conversations(columns["chat_id"], columns["parent_chat_id"], chats),
            **units(columns),
        )


# ---- time ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Times:
    """When the requests of a piece arrive: see :class:`~simslm.workload.readers.recording.Recording`."""

    ticks: np.ndarray
    chained: np.ndarray | None
    timed: bool = True


@dataclass(slots=True)
class _Clock:
    """Timestamps and delays as ticks, piece by piece.

    Attributes:
        path: the file.
        stated: ticks of a second, None where the scenario does not say.
        timing: whether rows have times.
        last: the tick of the last request of each session.
        first: rows of the pieces before.
    """

    path: Path
    stated: int | None
    timing: Timing
    last: dict[int, float] = field(default_factory=dict)
    first: int = 0

    @property
    def ticks_per_s(self) -> int:
        return self.stated or MILLISECONDS

    def __call__(self, columns: Mapping[str, Any], session_id: np.ndarray | None) -> _Times:
        """The times of the next piece.

        Raises:
            ScenarioError: a row has neither a time nor a request to wait for, or it is not known in which unit.
        """
        nothing = np.full(len(columns["input_length"]), np.nan)
        ticks, delay = columns.get("timestamp", nothing), columns.get("delay", nothing)
        self.first = self.timing.rows
        self.timing.check(np.isnan(ticks) & np.isnan(delay))
        if not self.timing.timed:
            return _Times(np.zeros(len(ticks)), None, timed=False)
        chained = np.isnan(ticks)
        self._check(ticks, delay)
        if chained.any():
            ticks = self._followed(ticks.copy(), delay, session_id, chained)
        elif session_id is not None:
            self.last.update(zip(session_id.tolist(), ticks.tolist(), strict=True))
        return _Times(ticks, chained)

    def _check(self, ticks: np.ndarray, delay: np.ndarray) -> None:
        """Times lie within what a clock can show, and their unit is known; NaN is none."""
        farthest = LONGEST_S * self.ticks_per_s
        faults = (
            (
                # Fractions of milliseconds are seconds almost always: better a question than a run a thousand times
                # too fast.
                (ticks % 1 != 0) & (self.stated is None) & ~np.isnan(ticks),
                "timestamp: no whole number of milliseconds",
                "say its unit with replay.time_unit: s",
            ),
            (
                np.abs(ticks) > farthest,
                f"timestamp: more than 2**32 seconds from its origin, if {self.ticks_per_s:,} are a second",
                "say its unit with replay.time_unit: us",
            ),
            ((delay < 0) | (delay > farthest), "delay: expected a time, 0 or more", REMEDY),
        )
        for wrong, what, remedy in faults:
            if np.any(wrong):
                raise self._fault(int(np.flatnonzero(wrong)[0]), what, remedy)

    def _followed(
        self, ticks: np.ndarray, delay: np.ndarray, session_id: np.ndarray | None, chained: np.ndarray
    ) -> np.ndarray:
        """The ticks, those of rows without a time a pause after the one before them in their session."""
        known = [-1] * len(ticks) if session_id is None else session_id.tolist()
        for row, session in enumerate(known):
            if chained[row]:
                if session not in self.last or session < 0:
                    raise self._fault(
                        row,
                        "delay: counts from the answer before it, and none of its session_id goes before",
                        "give the first request of each session a timestamp",
                    )
                ticks[row] = self.last[session] + delay[row]
            self.last[session] = float(ticks[row])
        return ticks

    def _fault(self, row: int, what: str, remedy: str) -> ScenarioError:
        line = line_of(self.path, self.first + row)
        return ScenarioError(what, where=f"{self.path}:{line}", remedy=remedy)


def _conversations(chats: np.ndarray, parents: np.ndarray, known: dict[int, int]) -> np.ndarray:
    """The conversation of each chat: that of the chat it goes on from, else one of its own."""
    found = np.empty(len(chats), dtype=np.int64)
    for row, (chat, parent) in enumerate(zip(chats.tolist(), parents.tolist(), strict=True)):
        if parent >= 0:
            # A parent that is not in the file (the trace is a window of a longer one) begins a conversation too.
            number = known.setdefault(parent, len(known))
        else:
            number = len(known)
        found[row] = known.setdefault(chat, number)
    return found


# ---- prefixes --------------------------------------------------------------------------------------------------


class _Units:
    """The prefixes of prompts, piece by piece, as :func:`~simslm.workload.readers.recording.keep_requests` takes them.

    Args:
        path: the file.
        unit_tokens: tokens of a unit.
        remedy: what to say where there are too many.
    """

    def __init__(self, path: Path, unit_tokens: int, remedy: str) -> None:
        self._path, self._unit_tokens, self._remedy = path, unit_tokens, remedy
        self._chains, self._rows = HashChains(unit_tokens), 0

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        prompts = columns["input_length"]
        hashes = _lists(columns["hash_ids"]) if "hash_ids" in columns else []
        known = any(hashes)
        if known:
            self._check(hashes, prompts)
        self._rows += len(prompts)
        if not known:
            return {}
        return {"units": self._chains(hashes, prompts.tolist()), "unit_tokens": self._unit_tokens}

    def _check(self, hashes: list[list[int]], prompts: np.ndarray) -> None:
        """No prompt has more hashes than units.

        Raises:
            ScenarioError: naming the first that has.
        """
        most = -(-prompts // self._unit_tokens)
        found = np.array([len(row) for row in hashes])
        wrong = np.flatnonzero(found > most)
        if len(wrong):
            row = int(wrong[0])
            raise ScenarioError(
                f"hash_ids: expected at most {most[row]} for {prompts[row]} prompt tokens, found {found[row]}; one is "
                f"taken to stand for {self._unit_tokens} tokens (replay.hash_tokens)",
                where=f"{self._path}:{line_of(self._path, self._rows + row)}",
                remedy=self._remedy,
            )


def _lists(hashes: Any) -> list[list[int]]:
    """A pyarrow array of lists as lists, empty where there is none."""
    lengths = hashes.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = hashes.flatten().to_pylist()
    return [flat[start:end] for start, end in pairwise([0, *np.cumsum(lengths).tolist()])]
