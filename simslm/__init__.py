"""simslm: measure a small language model once on a GPU; then answer every serving question on a laptop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simslm.api import load_scenario, simulate

__all__ = ["load_scenario", "simulate"]


def __getattr__(name: str) -> Any:
    """The interface is loaded when it is first used, so that ``import simslm`` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'simslm' has no attribute {name!r}")
    from simslm import api

    return getattr(api, name)
