"""The commands of `simslm workload`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simslm.cli.options import Json, Seed, Sets, place

workload = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at traffic, make it, and fit presets to it."
)

Format = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="of a trace; default: what its columns say")
]


@workload.command("show")
def workload_show(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="a trace file, a preset (by name or file), or a scenario (or a manifest.json)",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", parser=place, help="a page to look at, HTML"),
    ] = None,
    format_: Format = "auto",
    sets: Sets = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Show how often, how evenly and how long requests are.

    Example: simslm workload show azure-2023-conv -o azure.html
    """
    from simslm.cli import traffic

    traffic.show(source, output, format_, sets or [], seed, json)


@workload.command("make")
def workload_make(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a preset (by name or file), or a scenario")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=place, help="what is written: .parquet, .csv or .jsonl"
        ),
    ],
    sets: Sets = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Write the requests of a preset or a scenario to a file that can be replayed; millions of them in little memory.

    Example: simslm workload make azure-2023-conv -o requests.parquet --set workload.num_requests=100000
    """
    from simslm.cli import traffic

    traffic.make(source, output, sets or [], seed, json)


@workload.command("fit")
def workload_fit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a trace in any format that can be replayed")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=place, help="the preset, YAML; a page goes beside it"
        ),
    ] = None,
    format_: Format = "auto",
    what: Annotated[str, typer.Option(help="what the preset says of itself: whose requests these are")] = "",
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="key=value", help="where the trace is from, e.g. licence=CC-BY-4.0; repeatable"),
    ] = None,
    halves: Annotated[
        bool, typer.Option("--halves", help="fit to one half of the trace, and compare with the other")
    ] = False,
    json: Json = False,
) -> None:
    """Fit a preset to recorded traffic, and say how well it meets it.

    A scenario takes it as workload.preset, and may override any of its keys.

    Example: simslm workload fit AzureLLMInferenceTrace_conv.csv -o mine.yaml
    """
    from simslm.cli import fitting

    fitting.fit(file, output, format_, what, source or [], halves, json)
