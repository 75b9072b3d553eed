"""The file and line of a scenario, added to errors about what it names there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from simslm.errors import SimslmError
from simslm.scenario.schema import Scenario


@contextmanager
def placed(scenario: Scenario, *keys: str) -> Generator[None]:
    """Adds the file and line of a scenario's key to the errors raised inside.

    Args:
        scenario: with the key.
        keys: the path of the key, outermost first.
    """
    try:
        yield
    except SimslmError as error:
        place = scenario.where(*keys)
        if not place:
            raise
        raise type(error)(str(error), where=place) from None
