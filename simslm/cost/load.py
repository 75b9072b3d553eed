"""From what a scenario says about costs to a cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.cost.interpolation import MeasuredCost, check_same
from simslm.cost.model import CostModel
from simslm.cost.parallel import TensorParallel
from simslm.cost.physical import physical_cost
from simslm.cost.reshaped import Reshaped
from simslm.cost.retimed import Retimed
from simslm.cost.reworked import Reworked
from simslm.cost.roofline import Roofline
from simslm.cost.throttled import SETTINGS, Throttled, throttles
from simslm.errors import SimslmError, UsageError
from simslm.scenario.cost import Cost
from simslm.scenario.schema import Scenario
from simslm.traces.files import flags_of, read_trace
from simslm.transforms.registry import Served, ShapeTransform, TimeTransform, WorkTransform, of_device
from simslm.transforms.weights import Weights, quantized


def load_cost(
    spec: Cost,
    architecture: Architecture,
    device: Device,
    dtype: str,
    base_dir: Path | None = None,
    tensor_parallel_size: int = 1,
) -> CostModel:
    """The cost model a scenario asks for.

    Args:
        spec: a trace or the roofline, and the transforms: those of the device's part in order, then those around it.
        architecture, device, dtype: what is simulated.
        base_dir: what a relative trace path is relative to; the working directory when None.
        tensor_parallel_size: devices that the device's part is split over.

    Raises:
        TraceError: the trace is missing, damaged, or of another model, device or data type.
        UsageError: the device has no peak for the data type, or a transform is not for such a model.
    """
    served = Served.on(architecture, dtype, device)
    changes = [each for each in spec.changes if not each.neutral(served)]
    cost = _source(spec, architecture, device, dtype, base_dir or Path(), of_device(changes))
    if tensor_parallel_size > 1:
        cost = TensorParallel(cost, architecture, device, dtype, tensor_parallel_size, spec.all_reduce)
    for each in changes:
        if isinstance(each, TimeTransform):
            cost = Retimed(cost, each)
    return cost


def flagged(scenario: Scenario) -> list[str]:
    """What the traces that a scenario names have to say of themselves; nothing of those that cannot be read."""
    asked = (scenario.cost, *(group.cost for group in scenario.deployment.groups or ()))
    found: list[str] = []
    for path in dict.fromkeys(cost.trace for cost in asked if cost is not None and cost.trace is not None):
        try:
            found += flags_of(read_trace(scenario.base_dir / path).provenance)
        except SimslmError:
            continue
    return found


def _source(
    spec: Cost,
    architecture: Architecture,
    device: Device,
    dtype: str,
    base_dir: Path,
    transforms: tuple[ShapeTransform | WorkTransform, ...],
) -> CostModel:
    """The costs of the device's part, and the host time that they come with."""
    if architecture.sliding_window and any(isinstance(each, ShapeTransform) for each in transforms):
        raise UsageError(
            f"{architecture.name} has layers with a window of their own",
            remedy="leave out the transforms that bound what attention reads, or choose a model without windows",
        )
    if spec.trace is None:
        return Roofline(architecture, device, dtype, spec.roofline, transforms)
    trace = replace(read_trace(base_dir / spec.trace), path=Path(spec.trace))
    if quantized(trace.provenance) and any(isinstance(each, Weights) for each in transforms):
        raise UsageError(
            f"the trace was measured with {trace.provenance['quantization']} weights",
            where=str(spec.trace),
            remedy="leave out the transform `weights`, or choose a trace without quantization",
        )
    if trace.iterations is not None:
        cost: CostModel = MeasuredCost(trace, architecture, device, dtype)
    else:
        check_same(trace, {"model": architecture.name, "device": device.name, "dtype": dtype})
        cost = physical_cost(trace, architecture, device, dtype)
    for setting, (_, unit) in SETTINGS.items():
        if (value := getattr(spec, setting)) is not None:
            cost = Throttled(cost, throttles(trace, setting, value), f"{setting} {value:g} {unit}")
    return changed(cost, transforms, architecture, device, dtype)


def changed(
    cost: CostModel,
    transforms: Sequence[ShapeTransform | WorkTransform],
    architecture: Architecture,
    device: Device,
    dtype: str,
) -> CostModel:
    """Measured or calibrated costs, their device part changed by transforms in order."""
    for i, each in enumerate(transforms):
        if isinstance(each, ShapeTransform):
            cost = Reshaped(cost, each)
        else:
            held = quantized(cost.provenance)
            before, after = (
                Roofline(architecture, device, dtype, transforms=(*held, *transforms[:end]))
                for end in (i, i + 1)
            )
            cost = Reworked(cost, before, after, each)
    return cost
