"""What a run repeats of another one: laid into its directory by `trimtab replay` and `trimtab fork`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.decision.proposal import Proposal
from trimtab.decision.wire import encode_proposal, proposal_from
from trimtab.errors import RunDirectoryError, TrimtabError
from trimtab.ledger.record import Origin
from trimtab.runtime.files import write_whole

SCHEMA: Final = "trimtab/repetition/1"


@dataclass(frozen=True, slots=True)
class Repetition:
    """What is repeated, and what is different.

    Args:
        ledger: The other run's ledger: its answers are given again.
        origin: What the ledger of this run says of it.
        asked_step: Step after which the question was asked that is answered differently; None for none.
        instead: The answer to it; None for the recorded one.
        keep_at: Where a copy of the run is kept as it is when that question is asked, for further branches; None for nowhere.
    """

    ledger: Path
    origin: Origin
    asked_step: int | None = None
    instead: Proposal | None = None
    keep_at: Path | None = None


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    schema_: Literal["trimtab/repetition/1"]
    ledger: str
    kind: Literal["replay", "branch"]
    run: str
    head: str
    decision: int
    change: str
    seed: int
    asked_step: int | None
    instead: dict[str, Any] | None
    keep_at: str | None


def write_repetition(path: Path, repetition: Repetition) -> None:
    """Write the file.

    Raises:
        OSError: It cannot be written.
    """
    origin = repetition.origin
    tree = {
        "schema": SCHEMA,
        "ledger": str(repetition.ledger.absolute()),
        "kind": origin.kind,
        "run": origin.run,
        "head": origin.head,
        "decision": origin.decision,
        "change": origin.change,
        "seed": origin.seed,
        "asked_step": repetition.asked_step,
        "instead": None if repetition.instead is None else encode_proposal(repetition.instead),
        "keep_at": None if repetition.keep_at is None else str(repetition.keep_at.absolute()),
    }
    write_whole(path, json.dumps(tree, indent=2, allow_nan=False).encode())


def read_repetition(path: Path) -> Repetition | None:
    """Return what a run repeats; None if there is no such file: it repeats nothing.

    Raises:
        RunDirectoryError: Repeat the run anew: the file is damaged.
    """
    try:
        tree: Any = json.loads(path.read_bytes())
        form = _Form.model_validate({"schema_" if key == "schema" else key: value for key, value in tree.items()})
        instead = None if form.instead is None else proposal_from(form.instead)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError, AttributeError, RecursionError, TrimtabError) as error:
        raise RunDirectoryError(
            "what the run repeats cannot be read", received=f"{path}: {error}"[:300], next_step="start the replay or fork anew"
        ) from error
    origin = Origin(form.kind, form.run, form.head, form.decision, form.change, form.seed)
    keep_at = None if form.keep_at is None else Path(form.keep_at)
    return Repetition(Path(form.ledger), origin, form.asked_step, instead, keep_at)
