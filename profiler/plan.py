"""What a campaign will measure, how long that takes and what memory it needs, on a device that need not be there.

Iterations take what a given function says, e.g. the roofline of the device. What lies around them (opening the engine,
setting shapes up, compiling, recording) is assumed; the assumptions are the constants below, for a GPU of any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from profiler import colocation
from profiler.campaign import ENOUGH_S
from profiler.engine.cache import BLOCK_SIZE
from profiler.grid import Shape
from profiler.measure.meters import NvmlMeter
from profiler.measure.operators import operator_tokens
from profiler.measure.window import WINDOW_S
from profiler.memory import affordable_blocks
from profiler.passes import LEAST_VISITS, OPERATOR_PASSES, POWER_PASSES, REFINED_SHARE
from profiler.specification import Specification
from profiler.visits import ENERGY_VISITS, LONG_CALL_S, POWER_VISIT_S, VISIT_S

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

_ENDLESS = 2**40
"""KV blocks that are more than any grid needs."""

_ACTIVATIONS = 4
"""Copies of the widest rows of an iteration that are there at once."""


@dataclass(frozen=True, kw_only=True)
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
        """Seconds of all steps."""
        return sum(self.steps.values())

    @property
    def needed_bytes(self) -> int:
        """Bytes of the device's memory that it needs."""
        return self.weights_bytes + self.cache_bytes + self.rows_bytes


def plan(specification: Specification, kind: str, memory_bytes: int, seconds: Seconds) -> Plan:
    """Plans a campaign.

    Args:
        specification: of the campaign; its device need not be there.
        kind: of device, ``cpu`` or ``cuda``.
        memory_bytes: what is free on it.
        seconds: see :data:`Seconds`.

    Raises:
        UsageError: see :meth:`profiler.specification.Specification.check_plan`, or an unknown grid.
        InfeasibleError: no shape of the grid fits beside the weights.
    """
    specification.check_plan()
    spec, architecture, subject = specification, specification.architecture, specification.subject
    longest, dtype = architecture.max_position_embeddings, spec.dtype
    room = affordable_blocks(
        architecture,
        kind,
        dtype,
        subject.block_size,
        loads_twice=subject.loads_twice,
        free_bytes=memory_bytes,
    )
    shapes, heldout = spec.shapes(kind, int(subject.memory_share * room), subject.block_size)
    enough_s = ENOUGH_S.get((kind, spec.grid))
    steps = _steps(spec, kind, shapes, heldout, seconds, enough_s) if spec.alone else {}
    if spec.together:
        steps["replicas that share the device"] = _together_s(spec, kind, seconds)
    largest = max(shape.blocks(subject.block_size, longest) for shape in (*shapes, *heldout))
    rows = max(shape.decode_seqs + shape.prefill_seqs * shape.prefill_new for shape in shapes)
    sampled = max(shape.decode_seqs + shape.prefill_seqs for shape in shapes)
    token_bytes = architecture.kv_bytes_per_token(dtype)
    element = architecture.weight_bytes(dtype) // architecture.parameters()
    widest = max(architecture.intermediate_size, architecture.query_size + 2 * architecture.kv_size)
    return Plan(
        model=architecture.name,
        device=spec.device,
        dtype=dtype,
        grid=spec.grid,
        areas=_areas(shapes) if spec.alone else {},
        heldout=len(heldout) if spec.alone else 0,
        most_visits=spec.passes,
        enough_s=enough_s,
        steps=steps,
        weights_bytes=architecture.weight_bytes(dtype),
        cache_bytes=largest * subject.block_size * token_bytes,
        rows_bytes=(_ACTIVATIONS * rows * widest + 2 * sampled * architecture.vocab_size) * element,
        memory_bytes=memory_bytes,
        left_out=len(spec.shapes(kind, _ENDLESS, subject.block_size)[0]) - len(shapes),
    )


def _areas(shapes: Sequence[Shape]) -> dict[str, int]:
    """How many shapes are decodes, prefills, or mixed."""
    kinds = [
        "mixed" if s.decode_seqs and s.prefill_seqs else "decode" if s.decode_seqs else "prefill"
        for s in shapes
    ]
    return {kind: kinds.count(kind) for kind in ("decode", "prefill", "mixed")}


def _steps(
    specification: Specification,
    kind: str,
    shapes: Sequence[Shape],
    heldout: Sequence[Shape],
    seconds: Seconds,
    enough_s: float | None,
) -> dict[str, float]:
    """Seconds of one replica's campaign."""
    architecture, passes = specification.architecture, specification.passes
    opening = _OPEN_S[kind] + architecture.weight_bytes(specification.dtype) / _WEIGHTS_PER_S
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


def _together_s(specification: Specification, kind: str, seconds: Seconds) -> float:
    """Replicas that share the device, each way and number with processes of its own."""
    spec, alone = specification, 2 + (3 + _KERNELS_TIMED[kind] if kind == "cuda" else 0)
    windows = [
        _STAGE_S + alone * count * seconds(shape) + max(WINDOW_S, 6 * count * count * seconds(shape))
        for count in spec.together
        for shape in colocation.shapes(spec.architecture, kind, spec.reach)
    ]
    starts = sum(_START_S[kind] + count for count in spec.together)
    return len(spec.sharing) * (starts + colocation.REPEATS * sum(windows))


def facts(found: Plan) -> dict[str, Any]:
    """The plan as a mapping, for JSON."""
    from dataclasses import asdict

    return asdict(found) | {
        "seconds": found.seconds,
        "needed_bytes": found.needed_bytes,
        "block_size": BLOCK_SIZE,
    }
