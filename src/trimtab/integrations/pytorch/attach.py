"""Attach trimtab to a plain PyTorch training loop."""

from __future__ import annotations

import atexit
import platform
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.actuation.binding import Binding
from trimtab.actuation.enact import read_recipe
from trimtab.controls.catalogue import DROPOUT, LEARNING_RATE, WEIGHT_DECAY, base_name, group_name
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Mode, Objective
from trimtab.controls.envelope_file import dump_envelope, load_envelope
from trimtab.controls.recipe import Recipe
from trimtab.decision.manager import Manager
from trimtab.errors import ControlError, RunDirectoryError, UsageError, nearest
from trimtab.integrations.pytorch.dropout import DropoutBinding
from trimtab.integrations.pytorch.groups import unwrap
from trimtab.integrations.pytorch.learning_rate import LearningRateBinding
from trimtab.integrations.pytorch.ownership import refuse_adaptive
from trimtab.integrations.pytorch.scalars import TorchReader
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.integrations.pytorch.weight_decay import WeightDecayBinding
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import SCHEMA, RunStarted
from trimtab.ledger.series import SeriesFile
from trimtab.runtime.answer import ManagerClient
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.engine import Engine
from trimtab.runtime.manager_process import ManagerProcess
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.manager_thread import ManagerThread
from trimtab.runtime.run_dir import RunDirectory, create_run_directory
from trimtab.runtime.supervisor import Supervisor
from trimtab.telemetry.signal import GRAD_NORM, LOSS, LOSS_AT_EVALUATION, check_signal_name
from trimtab.telemetry.telemetry import Telemetry


