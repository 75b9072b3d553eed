"""The programs that a workload describes, as requests: what each one reads, what it waits for, and how long it is.

Every kind of number comes from a stream of its own, program by program: changing one does not redraw the others,
and a shorter workload is the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import MOST_REQUESTS
from simslm.scenario.programs import (
    MOST_IN_A_PROGRAM,
    Agent,
    BestOf,
    Conversation,
    ExponentialTime,
    FixedTime,
    Graphs,
    LognormalTime,
    MapReduce,
    ProgramPart,
    Tree,
    UniformTime,
)
from simslm.scenario.workload import Workload
from simslm.workload.calls import Call, Calls, Text
from simslm.workload.graphs import read_graphs
from simslm.workload.lengths import draw_lengths
from simslm.workload.requests import ProgramArrays, ProgramClients, RequestArrays
from simslm.workload.streams import stream

SYSTEM, INSTRUCTION = "system prompt", "instruction"


def program_columns(workload: Workload, starts: RequestArrays, seed: int, base_dir: Path) -> dict[str, Any]:
    """The columns of a workload of programs, program by program.

    Args:
        workload: with ``programs``.
        starts: when each program starts, or the closed loop that starts them.
        seed: the scenario's.
        base_dir: what paths are relative to.

    Raises:
        ScenarioError: a file cannot be used, or a program has too many requests.
    """
    spec = workload.programs
    assert spec is not None
    draw = _Draws(workload, len(starts), seed, base_dir)
    calls = Calls(workload.max_tokens)
    for program in draw.programs(spec):
        calls.add(program)
    columns = calls.columns()
    program_of, loop, start_s = columns.pop("program_of"), starts.closed_loop, starts.arrival_s
    clients = ()
    if loop is not None:
        number, start_s = np.arange(len(starts)), np.full(len(starts), np.nan)
        clients = (ProgramClients(loop.concurrency, loop.think_time_s, loop.until_s, programs=number),)
    structure = {name: columns.pop(name) for name in ("parents", "parent_ends", "delay_s")}
    programs = ProgramArrays(program_of, start_s, **structure, clients=clients)
    return columns | {
        "arrival_s": starts.arrival_s[program_of],
        "session_id": program_of,
        "source": f"generated: {len(starts):,} programs ({spec.kind})",
        "programs": programs,
    }


class _Draws:
    """Draws what programs are made of.

    Args:
        workload, seed, base_dir: see :func:`program_columns`.
        count: programs.
    """

    def __init__(self, workload: Workload, count: int, seed: int, base_dir: Path) -> None:
        self.workload, self.count, self.seed, self.base_dir = workload, count, seed, base_dir

    def programs(self, spec: Any) -> Iterable[Sequence[Call]]:
        """The requests of one program after the other."""
        if isinstance(spec, Graphs):
            return islice(cycle(read_graphs(self.base_dir / spec.file)), self.count)
        kinds: dict[type, Callable[[Any], Iterator[list[Call]]]] = {
            Conversation: self._conversations,
            Agent: self._agents,
            MapReduce: self._map_reduces,
            BestOf: self._bests,
            Tree: self._trees,
        }
        return kinds[type(spec)](spec)

    def _conversations(self, spec: Conversation) -> Iterator[list[Call]]:
        counts = self._counts("turns", spec.turns)
        think_s = self._times("think_time_s", spec.think_time_s, sum(counts) - self.count)
        return self._chains(spec, counts, self._prompts(sum(counts)), think_s)

    def _agents(self, spec: Agent) -> Iterator[list[Call]]:
        counts = self._counts("calls", spec.calls)
        tool_s = self._times("tool_time_s", spec.tool_time_s, sum(counts) - self.count)
        tasks = self._prompts(self.count)
        returned = self._lengths("programs.tool_tokens", spec.tool_tokens, sum(counts) - self.count)
        own = (next(tasks) if not i else next(returned) for count in counts for i in range(count))
        return self._chains(spec, counts, own, tool_s)

    def _chains(
        self, spec: ProgramPart, counts: list[int], own: Iterator[int], pauses_s: Iterator[float]
    ) -> Iterator[list[Call]]:
        """Programs in which each request goes on from the one before, after a pause."""
        outputs, thoughts, system = (
            self._outputs(sum(counts)),
            self._thoughts(spec, sum(counts)),
            _system(spec),
        )
        for count in counts:
            first = Call(next(own), next(outputs), text=system, reasoning=next(thoughts))
            yield [
                first,
                *(
                    Call(
                        next(own),
                        next(outputs),
                        extends=i,
                        delay_s=next(pauses_s),
                        reasoning=next(thoughts),
                    )
                    for i in range(count - 1)
                ),
            ]

    def _map_reduces(self, spec: MapReduce) -> Iterator[list[Call]]:
        widths = self._counts("width", spec.width)
        count, system = sum(widths), _system(spec)
        own, outputs, thoughts = self._prompts(count), self._outputs(count), self._thoughts(spec, count)
        last = self._last(spec.reduce_output_tokens or self.workload.output_tokens, "reduce_output_tokens")
        instruction = Text(INSTRUCTION, spec.reduce_prompt_tokens)
        for width in widths:
            maps = [
                Call(next(own), next(outputs), text=system, reasoning=next(thoughts)) for _ in range(width)
            ]
            # No tokens of its own: it reads the instruction and all outputs before it.
            yield [*maps, Call(0, next(last), text=system, shared=instruction, reads=range(width))]

    def _bests(self, spec: BestOf) -> Iterator[list[Call]]:
        widths = self._counts("n", spec.n)
        own, count, system = self._prompts(self.count), sum(widths), _system(spec)
        outputs, thoughts = self._outputs(count), self._thoughts(spec, count)
        judged = spec.judge_output_tokens
        last = self._last(judged, "judge_output_tokens") if judged is not None else None
        for program, (n, prompt) in enumerate(zip(widths, own, strict=True)):
            # One text under one name: the answers share the prompt, and a prefix cache finds it.
            asked = Text(("prompt", program), prompt)
            calls = [
                Call(0, next(outputs), text=system, shared=asked, reasoning=next(thoughts)) for _ in range(n)
            ]
            judge = [Call(0, next(last), text=system, shared=asked, reads=range(n))] if last else []
            yield [*calls, *judge]

    def _trees(self, spec: Tree) -> Iterator[list[Call]]:
        levels = [spec.branching**level for level in range(spec.depth + 1)]
        inner = sum(levels[:-1])
        own, system = self._prompts((1 + inner) * self.count), _system(spec)
        count = sum(levels) * self.count
        outputs, thoughts = self._outputs(count), self._thoughts(spec, count)
        for program in range(self.count):
            calls = [Call(next(own), next(outputs), text=system, reasoning=next(thoughts))]
            for parent in range(inner):
                asked = Text(("prompt", program, parent), next(own))
                calls += [
                    Call(0, next(outputs), extends=parent, shared=asked, reasoning=next(thoughts))
                    for _ in range(spec.branching)
                ]
            yield calls

    # ---- numbers -------------------------------------------------------------------------------------------

    def _prompts(self, count: int) -> Iterator[int]:
        return self._lengths("prompt_tokens", self.workload.prompt_tokens, count)

    def _outputs(self, count: int) -> Iterator[int]:
        return self._lengths("output_tokens", self.workload.output_tokens, count)

    def _thoughts(self, spec: ProgramPart, count: int) -> Iterator[int]:
        if spec.reasoning_tokens is None:
            return iter([0] * count)
        return self._lengths("programs.reasoning_tokens", spec.reasoning_tokens, count)

    def _last(self, lengths: Any, name: str) -> Iterator[int]:
        """The outputs of the requests that end programs."""
        return self._lengths(f"programs.{name}", lengths, self.count)

    def _lengths(self, name: str, lengths: Any, count: int) -> Iterator[int]:
        """Lengths of the stream of a key of the workload; errors name it."""
        try:
            return iter(draw_lengths(lengths, count, stream(self.seed, name), self.base_dir).tolist())
        except ScenarioError as error:
            raise ScenarioError(
                f"workload.{name}: {error.message}", where=error.where, remedy=error.remedy
            ) from None

    def _counts(self, name: str, lengths: Any) -> list[int]:
        """How many requests, or branches, each program has."""
        counts = list(self._lengths(f"programs.{name}", lengths, self.count))
        if max(counts) >= MOST_IN_A_PROGRAM:
            raise ScenarioError(
                f"workload.programs.{name}: a program would have {max(counts):,} of them",
                remedy=f"a program has fewer than {MOST_IN_A_PROGRAM:,} requests; give the distribution a max",
            )
        if sum(counts) > MOST_REQUESTS:
            raise ScenarioError(
                f"workload.programs.{name}: {sum(counts):,} requests in all; at most {MOST_REQUESTS:,} can be",
                remedy="start fewer programs",
            )
        return counts

    def _times(self, name: str, times: Any, count: int) -> Iterator[float]:
        uniform = stream(self.seed, f"programs.{name}").random(count)
        return iter(times_at(times, uniform).tolist())


def times_at(
    times: FixedTime | UniformTime | ExponentialTime | LognormalTime, uniform: np.ndarray
) -> np.ndarray:
    """The values of a distribution of times where its probability is ``uniform``, seconds."""
    if isinstance(times, FixedTime):
        return np.full(len(uniform), float(times.value))
    if isinstance(times, UniformTime):
        return times.low + uniform * (times.high - times.low)
    if isinstance(times, ExponentialTime):
        return -times.mean * np.log1p(-uniform)
    from scipy.special import ndtri

    values = times.median * np.exp(times.sigma * ndtri(uniform))
    return np.minimum(values, np.inf if times.max is None else times.max)


def _system(spec: ProgramPart) -> Text:
    return Text(SYSTEM, spec.system_prompt_tokens)
