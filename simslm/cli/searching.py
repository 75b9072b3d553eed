"""``simslm search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import held_back
from simslm.cli.simulation import directory_name, overrides
from simslm.errors import InfeasibleError
from simslm.units import number

if TYPE_CHECKING:
    from simslm.report.tradeoff import Scale
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
    from simslm.search.reasons import infeasible
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
        raise InfeasibleError(infeasible(result.frontier))


def _show(result: SearchResult, page: Path) -> None:
    found = result.frontier
    counts = found["counts"]
    print(
        f"{counts['frontier']:,} of {counts['points']:,} points are on the frontier; {counts['infeasible']:,} cannot "
        f"be, {counts['violating']:,} break a constraint ({counts['trials']:,} trials, {counts['requests']:,} requests)"
    )
    print()
    if found["points"]:
        _show_points(found)
        print()
    if found["advice"] is not None:
        _show_advice(found["advice"])
    if found["capacity"] is not None and found["capacity"]["note"]:
        screen.note(found["capacity"]["note"])
    for each in found["infeasible"]:
        screen.note(f"{each['points']:,} cannot be: {each['reason']}")
    if found["hypervolume"] is not None:
        reference = ", ".join(f"{path} {number(value)}" for path, value in found["reference_point"].items())
        print(f"hypervolume: {number(found['hypervolume'])} above {reference}")
    cost = found["cost"]
    if cost is not None:
        roofline = cost["source"] == "roofline"
        print("from: roofline, not measured" if roofline else f"from: {cost['source']} on {cost['engine']}")
    print(f"page: {page}")


def _show_points(found: dict[str, Any]) -> None:
    """The points, the best in the first objective first; parameters that are the same in all are left out."""
    from simslm.report.tradeoff import scale

    objectives = found["objectives"]
    first, direction = next(iter(objectives.items()))
    sign = -1 if direction == "max" else 1
    points = sorted(found["points"], key=lambda point: sign * point["objectives"][first]["value"])
    scales = {
        path: scale(path, [point["objectives"][path]["value"] for point in points]) for path in objectives
    }
    columns = (
        *(path.rpartition(".")[2] for path in found["space"]),
        *(scales[path].title for path in objectives),
    )
    rows = [
        (
            *(str(point["parameters"][path]) for path in found["space"]),
            *(_estimate(scales[path], point["objectives"][path]) for path in objectives),
        )
        for point in points[:SHOWN]
    ]
    screen.show_table(columns, rows, left=range(len(found["space"])))
    if len(points) > SHOWN:
        print(f"  … and {len(points) - SHOWN:,} more in frontier.json and on the page")
    print()
    print(
        "± is the half width of the interval over seeds; one command for each point is in frontier.json, such as"
    )
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


def _estimate(scale: Scale, estimate: dict[str, Any]) -> str:
    interval, shown = estimate["interval"], scale.show(estimate["value"])
    return shown if interval is None else f"{shown} ± {scale.show((interval[1] - interval[0]) / 2)}"
