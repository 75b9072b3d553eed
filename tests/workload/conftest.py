"""The public workload slices, read in place beside the repository."""

from pathlib import Path

import pytest

SLICES = Path(__file__).resolve().parents[3] / "shared" / "workloads"


@pytest.fixture
def public_slice():
    """From a file name to its path; skips the test where the slices are missing."""

    def find(name):
        path = SLICES / name
        if not path.is_file():
            pytest.skip(
                f"needs the public workload slice {name} beside the repository, in ../shared/workloads"
            )
        return path

    return find
