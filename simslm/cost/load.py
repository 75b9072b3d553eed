"""From what a scenario says about costs to a cost model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.cost.interpolation import MeasuredCost, check_same
from simslm.cost.model import CostModel
from simslm.cost.physical import physical_cost
from simslm.cost.roofline import Roofline
from simslm.cost.transforms import HostCost, HostReplaced
from simslm.scenario.cost import Cost
from simslm.traces.files import read_trace


def load_cost(
    spec: Cost, architecture: Architecture, device: Device, dtype: str, base_dir: Path | None = None
) -> CostModel:
    """The cost model a scenario asks for.

    Args:
        spec: a trace or the roofline, and the transforms to apply in order.
        architecture, device, dtype: what is simulated.
        base_dir: what a relative trace path is relative to; the working directory when None.

    Raises:
        TraceError: the trace is missing, damaged, or of another model, device or data type.
        UsageError: the device has no peak for the data type.
    """
    cost = _source(spec, architecture, device, dtype, base_dir or Path())
    for transform in spec.transforms:
        cost = HostReplaced(cost, transform.host)
    return cost


def _source(spec: Cost, architecture: Architecture, device: Device, dtype: str, base_dir: Path) -> HostCost:
    if spec.trace is None:
        return Roofline(architecture, device, dtype, spec.roofline)
    trace = replace(read_trace(base_dir / spec.trace), path=Path(spec.trace))
    if trace.iterations is not None:
        return MeasuredCost(trace, architecture, device, dtype)
    check_same(trace, {"model": architecture.name, "device": device.name, "dtype": dtype})
    return physical_cost(trace, architecture, device, dtype)
