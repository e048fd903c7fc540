"""The command line: `main` is what the command `trimtab` runs.

Exit codes: 0 done; 1 a check found damage; 2 an error, told in one line with what to do next; 130 interrupted; 141 the
reader of the output left before its end, as `head` does.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from trimtab.cli.calibrate import calibrate
from trimtab.cli.decide import decide
from trimtab.cli.demo import demo
from trimtab.cli.diff import diff
from trimtab.cli.envelope import envelope_app
from trimtab.cli.export import export
from trimtab.cli.fork import fork
from trimtab.cli.init import init
from trimtab.cli.pending import pending
from trimtab.cli.prompt import prompt
from trimtab.cli.replay import replay
from trimtab.cli.report import report
from trimtab.cli.rules import rules
from trimtab.cli.run import resume, run
from trimtab.cli.runs import runs
from trimtab.cli.scorecard import scorecard
from trimtab.cli.show import show
from trimtab.cli.stress import stress
from trimtab.cli.terminal import print_error
from trimtab.cli.verify import verify
from trimtab.errors import TrimtabError

_READER_LEFT: Final = 141  # what a shell says of a command that SIGPIPE has ended

app = typer.Typer(
    name="trimtab",
    help="Supervise a live training run: bounded, verified, recorded, undoable changes to the recipe.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("run")(run)
app.command("resume")(resume)
app.command("replay")(replay)
app.command("fork")(fork)
app.command("init")(init)
app.add_typer(envelope_app, name="envelope")
app.command("calibrate")(calibrate)
app.command("show")(show)
app.command("scorecard")(scorecard)
app.command("report")(report)
app.command("diff")(diff)
app.command("runs")(runs)
app.command("pending")(pending)
app.command("decide")(decide)
app.command("rules")(rules)
app.command("stress")(stress)
app.command("prompt")(prompt)
app.command("verify")(verify)
app.command("export")(export)


def _print_version(wanted: bool) -> None:
    if wanted:
        import trimtab

        print(f"trimtab {trimtab.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default with the arguments of the process; ends with `SystemExit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without these letters still gets the rest
    try:
        app(arguments, prog_name="trimtab")
    except TrimtabError as error:
        print_error(error)
        sys.exit(2)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer and rich turn it into code 1
            sys.exit(_READER_LEFT)
        raise
    finally:
        _flush()


def _flush() -> None:
    """Write what is still buffered; if nobody reads it, drop it here, not with a complaint when the process ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
