"""As much of JSON Schema as a scenario's schema uses; an unknown keyword is an error, not a pass."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
SAYS_NOTHING = {"$defs", "title", "description", "default", "discriminator"}


def faults(value: Any, schema: dict[str, Any]) -> list[str]:
    """What ``schema`` finds wrong with ``value``, one line each."""
    return list(_faults(value, schema, schema.get("$defs", {}), "scenario"))


def _faults(value: Any, schema: dict[str, Any], known: dict[str, Any], at: str) -> Any:
    for keyword, wanted in schema.items():
        if keyword not in SAYS_NOTHING and keyword not in RULES:
            raise NotImplementedError(keyword)
        if keyword in RULES:
            yield from RULES[keyword](value, wanted, schema, known, at)


def _ref(value: Any, wanted: str, schema: Any, known: Any, at: str) -> Any:
    return _faults(value, known[wanted.rpartition("/")[2]], known, at)


def _type(value: Any, wanted: str, schema: Any, known: Any, at: str) -> Any:
    if not isinstance(value, TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean"):
        yield f"{at}: {value!r} is no {wanted}"


def _any_of(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    if not any(not list(_faults(value, choice, known, at)) for choice in wanted):
        yield f"{at}: {value!r} is none of the choices"


def _properties(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    for key in wanted.keys() & (value if isinstance(value, dict) else {}):
        yield from _faults(value[key], wanted[key], known, f"{at}.{key}")


def _patterns(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    for key in value if isinstance(value, dict) else ():
        for pattern, choice in wanted.items():
            if re.search(pattern, key):
                yield from _faults(value[key], choice, known, f"{at}.{key}")


def _names(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    for key in value if isinstance(value, dict) else ():
        yield from _faults(key, wanted, known, f"{at}: the name {key}")


def _additional(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    others = set(value if isinstance(value, dict) else ()) - set(schema.get("properties", {}))
    others -= {
        key for key in others if any(re.search(each, key) for each in schema.get("patternProperties", {}))
    }
    for key in sorted(others):
        if wanted is False:
            yield f"{at}: unknown key {key}"
        elif wanted is not True:
            yield from _faults(value[key], wanted, known, f"{at}.{key}")


def _required(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    for key in wanted:
        if isinstance(value, dict) and key not in value:
            yield f"{at}: {key} is missing"


def _items(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
    for i, item in enumerate(value if isinstance(value, list) else ()):
        yield from _faults(item, wanted, known, f"{at}.{i}")


def _holds(test: Any) -> Any:
    def rule(value: Any, wanted: Any, schema: Any, known: Any, at: str) -> Any:
        try:
            held = test(value, wanted)
        except TypeError:
            return
        if not held:
            yield f"{at}: {value!r} breaks a limit of {wanted!r}"

    return rule


RULES: dict[str, Any] = {
    "$ref": _ref,
    "type": _type,
    "anyOf": _any_of,
    "oneOf": _any_of,
    "properties": _properties,
    "patternProperties": _patterns,
    "propertyNames": _names,
    "additionalProperties": _additional,
    "required": _required,
    "items": _items,
    "const": _holds(lambda value, wanted: value == wanted),
    "enum": _holds(lambda value, wanted: value in wanted),
    "minimum": _holds(lambda value, wanted: value >= wanted),
    "maximum": _holds(lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _holds(lambda value, wanted: value > wanted),
    "exclusiveMaximum": _holds(lambda value, wanted: value < wanted),
    "minLength": _holds(lambda value, wanted: len(value) >= wanted),
    "maxLength": _holds(lambda value, wanted: len(value) <= wanted),
    "minItems": _holds(lambda value, wanted: len(value) >= wanted),
    "maxItems": _holds(lambda value, wanted: len(value) <= wanted),
    "minProperties": _holds(lambda value, wanted: len(value) >= wanted),
}
