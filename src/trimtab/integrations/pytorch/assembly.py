"""Put the parts of a supervisor together: for a run that begins, or for one that goes on."""

from __future__ import annotations

import atexit
import platform
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import version
from typing import Any, cast

import torch

from trimtab.actuation.binding import Binding
from trimtab.controls.envelope_file import dump_envelope
from trimtab.decision.manager import Manager
from trimtab.errors import RunDirectoryError, UsageError
from trimtab.integrations.pytorch.rate_decay import OptimizerRateDecay
from trimtab.integrations.pytorch.rng import read_rng, write_rng
from trimtab.integrations.pytorch.scalars import TorchReader
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import PROCESS_ENDED, RunStarted
from trimtab.ledger.series import SeriesFile
from trimtab.runtime.answer import ManagerClient
from trimtab.runtime.branch import Branch
from trimtab.runtime.budget import carry_over
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.command import write_command
from trimtab.runtime.engine import Engine
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.open_manager import open_manager
from trimtab.runtime.past import Past
from trimtab.runtime.probe import Probes
from trimtab.runtime.recorded import RecordedClient
from trimtab.runtime.run_dir import RunDirectory
from trimtab.runtime.supervisor import Supervisor
from trimtab.runtime.tracking import Tracker, Tracking
from trimtab.telemetry.telemetry import Telemetry

# What may differ between the script that began a run and the one that goes on with it.
_FREE = ("run", "versions", "notes", "isolation")


@dataclass(frozen=True, slots=True)
class Parts:
    """What was found and opened at attach.

    Args:
        started: The first record that a new run would have.
        spec: The manager.
        directory: Of the run.
        bindings: By control name.
        store: Saves and restores the state.
        reader: Takes reported values in.
        probes: Measure by themselves.
        look_around: Returns what goes wrong around the run.
        command: How the process was started, as the text of its file; None if that is not known.
        hash_every_steps: Steps between hashes of the state; 0 for none.
        trackers: Are told what is decided.
        decay: Lets the rate of a trial's arm decay; None where no trial can be.
    """

    started: RunStarted
    spec: ManagerSpec | Manager
    directory: RunDirectory
    bindings: Mapping[str, Binding]
    store: TorchStateStore
    reader: TorchReader
    probes: Probes
    look_around: Callable[[], Iterable[tuple[str, str]]]
    command: str | None
    hash_every_steps: int
    trackers: tuple[Tracker, ...] = ()
    decay: OptimizerRateDecay | None = None


def assemble(parts: Parts, past: Past | None, undo: ExitStack) -> Supervisor:
    """Return the supervisor of a run that begins, or goes on from ``past``.

    Args:
        parts: What it is made of.
        past: What the run goes on from; None for one that begins.
        undo: Closes what was opened if attaching fails.

    Raises:
        UsageError: The script is not that of the run, in what the message names.
        RunDirectoryError: The run directory cannot be written.
        CheckpointError: The training objects are not those of the run.
        LedgerError: The ledger cannot be written, or another process writes to it.
    """
    directory, clock = parts.directory, SystemClock()
    if past is None:
        _write_files(parts)
    else:
        _check_same(parts.started, past.started, *(() if past.repetition is None else ("manager",)))
        if past.resumed.checkpoint is None and parts.directory.start.exists():
            read_rng(parts.directory.start)
        without_position = past.resumed.checkpoint is not None and not parts.store.has_position
        resumed = replace(past.resumed, versions=parts.started.versions)
        past = replace(past, resumed=resumed, without_position=without_position)
    started = parts.started if past is None else past.started
    journal = Journal.create(directory.ledger) if past is None else Journal.open(directory.ledger)
    undo.callback(journal.close)
    if past is not None and journal.head.sequence != past.head:  # the lock is ours only now
        raise RunDirectoryError(
            "the run went on while it was read",
            received=str(directory.path),
            next_step="see whether it has ended, and resume again",
        )
    try:
        series = SeriesFile(directory.series)  # after the lock: it mends its file, which may be another process's
    except OSError as error:
        raise _unwritable(directory, error) from error
    branch = None if past is None or past.repetition is None else Branch(past.repetition, directory, past.resumed.step)
    client = _client(parts, started, past, clock, branch)
    undo.callback(client.close)
    telemetry = Telemetry()
    tracking = Tracking(parts.trackers)
    undo.callback(tracking.close)
    engine = Engine(
        journal,
        parts.bindings,
        parts.store,
        client,
        telemetry,
        clock,
        parts.reader.discard,
        parts.look_around,
        tracking,
        parts.decay,
    )
    if branch is not None:
        branch.follow(engine)

    def on_close() -> None:
        if parts.decay is not None:
            parts.decay.close()
        parts.reader.close()
        # A changed recipe stays in force, and for that its bindings have to stay too.
        if engine.state.recipe == started.recipe:
            for binding in parts.bindings.values():
                binding.close()
        journal.close()
        tracking.close()  # last: it may wait for a slow tracker

    supervisor = Supervisor(
        started,
        engine,
        client,
        telemetry,
        parts.reader,
        series,
        directory,
        on_close,
        parts.probes,
        past,
        parts.hash_every_steps,
    )
    # A script that just ends still closes its ledger; one that drops the supervisor is not kept alive by this.
    reference = weakref.ref(supervisor)
    atexit.register(lambda: (alive := reference()) and alive.close(PROCESS_ENDED))
    return supervisor


