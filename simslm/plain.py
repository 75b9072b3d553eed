"""Plain values, as files hold them: what a section of keys is, and a list, in terms a type checker follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard


def is_section(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a section of keys, as YAML and JSON are read."""
    return isinstance(value, dict)


def is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value maps keys to values, a section or what stands for one."""
    return isinstance(value, Mapping)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)


def is_row(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list, a tuple, or a text."""
    return isinstance(value, Sequence)


def section_of(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section under a key; an empty one where the key is missing or null."""
    return mapping.get(key) or {}
