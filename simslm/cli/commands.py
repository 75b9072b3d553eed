"""The commands of one word and their arguments; the module of its name does the work, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simslm.cli import completion
from simslm.cli.options import (
    Attended,
    Budget,
    Dtype,
    Eightbit,
    Grid,
    GridReach,
    Json,
    Listed,
    Measured,
    MeasuredEngine,
    Passes,
    Replicas,
    ScenarioPath,
    Seed,
    Sets,
    Sharing,
    Timeline,
    Workers,
    place,
)


def init(
    scenario: Annotated[
        Path | None,
        typer.Argument(metavar="[SCENARIO]", parser=place, help="what is written; default: scenario.yaml"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="catalogue name or a Hugging Face config.json", autocompletion=completion.models),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="catalogue name of the device", autocompletion=completion.devices),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="of weights and KV cache; default: that of a trace, else bf16 (cpu: fp32)"),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(metavar="TRAFFIC", help="poisson:RPS, gamma:RPS:CV, closed-loop:N or all-at-once"),
    ] = None,
    prompt_tokens: Annotated[str | None, typer.Option(metavar="MEAN[:P95]", help="length of prompts")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="MEAN[:P95]", help="length of outputs")] = None,
    ttft_s: Annotated[float | None, typer.Option(help="SLO: bound on TTFT, seconds")] = None,
    tpot_s: Annotated[float | None, typer.Option(help="SLO: bound on TPOT, seconds")] = None,
    attainment: Annotated[
        float | None, typer.Option(help="SLO: share of requests that must meet both bounds")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of the scenario; default: MODEL-DEVICE")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is already there")] = False,
    json: Json = False,
) -> None:
    """Write a first scenario, with a comment at every key, for a model, a device, a traffic and an SLO.

    Asks for what the flags do not say; where stdin is no terminal, takes what is usual. A trace of the model on the
    device is used where there is one below traces/.

    Example: simslm init chat.yaml --model opt-125m --device cpu --arrivals poisson:2
    """
    from simslm.cli import init as command

    wishes = command.Wishes(
        model,
        device,
        dtype.value if dtype else None,
        arrivals,
        prompt_tokens,
        output_tokens,
        ttft_s,
        tpot_s,
        attainment,
        name,
    )
    command.init(scenario or Path("scenario.yaml"), wishes, force, json)


def simulate(
    scenario: ScenarioPath,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", parser=place, help="default: runs/<name>"),
    ] = None,
    sets: Sets = None,
    seed: Seed = None,
    json: Json = False,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals/--no-intervals",
            help="repeat the run with costs a standard error lower and higher, to say how sure its figures are",
        ),
    ] = True,
    timeline: Timeline = False,
) -> None:
    """Run a scenario: one answer, and a directory of tables with a report.

    Ctrl-C ends the simulation early and writes what has happened by then, the requests under way as
    unfinished (exit code 130); a second Ctrl-C abandons it.

    Example: simslm simulate scenarios/quickstart.yaml --set workload.arrivals.rate_rps=2
    """
    from simslm.cli import simulate as command

    command.simulate(scenario, output, sets or [], seed, json, intervals, timeline)


def search(
    scenario: ScenarioPath,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", parser=place, help="default: runs/<name>"),
    ] = None,
    sets: Sets = None,
    seed: Seed = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="workers, default: one for each core; the results are the same"),
    ] = None,
    executor: Annotated[
        Workers,
        typer.Option(help="local: processes here; ray: the cluster at RAY_ADDRESS, or one made here"),
    ] = Workers.local,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue a search that was cut short, without repeating a trial")
    ] = False,
    json: Json = False,
) -> None:
    """Explore what the scenario's search section asks for: the frontier, and a command for each point of it.

    The directory gets trials.parquet, frontier.json and report.html. Ctrl-C ends the search early and writes
    what is known by then (exit code 130). Exit code 4: no point keeps all constraints; the message says why.

    Example: simslm search scenarios/search.yaml --jobs 2
    """
    from simslm.cli import search as command

    command.search(scenario, output, sets or [], seed, jobs, executor.value, resume, json)


def plan(
    scenario: ScenarioPath,
    rate: Annotated[list[float], typer.Option(metavar="RPS", help="requests/s to be served; repeatable")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="a device to compare, repeatable; without a trace of the model, on its roofline. Default: the "
            "scenario's own and every device with a trace",
            autocompletion=completion.devices,
        ),
    ] = None,
    traces: Annotated[
        Path, typer.Option(metavar="DIR", help="where traces of other devices are looked for")
    ] = Path("traces"),
    sets: Sets = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Say how many devices, of which kind and set up how, serve a traffic within the scenario's SLO, and at what cost.

    Each device is set up as search.space says, else with 1, 2 or 4 replicas and max_num_seqs 64 or 256. Exit code 4:
    no device does it; the message says why.

    Example: simslm plan scenarios/quickstart.yaml --rate 20 --device l4 --device h200
    """
    from simslm.cli import plan as command

    command.plan(scenario, rate, device or [], traces, sets or [], seed, json)


