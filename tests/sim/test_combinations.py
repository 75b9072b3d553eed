"""Every mechanism goes with every other, but for the pairs of one short table, each for a reason of nature."""

from __future__ import annotations

from itertools import combinations as pairs_of
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.combinations import combinations, mixes, whole
from support.invariants import same_logs, simulate
from support.scenarios import examples
from support.switching import host_watched

from simslm.mechanisms import EXCLUDES, MECHANISMS, conflicts, table
from simslm.sim.parts.bounded_kv import BoundedKV
from simslm.sim.parts.handoff import ROLES
from simslm.sim.parts.speculation import Speculating
from simslm.sim.parts.swap import Swap
from simslm.sim.parts.turns import Turns
from simslm.sim.parts.urgency import Urgency

PAIRS = [pair for pair in pairs_of(sorted(MECHANISMS), 2) if not conflicts(whole(pair))]


def hold(requests: Any, served: Any) -> None:
    """All invariants, the books of the host among them, and jumping is stepping to the bit."""
    with host_watched(served) as seen:
        stepped = simulate(requests, served, jump=False).log
    same_logs(simulate(requests, served).log, stepped)
    for swap in seen:
        assert not swap.copies | swap.on_host
        assert not swap.replica.landed
        assert not swap.replica.promised


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_any_mechanisms_together_keep_every_invariant_and_jump_as_they_step(data):
    hold(*data.draw(combinations(data.draw(mixes()))))


@pytest.mark.parametrize("pair", PAIRS, ids="-and-".join)
@settings(max_examples=examples(2), deadline=None)
@given(data=st.data())
def test_every_pair_goes_together(pair, data):
    hold(*data.draw(combinations(data.draw(mixes(pair)))))


def test_few_pairs_do_not_go_together():
    """No pair twice, none with itself, all of known names; and far less than a fifth of them."""
    excluded = [frozenset((one, other)) for one, others in EXCLUDES.items() for other in others]
    assert len(set(excluded)) == len(excluded)
    assert all(len(pair) == 2 and pair <= MECHANISMS.keys() for pair in excluded)
    assert 6 * len(excluded) < len(MECHANISMS) * (len(MECHANISMS) - 1) / 2


def test_the_page_shows_the_table():
    page = Path(__file__).parents[2] / "docs" / "mechanisms.md"
    assert f"\n{table()}\n" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("part", [*ROLES.values(), Speculating, Swap, Turns, Urgency, BoundedKV])
def test_a_part_says_what_it_excludes(part):
    assert part.name in MECHANISMS
    assert part.excludes() == EXCLUDES.get(part.name, {})