def supervise(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    loader: Any = None,
    controls: Sequence[Control] | None = None,
    objective: str | None = None,
    envelope: Envelope | str | Path | None = None,
    manager: str | Manager = "rules",
    mode: Mode | None = None,
    run_dir: str | Path | None = None,
    total_steps: int | None = None,
    evaluate_every_steps: int = 100,
    extra_state: Mapping[str, object] | None = None,
) -> Supervisor:
    """Attach a supervisor to a training loop.

    Args:
        model: The model; its weights, buffers and dropout modules are reached.
        optimizer: A `torch.optim.Optimizer`, or a wrapper that keeps one as ``.optimizer``.
        scheduler: The run's scheduler, if any: saved, restored, and left in charge of its schedule.
        loader: The run's loader. With ``state_dict`` and ``load_state_dict`` the data position is
            restored on a rollback, with ``skip`` bad batches can be passed over (see
            `trimtab.ResumableLoader`); otherwise training goes on with the next batch.
        controls: What may be changed; with ``objective``, instead of an envelope.
        objective: Such as ``"minimize val/loss"``.
        envelope: An envelope, or the path of an envelope file.
        manager: Who proposes: ``rules``, ``no_action``, ``random:SEED``, ``scripted:FILE``,
            ``python:MODULE:CLASS``, each in a process of its own; or an object with ``propose``,
            which answers in a thread.
        mode: ``async`` or ``boundary``; overrides the envelope's.
        run_dir: Directory of the record; by default ``runs/run-N``.
        total_steps: Planned length of the run, if known.
        evaluate_every_steps: Steps between evaluations, >= 1.
        extra_state: More that belongs to the run's state, by name: objects with ``state_dict`` and
            ``load_state_dict`` (a scaler, averaged weights), or a `torch.Generator`.

    Returns:
        The supervisor. Call its ``step`` after every ``optimizer.step()``.

    Raises:
        UsageError: Correct what the message names; nothing was changed.
    """
    allowed = _envelope(controls, objective, envelope, mode)
    _check_objective(allowed.objective)
    for name, count in (("evaluate_every_steps", evaluate_every_steps), ("total_steps", total_steps)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise UsageError(f"{name} is out of range", received=count, allowed="a whole number >= 1")
    spec = ManagerSpec.parse(manager) if isinstance(manager, str) else manager
    if isinstance(spec, type) or not isinstance(spec, (ManagerSpec, Manager)):
        raise UsageError(
            "the manager has no method propose",
            received=type(spec).__name__,
            next_step='pass "rules", or an object that has one',
        )
    with _Undo() as undo:
        bindings = _bind(allowed, model, optimizer, scheduler, undo)
        initial = _initial_recipe(allowed, bindings)
        inner = unwrap(optimizer)
        reader = undo.keep(TorchReader(inner))
        directory = create_run_directory(None if run_dir is None else Path(run_dir))
        store = TorchStateStore(directory.checkpoints, model, inner, scheduler, loader, extra_state)
        started = RunStarted(
            step=0,
            schema=SCHEMA,
            run=directory.path.name,
            envelope=allowed,
            recipe=initial,
            manager=str(spec) if isinstance(spec, ManagerSpec) else type(spec).__name__,
            isolation="process" if isinstance(spec, ManagerSpec) else "thread",
            total_steps=total_steps,
            evaluate_every_steps=evaluate_every_steps,
            can_skip=store.can_skip,
            notes=_notes(scheduler, loader),
            versions=_versions(),
        )
        supervisor = _assemble(started, spec, directory, bindings, store, reader, undo)
        undo.clear()
    return supervisor


class _Undo:
    """Gives back what was claimed if attaching fails half-way."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in reversed(self._held):
            held.close()

    def keep(self, held: Any) -> Any:
        self._held.append(held)
        return held

    def clear(self) -> None:
        self._held.clear()


def _envelope(
    controls: Sequence[Control] | None, objective: str | None, envelope: Envelope | str | Path | None, mode: Mode | None
) -> Envelope:
    if envelope is not None:
        if controls is not None or objective is not None:
            raise UsageError("an envelope already names controls and objective", next_step="leave those two out")
        allowed = envelope if isinstance(envelope, Envelope) else load_envelope(Path(envelope))
    elif objective is None or controls is None:
        raise UsageError(
            "controls and objective are missing",
            allowed='controls=[...] and objective="minimize val/loss", or envelope="trimtab.yaml"',
        )
    else:
        allowed = Envelope(Objective.parse(objective), tuple(controls))
    if mode is None or mode == allowed.deliberation.mode:
        return allowed
    return replace(allowed, deliberation=replace(allowed.deliberation, mode=mode))


def _check_objective(objective: Objective) -> None:
    check_signal_name(objective.signal)
    if objective.signal in (LOSS, GRAD_NORM, LOSS_AT_EVALUATION):
        raise UsageError(
            "the objective has the name of a signal that is reported every step",
            received=objective.signal,
            allowed="a name of its own for what evaluations measure",
            next_step=f'write for example "{objective.direction} val/{LOSS}" and report it with supervisor.evaluated',
        )


def _bind(envelope: Envelope, model: nn.Module, optimizer: Any, scheduler: Any, undo: _Undo) -> dict[str, Binding]:
    makers: dict[str, Callable[[Control], Any]] = {
        LEARNING_RATE: lambda control: LearningRateBinding(optimizer, control.bounds, group_name(control.name)),
        WEIGHT_DECAY: lambda control: WeightDecayBinding(optimizer, group_name(control.name)),
        DROPOUT: lambda _: DropoutBinding(model, optimizer),
    }
    bindings: dict[str, Binding] = {}
    for control in envelope.controls:
        base = base_name(control.name)
        if base not in makers:
            raise ControlError("there is no such control", received=control.name, next_step=nearest(base, makers))
        if base == LEARNING_RATE:
            refuse_adaptive(scheduler)
        bindings[control.name] = undo.keep(makers[base](control))
    return bindings


def _initial_recipe(envelope: Envelope, bindings: Mapping[str, Binding]) -> Recipe:
    recipe = read_recipe(bindings)
    for control in envelope.controls:
        value = recipe[control.name]
        if not control.bounds.contain(value):
            raise ControlError(
                f"{control.name} starts outside its bounds",
                received=value,
                allowed=f"{control.bounds.low!r} to {control.bounds.high!r}, both included",
                next_step="widen the bounds or change the recipe",
            )
    return recipe


def _assemble(
    started: RunStarted,
    spec: ManagerSpec | Manager,
    directory: RunDirectory,
    bindings: Mapping[str, Binding],
    store: TorchStateStore,
    reader: TorchReader,
    undo: _Undo,
) -> Supervisor:
    clock = SystemClock()
    deadline = started.envelope.deliberation.deadline_seconds
    try:
        directory.envelope.write_text(dump_envelope(started.envelope), encoding="utf-8")
        series = SeriesFile(directory.series)
    except OSError as error:
        raise RunDirectoryError("the run directory cannot be written", received=f"{directory.path}: {error}") from error
    journal = undo.keep(Journal.create(directory.ledger))
    client: ManagerClient = undo.keep(
        ManagerProcess(spec, directory.manager_log, deadline, clock)
        if isinstance(spec, ManagerSpec)
        else ManagerThread(spec, deadline, clock)
    )
    telemetry = Telemetry()
    engine = Engine(journal, bindings, store, client, telemetry, clock, reader.discard)

    def on_close() -> None:
        reader.close()
        # A changed recipe stays in force, and for that its bindings have to stay too.
        if engine.state.recipe == started.recipe:
            for binding in bindings.values():
                binding.close()
        journal.close()

    supervisor = Supervisor(started, engine, client, telemetry, reader, series, directory, on_close)
    # A script that just ends still closes its ledger; one that drops the supervisor is not kept alive by this.
    reference = weakref.ref(supervisor)
    atexit.register(lambda: (alive := reference()) and alive.close("the process ended"))
    return supervisor


def _notes(scheduler: Any, loader: Any) -> tuple[str, ...]:
    notes: list[str] = []
    if loader is None:
        notes.append("no loader was given: a rollback does not restore the data position")
    elif not (hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")):
        notes.append(f"{type(loader).__name__} cannot go back: after a rollback training goes on with its next batch")
    if scheduler is None:
        notes.append("no scheduler was given: if the run has one, a rollback does not restore it")
    return tuple(notes)


def _versions() -> tuple[tuple[str, str], ...]:
    return (
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("trimtab", version("trimtab")),
    )
