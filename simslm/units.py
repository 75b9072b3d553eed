"""Units: seconds, joules, watts and bytes inside and in files; milliseconds and GiB only on screens."""

from __future__ import annotations

import math

KIB = 1024
MIB = 1024**2
GIB = 1024**3

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
"""Bytes of one element, by the name of the data type used in scenarios and trace names."""


def seconds(value: float | None) -> str:
    """A duration for a screen: ``3.21 s``, ``45.0 ms``, ``812 µs``, ``2 min 05 s``."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size >= 7200:
        return f"{value / 3600:.1f} h"
    if size >= 120:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    if size >= 1:
        return f"{value:.3g} s" if size < 100 else f"{value:.0f} s"
    if size >= 1e-3 or size == 0:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs"


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
        return f"{value / 3.6e6:.3g} kWh"
    return f"{value / 1e3:.3g} kJ" if value >= 1e3 else f"{value:.3g} J"


def number(value: float | None, digits: int = 3) -> str:
    """A plain figure for a screen, with thousands separators: ``1,234``, ``0.0312``."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def flops(value: float) -> str:
    """Floating-point operations for a screen: ``68.7 GFLOP``, ``16.4 kFLOP``."""
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g} {name}FLOP"
    return f"{value:.3g} FLOP"
