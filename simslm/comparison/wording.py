"""What a contrast says, in sentences: the same on the screen and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, isinf

from simslm.comparison.contrast import Configuration, Contrast
from simslm.comparison.delta import Delta

MOST_SAID = 4
"""Figures named in the sentence of each verdict."""

INFINITE = "∞"
EVERY_TENTH = "in every tenth"
"""In place of an interval: the difference has the same sign in every tenth of the run, its size is open."""

TOO_WIDE = "open: too few requests to tell"
"""In place of an interval that leaves open whether the figure falls to a quarter or rises several times."""

WIDEST = 8.0
"""How many times its low end the high end of an interval may be to be told; a sure difference is told anyhow."""

POINTS = "points"
"""Percentage points: from 3.3 % to 89 % of the requests is +85.7 points, not +2,570 %."""

ALIKE = "Every figure is the same in both."
NOTHING = "No difference beyond what the intervals leave open."
VERDICTS = ("better", "worse")


def shown(delta: Delta, value: float | None) -> str:
    """A figure with its unit; ∞ where it is infinite."""
    return INFINITE if value is not None and isinf(value) else delta.metric.show(value)


def percent(share: float) -> str:
    """A signed percentage without its unit, as people write it: ``+1,420``, ``-3.21``, ``+0.04``."""
    value = 100 * share
    if not isfinite(value):
        return f"{'+' if value > 0 else '-'}{INFINITE}"
    if abs(value) < 0.005:
        return "0"
    if abs(value) < 0.9995:
        return f"{value:+.2f}"
    return f"{value:+,.0f}" if abs(value) >= 99.95 else f"{value:+.3g}"


def change(delta: Delta) -> str:
    """The change in per cent, of a share in points, and in the figure's own unit where the baseline is 0.

    ``≈ 0`` where it rounds to that.
    """
    infinite = [value is not None and isinf(value) for value in (delta.baseline, delta.value)]
    if any(infinite):
        return (
            f"{INFINITE} in both" if all(infinite) else f"{'no longer' if infinite[0] else 'to'} {INFINITE}"
        )
    if not delta.delta:
        return "0" if delta.delta == 0 else "–"
    if _is_share(delta):
        words = percent(delta.delta)
        return "≈ 0" if words == "0" else f"{words} {POINTS}"
    if delta.relative is None:
        return f"{'+' if delta.delta > 0 else ''}{delta.metric.show(delta.delta)}"
    words = percent(delta.relative)
    return "≈ 0" if words == "0" else f"{words} %"


def interval(delta: Delta) -> str:
    """The interval of a change, in the same unit; empty without one."""
    if delta.direction:
        return EVERY_TENTH
    if delta.interval is None or not any((delta.delta, *delta.interval)):
        return ""
    if not all(map(isfinite, delta.interval)):
        return ""
    if _is_share(delta):
        low, high = delta.interval
        return f"{percent(low)} to {percent(high)} {POINTS}"
    if delta.relative_interval is None:
        low, high = delta.interval
        return f"{'+' if low > 0 else ''}{delta.metric.show(low)} to {'+' if high > 0 else ''}{delta.metric.show(high)}"
    low, high = sorted(delta.relative_interval)
    if delta.verdict == "unclear" and 1 + high > WIDEST * (1 + low):
        return TOO_WIDE
    return f"{percent(low)} to {percent(high)} %"


def _is_share(delta: Delta) -> bool:
    return delta.metric.unit == "1"


def sentences(contrast: Contrast, paths: Sequence[str]) -> list[tuple[str, str]]:
    """What the contrast says, most important first, each with ``better``, ``worse`` or nothing.

    Args:
        contrast: of which the sentences are.
        paths: the figures that may be named, in the order in which they matter.
    """
    found: list[tuple[str, str]] = []
    if words := served(contrast):
        found.append((_more_or_fewer(contrast), words))
    known = {delta.path: delta for delta in contrast.deltas}
    deltas = [known[path] for path in paths if path in known and not path.startswith("requests.")]
    told = [(verdict, [each for each in deltas if each.verdict == verdict]) for verdict in VERDICTS]
    for verdict, each in told:
        if each:
            found.append((verdict, _verdict(contrast, verdict, each)))
    if not any(each for _, each in told):
        found.append(("", _nothing(deltas)))
    return found


def served(contrast: Contrast) -> str:
    """How many requests each served, where not all were."""
    both = (contrast.configuration, contrast.baseline)
    if all(each.served == each.arrived for each in both):
        return ""
    return f"{'; '.join(map(_served, both))}."


def _served(one: Configuration) -> str:
    if one.served == one.arrived:
        return f"{one.label} served all {one.arrived:,}"
    lost = {status: one.count(status) for status in ("rejected", "failed")}
    under_way = one.arrived - one.served - sum(lost.values())
    parts = [f"{count:,} ({_share(count / one.arrived)}) {status}" for status, count in lost.items() if count]
    parts += [f"{under_way:,} unfinished"] if under_way else []
    return f"{one.label} served {one.served:,} of {one.arrived:,} requests: {', '.join(parts)}"


def _share(value: float) -> str:
    return "under 0.1 %" if value < 0.001 else f"{100 * value:.3g} %"


def _missed_share(one: Configuration) -> float:
    return one.missed / one.arrived if one.arrived else 0.0


def _more_or_fewer(contrast: Contrast) -> str:
    """The verdict on the requests that were missed, where that is sure."""
    deltas = (contrast.delta(f"requests.{status}") for status in ("rejected", "failed"))
    verdicts = {delta.verdict for delta in deltas} & set(VERDICTS)
    return verdicts.pop() if len(verdicts) == 1 else ""


def _verdict(contrast: Contrast, verdict: str, deltas: Sequence[Delta]) -> str:
    said = ", ".join(f"{each.title} {change(each)}" for each in deltas[:MOST_SAID])
    more = f" and {len(deltas) - MOST_SAID} more" if len(deltas) > MOST_SAID else ""
    return f"{verdict.capitalize()}{_but(contrast, verdict)}: {said}{more}."


def _but(contrast: Contrast, verdict: str) -> str:
    """A warning that better figures come with more missed requests."""
    before, after = (_missed_share(each) for each in (contrast.baseline, contrast.configuration))
    if verdict != "better" or after <= before:
        return ""
    return f", though {_share(after)} of its requests were not served ({_share(before) if before else 'none'} before)"


def _nothing(deltas: Sequence[Delta]) -> str:
    """The sentence where no difference is sure: the figures are equal, or the runs are too short to tell."""
    untested = [each for each in deltas if each.verdict == "untested"]
    if not untested:
        known = [each.delta for each in deltas if each.delta is not None]
        return ALIKE if known and not any(known) else NOTHING
    said = ", ".join(f"{each.title} {change(each)}" for each in untested[:MOST_SAID])
    more = f" and {len(untested) - MOST_SAID} more" if len(untested) > MOST_SAID else ""
    return f"Cannot tell of {said}{more}: {untested[0].note}."


def untold(deltas: Sequence[Delta]) -> Iterator[str]:
    """The figures without an interval, a line for each reason; counts of requests are left out."""
    reasons: dict[str, list[str]] = {}
    for delta in deltas:
        if delta.verdict == "untested" and not delta.path.startswith("requests."):
            reasons.setdefault(delta.note, []).append(delta.title)
    for reason, titles in reasons.items():
        yield f"{', '.join(titles)}: {reason}"
