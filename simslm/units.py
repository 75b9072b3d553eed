"""Units: seconds, joules, watts and bytes inside and in files; milliseconds and GiB only on screens."""

from __future__ import annotations

import math

KIB = 1024
MIB = 1024**2
GIB = 1024**3

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
"""Bytes of one element, by the name of the data type used in scenarios and trace names."""


NOUGHT = 1e-12
"""What is smaller is what rounding left of 0."""


def number(value: float | None, digits: int = 3) -> str:
    """A plain figure for a screen, as people write it: ``1,234``, ``0.0312``, ``0.0000125``, never ``1.25e-05``.

    Args:
        value: None and NaN are ``–``; what is nearer to 0 than :data:`NOUGHT` is ``0``.
        digits: significant ones, of figures below 1000; zeros at the end are left out.
    """
    if value is None or math.isnan(value):
        return "–"
    if abs(value) < NOUGHT:
        return "0"
    if math.isinf(value) or abs(rounded := float(f"{value:.{digits}g}")) >= 1000:
        return f"{value:,.0f}"
    places = max(digits - 1 - math.floor(math.log10(abs(rounded))), 0)
    text = f"{rounded:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def change(share: float | None, digits: int = 3) -> str:
    """A relative difference for a screen: ``+1,420 %``, ``-0.35 %``, ``0 %``."""
    if share is None or math.isnan(share):
        return "–"
    text = number(100 * abs(share), digits)
    return f"{text} %" if text == "0" else f"{'-' if share < 0 else '+'}{text} %"


def seconds(value: float | None) -> str:
    """A duration for a screen: ``3.21 s``, ``45 ms``, ``812 µs``, ``2 min 05 s``."""
    if value is None or math.isnan(value):
        return "–"
    size = float(f"{abs(value):.3g}")
    if size >= 7200:
        return f"{value / 3600:.1f} h"
    if size >= 120:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    if size >= 1:
        return f"{number(value)} s"
    if size < NOUGHT:
        return "0 ms"
    if size >= 1e-3:
        return f"{number(value * 1e3)} ms"
    return f"{number(value * 1e6)} µs"


def bytes_(value: float) -> str:
    """A size for a screen: ``1.50 GiB``, ``36.0 KiB``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= unit:
            return f"{value / unit:.2f} {name}"
    return f"{value:.0f} B"


def joules(value: float | None) -> str:
    """An energy for a screen: ``812 J``, ``34.1 kJ``, ``2.40 kWh``."""
    if value is None or math.isnan(value):
        return "–"
    if value >= 3.6e6:
        return f"{number(value / 3.6e6)} kWh"
    return f"{number(value / 1e3)} kJ" if value >= 1e3 else f"{number(value)} J"


def flops(value: float) -> str:
    """Floating-point operations for a screen: ``68.7 GFLOP``, ``16.4 kFLOP``."""
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{number(value / unit)} {name}FLOP"
    return f"{number(value)} FLOP"
