"""What a campaign will measure, how long that takes and what memory it needs, on a device that need not be there.

Iterations take what a given function says, e.g. the roofline of the device. What lies around them (opening the engine,
setting shapes up, compiling, recording) is assumed; the assumptions are the constants below, for a GPU of any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from profiler import colocation
from profiler.campaign import ENOUGH_S, REPEATS, shapes_within
from profiler.engine.cache import BLOCK_SIZE
from profiler.engines.choice import choose_engine
from profiler.grid import Reach, Shape
from profiler.measure.meters import NvmlMeter
from profiler.measure.operators import operator_tokens
from profiler.measure.window import WINDOW_S
from profiler.memory import affordable_blocks
from profiler.passes import LEAST_VISITS, OPERATOR_PASSES, POWER_PASSES, REFINED_SHARE
from profiler.visits import ENERGY_VISITS, LONG_CALL_S, POWER_VISIT_S, VISIT_S
from simslm.catalog.architecture import Architecture

Seconds = Callable[[Shape], float]
"""How long an iteration takes."""

_OPEN_S = {"cpu": 5.0, "cuda": 15.0}
"""Until torch and the device are ready, and for kernels to be compiled that no cache holds."""

_WEIGHTS_PER_S = 1.5e9
"""Bytes of random weights that are made in a second."""

_STAGE_S = 0.02
"""To set up the sequences of a visit."""

_FIRST_S = {"cpu": 0.01, "cuda": 0.15}
"""For what the first visit of a shape brings: a recording, or a library's own tables."""

_OPERATOR_S = 0.03
"""For one operator: it is recorded, and timed several times."""

_DENSE_OPERATORS = 7
_START_S = {"cpu": 8.0, "cuda": 12.0}
"""For the processes of replicas to start."""

_KERNELS_TIMED = {"cpu": 0, "cuda": 6}
"""Iterations of a visit in which its kernels are timed alone."""

_ACTIVATIONS = 4
"""Copies of the widest rows of an iteration that are there at once."""


@dataclass(frozen=True)
class Plan:
    """A campaign before it is begun.

    Attributes:
        model, device, dtype, grid: what is measured, where and how finely.
        areas: what a shape is made of, and how many shapes there are; none where no replica is measured alone.
        heldout: shapes that no cost model will see.
        most_visits: of a shape; three do once ``enough_s`` are over.
        enough_s: None on a CPU.
        steps: what is done, and seconds.
        weights_bytes, cache_bytes, rows_bytes: memory of weights, of KV blocks for the largest shape, and of the rows
            of its widest iteration, about.
        memory_bytes: of the device.
        left_out: shapes of the grid that do not fit.
    """

    model: str
    device: str
    dtype: str
    grid: str
    areas: dict[str, int]
    heldout: int
    most_visits: int
    enough_s: float | None
    steps: dict[str, float]
    weights_bytes: int
    cache_bytes: int
    rows_bytes: int
    memory_bytes: int
    left_out: int

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.steps.values())

    @property
    def needed_bytes(self) -> int:
        """Of the device's memory."""
        return self.weights_bytes + self.cache_bytes + self.rows_bytes


def plan(
    architecture: Architecture,
    device: str,
    kind: str,
    memory_bytes: int,
    dtype: str,
    grid: str,
    seconds: Seconds,
    *,
    engine: str = "simslm",
    reach: Reach | None = None,
    repeats: int | None = None,
    replicas: Sequence[int] = (1,),
    sharing: Sequence[str] = (),
) -> Plan:
    """Plans a campaign.

    Args:
        architecture, dtype, grid, engine, reach, repeats, replicas, sharing: as of :func:`profiler.campaign.profile`.
        device: its name.
        kind: ``cpu`` or ``cuda``.
        memory_bytes: what is free on it.
        seconds: see :data:`Seconds`.

    Raises:
        InfeasibleError: no shape of the grid fits beside the weights.
    """
    subject, longest = choose_engine(engine), architecture.max_position_embeddings

    def within(blocks: int) -> tuple[list[Shape], list[Shape]]:
        return shapes_within(
            subject, architecture, kind, grid, reach, blocks, subject.block_size, device, dtype
        )

    room = affordable_blocks(
        architecture,
        kind,
        dtype,
        subject.block_size,
        loads_twice=subject.loads_twice,
        free_bytes=memory_bytes,
    )
    shapes, heldout = within(int(subject.memory_share * room))
    passes = repeats or REPEATS[grid]
    enough_s = ENOUGH_S.get((kind, grid))
    steps = _steps(architecture, kind, dtype, shapes, heldout, seconds, passes, enough_s)
    alone = 1 in replicas
    if not alone:
        steps = {}
    if more := [count for count in replicas if count > 1]:
        steps["replicas that share the device"] = _together_s(
            architecture, kind, more, sharing, reach, seconds
        )
    largest = max(shape.blocks(subject.block_size, longest) for shape in (*shapes, *heldout))
    rows = max(shape.decode_seqs + shape.prefill_seqs * shape.prefill_new for shape in shapes)
    sampled = max(shape.decode_seqs + shape.prefill_seqs for shape in shapes)
    token_bytes = architecture.kv_bytes_per_token(dtype)
    element = architecture.weight_bytes(dtype) // architecture.parameters()
    widest = max(architecture.intermediate_size, architecture.query_size + 2 * architecture.kv_size)
    return Plan(
        architecture.name,
        device,
        dtype,
        grid,
        _areas(shapes) if alone else {},
        len(heldout) if alone else 0,
        passes,
        enough_s,
        steps,
        architecture.weight_bytes(dtype),
        largest * subject.block_size * token_bytes,
        (_ACTIVATIONS * rows * widest + 2 * sampled * architecture.vocab_size) * element,
        memory_bytes,
        len(within(2**40)[0]) - len(shapes),
    )