def check(scenario: ScenarioPath, sets: Sets = None, seed: Seed = None, json: Json = False) -> None:
    """Validate a scenario and explain it before running: memory, KV blocks, coverage, expected load.

    Example: simslm check scenarios/quickstart.yaml
    """
    from simslm.cli import check as command

    command.check(scenario, sets or [], seed, json)


def roofline(
    scenario: ScenarioPath,
    batch: Annotated[
        int | None, typer.Option(min=1, help="sequences that decode; default: as many as fit")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=0, help="tokens in the cache of each; default: mean prompt + half of mean output"),
    ] = None,
    prompt: Annotated[int | None, typer.Option(min=1, help="tokens of the prompt; default: the mean")] = None,
    attention: Annotated[
        Attended,
        typer.Option(
            help="flash keeps scores on the chip; eager writes and reads them, as LLM-Viewer counts"
        ),
    ] = Attended.flash,
    sets: Sets = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Show each operator under the roofline: operations, bytes, intensity, what bounds it, and how long it takes.

    Example: simslm roofline scenarios/quickstart.yaml --batch 16 --context 512
    """
    from simslm.cli import roofline as command

    command.roofline(scenario, batch, context, prompt, attention.value, sets or [], seed, json)


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="directories of runs, of a search, or of a trace")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=place, help="default: report.html beside the run"
        ),
    ] = None,
    timeline: Timeline = False,
    json: Json = False,
) -> None:
    """Draw the page of one or several runs, of a search, or of a trace, from their files alone.

    Example: simslm report runs/quickstart -o quickstart.html
    """
    from simslm.cli import report as command

    command.report(directories, output, timeline, json)


def compare(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR DIR...", help="directories of runs")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=place, help="default: comparison.html beside the runs"
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help="exit 1 if true of a run, e.g. 'ttft_s.p99 > +5%' (a change against the first run), 'kv.preemptions "
            "> +10', 'ttft_s.p99 > 0.5' (the figure itself); repeatable, and joined by and, or, not",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare runs with the first: how much each figure differs, how sure that is, and what differs in the scenarios.

    Runs that served the same requests are compared request by request; runs of the same scenario under several seeds
    seed by seed. The page has everything, --json too.

    Example: simslm compare runs/before runs/after --fail-on 'ttft_s.p99 > +5%'
    """
    from simslm.cli import compare as command

    command.compare(directories, output, fail_on or [], json)


