"""The journal: visits in their order, and another campaign's is not continued."""

import pytest
from tiny_campaigns import measure

from profiler.journal import Journal
from simslm.errors import InfeasibleError, UsageError

pytestmark = pytest.mark.usefixtures("quick_campaign")


def test_a_journal_numbers_repeats_in_the_order_of_visits(tmp_path):
    journal = Journal(tmp_path / "journal", {"model": "tiny"})
    journal.add(("iteration", "a", 1), [{"latency_s": 3.0}])
    journal.add(("iteration", "a", 0), [{"latency_s": 1.0}, {"latency_s": 2.0}])
    journal.add(("iteration", "b", 0), [{"latency_s": 9.0}])
    again = Journal(tmp_path / "journal", {"model": "tiny"})
    found = [(row["latency_s"], row["repeat"], row["visit"]) for row in again.rows("iteration")]
    assert found == [(1.0, 0, 0), (2.0, 1, 0), (3.0, 2, 1), (9.0, 0, 0)]


def test_another_campaigns_journal_is_not_continued(tmp_path):
    with pytest.raises(InfeasibleError):
        measure(tmp_path, budget_s=1e-9)
    with pytest.raises(UsageError, match="differs in seed"):
        measure(tmp_path, seed=1)