def _areas(shapes: Sequence[Shape]) -> dict[str, int]:
    """How many are decodes, prefills and both."""
    kinds = [
        "mixed" if s.decode_seqs and s.prefill_seqs else "decode" if s.decode_seqs else "prefill"
        for s in shapes
    ]
    return {kind: kinds.count(kind) for kind in ("decode", "prefill", "mixed")}


def _steps(
    architecture: Architecture,
    kind: str,
    dtype: str,
    shapes: Sequence[Shape],
    heldout: Sequence[Shape],
    seconds: Seconds,
    passes: int,
    enough_s: float | None,
) -> dict[str, float]:
    """Seconds of one replica's campaign."""
    opening = _OPEN_S[kind] + architecture.weight_bytes(dtype) / _WEIGHTS_PER_S
    calls_s = [seconds(shape) for shape in (*shapes, *heldout)]
    finer = 1 + REFINED_SHARE * len(shapes) / len(calls_s)
    first = finer * sum(_visit_s(kind, call_s, ENERGY_VISITS) + _FIRST_S[kind] for call_s in calls_s)
    least = min(passes, LEAST_VISITS)
    others = finer * (least - 1) * sum(_visit_s(kind, call_s, ENERGY_VISITS) for call_s in calls_s)
    more = (passes - least) * finer * sum(_visit_s(kind, call_s, 0) for call_s in calls_s)
    if enough_s is not None:
        more = min(more, max(0.0, enough_s - opening - first - others))
    attended = sum(not (s.decode_seqs and s.prefill_seqs) for s in shapes)
    operators = _DENSE_OPERATORS * len(operator_tokens(architecture)) + 2 * attended
    steps = {
        "opening the engine, compiling": opening,
        f"{least} visits of each shape": first + others,
        "more visits, where medians are not settled": more,
        "operators one by one": min(passes, OPERATOR_PASSES) * operators * _OPERATOR_S,
    }
    return steps | (
        {"power idle and under load": min(passes, POWER_PASSES) * POWER_VISIT_S} if kind == "cuda" else {}
    )


def _visit_s(kind: str, call_s: float, energy: int) -> float:
    """One visit, with the window that energy needs or without."""
    warm = 1 if call_s < LONG_CALL_S or energy else 0
    timed = VISIT_S[kind]
    if energy and kind == "cuda":
        timed = NvmlMeter.window_s + 1.5 * NvmlMeter.step_s
    return _STAGE_S + (warm + _KERNELS_TIMED[kind]) * call_s + max(call_s, timed)


def _together_s(
    architecture: Architecture,
    kind: str,
    replicas: Sequence[int],
    sharing: Sequence[str],
    reach: Reach | None,
    seconds: Seconds,
) -> float:
    """Replicas that share the device, each way and number with processes of its own."""
    windows = [
        _STAGE_S + 2 * count * seconds(shape) + max(WINDOW_S, 6 * count * count * seconds(shape))
        for count in replicas
        for shape in colocation.shapes(architecture, kind, reach)
    ]
    starts = sum(_START_S[kind] + count for count in replicas)
    return len(sharing) * (starts + colocation.REPEATS * sum(windows))


def facts(found: Plan) -> dict[str, Any]:
    """All of it, for JSON."""
    from dataclasses import asdict

    return asdict(found) | {
        "seconds": found.seconds,
        "needed_bytes": found.needed_bytes,
        "block_size": BLOCK_SIZE,
    }
