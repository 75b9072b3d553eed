"""Fractions of large products of parameters: few cases in which every value, or every pair of values, comes.

``make test`` runs a fraction of the tests that cross families, attentions and shapes in Triton's interpreter;
``make nightly`` runs all of them (``SIMSLM_WHOLE=1``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

Value = tuple[str, str]
"""A parameter and one of its values."""

Pair = tuple[Value, Value]


def pairs(case: Iterable[Value]) -> set[Pair]:
    """All pairs of values of a case."""
    first_then_second = combinations(sorted(case), 2)
    return set(first_then_second)


def fraction(cases: Sequence[frozenset[Value]], met: set[Pair], *, pairwise: bool) -> list[int]:
    """Cases in which every value that comes in any of them comes, or every pair of values, fewest first (greedily).

    Args:
        cases: each the values of its parameters.
        met: pairs that other tests have met; of equally good cases the one that meets most others is chosen, and its
            pairs are added.
        pairwise: whether every pair has to come, not only every value.

    Returns:
        Their places in ``cases``, in order.
    """
    wanted: list[set[Value] | set[Pair]] = [pairs(case) if pairwise else set(case) for case in cases]
    left = set().union(*wanted) if wanted else set()
    chosen: list[int] = []
    while left:
        best = max(
            (i for i in range(len(cases)) if i not in chosen),
            key=lambda i: (len(wanted[i] & left), len(pairs(cases[i]) - met), -i),
        )
        chosen.append(best)
        left -= wanted[best]
        met |= pairs(cases[best])
    return sorted(chosen)
