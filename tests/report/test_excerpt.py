"""The stretch of a very long run that is drawn: as long as its requests were served, whenever they arrived."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simslm.report import excerpt


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(excerpt, "MOST_REQUESTS", 8)
    monkeypatch.setattr(excerpt, "DRAWN", 4)


def write(folder, arrival_s, count=20):
    """Requests that are served one after the other, a second each, in four row groups."""
    number = np.arange(count)
    columns = {
        "request_id": number,
        "arrival_s": arrival_s,
        "first_scheduled_s": number.astype(float),
        "ttft_s": number + 0.5 - arrival_s,
        "finish_s": number + 1.0,
    }
    pq.write_table(pa.table(columns), folder / "requests.parquet", row_group_size=5)
    pq.write_table(pa.table({"start_s": np.arange(float(count))}), folder / "iterations.parquet")


def test_requests_that_came_at_once_are_drawn_while_they_were_served(tmp_path):
    write(tmp_path, np.zeros(20))
    found = excerpt.excerpt(tmp_path)
    assert (found.first, found.last, found.of) == (15, 18, 20)
    assert (found.begin_s, found.end_s) == (0.0, 0.0)
    assert (found.served_from_s, found.served_to_s, found.span_s) == (15.0, 19.0, 4.0)


def test_arrivals_need_not_be_in_order(tmp_path):
    write(tmp_path, np.tile([4.0, 1.0, 3.0, 0.0, 2.0], 4))
    found = excerpt.excerpt(tmp_path)
    assert (found.begin_s, found.end_s) == (0.0, 4.0)
    assert found.arrivals_s == 4.0


def test_a_run_that_is_drawn_whole_has_no_excerpt(tmp_path):
    write(tmp_path, np.zeros(8), 8)
    assert excerpt.excerpt(tmp_path) is None
