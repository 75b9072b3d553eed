"""The command line: the only room that prints, exits, or knows exit codes."""

from __future__ import annotations

import sys

DEBUG = "--debug"


def main() -> None:
    """Runs a command; any error becomes one clear message and an exit code.

    ``--debug``, anywhere on the line, shows the traceback as well.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    _print_any_text()
    try:
        from simslm.cli.app import app

        app(args=arguments, prog_name="simslm")
    except (Exception, KeyboardInterrupt) as error:
        from simslm.cli.failure import explain

        if debug:
            sys.excepthook(type(error), error, error.__traceback__)
        failure = explain(error)
        for line in failure.lines:
            print(f"simslm: {line}", file=sys.stderr)
        sys.exit(failure.exit_code)


def _print_any_text() -> None:
    """A character that the terminal cannot show is printed as its code, not refused."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
