"""Attach trimtab to a plain PyTorch training loop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import nn
from torch.optim import Optimizer

from trimtab.actuation.binding import Binding
from trimtab.actuation.enact import read_recipe
from trimtab.controller.following import foresee
from trimtab.controls.control import Control
from trimtab.controls.envelope import Envelope, Mode, Objective
from trimtab.controls.envelope_file import load_envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.manager import Manager
from trimtab.decision.schedule import Schedule
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.assembly import Parts, assemble, versions
from trimtab.integrations.pytorch.bindings.attribute import OwnControl
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.latecomers import Latecomers
from trimtab.integrations.pytorch.matching import declared, gathered
from trimtab.integrations.pytorch.preflight import Preflight, survey, tell
from trimtab.integrations.pytorch.probes.probe_set import Wanted, open_probes
from trimtab.integrations.pytorch.rate_decay import OptimizerRateDecay
from trimtab.integrations.pytorch.scalars import TorchReader
from trimtab.integrations.pytorch.state import TorchStateStore
from trimtab.integrations.pytorch.stateful import Stateful
from trimtab.integrations.pytorch.tracing import TracingProbes
from trimtab.integrations.pytorch.training import Training
from trimtab.integrations.trackers.find import WantedTracker, find_trackers
from trimtab.ledger.reading import is_being_written
from trimtab.ledger.record import SCHEMA, RunStarted
from trimtab.runtime.command import this_command
from trimtab.runtime.launch import Launch
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.network import block_network
from trimtab.runtime.open_manager import isolation_of, read_manager, schedule_of, settled
from trimtab.runtime.past import Past, read_past
from trimtab.runtime.run_dir import Leftovers, RunDirectory, choose_run_directory, create_run_directory
from trimtab.runtime.supervisor import Supervisor
from trimtab.telemetry.signal import GRAD_NORM, LOSS, LOSS_AT_EVALUATION, check_signal_name


class _Closable(Protocol):
    def close(self) -> None: ...


_Closed = TypeVar("_Closed", bound=_Closable)


def supervise(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    loader: Any = None,
    controls: Sequence[Control | OwnControl] | None = None,
    objective: str | None = None,
    envelope: Envelope | str | Path | None = None,
    manager: str | Manager = "rules",
    mode: Mode | None = None,
    manager_settings: ManagerSettings | None = None,
    shadow: bool | None = None,
    run_dir: str | Path | None = None,
    total_steps: int | None = None,
    evaluate_every_steps: int = 100,
    extra_state: Mapping[str, object] | None = None,
    parts: Sequence[object] = (),
    probes: Wanted = (),
    resume: bool = False,
    hash_every_steps: int = 0,
    tracker: WantedTracker = "auto",
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
        manager: Who proposes: ``rules``, ``no_action``, ``random:SEED``, ``scripted:FILE``, ``python:MODULE:CLASS``; nobody,
            where a plan is followed: ``schedule:FILE``; a language model: ``openai:MODEL``, ``anthropic:MODEL``,
            ``google:MODEL``, the URL of an OpenAI-compatible server, ``local:PATH`` or ``local:PACKAGE``, each in a process
            of its own; ``external`` or ``human:MANAGER``, answered through the run directory; or an object with
            ``propose``, which answers in a thread.
        mode: ``async`` or ``boundary``; overrides the envelope's.
        manager_settings: How the manager is asked and what it may cost; overrides the envelope's.
        shadow: Whether the manager's proposals are judged and recorded but never applied; overrides the envelope's.
        run_dir: Directory of the record; by default ``runs/run-N``. `trimtab run` and `trimtab resume` override it.
        total_steps: Planned length of the run, if known.
        evaluate_every_steps: Steps between evaluations, >= 1.
        extra_state: More that belongs to the run's state, by name: objects with ``state_dict`` and
            ``load_state_dict`` (a scaler, averaged weights), or a `torch.Generator`.
        parts: What else the controls act on: loss modules, `GradientClip`, `LossWeights`, `GradientAccumulation`,
            and a `handle` for every control of the envelope that is an attribute of some object.
        probes: Signals that are measured without being reported: ``"all"``, or a list of names: ``loss`` (needs the loss
            module among ``parts``), ``grad_norm``, ``update_ratio``, ``weight_norm``, ``learning_rate``, ``throughput``,
            ``memory``, ``dead_units``. What `Supervisor.step` is given under the same name goes first.
        resume: Whether to go on with the run in ``run_dir``, if it holds one, from its newest checkpoint: the state is
            restored here, and `Supervisor.num_steps` says where the loop goes on. Draw no random number between here and it.
        hash_every_steps: Steps between hashes of the whole state, for `trimtab replay` to compare, >= 0; 0 for none: then
            states are compared where a checkpoint is saved. A hash waits for the device and reads every weight.
        tracker: Is told what is decided, from a thread of its own: ``auto`` for the runs of wandb, MLflow and trackio that are
            active now; such a run, a ``SummaryWriter``, an object with ``track``; or None.

    Returns:
        The supervisor. Call its ``step`` after every ``optimizer.step()``.

    Raises:
        UsageError: Correct what the message names; nothing was changed.
        RunDirectoryError: Choose another directory, or resume what is in this one.
        LedgerError: The record of the run to go on with is damaged; the message says where.
        CheckpointError: The model or optimizer is not that of the run to go on with.
    """
    launch = _launched()
    training = Training(model, optimizer, scheduler, loader, gathered(parts, controls))
    allowed = _overridden(_envelope(controls, objective, envelope), mode, manager_settings, shadow)
    _check_objective(allowed.objective)
    _check_counts(evaluate_every_steps, total_steps, hash_every_steps)
    place = launch.resume or launch.run_dir or (None if run_dir is None else Path(run_dir))
    past = _past(place, is_resumed=resume or launch.resume is not None)
    repeats = past is not None and past.repetition is not None  # then nobody is asked or told
    trackers = () if repeats else find_trackers(tracker)
    spec = read_manager(manager, allowed.manager, is_asked=not repeats)
    allowed = replace(allowed, manager=settled(allowed.manager, spec))
    with ExitStack() as undo:  # gives back what was claimed and removes what was created if attaching fails half-way
        decay = _decay(undo, optimizer, allowed, loader)
        found = _kept(undo, survey(training, allowed.controls, allowed.deliberation.boundary_every_steps))
        found.refuse_impossible()
        allowed = replace(allowed, controls=tuple(finding.control for finding in found.preflight.findings))
        allowed, preflight = _within_epoch(allowed, found.preflight, loader, evaluate_every_steps)
        if decay is not None:
            decay.come_last()  # after the controls are bound: the last to let go of a step
        measuring = _kept(undo, open_probes(probes, training))  # after the controls are bound
        _check_objective(allowed.objective, measuring.names)
        inner = unwrap(optimizer)
        reader = _kept(undo, TorchReader(inner))
        directory = choose_run_directory(place)
        if past is None:
            _kept(undo, Leftovers.before(directory))
            directory = create_run_directory(directory.path)
        store = TorchStateStore(directory.checkpoints, model, inner, scheduler, loader, extra_state)
        plan = past.started.schedule if past is not None and repeats else schedule_of(spec)
        preflight = _with_rejected(plan, allowed, found.bindings, preflight)
        started = RunStarted(
            step=0,
            schema=SCHEMA,
            run=directory.path.name,
            envelope=allowed,
            recipe=read_recipe(found.bindings),
            manager=str(spec) if isinstance(spec, ManagerSpec) else type(spec).__name__,
            isolation=isolation_of(spec),
            total_steps=total_steps,
            evaluate_every_steps=evaluate_every_steps,
            can_skip=store.can_skip,
            notes=(*preflight.remarks(), *measuring.left_out),
            versions=versions(),
            schedule=plan,
        )
        latecomers = Latecomers(training.optimizers, scheduler, found.bindings)
        tracing = None if launch.trace is None else TracingProbes(measuring, *launch.trace)
        assembled = Parts(
            started,
            spec,
            directory,
            found.bindings,
            store,
            reader,
            tracing or measuring,
            lambda: (*latecomers.look(), *reader.misuse()),
            launch.command or ((own := this_command()) and own.to_json()),
            hash_every_steps if launch.hash_every_steps is None else launch.hash_every_steps,
            trackers,
            decay,
        )
        supervisor = assemble(assembled, past, undo)
        undo.pop_all()
    if tracing is not None:
        tracing.begin(supervisor.num_steps)
    tell(directory.path.name, preflight)
    return supervisor


