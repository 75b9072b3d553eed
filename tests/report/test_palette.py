"""Colours can be read on their ground, and told apart with every kind of colour vision."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from simslm.report.palette import COLOURS, DASHES, SERIES, SYMBOLS, css

REPORT = Path(__file__).parents[2] / "simslm" / "report"

VISION = {
    "trichromacy": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""What is left of linear RGB (Machado, Oliveira and Fernandes 2009, table 1, severity 1)."""


def linear(colour: str) -> np.ndarray:
    """Linear sRGB, each channel 0 to 1."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    low, high = sorted(float(np.dot(linear(each), [0.2126, 0.7152, 0.0722])) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB under D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.dot(to_xyz, np.clip(rgb, 0, 1)) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("ground", ["surface", "page"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "good", "bad"])
def test_text_can_be_read(name: str, ground: str, theme: int):
    assert contrast(COLOURS[name][theme], COLOURS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("name", SERIES)
def test_curves_can_be_seen(name: str, theme: int):
    assert contrast(COLOURS[name[1:]][theme], COLOURS["surface"][theme]) >= 3


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("vision", VISION)
def test_series_differ_for_every_kind_of_vision(vision: str, theme: int):
    """A difference of 2.3 can just be noticed."""
    seen = {name: lab(np.dot(VISION[vision], linear(COLOURS[name[1:]][theme]))) for name in SERIES}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 13, (one, other)
    for one, other in itertools.combinations(SERIES[:4], 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 19, (one, other)


def test_series_differ_in_a_second_mark_too():
    assert len(SERIES) == len(set(SERIES)) == len(set(DASHES)) == len(set(SYMBOLS))


def test_the_style_sheets_use_colours_of_the_palette_alone():
    own = {"swatch"}
    for file in [*REPORT.glob("*.css"), *REPORT.glob("*.j2")]:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"var\(--([a-z]+)\)", text)) <= set(COLOURS) | own, file.name
    assert all(css().count(f"--{name}: ") == 3 for name in COLOURS)
