"""``simslm explain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simslm.cli import screen
from simslm.errors import UsageError, nearest
from simslm.metrics.definitions import METRICS
from simslm.metrics.divided import DIVIDED
from simslm.metrics.figure_paths import OF_PATH, metric_of, title
from simslm.metrics.glossary import TERMS, Term, markdown, place, unit
from simslm.metrics.metric import Metric, paths

WINDOWED_WORDS = "without the warm-up and cool-down that the scenario states"


def explain(name: str | None, run: Path | None, as_markdown: bool, as_json: bool) -> None:
    """Prints what a figure or a word means, and what it is in a run; without a name, all of them.

    Raises:
        UsageError: there is no such name, or no such run.
    """
    if as_markdown:
        print(markdown(), end="")
    elif name is None:
        _list_all(as_json)
    elif isinstance(found := find(name), Term):
        _show_term(found, as_json)
    else:
        _show_metric(found, name, run, as_json)


def find(name: str) -> Metric | Term:
    """The figure or word of that name: its key, a path in ``summary.json``, or what screens call it.

    Raises:
        UsageError: there is none.
    """
    every = (*METRICS, *DIVIDED)
    metrics = {metric.key: metric for metric in every} | OF_PATH
    named = {each.name.lower(): each for each in (*TERMS, *DIVIDED, *METRICS)}
    named |= {metric.words: metric for metric in every if metric.words}
    named |= {metric.key.rpartition(".")[2]: metric for metric in (*DIVIDED, *METRICS)}
    found = metrics.get(name) or metric_of(name) or named.get(name.lower())
    if found is None:
        hint = nearest(name.lower(), [*metrics, *named])
        raise UsageError(f"knows no {name!r}{hint}", remedy="`simslm explain` lists what there is")
    return found


def _list_all(as_json: bool) -> None:
    if as_json:
        screen.show_json(
            {
                "figures": [_described(each) for each in (*METRICS, *DIVIDED)],
                "words": list(map(_word, TERMS)),
            }
        )
        return
    every = (*METRICS, *DIVIDED)
    rows = [(each.name, place(each)) for each in every]
    screen.show_defined(("figure", "in summary.json"), rows, [each.meaning for each in every], left=(0, 1))
    print()
    screen.show_defined(("word",), [(term.name,) for term in TERMS], [term.definition for term in TERMS])


def _show_term(term: Term, as_json: bool) -> None:
    if as_json:
        screen.show_json(_word(term))
        return
    screen.show_text(f"{term.name}:", term.definition)
    facts = [("formula", term.formula), ("source", term.source)]
    if stated := [fact for fact in facts if fact[1]]:
        screen.show_facts(stated)


def _show_metric(metric: Metric, name: str, directory: Path | None, as_json: bool) -> None:
    values = None if directory is None else _values(metric, name, directory)
    if as_json:
        screen.show_json(_described(metric) | ({"run": values} if values else {}))
        return
    screen.show_text(
        f"{metric.name}:", f"{metric.words}: {metric.definition}" if metric.words else metric.definition
    )
    if metric.detail:
        screen.show_text(" ", metric.detail)
    better = f"{metric.better or 'neither more nor less'} is better"
    facts = [
        ("taken over", metric.over),
        ("with metrics", WINDOWED_WORDS if metric.windowed else ""),
        ("formula", metric.formula),
        ("unit", f"{unit(metric)}; {better}"),
        ("in summary.json", place(metric)),
    ]
    screen.show_facts([fact for fact in facts if fact[1]])
    if values:
        print()
        screen.show_facts(list(_told(metric, values)))
        if values["bound"]:
            screen.show_text("why: ", " ".join(values["bound"]))


def _values(metric: Metric, name: str, directory: Path) -> dict[str, Any]:
    """The figure in a run, with its interval, and what bounded the run."""
    from simslm.report.bound import bound
    from simslm.report.facts import facts
    from simslm.report.tables import dig, figure_of, read_drawn

    run = read_drawn(directory)
    asked = [name] if metric_of(name) is not None else paths(metric)
    section = metric.key.partition(".")[0]
    return {
        "directory": str(directory),
        "values": {path: figure_of(run.summary, path) for path in asked},
        "count": figure_of(run.summary, f"population.{metric.key}"),
        "intervals": _of(run.summary, "intervals.figures", asked),
        "sampling_intervals": _of(run.summary, "intervals.sampling.figures", asked),
        "note": dig(run.summary, f"{section}.note", ""),
        "bound": list(bound(facts(run)).sentences),
    }


def _of(summary: Mapping[str, Any], section: str, paths: Sequence[str]) -> dict[str, list[float]]:
    """The intervals of some figures, of those that have one."""
    from simslm.report.tables import dig

    known = dig(summary, section, {})
    return {path: known[path] for path in paths if path in known}


def _told(metric: Metric, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from simslm.metrics.intervals import OF, OF_SAMPLING

    if values["count"] is not None:
        yield "over", f"{values['count']:,.0f} {'gaps' if metric.key == 'itl_s' else 'requests'}"
    for path, value in values["values"].items():
        text = (
            metric.show(value) if value is not None else f"not known: {values['note'] or 'nothing had one'}"
        )
        for kind, of in (("intervals", OF), ("sampling_intervals", OF_SAMPLING)):
            if ends := values[kind].get(path):
                text += f", 95 % interval {' to '.join(map(metric.show, ends))} ({of})"
        yield title(path), text


def _described(metric: Metric) -> dict[str, Any]:
    return {
        "key": metric.key,
        "name": metric.name,
        "definition": metric.meaning,
        "over": metric.over,
        "detail": metric.detail,
        "formula": metric.formula,
        "unit": unit(metric),
        "better": metric.better,
        "place": place(metric),
    }


def _word(term: Term) -> dict[str, Any]:
    return {"name": term.name, "definition": term.definition, "formula": term.formula, "source": term.source}