def _launched() -> Launch:
    """Return what a command of trimtab told this process, if one started it."""
    launch = Launch.take(os.environ)
    if launch.is_offline:
        block_network()
    return launch


def _check_counts(evaluate_every_steps: object, total_steps: object, hash_every_steps: object) -> None:
    given = (("evaluate_every_steps", evaluate_every_steps, 1), ("hash_every_steps", hash_every_steps, 0))
    for name, count, least in (*given, *((("total_steps", total_steps, 1),) if total_steps is not None else ())):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise UsageError(f"{name} is out of range", received=repr(count), allowed=f"a whole number >= {least}")


def _past(place: Path | None, *, is_resumed: bool) -> Past | None:
    """Return what the run in ``place`` goes on from; None for a run that begins."""
    if not is_resumed:
        return None
    if place is None:
        raise UsageError("a run to go on with has to be named", received="resume=True", next_step='set run_dir="runs/..."')
    directory = RunDirectory(place)
    if not directory.ledger.exists():
        return None
    if b"\n" in directory.ledger.read_bytes() or is_being_written(directory.ledger):
        return read_past(directory)
    directory.ledger.unlink()  # its writer died before the first record
    return None


def _kept(undo: ExitStack, held: _Closed) -> _Closed:
    undo.callback(held.close)
    return held


