"""Conditions on named values that a user writes: ``sm_clock_mhz == 1980 and workload in ('fixed', 'chat')``.

They are Python's comparisons joined by ``and``, ``or`` and ``not``, read as a tree and walked: nothing is run.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from simslm.errors import UsageError, nearest

COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, group: value in group,
    ast.NotIn: lambda value, group: value not in group,
}
ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
LONGEST = 1000
"""Characters of a condition; a longer one is taken for something else."""

HOW = "write comparisons of names with numbers or quoted texts, joined by and, or, not"


class Condition:
    """A condition, checked when it is made.

    Args:
        text: what the user wrote.
        names: that it may speak of, perhaps with dots.
        option: what it was given to, for errors.
        written: what errors quote, where ``text`` was made of it.
        how: what errors say of how conditions are written.

    Raises:
        UsageError: it is no condition, or speaks of something else.
    """

    def __init__(
        self, text: str, names: Collection[str], option: str, *, written: str = "", how: str = HOW
    ) -> None:
        self.text = written or text
        self._names = names
        self._option = option
        self._how = how
        try:
            if len(text) > LONGEST:
                raise ValueError
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Warning)
                self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self._refuse("is no condition")
        self._check(self._tree)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of some values.

        A name without a value equals nothing, and no order holds for it.

        Args:
            values: by name; None for a name without a value.

        Raises:
            UsageError: it orders texts with numbers.
        """
        return self._truth(self._tree, values)

    def names(self) -> list[str]:
        """What it speaks of, in alphabetical order."""
        found = {name for node in ast.walk(self._tree) if (name := _dotted(node)) in self._names}
        return sorted(name for name in found if name)

    def _truth(self, node: ast.expr, values: Mapping[str, Any]) -> bool:
        if isinstance(node, ast.BoolOp):
            parts = (self._truth(part, values) for part in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        if isinstance(node, ast.UnaryOp):
            return not self._truth(node.operand, values)
        assert isinstance(node, ast.Compare)
        sides = [self._value(side, values) for side in (node.left, *node.comparators)]
        return all(
            self._compare(how, left, right)
            for how, left, right in zip(node.ops, sides, sides[1:], strict=False)
        )

    def _compare(self, how: ast.cmpop, left: Any, right: Any) -> bool:
        if isinstance(how, ORDERS) and (left is None or right is None):
            return False
        try:
            return COMPARISONS[type(how)](left, right)
        except TypeError:
            self._refuse(f"cannot compare {left!r} with {right!r}")

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        name = _dotted(node)
        return values.get(name) if name else ast.literal_eval(node)

    def _check(self, node: ast.expr) -> None:
        if isinstance(node, ast.BoolOp):
            for part in node.values:
                self._check(part)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare) and all(type(how) in COMPARISONS for how in node.ops):
            for how, side in zip((None, *node.ops), (node.left, *node.comparators), strict=True):
                self._check_side(side, isinstance(how, ast.In | ast.NotIn))
        else:
            self._refuse("is no condition")

    def _check_side(self, node: ast.expr, group: bool) -> None:
        name = _dotted(node)
        if name is not None and not group:
            if name not in self._names:
                self._refuse(f"knows no {name!r}{nearest(name, list(self._names))}")
            return
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            self._refuse("is no condition")
        parts = value if group else (value,)
        if not isinstance(parts, tuple | list) or not all(type(part) in (int, float, str) for part in parts):
            self._refuse("is no condition")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(what, where=f"{self._option} {self.text!r}", remedy=self._how)


def _dotted(node: ast.AST) -> str | None:
    """``a.b`` of a name with attributes; None of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else None
    return None
