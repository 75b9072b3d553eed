"""``simslm search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import held_back
from simslm.cli.simulate import directory_name, overrides
from simslm.errors import InfeasibleError
from simslm.report import choice
from simslm.search import reasons

if TYPE_CHECKING:
    from simslm.search.run import SearchResult

SHOWN = 20
"""Points of the frontier that the screen shows; the files and the page have all."""


def search(
    path: Path,
    output: Path | None,
    sets: list[str],
    seed: int | None,
    jobs: int | None,
    executor: str,
    resume: bool,
    as_json: bool,
) -> None:
    """Explores, writes the search's directory with its page, and prints the frontier.

    Raises:
        InfeasibleError: no point keeps all constraints; the files say so too.
        InterruptError: Ctrl-C; the files hold what was done by then.
    """
    from simslm.api import load_scenario
    from simslm.cost.load import flagged
    from simslm.report import write_report
    from simslm.search import files
    from simslm.search.run import search

    scenario = load_scenario(path, overrides(sets, seed))
    directory = free_place(output or Path("runs") / directory_name(scenario.name))
    screen.warn(flagged(scenario))
    with held_back() as interruption, screen.progress("searching") as update:
        result = search(
            scenario,
            jobs=jobs or len(os.sched_getaffinity(0)),
            executor=executor,
            directory=directory,
            resume=resume,
            again=[str(path), *(word for text in overrides(sets, seed) for word in ("--set", text))],
            progress=update,
            obey=interruption.obey,
            on_start=interruption.stopping,
        )
        interruption.writing = True
        files.write(directory, result)
        page = write_report([directory])
    if as_json:
        screen.show_json(result.frontier)
    else:
        _show(result, page)
    if result.interrupted:
        raise InterruptError(
            f"interrupted: {directory} holds the {len(result.done):,} trials done by then; --resume continues"
        )
    if not result.points:
        raise InfeasibleError(reasons.infeasible(result.frontier))


def _show(result: SearchResult, page: Path) -> None:
    found = result.frontier
    if found["points"]:
        print(choice.headline(found))
        print(choice.reason(found))
        print()
        _show_points(found)
        print()
    if found["advice"] is not None:
        _show_advice(found["advice"])
    _show_counts(found)
    if found["capacity"] is not None and found["capacity"]["note"]:
        screen.note(found["capacity"]["note"])
    for each in found["infeasible"]:
        screen.note(f"{each['points']:,} infeasible: {each['reason']}")
    cost = found["cost"]
    if cost is not None:
        roofline = cost["source"] == "roofline"
        print("from: roofline, not measured" if roofline else f"from: {cost['source']} on {cost['engine']}")
    print(f"page: {page}")


def _show_counts(found: dict[str, Any]) -> None:
    """What became of the points, in one line and one more for each constraint that some break."""
    counts = found["counts"]
    print(
        f"{counts['points']:,} points tried: {counts['feasible']:,} keep all constraints, {counts['frontier']:,} of "
        f"them on the frontier; {counts['violating']:,} break one, {counts['infeasible']:,} infeasible "
        f"({counts['trials']:,} trials, {counts['requests']:,} requests)"
    )
    bounds = dict(zip(found["constraints"], found["bounds"], strict=True))
    for each in found["violated"]:
        of = bounds[each["constraint"]]
        print(f"  {each['points']:,} of {each['of']:,} break {choice.bound(of)}: {choice.closest(each, of)}")


def _show_points(found: dict[str, Any]) -> None:
    """The points, the best first; parameters that do not vary are left out."""
    points = found["points"]
    scales = choice.scales(found, choice.of_points(found))
    paths = choice.varying(found)
    lost = [choice.lost(point) for point in points]
    fates = max(lost, key=len)
    columns = (*choice.labels(paths), *(each.title for each in scales.values()), *fates)
    rows = [
        (
            *(choice.text(point["parameters"][path]) for path in paths),
            *(choice.estimated(scales[path], point["objectives"][path]) for path in scales),
            *(missed.get(name, "0 %") for name in fates),
        )
        for point, missed in zip(points[:SHOWN], lost, strict=False)
    ]
    screen.show_table(columns, rows, left=range(len(paths)))
    if len(points) > SHOWN:
        print(f"  … and {len(points) - SHOWN:,} more in frontier.json and on the page")
    print()
    for words in filter(None, (choice.sames(found, point) for point in points[:SHOWN])):
        print(words)
    print(choice.seeds(found))
    print(f"simulate the best{choice.at_capacity(points[0])} (frontier.json has the command of each):")
    print(f"  {points[0]['command']}")


def _show_advice(advice: dict[str, Any]) -> None:
    from simslm.report.advice import advice_view

    shown = advice_view(advice)
    for table in shown.tables:
        print(f"{table.title}:")
        screen.show_table(table.columns, table.rows, left=())
        print()
    print(shown.sentence)
    print(shown.rule)
    print()
