"""Speculative decoding: who advances by how much, what that takes, and that nothing is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.scenarios import examples, scenarios
from support.synthetic import LinearCost, Lists, deployment

from simslm.policies.registry import lookup
from simslm.policies.speculation.smartspec import SmartSpec, SmartSpecOptions, expected_tokens
from simslm.sim.deployment import Deployment
from simslm.sim.engine import Speculation
from simslm.sim.parts.acceptance import Acceptance

TICK = 2.0**-8
STEADY = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)


def speculating(served: Deployment, rates, most: int, policy: str = "fixed", seed: int = 0) -> Deployment:
    entry = lookup("speculation", policy)
    (group,) = served.groups
    foreseen = Acceptance(np.asarray(rates, dtype=float), seed)

    def policies():
        return replace(group.policies(), speculation=Speculation(entry.cls(entry.options()), most, foreseen))

    return replace(served, groups=(replace(group, policies=policies),))


@settings(max_examples=examples(100), deadline=None)
@given(scenarios(speculation="fixed"))
def test_every_invariant_holds_with_fixed_drafts(scenario):
    _hold(*scenario)


@settings(max_examples=examples(100), deadline=None)
@given(scenarios(speculation="smartspec"))
def test_every_invariant_holds_with_chosen_drafts(scenario):
    _hold(*scenario)


def _hold(requests, served):
    jumped, stepped = (simulate(requests, served, jump=jump) for jump in (True, False))
    same_logs(jumped.log, stepped.log)
    for group, table in zip(served.groups, jumped.tables, strict=False):
        speculation = group.policies().speculation
        if speculation is None:
            continue
        columns = table.columns
        drafts = columns["draft_tokens"]
        assert (columns["accepted_tokens"] <= drafts).all()
        assert not drafts[columns["prefill_tokens"] > 0].any()
        each = drafts / np.maximum(columns["decode_seqs"], 1)
        assert (each == np.floor(each)).all()
        assert (each <= speculation.num_speculative_tokens).all()
        assert (drafts + columns["decode_seqs"] <= group.engine.max_num_batched_tokens).all()


def test_nothing_foreseen_is_no_speculation_that_costs_more():
    """Every iteration emits one token: as many iterations as without, each longer by what the drafts take."""
    requests = Lists.of([0.0, 0.0], 5, [6, 9])
    plain = simulate(requests, deployment(cost=STEADY)).request_columns
    cost = replace(STEADY, per_token=TICK / 8)
    wasted = simulate(requests, speculating(deployment(cost=cost), [0.0, 0.0], 4))
    (table,) = wasted.tables
    assert not table.columns["accepted_tokens"].any()
    decodes = table.columns["decode_seqs"] > 0
    assert len(table) == 9
    assert table.columns["duration_s"][decodes].tolist() == [TICK * (1 + n / 2) for n in [2] * 5 + [1] * 3]
    assert plain["finish_s"].tolist() == [6 * TICK, 9 * TICK]


def test_what_is_foreseen_is_a_property_of_the_output():
    """Longer proposals reach further into the same outputs; the tokens between two breaks are accepted together."""
    acceptance = Acceptance(np.array([0.6, 0.9]), seed=7)
    breaks = acceptance.breaks(1, 40)
    assert breaks == acceptance.breaks(1, 40) != acceptance.breaks(0, 40)
    assert breaks == sorted(set(breaks))
    assert breaks[-1] == 40
    assert Acceptance(np.array([0.6, 0.9]), seed=8).breaks(1, 40) != breaks
    requests = Lists.of([0.0, 0.0], 5, [1, 40])
    (table,) = simulate(requests, speculating(deployment(cost=STEADY), [0.6, 0.9], 15, seed=7)).tables
    decodes = table.columns["decode_seqs"] > 0
    place, expected = 1, []
    while place < 40:
        foreseen = next(at for at in breaks if at >= place) - place
        expected.append(min(foreseen, 15, 40 - place - 1))
        place += expected[-1] + 1
    assert table.columns["accepted_tokens"][decodes].tolist() == expected


@pytest.mark.parametrize(("rate", "drafts"), [(0.3, 1), (0.7, 3), (0.9, 8)])
def test_iterations_emit_what_theory_expects(rate, drafts):
    """The mean over many long outputs, within four standard errors (Leviathan et al. 2023, equation 1)."""
    count, length = 200, 400
    requests = Lists.of(np.zeros(count), 5, length)
    served = speculating(deployment(cost=STEADY, max_num_seqs=count), [rate] * count, drafts)
    (table,) = simulate(requests, served).tables
    verified = (table.columns["draft_tokens"] > 0) & (np.arange(len(table)) < length // (drafts + 1) - 1)
    rounds = table.columns["decoding"][verified].sum()
    mean = 1 + table.columns["accepted_tokens"][verified].sum() / rounds
    powers = rate ** np.arange(1, drafts + 1)
    second = 1 + np.dot(2 * np.arange(1, drafts + 1) + 1, powers)
    expected = expected_tokens(rate, drafts)
    assert abs(mean - expected) < 4 * np.sqrt((second - expected**2) / rounds)


def test_tokens_that_come_together_are_gaps_of_zero():
    requests = Lists.of([0.0], 5, [30])
    result = simulate(requests, speculating(deployment(cost=STEADY), [0.95], 8))
    (table,) = result.tables
    accepted = int(table.columns["accepted_tokens"].sum())
    assert accepted > 15
    itl = result.summary["itl_s"]
    assert itl["p50"] == 0
    assert itl["mean"] == pytest.approx((29 - accepted) * TICK / 29)
    assert result.summary["tpot_s"]["mean"] == pytest.approx(itl["mean"])


@dataclass
class View:
    decoding: int
    most_drafts: int
    accepted: int
    rejected: int
    fixed_s: float
    each_s: float

    def latency_s(self, drafts: int) -> float:
        return self.fixed_s + self.each_s * self.decoding * drafts


@given(
    st.builds(
        View,
        st.integers(1, 300),
        st.integers(0, 10),
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.floats(1e-3, 1.0),
        st.floats(0, 1.0),
    )
)
def test_smartspec_takes_the_most_of_its_own_goodput(view):
    policy = SmartSpec(SmartSpecOptions())
    chosen = policy.tokens(view)
    goodput = [expected_tokens(policy.acceptance, k) / view.latency_s(k) for k in range(view.most_drafts + 1)]
    assert goodput[chosen] == max(goodput)
    assert goodput.index(max(goodput)) == chosen


def test_smartspec_learns_what_is_accepted_and_forgets_what_it_assumed():
    policy = SmartSpec(SmartSpecOptions(initial_acceptance=0.9, prior_tokens=10, half_life_tokens=1e6))
    assert policy.acceptance == 0.9
    policy.tokens(View(4, 4, 200, 800, 1.0, 0.1))
    assert policy.acceptance == pytest.approx(209 / 1010)
    policy.tokens(View(4, 4, 200, 800, 1.0, 0.1))
    assert policy.acceptance == pytest.approx(209 / 1010)


def test_a_sequence_that_fits_exactly_is_not_refused_room_for_tokens_beyond_its_end():
    requests = Lists.of([0.0], 14, 3)
    served = speculating(deployment(cost=STEADY, num_gpu_blocks=1, watermark=0.0), [0.9], 6)
    assert simulate(requests, served).request_columns["preemptions"].tolist() == [0]


def test_drafts_share_the_token_budget_with_the_batch():
    requests = Lists.of(np.zeros(24), 2, 40)
    served = speculating(deployment(cost=STEADY, max_num_seqs=24, max_num_batched_tokens=64), [0.8] * 24, 6)
    (table,) = simulate(requests, served).tables
    full = table.columns["decode_seqs"] == 24
    assert set(
        (table.columns["draft_tokens"][full & (table.columns["prefill_tokens"] == 0)] / 24).tolist()
    ) == {1}
