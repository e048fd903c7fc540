"""`trimtab verify`: is the record of a run whole?"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from trimtab.cli.run_reading import find_run
from trimtab.cli.terminal import clean, counted, make_console, print_json
from trimtab.errors import UsageError
from trimtab.ledger.verify import Verification, verify_run


def verify(
    run: Annotated[Path, typer.Argument(help="Run directory, or the name of one under ./runs.")],
    head: Annotated[
        str | None, typer.Option(metavar="N:HASH", help="A record that has to be there, as an earlier verify printed it.")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Compare every file of every checkpoint with its manifest too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a run's ledger, line by line and against the heads its checkpoints hold; exit with 1 if it is damaged."""
    directory = find_run(run)
    found = verify_run(directory.path, None if head is None else _parse_head(head), with_checkpoints=checkpoints)
    if as_json:
        print_json({**asdict(found), "head": _head(found)})
    else:
        _print(found, directory.ledger)
    raise typer.Exit(0 if found.ok else 1)


def _parse_head(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text, flags=re.ASCII)
    if match is None:
        raise UsageError(
            "the head is malformed",
            received=text,
            allowed="a record's number, a colon and its hash",
            next_step="copy it from what trimtab verify printed",
        )
    return int(match[1]), match[2]


def _head(found: Verification) -> str | None:
    return f"{found.head[0]}:{found.head[1]}" if found.head else None


def _print(found: Verification, ledger: Path) -> None:
    console = make_console()
    if found.ok:
        console.print(Text.assemble(("whole", "bold green"), f": {counted(found.records, 'record')} in {clean(str(ledger))}"))
        console.print(Text(f"head {_head(found)}"), soft_wrap=True)
        if found.anchors:
            console.print(Text(f"It holds the head of {counted(found.anchors, 'checkpoint')}."))
        if found.checkpoints:
            console.print(Text(f"All files of {counted(found.checkpoints, 'checkpoint')} are as they were saved."))
        rest = "a tail that was cut off since the newest checkpoint" if found.anchors else "a tail that was cut off"
        console.print(Text(f"Keep the head elsewhere: with --head {rest} is found too.", "bright_black"))
    else:
        where = f", line {found.line}" if found.line is not None else ""
        console.print(Text.assemble(("damaged", "bold red"), f": {clean(str(ledger))}{where}: {clean(found.problem or '')}"))
        if found.line is not None:
            console.print(Text(f"{counted(found.records, 'record')} before it can be read; do not trust what follows."))
        elif found.records:
            console.print(Text(f"The {counted(found.records, 'record')} that are there are whole, each in itself."))
    if found.torn_bytes:
        console.print(Text(f"The last line is unfinished ({counted(found.torn_bytes, 'byte')}).", "yellow"))
