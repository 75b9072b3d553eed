"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simslm.cli import completion


def place(text: str) -> Path:
    """A path for results. Refuses an empty one, which would be the working directory, and one that is not UTF-8."""
    if not text:
        raise typer.BadParameter("an empty path")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("a path that is not UTF-8") from None
    return Path(text)


ScenarioPath = Annotated[
    Path,
    typer.Argument(metavar="SCENARIO", help="scenario file, YAML or JSON; or the manifest.json of a run"),
]
TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="directory of a trace")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="path=value",
        help="override any key of the scenario; repeatable. An alternative to what the scenario states takes its "
        "place (cost.roofline={} that of cost.trace); below search.space, the rest is one key "
        "(search.space.deployment.replicas_per_device=[1,2])",
        autocompletion=completion.settings,
    ),
]
Seed = Annotated[int | None, typer.Option(help="override the scenario's seed")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
Timeline = Annotated[
    bool,
    typer.Option("--timeline", help="write timeline.json beside the run too, for https://ui.perfetto.dev"),
]


class Dtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Quantization(StrEnum):
    int8 = "int8"
    fp8 = "fp8"


Eightbit = Annotated[
    Quantization | None,
    typer.Option(help="weights of the layers in 8 bits; the default output ends in it too; fp8: GPUs only"),
]


class Grid(StrEnum):
    quick = "quick"
    full = "full"


class Measured(StrEnum):
    """Engines that are measured."""

    simslm = "simslm"
    vllm = "vllm"
    transformers = "transformers"


Sharing = Annotated[
    str,
    typer.Option(
        metavar="WAY,...", help="how: time-slice, mps, streams, sm-partition (by MPS), green-contexts"
    ),
]
MeasuredEngine = Annotated[
    Measured,
    typer.Option(help="what is measured; of others than simslm no operators, and one replica only"),
]
GridReach = Annotated[
    str | None,
    typer.Option(
        metavar="SEQS,CONTEXT,CHUNK",
        help="where the grid ends: decoding sequences, tokens of context, new prompt tokens; default: as far as the "
        "model goes",
    ),
]

Passes = Annotated[
    int | None, typer.Option(min=1, help="most passes over the grid; default: 8 of quick, 12 of full")
]
Budget = Annotated[
    float | None,
    typer.Option(min=1.0, metavar="SECONDS", help="stop then; what there is becomes a trace, and can go on"),
]
Replicas = Annotated[
    str,
    typer.Option(
        metavar="N,...", help="how many share the device; without 1, they join a trace that is there"
    ),
]


class Workers(StrEnum):
    local = "local"
    ray = "ray"


class Attended(StrEnum):
    """Accounts of attention."""

    flash = "flash"
    eager = "eager"


class Listed(StrEnum):
    models = "models"
    devices = "devices"
    policies = "policies"
    transforms = "transforms"
    workloads = "workloads"
    scenarios = "scenarios"