def versions() -> tuple[tuple[str, str], ...]:
    """Return what the result of a computation depends on beside the script: packages, device, threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("trimtab", version("trimtab")),
        ("device", device),
        ("threads", str(torch.get_num_threads())),
    )


def _write_files(parts: Parts) -> None:
    directory = parts.directory
    try:
        directory.envelope.write_text(dump_envelope(parts.started.envelope), encoding="utf-8")
        if parts.command is not None:
            write_command(directory.command, parts.command)
        write_rng(directory.start)
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: RunDirectory, error: OSError) -> RunDirectoryError:
    return RunDirectoryError("the run directory cannot be written", received=f"{directory.path}: {error}")


def _check_same(now: RunStarted, then: RunStarted, *free: str) -> None:
    """Refuse a script that is not that of the run: its decisions would not fit. Who is not asked may be anybody."""
    # The envelope last: what it says may follow from another field, such as how many batches the reflex passes over.
    for field in sorted(fields(RunStarted), key=lambda field: field.name == "envelope"):
        found, known = getattr(now, field.name), getattr(then, field.name)
        if field.name not in (*_FREE, *free) and found != known:
            where, received, allowed = _unlike(found, known, field.name)
            raise UsageError(
                f"the script is not the one that the run was begun with: {where} differs",
                received=repr(received)[:300],
                allowed=f"{allowed!r:.300}, as it was",
                next_step="restore the script as it was, or begin another run",
            )


def _unlike(value: Any, other: Any, where: str) -> tuple[str, Any, Any]:
    """Return the path of the first part in which two values of one kind differ, and that part of both."""
    parts: list[tuple[str, Any, Any]] = []
    whole: tuple[str, Any, Any] = (where, value, other)
    if is_dataclass(value) and type(value) is type(other):
        parts = [(f"{where}.{field.name}", getattr(value, field.name), getattr(other, field.name)) for field in fields(value)]
    elif isinstance(value, tuple) and isinstance(other, tuple):
        ours, theirs = _by_name(cast("tuple[Any, ...]", value)), _by_name(cast("tuple[Any, ...]", other))
        parts = [(f"{where}.{name}", ours.get(name), theirs.get(name)) for name in [*ours, *(theirs.keys() - ours.keys())]]
    return next((_unlike(one, two, path) for path, one, two in parts if one != two), whole)


def _by_name(values: tuple[Any, ...]) -> dict[str, Any]:
    """Return controls by their names, pairs by their first, others by their places."""
    if all(isinstance(one, tuple) and len(cast("tuple[Any, ...]", one)) == 2 for one in values):
        return {str(one[0]): one[1] for one in values}
    return {str(getattr(one, "name", place)): one for place, one in enumerate(values)}


def _client(parts: Parts, started: RunStarted, past: Past | None, clock: SystemClock, branch: Branch | None) -> ManagerClient:
    """Return who answers: the manager, the record, or the record first and then the manager."""
    if past is not None and branch is not None:
        return RecordedClient(past.answers, None, branch)
    if past is not None and past.spent.calls:
        carry_over(parts.directory.account, past.spent)
    live = open_manager(parts.spec, started.envelope, parts.directory, clock)
    return live if past is None else RecordedClient(past.answers, live, asked=past.asked)
