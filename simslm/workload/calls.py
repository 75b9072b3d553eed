"""Programs written down request by request, and the columns that become of them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import MOST_REQUESTS
from simslm.scenario.workload import PREFIX_UNIT_TOKENS
from simslm.workload.texts import ROOT, PromptUnits, Texts


@dataclass(frozen=True, slots=True)
class Text:
    """Text of a name in front of a prompt, the same wherever the name is."""

    name: Hashable
    tokens: int


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a program; others of the program are named by their numbers within it, counted from 0.

    The prompt is, in this order: ``text``, or the prompt and the answer of ``extends``; ``shared``; the answers of
    ``reads``; and ``own`` tokens that no other prompt has.

    Attributes:
        own: tokens.
        output: tokens it generates, reasoning not counted.
        text: what its prompt begins with.
        extends: the request that its prompt goes on from.
        shared: text that other requests may have in the same place.
        reads: the requests whose answers it reads.
        after: the requests it waits for besides those.
        delay_s: pause after the last of all those, or after the program's start.
        reasoning: tokens it generates before its answer, which no later prompt contains.
    """

    own: int
    output: int
    text: Text | None = None
    extends: int | None = None
    shared: Text | None = None
    reads: Sequence[int] = ()
    after: Sequence[int] = ()
    delay_s: float = 0.0
    reasoning: int = 0

    @property
    def parents(self) -> list[int]:
        """The requests that it waits for, ascending."""
        extended = () if self.extends is None else (self.extends,)
        return sorted({*extended, *self.reads, *self.after})


class Calls:
    """Takes programs one after the other and has their columns.

    Args:
        max_tokens: where outputs end, reasoning counted; None for no limit.
    """

    def __init__(self, max_tokens: int | None = None) -> None:
        self._max_tokens = max_tokens
        self._texts = Texts()
        self._columns = {name: array("q") for name in ("prompt", "output", "answer", "asked", "told")}
        self._delay_s = array("d")
        self._program_of, self._parents, self._parent_ends = array("q"), array("q"), array("q")
        self._programs = 0

    def add(self, calls: Sequence[Call]) -> None:
        """One more program, its requests in an order in which each stands behind those it depends on.

        Raises:
            ScenarioError: there are more requests than can be simulated.
        """
        first = len(self._delay_s)
        if first + len(calls) > MOST_REQUESTS:
            raise ScenarioError(
                f"workload.programs: more than {MOST_REQUESTS:,} requests", remedy="start fewer programs"
            )
        for call in calls:
            self._parents.extend(first + parent for parent in call.parents)
            self._parent_ends.append(len(self._parents))
            self._program_of.append(self._programs)
            self._delay_s.append(call.delay_s)
            self._say(call, first)
        self._programs += 1

    def _say(self, call: Call, first: int) -> None:
        """Notes what a call's prompt and output are."""
        texts, columns = self._texts, self._columns
        piece = ROOT
        if call.extends is not None:
            piece = self._answer(piece, first + call.extends, behind_its_prompt=True)
        for text in (call.text, call.shared):
            if text is not None and text.tokens:
                piece = texts.share(piece, text.name, text.tokens)
        for read in call.reads:
            piece = self._answer(piece, first + read)
        piece = texts.add(piece, call.own)
        most = self._max_tokens or call.reasoning + call.output
        reasoning = min(call.reasoning, most)
        answer = min(call.output, most - reasoning)
        request = len(columns["prompt"])
        columns["prompt"].append(texts.tokens(piece))
        columns["output"].append(reasoning + answer)
        columns["answer"].append(answer)
        columns["asked"].append(piece)
        thought = texts.add(piece, reasoning) if reasoning else piece
        columns["told"].append(texts.share(thought, ("answer", request), answer))

    def _answer(self, piece: int, request: int, *, behind_its_prompt: bool = False) -> int:
        """The answer of a request behind a piece, or behind its own prompt."""
        columns = self._columns
        place = columns["asked"][request] if behind_its_prompt else piece
        return self._texts.share(place, ("answer", request), columns["answer"][request])

    def columns(self) -> dict[str, Any]:
        """The columns of all requests, program by program: prompts, outputs, units, and how they depend."""
        prompt, output, asked, told = (
            np.array(self._columns[name], dtype=np.int64) for name in ("prompt", "output", "asked", "told")
        )
        return {
            "prompt_tokens": prompt,
            "output_tokens": output,
            "units": PromptUnits(self._texts, asked, prompt),
            "context_units": PromptUnits(self._texts, told, prompt + output - 1),
            "unit_tokens": PREFIX_UNIT_TOKENS,
            "program_of": np.array(self._program_of, dtype=np.int64),
            "parents": np.array(self._parents, dtype=np.int64),
            "parent_ends": np.array(self._parent_ends, dtype=np.int64),
            "delay_s": np.array(self._delay_s, dtype=np.float64),
        }
