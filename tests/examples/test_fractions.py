"""What a fraction of a product of parameters still meets."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from support.fractions import fraction, pairs

SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@given(sizes=SIZES, pairwise=st.booleans())
def test_every_value_or_every_pair_comes_in_fewer_cases(sizes, pairwise):
    cases = [
        frozenset((f"p{name}", str(value)) for name, value in enumerate(values))
        for values in product(*map(range, sizes))
    ]
    met = set()
    chosen = [cases[i] for i in fraction(cases, met, pairwise=pairwise)]
    parts = pairs if pairwise else set
    assert set().union(*map(parts, chosen)) == set().union(*map(parts, cases))
    assert met == set().union(*map(pairs, chosen))
    assert len(chosen) <= (len(cases) if pairwise else sum(sizes))


def test_tests_of_a_file_meet_pairs_together():
    cases = [frozenset((("family", f), ("attention", a))) for f, a in product("abcdef", "xyz")]
    met = set()
    for _ in range(4):
        assert len(fraction(cases, met, pairwise=False)) == 6  # the least that has every family
    assert met == set().union(*map(pairs, cases))
