"""`trimtab run` and `trimtab resume`: start a training script so that its run can be started again, and go on with it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from trimtab.cli.run_reading import find_run
from trimtab.cli.starting import as_command, start
from trimtab.cli.terminal import clean, print_note
from trimtab.errors import RunDirectoryError, UsageError
from trimtab.ledger.reading import is_being_written
from trimtab.runtime.command import Command, read_command
from trimtab.runtime.launch import Launch
from trimtab.runtime.past import Past, read_past
from trimtab.runtime.run_dir import RunDirectory

HASH_HELP: Final = "Hash the whole state every N steps, for trimtab replay to compare; 0: at checkpoints only."


def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND", help="Such as: python train.py")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Directory of the record, instead of the one the script names.")] = None,
    hash_every: Annotated[int, typer.Option(metavar="N", min=0, help=HASH_HELP)] = 0,
) -> None:
    """Start a training script under a recorded command and environment; exits as the script does."""
    recorded = as_command(command or [], Path.cwd())
    launch = Launch(run_dir=run_dir, hash_every_steps=hash_every or None, command=recorded.to_json())
    code = start(recorded, launch)
    if code and run_dir is not None and (run_dir / "ledger.jsonl").is_file():
        print_note(f"The command ended with exit code {code}. Go on with: trimtab resume {shlex.quote(str(run_dir))}")
    raise typer.Exit(code)


def resume(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    hash_every: Annotated[int, typer.Option(metavar="N", min=0, help=HASH_HELP)] = 0,
) -> None:
    """Go on with a run that was cut off: its command is started again, from its newest whole checkpoint."""
    directory = find_run(run)
    refuse_running(directory)
    command = read_command(directory.command)
    print_note(_from_where(directory))
    tell_changes(command)
    raise typer.Exit(start(command, Launch(resume=directory.path, hash_every_steps=hash_every or None)))


def refuse_running(directory: RunDirectory) -> None:
    """Refuse a run that is still going on.

    Raises:
        RunDirectoryError: Wait for its end, or end it.
    """
    if is_being_written(directory.ledger):
        raise RunDirectoryError(
            "the run is still going on", received=str(directory.path), next_step="wait for its end, or end its process"
        )


def tell_changes(command: Command) -> None:
    """Say what has changed since a command was recorded.

    Raises:
        UsageError: Its script is gone.
    """
    if command.script and not Path(command.script).is_file():
        raise UsageError("the run's script is gone", received=command.script, next_step="put it back where it was")
    for change in command.changes():
        print_note(f"Note: {clean(change)}.")


def _from_where(directory: RunDirectory) -> str:
    name = clean(directory.path.name, 100)
    if b"\n" not in directory.ledger.read_bytes():
        return f"{name} was cut off before its first record: it begins anew."
    past: Past = read_past(directory)
    resumed = past.resumed
    damaged = f" Damaged and passed over: {', '.join(past.damaged[:10])}." if past.damaged else ""
    if resumed.checkpoint is None:
        return f"{name} has no whole checkpoint: it begins anew.{damaged}"
    answers = f"; {len(past.answers)} recorded answers behind it are used again" if past.answers else ""
    return f"Going on with {name} after step {resumed.step}{answers}.{damaged}"


def require_command(directory: RunDirectory) -> Command:
    """Return the command of a run.

    Raises:
        UsageError: It cannot be started again from here.
    """
    try:
        return read_command(directory.command)
    except RunDirectoryError as error:
        raise UsageError(
            error.what,
            received=error.received,
            next_step="only runs of a script can be repeated; start the next one with: trimtab run -- COMMAND",
        ) from error