def profile(
    model: Annotated[
        str,
        typer.Option(help="catalogue name or a Hugging Face config.json", autocompletion=completion.models),
    ],
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, or cuda:N; with --plan also a name of the catalogue, e.g. h200",
            autocompletion=completion.devices,
        ),
    ] = "cuda:0",
    dtype: Annotated[Dtype, typer.Option(help="data type of weights and KV cache")] = Dtype.bf16,
    grid: Annotated[Grid, typer.Option(help="how many points to measure")] = Grid.quick,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", parser=place, help="default: traces/DEVICE/MODEL-DTYPE"
        ),
    ] = None,
    quantization: Eightbit = None,
    repeats: Passes = None,
    budget: Budget = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores")] = None,
    replicas: Replicas = "1",
    sharing: Sharing = "time-slice",
    engine: MeasuredEngine = Measured.simslm,
    reach: GridReach = None,
    planned: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="measure nothing: say what would be measured, how long it takes and what memory it needs",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Measure a model on a device and write a trace; an interrupted run resumes where it stopped.

    Example: simslm profile --model opt-125m --device cpu --grid quick --replicas 1,2
    """
    from simslm.cli import profile as command

    asked = command.Asked(
        model=model,
        device=device,
        dtype=dtype.value,
        grid=grid.value,
        quantization=quantization,
        engine=engine.value,
        repeats=repeats,
        threads=threads,
        replicas=replicas,
        sharing=sharing,
        reach=reach,
        output=output,
    )
    if planned:
        command.plan(asked, json)
    else:
        command.profile(asked, budget, json)


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...",
            help="a table RUNS.csv, or result files (or folders of them) of vllm bench serve, sglang.bench_serving or "
            "guidellm",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="the model that ran: a catalogue name or its repository, or a Hugging Face config.json",
            autocompletion=completion.models,
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            help="the device it ran on: a catalogue name, a YAML file, or fields ({like: l4, ...})",
            autocompletion=completion.devices,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="TRACE", parser=place, help="where the trace goes")
    ],
    offline: Annotated[
        Path | None,
        typer.Option(metavar="STEPS", help="iterations measured without a server, as further evidence"),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="data type of weights and KV cache")] = Dtype.bf16,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="only runs of which this holds, e.g. 'replicas == 1'"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="column=value",
            help="what the files do not say of the server, e.g. max_num_seqs=64",
        ),
    ] = None,
    max_residual: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SHARE",
            help="largest error of a run in throughput, TPOT or ITL; beyond it, exit 1 and no trace",
        ),
    ] = 0.25,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="write the trace all the same; every answer on it says that it was forced"
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Fit a physical cost model to runs of a serving engine, and write it as a trace.

    A handful of runs with batches from 1 to the largest is enough: bursts, closed loops or arrivals at a rate. What
    they cannot tell is said, and runs that cannot be used are named.

    Example: simslm calibrate RUNS.csv --model opt-2.7b --device h100-64gb --dtype fp16 -o traces/h100-64gb/mine
    """
    from simslm.cli import calibrate as command

    asked = command.Request(
        files=runs,
        offline=offline,
        model=model,
        device=device,
        dtype=dtype.value,
        output=output,
        where=where,
        sets=sets or [],
        most_residual=max_residual,
        force=force,
    )
    command.calibrate(asked, json)


def list_(
    what: Annotated[Listed, typer.Argument(help="what to list")],
    json: Json = False,
) -> None:
    """List the catalogue: models, devices, policies, transforms, workloads, scenarios.

    Example: simslm list models
    """
    from simslm.cli import list as command

    command.show(what.value, json)


def explain(
    metric: Annotated[
        str | None,
        typer.Argument(
            metavar="[METRIC]",
            help="a figure or a word, e.g. ttft_s.p99, goodput, knee; default: all",
            autocompletion=completion.metrics,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="directory of a run: show its value there, and what bounded it"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the whole glossary, as docs/glossary.md")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a figure means: definition, formula, unit, where it is in summary.json, and what it is in a run.

    Example: simslm explain ttft_s.p99 --run runs/quickstart
    """
    from simslm.cli import explain as command

    command.explain(metric, run, markdown, json)


def env(json: Json = False) -> None:
    """Show what machine this is and what simslm finds on it.

    Example: simslm env
    """
    from simslm.cli import env as command

    command.show(json)


def schema() -> None:
    """Print the JSON Schema of a scenario.

    Example: simslm schema > scenario.schema.json
    """
    import json

    from simslm.scenario.schema import Scenario

    typer.echo(json.dumps(Scenario.model_json_schema(), indent=2))
