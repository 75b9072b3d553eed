"""simslm: measure a small language model once on a GPU; then answer every serving question on a laptop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simslm.api import load_scenario, simulate
    from simslm.search.run import search

__all__ = ["load_scenario", "search", "simulate"]


def __getattr__(name: str) -> Any:
    """The interface is loaded when it is first used, so that ``import simslm`` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'simslm' has no attribute {name!r}")
    if name == "search":
        from importlib import import_module

        return import_module("simslm.search")
    from simslm import api

    return getattr(api, name)
