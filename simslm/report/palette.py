"""The colours of all pages: a figure or a rule names one, the theme says what it is.

The series are the blue, vermilion, green, purple, yellow and sky of Okabe and Ito (Color Universal Design, 2008), in
lightness that has a contrast of 3:1 with the ground and differs from one to the next: they stay apart for all kinds
of colour vision. Figures tell their series apart by dash or symbol too.
"""

from __future__ import annotations

COLOURS = {
    "ink": ("#1b1f24", "#e9ecef"),
    "muted": ("#59626d", "#a1aab4"),
    "grid": ("#e4e7eb", "#2c333b"),
    "page": ("#f6f7f9", "#0e1013"),
    "surface": ("#ffffff", "#171a1f"),
    "accent": ("#00509e", "#4f9ff0"),
    "second": ("#c85f00", "#ee7a24"),
    "third": ("#1b9673", "#63e6b4"),
    "fourth": ("#a9669f", "#b882b4"),
    "fifth": ("#5c4b1e", "#f4e04d"),
    "sixth": ("#2a8ae6", "#d3f0fd"),
    "idle": ("#c3c9d1", "#4a535e"),
    "limit": ("#1b1f24", "#e9ecef"),
    "good": ("#00694f", "#3ac7a1"),
    "bad": ("#a83c00", "#ff9a5c"),
    "warn": ("#fff3d6", "#32280f"),
    "edge": ("#8f6000", "#e0a526"),
    "low": ("#eef4f9", "#1d2a36"),
    "high": ("#004a78", "#8fd3ff"),
}
"""Each colour's name, and what it is in the light theme and on paper, and in the dark theme."""

SERIES = ("@accent", "@second", "@third", "@fourth", "@fifth", "@sixth")
"""The colours of curves and points, in the order in which they are taken."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x")
"""Second marks of the series, in the same order."""

SCALE = ((0.0, "@low"), (1.0, "@high"))
"""From little to much, for heat maps, contours and surfaces."""


def css() -> str:
    """The colours as custom properties: light, dark where the system or the reader asks for it, light on paper."""
    light, dark = (
        " ".join(f"--{name}: {pair[theme]};" for name, pair in COLOURS.items()) for theme in (0, 1)
    )
    asked = ':root[data-theme="dark"]:not([data-paper])'
    system = ':root:not([data-theme="light"]):not([data-paper])'
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ {system} {{ color-scheme: dark; {dark} }} }}\n"
        f"@media screen {{ {asked} {{ color-scheme: dark; {dark} }} }}\n"
    )
