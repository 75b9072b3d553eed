"""The page of a traffic: drawn in a real browser, of two traffics, of one, of hardly any."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import fits, plots, well_drawn

from simslm.report.traffic import Drawn, TrafficPage, render_traffic


def drawn(name: str, count: int, seed: int = 0, timed: bool = True) -> Drawn:
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(0.3, count - 1) if timed else np.zeros(0)
    edges = np.linspace(0, max(gaps.sum(), 1.0), 21)
    rates = np.histogram(np.cumsum(gaps), edges)[0] / np.diff(edges) if timed and count > 1 else np.zeros(0)
    lengths = np.exp(rng.normal(5, 1.5, count)).astype(int) + 1
    return Drawn(name, edges if len(rates) else np.zeros(0), rates, gaps, lengths, rng.integers(1, 9, count))


def page(preset: str = "", notes: tuple[str, ...] = ()) -> TrafficPage:
    rows = [("requests", "7", "8"), ("CV of gaps", "1", "2")]
    source = [("licence", "<b>none</b>")] if preset else []
    columns = ("", "trace", "fit")
    return TrafficPage(
        "A <title>", ["7 requests"], "So it is.", columns, rows, notes, source, preset, "simslm workload"
    )


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "traffic.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_two_traffics_are_drawn_and_fit(opened: Any, tmp_path: Path, width: int, scheme: str) -> None:
    text = render_traffic(
        page("workload: {}\n", ("3 rows dropped",)), [drawn("trace", 900), drawn("fit", 1200, 1)]
    )
    tab = opened(written(tmp_path, text), width, scheme)
    fits(tab)
    well_drawn(tab)
    assert list(plots(tab)) == ["rate", "gaps", "prompt-tokens", "output-tokens"]


@pytest.mark.browser
@pytest.mark.parametrize(("count", "timed"), [(1, True), (2, True), (50, False)])
def test_hardly_any_traffic_is_drawn_too(opened: Any, tmp_path: Path, count: int, timed: bool) -> None:
    tab = opened(written(tmp_path, render_traffic(page(), [drawn("few", count, timed=timed)])))
    fits(tab)
    assert set(plots(tab)) >= {"prompt-tokens", "output-tokens"}


def test_what_comes_from_files_is_escaped_and_the_bytes_are_the_same() -> None:
    text = render_traffic(page("workload: {}\n"), [drawn("trace", 50)])
    assert "A &lt;title&gt;" in text
    assert "&lt;b&gt;none" in text
    assert text == render_traffic(page("workload: {}\n"), [drawn("trace", 50)])


def test_a_distribution_ends_at_all_requests_whatever_its_size() -> None:
    from simslm.report.traffic import _cdf

    for count in (1, 2, 399, 5000):
        values, shares = _cdf(np.arange(count))
        assert (values[-1], shares[-1]) == (count - 1, 1.0)
        assert np.all(np.diff(shares) > 0)
        assert len(shares) <= 441
