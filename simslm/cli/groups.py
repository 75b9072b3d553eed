"""The commands of two words: those of `simslm traces`, `simslm validate` and `simslm workload`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simslm.cli import completion
from simslm.cli.options import Dtype, Grid, Json, ScenarioPath, Seed, Sets, TracePath, place

traces = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at, verify and convert traces.")
validate = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Hold simulation against measurement."
)


workload = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at traffic, make it, and fit presets to it."
)

Format = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="of a trace; default: what its columns say")
]


@traces.command("list")
def traces_list(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="where traces are kept")] = Path("traces"),
    json: Json = False,
) -> None:
    """List the traces below a directory.

    Example: simslm traces list
    """
    from simslm.cli import traces as command

    command.list_all(root, json)


@traces.command("show")
def traces_show(trace: TracePath, json: Json = False) -> None:
    """Show where a trace comes from and what it covers.

    Example: simslm traces show traces/cpu/opt-125m-bf16
    """
    from simslm.cli import traces as command

    command.show(trace, json)


@traces.command("check")
def traces_check(trace: TracePath, json: Json = False) -> None:
    """Look for faults in a trace: noise, gaps, impossible figures, and how well held-out points are met.

    Example: simslm traces check traces/cpu/opt-125m-bf16
    """
    from simslm.cli import traces as command

    command.check(trace, json)


@traces.command("compare")
def traces_compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="directory of a trace")],
    second: Annotated[Path, typer.Argument(metavar="B", help="directory of a trace of the same model")],
    json: Json = False,
) -> None:
    """Put two traces side by side: latency and tokens/s of every shape that both were measured at, and their ratio.

    Example: simslm traces compare traces/h200/opt-1.3b-bf16 traces/h200/opt-1.3b-bf16-transformers
    """
    from simslm.cli import traces as command

    command.compare(first, second, json)


@traces.command("schema")
def traces_schema(json: Json = False) -> None:
    """Print the format of a trace: tables, columns, units, provenance, versions; this is docs/trace-format.md.

    Example: simslm traces schema > trace-format.md
    """
    from simslm.cli import traces as command

    command.schema(json)


@traces.command("import")
def traces_import(
    csv: Annotated[Path, typer.Argument(metavar="CSV", help="columns of a trace's iterations.parquet")],
    model: Annotated[
        str, typer.Option(help="model the rows were measured with", autocompletion=completion.models)
    ],
    device: Annotated[
        str, typer.Option(help="device they were measured on", autocompletion=completion.devices)
    ],
    engine: Annotated[str, typer.Option(help="name and version of the engine")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", parser=place, help="where the trace goes")
    ],
    dtype: Annotated[Dtype, typer.Option(help="data type of weights and KV cache")] = Dtype.bf16,
    replace: Annotated[bool, typer.Option("--replace", help="replace a trace that is already there")] = False,
    json: Json = False,
) -> None:
    """Make a trace of iteration times measured elsewhere.

    Example: simslm traces import steps.csv --model opt-1.3b --device a10g --engine vllm-0.6.3 -o traces/a10g/mine
    """
    from simslm.cli import traces as command

    command.convert(csv, model, device, dtype.value, engine, output, replace, json)


@validate.command("recorded")
def validate_recorded(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...",
            help="a table RUNS.csv, or result files (or folders of them) of vllm bench serve, sglang.bench_serving or "
            "guidellm",
        ),
    ],
    trace: Annotated[
        list[Path],
        typer.Option("--trace", metavar="TRACE", help="what runs are simulated on; one for each model"),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", parser=place, help="where the results go")
    ],
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="only runs of which this holds, e.g. 'sm_clock_mhz == 1980'"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="column=value",
            help="what the files do not say of the server, e.g. max_num_seqs=64",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR", help="exit 1 if true, e.g. 'itl_mean_s.median_abs_error > 0.05'; repeatable"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="processes; the results are the same")] = 1,
    json: Json = False,
) -> None:
    """Simulate measured runs as they were run, and compare everything that was measured.

    Example: simslm validate recorded RUNS.csv --trace traces/h100-64gb/opt-2.7b-fp16 -o runs/fidelity
    """
    from simslm.cli import validate_recorded as command

    command.recorded(runs, trace, output, where, sets or [], fail_on or [], jobs, json)


@validate.command("live")
def validate_live(
    scenario: ScenarioPath,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", parser=place, help="where the results go")
    ],
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, or cuda:N; default: cpu for a scenario of it, else cuda:0")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACE", help="simulate from this trace; default: one measured now, as DIR/trace"
        ),
    ] = None,
    grid: Annotated[
        Grid, typer.Option(help="how many points to measure, as far as the scenario reaches")
    ] = Grid.full,
    load: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="arrival rates as shares of what is served per second, as simulated, when all requests are there "
            "at once, e.g. 0.5,0.8,0.95; default: the scenario's own rate",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="how often each load is served")] = 3,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of torch, for each replica; default: its own, divided"),
    ] = None,
    sets: Sets = None,
    seed: Seed = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR", help="exit 1 if true, e.g. 'tpot_p50_s.max_abs_error > 0.08'; repeatable"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Serve a scenario on the profiler's engine and by simulation, and compare; its own cost is not used.

    The trace of its model is measured just before. The same requests arrive on the wall clock and in the
    simulation; errors stand beside the noise of the repeats.

    Example: simslm validate live scenarios/live/opt-125m.yaml --load 0.5,0.8,0.95 -o runs/live
    """
    from simslm.cli import validate_live as command

    command.live(
        scenario,
        output,
        device,
        trace,
        grid.value,
        load,
        repeats,
        threads,
        sets or [],
        seed,
        fail_on or [],
        json,
    )


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
    """Show how often requests come, how evenly, and how long they are.

    Example: simslm workload show azure-2023-conv -o azure.html
    """
    from simslm.cli import workload as command

    command.show(source, output, format_, sets or [], seed, json)


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
    from simslm.cli import workload as command

    command.make(source, output, sets or [], seed, json)


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
    from simslm.cli import workload_fit as command

    command.fit(file, output, format_, what, source or [], halves, json)
