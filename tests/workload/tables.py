# ruff: noqa: T201 (a program prints)
"""The tables of docs/workloads.md: how well presets meet the traces they are fitted to.

``PYTHONPATH=tests python -m workload.tables DIR`` writes them into the document from the slices in ``DIR``, which do
not ship; traffic is served on the roofline of Llama-3.2-1B on an L4 with ``max_num_seqs: 64``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from workload.shipped import PRESETS

from simslm.api import load_scenario, simulate
from simslm.catalog.presets import load_preset
from simslm.metrics.whole import write_whole
from simslm.workload.fitted import compared, drawn, fitted, held_out
from simslm.workload.readers import read_pieces
from simslm.workload.traffic import recorded_traffic

DOCUMENT = Path(__file__).parents[2] / "docs" / "workloads.md"
BEGIN, END = "<!-- {name}: made by python -m workload.tables -->", "<!-- end of {name} -->"
SPEEDS = (0.5, 0.8, 1.0, 1.2)
SEEDS = range(3)


def tables(slices: Path) -> dict[str, str]:
    """The text of each table by its name."""
    traffic = {
        name: recorded_traffic(read_pieces(slices / shipped.slice)) for name, shipped in PRESETS.items()
    }
    goods = {name: compared(each, drawn(fitted(each))) for name, each in traffic.items()}
    whole = [
        (
            name,
            f"{good.prompt_ks:.3f}",
            f"{good.output_ks:.3f}",
            *(_pair(good.figures[key]) for key in ("gap_cv", "peak_to_mean_1s", "peak_to_mean_60s")),
        )
        for name, good in goods.items()
    ]
    halves = [
        (
            name,
            each.parts,
            f"{each.fit.prompt_ks:.3f} ({each.own.prompt_ks:.3f})",
            f"{each.fit.output_ks:.3f} ({each.own.output_ks:.3f})",
            _pair(each.fit.figures["gap_cv"]),
            _off(each.fit.off("gap_cv")),
        )
        for name, each in ((name, each) for name, one in traffic.items() for each in held_out(one))
    ]
    return {
        "goodness": _table(
            ("preset", "KS prompts", "KS outputs", "CV of gaps", "peak to mean, 1 s", "peak to mean, 60 s"),
            whole,
        ),
        "halves": _table(
            ("trace", "fitted → compared", "KS prompts (own)", "KS outputs (own)", "CV of gaps", "off"),
            halves,
        ),
        "served": _table(
            ("rate, of the trace's", "TTFT p99 replayed", "fitted, three seeds", "off, mean"),
            [_served(slices, speed) for speed in SPEEDS],
        ),
    }


def _served(slices: Path, speed: float) -> tuple[str, ...]:
    """TTFT of the Azure conversations, replayed and fitted, at a part of their rate."""
    replay = {"path": str((slices / PRESETS["azure-2023-conv"].slice).resolve()), "time_scale": 1 / speed}
    recorded = _ttft_p99({"replay": replay}, 0)
    arrivals = load_preset("azure-2023-conv").workload["arrivals"]
    slower = [client | {"step_s": client["step_s"] / speed} for client in arrivals["clients"]]
    scaled = arrivals | {"rate_rps": arrivals["rate_rps"] * speed, "clients": slower}
    fit = [_ttft_p99({"preset": "azure-2023-conv", "arrivals": scaled}, seed) for seed in SEEDS]
    off = sum(fit) / len(fit) / recorded - 1
    return (
        f"{speed:g}",
        f"{1e3 * recorded:.0f} ms",
        " ".join(f"{1e3 * each:.0f}" for each in fit) + " ms",
        _off(off),
    )


def _ttft_p99(workload: dict, seed: int) -> float:
    scenario = {
        "name": "served",
        "seed": seed,
        "model": "llama-3.2-1b",
        "device": "l4",
        "cost": {"roofline": {}},
        "workload": workload,
        "deployment": {"engine": {"max_num_seqs": 64}},
    }
    return simulate(load_scenario(scenario), with_intervals=False).summary["ttft_s"]["p99"]


def _pair(figures: tuple[float | None, float | None]) -> str:
    return "–" if None in figures else " → ".join(f"{value:.3g}" for value in figures)


def _off(share: float | None) -> str:
    return "–" if share is None else f"{round(100 * share):+d} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def put(document: str, name: str, table: str) -> str:
    """The document with a table in its place."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the document has no place for {name}")
    return f"{before}{begin}\n{table}{end}{after}"


def main() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    for name, table in tables(Path(sys.argv[1])).items():
        document = put(document, name, table)
    write_whole(DOCUMENT, lambda path: path.write_text(document, encoding="utf-8"))
    print(DOCUMENT)


if __name__ == "__main__":
    main()
