"""Conditions on the change of a figure since the baseline: ``ttft_s.p99 > +5%``.

A bound with a sign is a change: ``+5%`` of the baseline's figure, ``+0.01`` in the figure's own unit. A bound without
one is the figure itself: ``ttft_s.p99 > 0.5``. Comparisons are joined by ``and``, ``or``, ``not``.

A latency is that of a comparison: a request that was rejected, failed or did not finish has an infinite one, so that no
configuration passes by turning requests away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite

from simslm.comparison.contrast import Contrast
from simslm.comparison.delta import Delta
from simslm.comparison.wording import percent, served, shown
from simslm.condition import Condition
from simslm.errors import UsageError, nearest
from simslm.metrics.figure_paths import FIGURES

OPTION = "--fail-on"
BOUND = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)\s*(?P<order><=|>=|<|>|==|!=)\s*(?P<bound>(?P<sign>[+-]?)\s*"
    r"(?P<figure>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<percent>%?))"
)
RELATIVE, ABSOLUTE = "relative", "delta"
"""What the condition calls the change of a figure, after its name."""

HOW = "write e.g. 'ttft_s.p99 > +5%' for a change against the first run, 'ttft_s.p99 > 0.5' for the figure itself"
KNOWN = tuple(name for path in FIGURES for name in (path, f"{path}.{RELATIVE}", f"{path}.{ABSOLUTE}"))


class Gate:
    """One condition, checked when it is made.

    Args:
        text: what the user wrote.

    Raises:
        UsageError: it is no condition, or speaks of something that no summary has.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        for name in BOUND.finditer(text):
            self._check(name)
        self._condition = Condition(BOUND.sub(_plain, text), KNOWN, OPTION, written=text, how=HOW)

    def _check(self, found: re.Match[str]) -> None:
        if found["percent"] and not found["sign"]:
            raise UsageError(
                f"{found['bound']!r} has no sign",
                where=f"{OPTION} {self.text!r}",
                remedy=f"say +{found['bound']} or -{found['bound']} for a change against the first run; a share "
                "itself is a number from 0 to 1",
            )
        if found["name"] not in KNOWN:
            raise UsageError(
                f"knows no {found['name']!r}{nearest(found['name'], FIGURES)}",
                where=f"{OPTION} {self.text!r}",
                remedy="`simslm explain` lists the figures of a run",
            )

    def holds(self, contrast: Contrast) -> bool:
        """Whether it is true of a configuration.

        Raises:
            UsageError: it speaks of a figure that one of the two runs does not have, or of a share of 0.
        """
        values: dict[str, float] = {}
        for name in self._condition.names():
            path, _, kind = name.rpartition(".")
            delta = contrast.delta(path if kind in (RELATIVE, ABSOLUTE) else name)
            value = {RELATIVE: delta.relative, ABSOLUTE: delta.delta}.get(kind, delta.value)
            if kind == RELATIVE and delta.delta == 0:
                value = 0.0
            if value is None:
                raise self._unanswerable(delta)
            values[name] = value
        return self._condition.holds(values)

    def _unanswerable(self, delta: Delta) -> UsageError:
        where = f"{OPTION} {self.text!r}"
        if delta.delta is None:
            return UsageError(
                f"{delta.path} is not known of both runs", where=where, remedy="name another figure"
            )
        return UsageError(
            f"{delta.path} is 0 in the first run, of which nothing is a percentage",
            where=where,
            remedy="give the change in its own unit, such as +1",
        )

    def evidence(self, contrast: Contrast) -> str:
        """The figures it speaks of, in the two runs."""
        paths = dict.fromkeys(_path(name) for name in self._condition.names())
        return ", ".join(_told(contrast, path) for path in paths)


def _plain(found: re.Match[str]) -> str:
    """The comparison with a bound that has a sign, in terms of the change of its figure."""
    if not found["sign"]:
        return found[0]
    kind, scale = (RELATIVE, 0.01) if found["percent"] else (ABSOLUTE, 1.0)
    return f"{found['name']}.{kind} {found['order']} {found['sign']}{float(found['figure']) * scale!r}"


def _path(name: str) -> str:
    path, _, kind = name.rpartition(".")
    return path if kind in (RELATIVE, ABSOLUTE) else name


def _told(contrast: Contrast, path: str) -> str:
    delta = contrast.delta(path)
    words = f"{path} is {shown(delta, delta.value)} after {shown(delta, delta.baseline)}"
    if delta.relative is not None and isfinite(delta.relative):
        return f"{words}, {percent(delta.relative)} %"
    lost = served(contrast) if delta.delta is not None and not isfinite(delta.delta) else ""
    return f"{words} ({lost.rstrip('.')})" if lost else words


def failures(gates: Sequence[Gate], contrasts: Sequence[Contrast]) -> Iterator[str]:
    """The conditions that are true, a sentence each."""
    for gate in gates:
        for contrast in contrasts:
            if gate.holds(contrast):
                yield f"{OPTION} {gate.text!r}: {contrast.configuration.label}: {gate.evidence(contrast)}"
