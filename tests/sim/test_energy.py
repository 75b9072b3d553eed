"""The energy of requests is the energy of iterations, whatever a replica does besides serving them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import WAYS_OF, examples, scenarios
from support.synthetic import Lists, deployment

from simslm.policies.registry import registered

MODES = [{"batching": entry.name} for entry in registered("batching")] + [
    {kind: entry.name} for kind in WAYS_OF for entry in registered(kind)
]


def charged(result) -> tuple[float, float]:
    """Joules that requests are charged with, and those of all iterations."""
    energy = result.summary["energy"]
    return float(np.nansum(result.request_columns["energy_j"])), energy["prefill_j"] + energy["decode_j"]


@pytest.mark.parametrize("named", MODES, ids=lambda named: " ".join(*named.items()))
@settings(max_examples=examples(12), deadline=None)
@given(data=st.data())
def test_requests_are_charged_with_every_joule_of_every_iteration(named, data):
    requests, served = data.draw(scenarios(**named))
    mine, all_of_it = charged(simulate(requests, served))
    assert mine == pytest.approx(all_of_it, rel=1e-9, abs=1e-12)


def test_a_row_computed_after_the_last_token_is_charged_to_whose_it_was():
    """Alone, a request of four tokens takes a prefill, three decode iterations, and one that is thrown away."""
    alone = simulate(Lists.of([0.0], 10, 4), deployment(late_output=True))
    assert len(alone.tables[0]) == 5
    assert alone.request_columns["energy_j"][0] == pytest.approx(alone.tables[0].energy_j.sum(), rel=1e-12)


def test_a_late_row_beside_others_is_a_row_as_theirs():
    """Of two, one ends first: in the iteration after its last token both have a row, and half of the energy each."""
    both = simulate(Lists.of([0.0, 0.0], 10, [2, 9]), deployment(late_output=True))
    spent = both.tables[0].energy_j
    first = spent[0] / 2 + spent[1] / 2 + spent[2] / 2
    assert both.request_columns["energy_j"].tolist() == pytest.approx([first, spent.sum() - first], rel=1e-12)
