"""Speculative decoding of a group: the draft model's memory and costs, and which proposed tokens are accepted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.cost.drafted import Drafted
from simslm.cost.load import load_cost
from simslm.cost.model import CostModel
from simslm.errors import ScenarioError
from simslm.policies.registry import create
from simslm.scenario.schema import Scenario
from simslm.scenario.speculation import Speculative
from simslm.sim.engine import Speculation
from simslm.sim.parts.acceptance import Acceptance
from simslm.transforms.registry import Footprint
from simslm.workload.requests import RequestArrays
from simslm.workload.supply import RequestStream


def beside(held: Footprint, draft: Architecture, dtype: str) -> Footprint:
    """The memory of a model and of its draft, which keeps keys and values of the same tokens."""
    return replace(
        held,
        weight_bytes=held.weight_bytes + draft.weight_bytes(dtype),
        kv_bytes_per_token=held.kv_bytes_per_token + draft.kv_bytes_per_token(dtype),
    )


def drafted(
    cost: CostModel, asked: Speculative, draft: Architecture, device: Device, scenario: Scenario
) -> CostModel:
    """The costs of a model with those of its draft.

    Raises:
        SimslmError: the draft's trace is missing, damaged, or of another model or device.
    """
    return Drafted(cost, load_cost(asked.cost, draft, device, scenario.dtype, scenario.base_dir))


def acceptance(asked: Speculative, requests: RequestArrays | RequestStream, seed: int) -> Acceptance:
    """Which proposed tokens are accepted, drawn for each request at the rate of its class.

    Raises:
        ScenarioError: the rates are stated by classes that are not those of the workload.
    """
    rate = asked.acceptance_rate
    if not isinstance(rate, dict):
        return Acceptance(np.broadcast_to(np.float64(rate), len(requests)), seed)
    if requests.class_of is None or set(rate) != set(requests.classes):
        found = ", ".join(requests.classes) or "none"
        raise ScenarioError(
            f"acceptance_rate is stated for the classes {', '.join(rate)}, but the workload has {found}",
            remedy="state one number, or a rate for each class of workload.classes",
        )
    return Acceptance(np.array([rate[name] for name in requests.classes])[requests.class_of], seed)


def speculation(asked: Speculative, foreseen: Acceptance) -> Speculation:
    """The speculation of one replica, with a policy of its own."""
    policy = create("speculation", asked.policy, _no_stream)
    return Speculation(policy, asked.num_speculative_tokens, foreseen)


def _no_stream(purpose: str) -> np.random.Generator:
    raise AssertionError(f"a {purpose} policy draws nothing")
