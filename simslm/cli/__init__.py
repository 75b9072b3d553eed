"""The command line: the only room that prints, exits, or knows exit codes."""

from __future__ import annotations

import sys

DEBUG = "--debug"


def main() -> None:
    """Runs a command; a :class:`SimslmError` becomes one clear message and its exit code.

    ``--debug``, anywhere on the line, shows the traceback instead.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    from simslm.cli.app import app
    from simslm.errors import ScenarioError, SimslmError

    try:
        app(args=arguments, prog_name="simslm")
    except SimslmError as error:
        if debug:
            raise
        lines = error.problems if isinstance(error, ScenarioError) else (str(error),)
        for line in lines:
            print(f"simslm: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
