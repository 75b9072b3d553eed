"""A measuring campaign of one model on one device, into a trace; :func:`profile` is the entry.

What is finished is on disk at once, and a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from profiler.colocation import Together, check
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import open_device, pin_threads, release_freed_memory, torch_dtype
from profiler.engine.quantized import check_quantization
from profiler.engine.weights import check_supported
from profiler.engines.choice import OWN, choose_engine, refuse_others
from profiler.engines.own import OwnEngine
from profiler.engines.subject import Subject
from profiler.grid import Reach, Shape, heldout_shapes, measured_shapes
from profiler.journal import Journal
from profiler.measure.company import Company
from profiler.measure.faults import refusals
from profiler.measure.meters import Meter, open_meter
from profiler.memory import affordable_blocks, check_affordable
from profiler.passes import Campaign, Progress
from profiler.provenance import catalogue_device, describe
from profiler.writing import TraceWriter
from simslm.catalog.architecture import Architecture
from simslm.catalog.models import load_model
from simslm.errors import DeviceError, InfeasibleError, UsageError


@dataclass(frozen=True, slots=True)
class Turns:
    """What else the own engine does while a campaign goes on, so that both meet the machine in the same states.

    Attributes:
        take: called with the engine, the passes that are over and the most there are, once the trace so far is written.
        num_blocks, block_size: of the KV cache that it needs.
    """

    take: Callable[[OwnEngine, int, int], object]
    num_blocks: int = 0
    block_size: int = BLOCK_SIZE


REPEATS = {"quick": 8, "full": 12}
"""Most passes over the grid, by grid."""

ENOUGH_S = {("cuda", "quick"): 130.0, ("cuda", "full"): 540.0}
"""Seconds after which three visits of a shape do, settled or not, by kind of device and grid; operators and power take
some 40 s after that. A CPU has no such limit."""


def profile(
    model: str | Architecture,
    device: str = "cpu",
    dtype: str = "bf16",
    grid: str = "quick",
    output: Path | str | None = None,
    *,
    quantization: str | None = None,
    repeats: int | None = None,
    threads: int | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
    meter: Meter | None = None,
    reach: Reach | None = None,
    replicas: Sequence[int] = (1,),
    sharing: Sequence[str] = ("time-slice",),
    engine: str = OWN,
    turns: Turns | None = None,
) -> Path:
    """Measure a model on a device and write its trace; resumes a campaign that was cut off.

    Numbers of replicas above 1 are measured after the replica alone, into the same trace; without 1 among them the
    trace must be there already.

    Args:
        model: catalogue name, path of a Hugging Face ``config.json``, or an architecture.
        device: ``cpu`` or ``cuda:N``.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        grid: ``quick`` or ``full``.
        output: the trace's directory; by default ``traces/<device>/<model>-<dtype>``, ending in ``-<quantization>``
            where there is one, and in ``-<engine>`` for another engine than the own one.
        quantization: ``int8`` or ``fp8`` weights, of one replica of the own engine.
        repeats: passes over the grid; by default :data:`REPEATS`.
        threads: CPU threads of torch; by default as many as torch chooses.
        budget_s: stop measuring after this long. What there is becomes a trace that says it is unfinished, and the
            next call goes on from there.
        seed: of weights, order and block tables.
        command: what the provenance says this was run with.
        progress: called before every visit.
        meter: energy counter instead of the device's own.
        reach: where the grid ends; by default as far as the model goes.
        replicas: how many share the device, one campaign for each.
        sharing: in which ways, of :data:`profiler.replicas.WAYS`.
        engine: what is measured, see :mod:`profiler.engines.choice`; of another than the own one, no operators and no
            replicas that share the device.
        turns: what the own engine does between the passes.

    Returns:
        The trace's directory.

    Raises:
        UsageError: an unknown model, grid, dtype, device, engine or way of sharing, or another campaign's journal is
            in the way, or replicas in the present trace that were measured together with other settings.
        InfeasibleError: the model does not fit, or the budget did not last for one pass.
        DeviceError: the device, its MPS or the engine's package is not there.
        TraceError: without 1 among the replicas, there is no trace of one alone.
    """
    start = time.perf_counter()
    together = sorted({count for count in replicas if count != 1})
    kind = choose_engine(engine)
    check(device, replicas, sharing)
    check_quantization(quantization, open_device(device))
    refuse_others(engine, replicas=bool(together), quantization=quantization is not None)
    if quantization and together:
        raise UsageError("replicas are measured without quantization", remedy="use --replicas 1")
    architecture = load_model(model) if isinstance(model, str) else model
    check_supported(architecture)
    torch_dtype(dtype)
    pin_threads(threads)
    name = catalogue_device(open_device(device))
    cache = {"num_blocks": turns.num_blocks, "block_size": turns.block_size} if turns else {}
    shapes, heldout = _shapes(kind, architecture, device, dtype, grid, reach, **cache)
    ending = [dtype, *([quantization] if quantization else []), *([engine] if engine != OWN else [])]
    target = Path(output) if output else Path("traces") / name / "-".join([architecture.name, *ending])
    header = {"model": architecture.name, "device": name, "dtype": dtype, "grid": grid, "seed": seed}
    header |= {"engine": kind.label(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    header |= {"reach": list(reach) if reach else None, "quantization": quantization}
    header["block_size"] = turns.block_size if turns else kind.block_size
    common = Together(
        architecture, device, dtype, together, tuple(sharing), threads, meter, progress, reach=reach
    )
    if 1 not in replicas:
        common.measure(target, header)
        return target
    opened = partial(OwnEngine.open, quantization=quantization, **cache) if kind is OwnEngine else kind.open
    with refusals(
        f"opening {architecture.name} on {device}", "free memory of the device, or end other work on it"
    ):
        subject = opened(architecture, dtype=dtype, device=device, shapes=(*shapes, *heldout), seed=seed)
    header["attention"] = subject.facts()["attention"]
    meter = meter or open_meter(subject.device)
    enough_s = ENOUGH_S.get((subject.device.type, grid), float("inf"))
    extent = {"grid": grid, "reach": reach._asdict() if reach else None}
    extent["enough_s"] = enough_s if enough_s < float("inf") else None
    company = Company()

    def described() -> dict[str, Any]:
        found = describe(subject, meter, command=command, seed=seed)
        return found | extent | {"other_load": company.share()}

    writer = TraceWriter(target, described)
    writer.check([(way, count) for way in sharing for count in together])
    journal = Journal(target.parent / f"{target.name}.journal.partial", header)
    campaign = Campaign(
        subject,
        meter,
        journal,
        shapes,
        heldout,
        repeats or REPEATS[grid],
        seed,
        progress or (lambda *_: None),
        start + budget_s if budget_s else float("inf"),
        start + enough_s,
        writer.save,
    )
    if turns and isinstance(subject, OwnEngine):
        campaign.turn = lambda passes: turns.take(subject, passes, campaign.repeats)
    try:
        with refusals("measuring", "run the same command again: it goes on from there"):
            complete = campaign.run()
    except BaseException:
        writer.save(campaign)
        raise
    if not complete and not campaign.passes:
        writer.save(campaign)
        raise InfeasibleError(
            "the time allowed ended within the first pass over the grid",
            where=str(journal.path),
            remedy="run the same command again: it goes on from there",
        )
    if not complete:
        writer.save(campaign)
    else:
        writer.write(campaign)
        if together:
            del subject, writer, campaign, described
            release_freed_memory(device)
            _measure_together(common, target, header, journal)
        journal.remove()
    return target


def _measure_together(common: Together, target: Path, header: dict[str, Any], journal: Journal) -> None:
    """Replicas that share the device; the journal of one alone stays while they are measured, or interrupted.

    Raises:
        DeviceError, InfeasibleError: part of it cannot be measured; the rest is.
    """
    try:
        common.measure(target, header)
    except (DeviceError, InfeasibleError):
        journal.remove()
        raise


def _shapes(
    kind: type[Subject],
    architecture: Architecture,
    device: str,
    dtype: str,
    grid: str,
    reach: Reach | None,
    num_blocks: int = 0,
    block_size: int | None = None,
) -> tuple[list[Shape], list[Shape]]:
    """Those of :func:`shapes_within` what is free now, and room for ``num_blocks`` KV blocks.

    Raises:
        InfeasibleError: no shape fits, or not so many blocks.
    """
    size = block_size or kind.block_size
    room = affordable_blocks(architecture, device, dtype, size, loads_twice=kind.loads_twice)
    affordable = int(kind.memory_share * room)
    check_affordable(num_blocks, affordable, device)
    return shapes_within(
        kind, architecture, device.partition(":")[0], grid, reach, affordable, size, device, dtype
    )


def shapes_within(
    kind: type[Subject],
    architecture: Architecture,
    sort: str,
    grid: str,
    reach: Reach | None,
    blocks: int,
    size: int,
    device: str,
    dtype: str,
) -> tuple[list[Shape], list[Shape]]:
    """The grid's shapes and the held-out ones, as far as memory allows and the engine can be made to.

    Args:
        kind: of engine.
        architecture, grid, reach: as of :func:`profile`.
        sort: of device, ``cpu`` or ``cuda``.
        blocks, size: KV blocks that fit, and tokens in each.
        device, dtype: for what an error says.

    Raises:
        InfeasibleError: no shape fits.
    """
    shapes = measured_shapes(architecture, sort, grid, blocks, size, reach)
    if not shapes:
        raise InfeasibleError(
            f"no shape of the grid fits beside the weights of {architecture.name} in {dtype}",
            where=f"device {device}",
            remedy="profile a smaller model or a narrower dtype, or free memory",
        )
    heldout = heldout_shapes(architecture, blocks, size, reach)
    return list(dict.fromkeys(map(kind.possible, shapes))), list(dict.fromkeys(map(kind.possible, heldout)))
