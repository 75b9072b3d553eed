"""Medians are taken over visits, whose calls were made in a row, where they are known."""

import numpy as np

from simslm.traces.files import write_trace
from simslm.traces.shapes import shapes


def test_a_long_visit_counts_as_much_as_a_short_one(tmp_path, provenance, columns):
    columns = {name: column[:9] for name, column in columns.items()}
    columns["latency_s"] = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]) * 0.02
    for name in ("decode_seqs", "decode_ctx_tokens"):
        columns[name] = np.full(9, columns[name][0])
    columns["repeat"] = np.arange(9)
    columns["visit"] = np.array([0, 0, 0, 0, 0, 5, 6, 6, 6])
    found = shapes(write_trace(tmp_path / "t", provenance=provenance, iterations=columns).iterations)
    assert len(found) == 1
    assert found.samples("latency_s")[0].tolist() == [0.02, 0.04, 0.06]
    assert found.median("latency_s").tolist() == [0.04]


def test_without_visits_every_repeat_counts(tmp_path, provenance, columns):
    found = shapes(write_trace(tmp_path / "t", provenance=provenance, iterations=columns).iterations)
    assert all(len(values) == 3 for values in found.samples("latency_s"))
    assert np.isnan(found.median("energy_j")).all()
