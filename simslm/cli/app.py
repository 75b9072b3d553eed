"""The command line: every command under one name, and how one ends that is cut short."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simslm.cli import commands
from simslm.cli.failure import InterruptError
from simslm.cli.groups import traces, validate, workload


class Commands(TyperGroup):
    """The commands, and how one ends that is cut short."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command. A pipe that is closed (``| head``) ends it in silence, Ctrl-C by its own exit code."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        except KeyboardInterrupt:
            raise InterruptError from None
        return value


app = typer.Typer(
    name="simslm",
    cls=Commands,
    epilog="Exit codes: 0 ok · 1 a stated condition failed · 2 bad scenario or usage · 3 bad or missing trace · "
    "4 infeasible · 5 device · 70 a fault of simslm's own · 130 interrupted.  --debug, anywhere, shows the "
    "traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in {
    "init": commands.init,
    "simulate": commands.simulate,
    "search": commands.search,
    "plan": commands.plan,
    "check": commands.check,
    "roofline": commands.roofline,
    "report": commands.report,
    "compare": commands.compare,
    "profile": commands.profile,
    "calibrate": commands.calibrate,
    "list": commands.list_,
    "explain": commands.explain,
    "env": commands.env,
    "schema": commands.schema,
}.items():
    app.command(name)(command)
app.add_typer(traces, name="traces")
app.add_typer(validate, name="validate")
app.add_typer(workload, name="workload")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"simslm {version('simslm')}")
        raise typer.Exit


@app.callback()
def simslm(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Measure a small language model once on a GPU; then answer every serving question on a laptop."""
    del version
