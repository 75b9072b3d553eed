"""Costs made of other costs: each layer passes on the facts of those inside, and prices one by one as all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.drafted import Drafted
from simslm.cost.facts import Facts
from simslm.cost.layer import Layer
from simslm.cost.model import CostModel
from simslm.cost.parallel import TensorParallel
from simslm.cost.reshaped import Reshaped
from simslm.cost.retimed import Retimed
from simslm.cost.reworked import Reworked
from simslm.cost.roofline import Roofline
from simslm.cost.scaled import Scaled
from simslm.cost.sharing import Demand
from simslm.cost.throttled import Throttle, Throttled
from simslm.scenario.cost import AllReduce
from simslm.transforms.host import HostTime
from simslm.transforms.lserve import LServe
from simslm.transforms.weights import Weights

MODEL, DEVICE, DTYPE = load_model("opt-1.3b"), load_device("h200"), "bf16"
FOUR_BITS = Weights(bits=4)


def demand(shape: IterationShape, device_s: float) -> Demand:
    """Every iteration asks for the same."""
    del shape, device_s
    return Demand(0.25, 0.5)


FACTS = Facts(
    source="measured",
    engine="known 1",
    idle_w=50.0,
    power_note="of a test",
    provenance={"trace": "somewhere"},
    demand=demand,
    colocated=pa.table({"replicas": [2]}),
)


class Known(Roofline):
    """Prices like the roofline, under facts of its own, with one direction of doubt."""

    def __init__(self) -> None:
        super().__init__(MODEL, DEVICE, DTYPE)
        self.facts = FACTS

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        return ((Scaled(self, 0.9), Scaled(self, 1.1)),)


def roofline(*transforms: Weights) -> Roofline:
    return Roofline(MODEL, DEVICE, DTYPE, transforms=transforms)


LAYERS: dict[str, tuple[Callable[[CostModel], CostModel], set[str]]] = {
    "scaled": (lambda cost: Scaled(cost, 1.5), {"provenance"}),
    "retimed": (lambda cost: Retimed(cost, HostTime(fixed_s=1e-3, per_seq_s=1e-5)), {"engine", "provenance"}),
    "throttled": (
        lambda cost: Throttled(cost, dict.fromkeys(("decode", "prefill"), Throttle(0.5, 0.3)), "half"),
        {"engine", "provenance"},
    ),
    "reshaped": (lambda cost: Reshaped(cost, LServe()), {"engine", "provenance", "demand", "colocated"}),
    "reworked": (
        lambda cost: Reworked(cost, roofline(), roofline(FOUR_BITS), FOUR_BITS),
        {"engine", "provenance", "demand", "colocated"},
    ),
    "parallel": (
        lambda cost: TensorParallel(cost, MODEL, DEVICE, DTYPE, 2, AllReduce()),
        {"provenance", "idle_w", "demand"},
    ),
    "drafted": (
        lambda cost: Drafted(cost, Roofline(load_model("opt-125m"), DEVICE, DTYPE)),
        {"provenance"},
    ),
}
"""Each layer, and the facts that it changes."""


@pytest.fixture(params=LAYERS)
def named(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_layer_is_tried():
    tried = {type(make(Known())) for make, _ in LAYERS.values()}
    assert tried >= set(Layer.__subclasses__())


def test_a_layer_changes_the_facts_it_is_about_and_no_other(named):
    make, changed = LAYERS[named]
    found = make(Known()).facts
    differ = {
        each.name for each in fields(Facts) if getattr(found, each.name) is not getattr(FACTS, each.name)
    }
    assert {name for name in differ if getattr(found, name) != getattr(FACTS, name)} == changed
    assert found.engine.startswith(FACTS.engine)
    assert FACTS.provenance.items() <= found.provenance.items()


def test_one_iteration_costs_what_it_costs_among_many(named):
    """Bitwise, host time and whole; a decode-only iteration lies on its batch's line."""
    cost = LAYERS[named][0](Known())
    decodes = [IterationShape(seqs, seqs * context) for seqs in (1, 16) for context in (1, 700)]
    prompts = [equal_prompts(seqs, 300 * seqs, 1, 256, 64) for seqs in (0, 8)]
    each = [*decodes, *prompts]
    together = cost.evaluate(IterationShape(*(np.array(column) for column in zip(*each, strict=True))))
    assert together.latency_s.tolist() == [cost.latency_s(shape) for shape in each]
    assert np.allclose(together.host_s, [cost.host_s(shape) for shape in each], rtol=1e-15)
    assert together.energy_j is not None
    assert (together.energy_j > 0).all()
    for shape in decodes:
        line = cost.decode(shape.decode_seqs)
        assert cost.latency_s(shape) == line.latency_s(shape.decode_ctx_tokens)


def test_variants_of_a_layer_are_the_layer_around_variants(named):
    make = LAYERS[named][0]
    if named == "scaled":
        assert make(Known()).variants() == ()
        return
    ((low, high),) = make(Known()).variants()
    shape = equal_prompts(8, 2400, 1, 256, 64)
    for found, factor in ((low, 0.9), (high, 1.1)):
        assert type(found) is type(make(Known()))
        assert found.latency_s(shape) == make(Scaled(Known(), factor)).latency_s(shape)


def test_a_changed_replica_asks_for_what_the_unchanged_one_does():
    """A transform of the device's part keeps the demand that its costs know."""
    for name in ("reshaped", "reworked"):
        found = LAYERS[name][0](Known()).demand
        assert found is not None
        assert found(IterationShape(4, 400), 1e-3) == Demand(0.25, 0.5)
        assert LAYERS[name][0](known_without_demand()).demand is None


def known_without_demand() -> CostModel:
    cost = Known()
    cost.facts = replace(FACTS, demand=None)
    return cost