def _envelope(
    controls: Sequence[Control | OwnControl] | None,
    objective: str | None,
    envelope: Envelope | str | Path | None,
) -> Envelope:
    if envelope is not None:
        if controls is not None or objective is not None:
            raise UsageError("an envelope already names controls and objective", next_step="leave those two out")
        return envelope if isinstance(envelope, Envelope) else load_envelope(Path(envelope))
    if objective is None or controls is None:
        raise UsageError(
            "controls and objective are missing",
            allowed='controls=[...] and objective="minimize val/loss", or envelope="trimtab.yaml"',
        )
    return Envelope(Objective.parse(objective), declared(controls))


def _overridden(allowed: Envelope, mode: Mode | None, settings: ManagerSettings | None, shadow: bool | None) -> Envelope:
    deliberation, authority = allowed.deliberation, allowed.authority
    return replace(
        allowed,
        deliberation=deliberation if mode is None else replace(deliberation, mode=mode),
        authority=authority if shadow is None else replace(authority, shadow=shadow),
        manager=allowed.manager if settings is None else settings,
    )


def _within_epoch(allowed: Envelope, preflight: Preflight, loader: Any, every: int) -> tuple[Envelope, Preflight]:
    """Let the reflex pass over one epoch at most: of a small loader, what it skips by default would be many.

    But over the steps between two evaluations at least: as far the fault may lie after the checkpoint gone back to.
    """
    skipped = allowed.reflex.skip_batches
    try:
        epoch = len(loader) if hasattr(loader, "skip") else 0
    except TypeError:  # one without a length
        epoch = 0
    most = max(epoch, every)
    if not epoch or skipped <= most:
        return allowed, preflight
    hint = f"reflex.skip_batches: {most} instead of {skipped}, as an epoch of the loader has {epoch} batches"
    limited = replace(allowed, reflex=replace(allowed.reflex, skip_batches=most))
    return limited, replace(preflight, hints=(*preflight.hints, hint))


def _decay(undo: ExitStack, optimizer: Optimizer, allowed: Envelope, loader: object) -> OptimizerRateDecay | None:
    """Return what lets the rate of a trial's arm decay; None if there are no trials."""
    if allowed.canary.mode == "none":
        return None
    if not isinstance(loader, Stateful):  # its arms would not see the same batches
        raise UsageError(
            "a canary needs a loader whose position can be restored",
            received="no loader" if loader is None else f"{type(loader).__name__} without state_dict and load_state_dict",
            next_step="pass loader=, such as trimtab.ResumableLoader, or set canary.mode to none",
        )
    return _kept(undo, OptimizerRateDecay(unwrap(optimizer)))


def _with_rejected(
    plan: Schedule | None, allowed: Envelope, bindings: Mapping[str, Binding], preflight: Preflight
) -> Preflight:
    """Return the preflight with what of a schedule will be rejected."""
    rejected = () if plan is None else foresee(plan, allowed, read_recipe(bindings))
    return replace(preflight, notes=(*preflight.notes, *rejected))


def _check_objective(objective: Objective, measured: Sequence[str] = ()) -> None:
    check_signal_name(objective.signal)
    if objective.signal in (LOSS, GRAD_NORM, LOSS_AT_EVALUATION, *measured):
        raise UsageError(
            "the objective has the name of a signal that is reported every step",
            received=objective.signal,
            allowed="a name of its own for what evaluations measure",
            next_step=f'write for example "{objective.direction} val/{LOSS}" and report it with supervisor.evaluated',
        )
