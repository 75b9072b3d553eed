"""How much slower an iteration becomes beside others on the same device, from the rows that measured them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from simslm.report.figures import Figure, frame, titled_axis
from simslm.report.palette import SCALE
from simslm.report.parity import plain
from simslm.traces.shapes import SHAPE_COLUMNS

OTHERS = ("other_decode_seqs", "other_prefill_tokens")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One way of sharing a device.

    Attributes:
        sharing: its name, with what gives each replica its part in brackets.
        own: what the replica ran, in words, a row each.
        others: what those beside it ran, in words, a column each.
        slowdown: latency over that of the same iteration alone, in the median over shapes; NaN where not measured,
            shape ``(own, others)``.
    """

    sharing: str
    own: list[str]
    others: list[str]
    slowdown: np.ndarray


def matrices(iterations: pa.Table) -> list[Matrix]:
    """A matrix for each way of sharing that was measured, of shapes that were measured alone too."""
    table = iterations.to_pandas()
    parts = table["partition"].notna()
    table.loc[parts, "sharing"] += " (" + table.loc[parts, "partition"] + ")"
    shape = list(SHAPE_COLUMNS)
    alone = table[table["replicas"] == 1].groupby(shape)["latency_s"].median().rename("alone_s")
    together = table[table["replicas"] > 1]
    if together.empty or alone.empty:
        return []
    keys = [*shape, "sharing", "replicas", *OTHERS]
    each = together.groupby(keys, dropna=False)["latency_s"].median().reset_index()
    each = each.join(alone, on=shape, how="inner")
    return [_matrix(str(sharing), points) for sharing, points in each.groupby("sharing", sort=True)]


def _matrix(sharing: str, points: Any) -> Matrix:
    rows: dict[tuple[Any, ...], str] = {}
    columns: dict[tuple[Any, ...], str] = {}
    cells: dict[tuple[Any, Any], list[float]] = {}
    for point in points.to_dict("records"):
        row = (point["decode_seqs"], point["prefill_tokens"])
        beside = tuple(int(point[name]) if point[name] == point[name] else 0 for name in OTHERS)
        column = (point["replicas"] - 1, *beside)
        rows[row] = _work(*row)
        columns[column] = f"{column[0]} × {_work(*beside)}"
        cells.setdefault((row, column), []).append(point["latency_s"] / point["alone_s"])
    own, others = sorted(rows), sorted(columns)
    slowdown = np.array(
        [[float(np.median(cells.get((row, column), [np.nan]))) for column in others] for row in own]
    )
    return Matrix(sharing, [rows[row] for row in own], [columns[column] for column in others], slowdown)


def _work(decode_seqs: float, prefill_tokens: float) -> str:
    parts = [f"decode {int(decode_seqs)}"] if decode_seqs else []
    parts += [f"prefill {int(prefill_tokens)}"] if prefill_tokens else []
    return " + ".join(parts) or "idle"


def matrix_figure(matrix: Matrix) -> Figure:
    """The matrix as a heat map, each cell with its figure."""
    known = [
        [None if np.isnan(value) else round(float(value), 4) for value in row] for row in matrix.slowdown
    ]
    said = [["" if value is None else f"{value:.2f}" for value in row] for row in known]
    bottom = 40 + round(6.4 * max(map(len, matrix.others)))
    left = min(34 + round(6.4 * max(map(len, matrix.own))), 170)
    data: Mapping[str, Any] = {
        "type": "heatmap",
        "x": [plain(name) for name in matrix.others],
        "y": [plain(name) for name in matrix.own],
        "z": known,
        "text": said,
        "texttemplate": "%{text}",
        "colorscale": [list(stop) for stop in SCALE],
        "zmin": 1,
        "zmax": max(2.0, float(np.nanmax(matrix.slowdown))),
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "%{y} beside %{x}: %{z:.3~f} times as long<extra></extra>",
    }
    layout = {
        **frame(height=max(110, 34 * len(matrix.own)) + 20 + bottom, left=left, top=10, bottom=bottom),
        "xaxis": {**titled_axis("beside"), "type": "category", "showgrid": False, "tickangle": -90},
        "yaxis": {**titled_axis("own batch"), "type": "category", "showgrid": False},
    }
    return {"data": [dict(data)], "layout": layout}
