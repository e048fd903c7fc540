"""The preflight: what can be done with each control of a run, before anything is changed.

Rules:
1. Every control is tried, so that all that is impossible is named at once.
2. A control that recompiles is narrowed to the values that torch keeps graphs for (`trimtab.integrations.pytorch.
   compilation`), and the narrowed one is what the verifier goes by.
3. A scheduler that was not passed is looked for among the objects alive: one that steers a control by itself is a
   second owner, and refused as if it had been passed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torch import nn
from torch.optim import Optimizer

from trimtab.actuation.binding import Binding
from trimtab.controls.catalogue import base_name, part_name
from trimtab.controls.control import Control
from trimtab.controls.entries import BETA2, DROPOUT, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from trimtab.controls.envelope import Envelope
from trimtab.controls.envelope_file import load_envelope
from trimtab.controls.oddities import dead_end, oddities_of
from trimtab.errors import ControlError, OwnershipError, UsageError, nearest
from trimtab.integrations.pytorch.binders import bind
from trimtab.integrations.pytorch.bindings.attribute import Handle, OwnControl
from trimtab.integrations.pytorch.bindings.ownership import refuse_owner
from trimtab.integrations.pytorch.compilation import Recompiling, compiled_modules, recompilation_error, recompiling, remarks
from trimtab.integrations.pytorch.hidden import schedulers_not_passed
from trimtab.integrations.pytorch.matching import declared, gathered, refuse_mismatched
from trimtab.integrations.pytorch.training import Training

LOG: Final = logging.getLogger("trimtab")

Answer = Literal["live", "boundary", "recompiles", "impossible"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the preflight says of one control.

    Args:
        control: The control, narrowed to what this run bears: under compilation with ``max_values``.
        answer: ``live``: after any step; ``boundary``: at boundaries only; ``recompiles``: each new value costs a
            compilation, at boundaries only if the reason says so; ``impossible``: see the reason.
        value: Its value now; None if it cannot be read.
        reason: Why, or what there is to know; may be empty.
        places: Where the value is kept, if that is not plain from the name.
    """

    control: Control
    answer: Answer
    value: float | None
    reason: str
    places: str = ""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the preflight found; as text, a table.

    Args:
        findings: One per control, in the order of their declaration.
        notes: What is limited in the run as a whole, and controls that cannot move from where they start.
        hints: What is as it was asked for, but perhaps not as it was meant.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    hints: tuple[str, ...] = ()

    @property
    def is_limited(self) -> bool:
        """Whether the run allows less than was asked for."""
        return bool(self.notes) or any(finding.answer in ("recompiles", "impossible") for finding in self.findings)

    def remarks(self) -> tuple[str, ...]:
        """Return the notes, and a line for each control of which there is something to know."""
        told = (f"{one.control.name}: {one.answer}: {one.reason}" for one in self.findings if one.reason)
        return (*self.notes, *told)

    def __str__(self) -> str:
        return "\n".join([table(self.findings), *(f"note: {note}" for note in (*self.notes, *self.hints))])


@dataclass(frozen=True, slots=True)
class Survey:
    """A preflight together with the bindings it made, which have to be closed.

    Args:
        preflight: The findings.
        bindings: By control name, of the controls that are possible.
        errors: Pairs of a control that is impossible and the reason.
    """

    preflight: Preflight
    bindings: dict[str, Binding]
    errors: tuple[tuple[Control, UsageError], ...]

    def refuse_impossible(self) -> None:
        """Refuse a run with an impossible control.

        Raises:
            ControlError: Correct what the message names, for every control that is impossible.
        """
        if len(self.errors) == 1:
            raise self.errors[0][1]
        if self.errors:
            kind = OwnershipError if all(isinstance(error, OwnershipError) for _, error in self.errors) else ControlError
            told = "".join(f"\n  {control.name}: {error}" for control, error in self.errors)
            raise kind(f"{len(self.errors)} controls are impossible in this run:{told}")

    def close(self) -> None:
        """Give every control back."""
        _close(self.bindings)


def preflight(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    loader: Any = None,
    controls: Sequence[Control | OwnControl] | None = None,
    envelope: Envelope | str | Path | None = None,
    parts: Sequence[object] = (),
) -> Preflight:
    """Say what could be done with each control of a run; nothing is changed, and nothing stays claimed.

    Args:
        model: As for `trimtab.supervise`, like all that follows.
        optimizer: The optimizer.
        scheduler: The scheduler, if any.
        loader: The loader, if any.
        controls: What may be changed; or else
        envelope: an envelope, or the path of an envelope file.
        parts: What else the controls act on.

    Raises:
        UsageError: Correct what the message names. An impossible control is a finding, not an error.

    Example:
        >>> print(trimtab.preflight(model, optimizer, controls=[trimtab.learning_rate(1e-5, 1e-2)]))
    """
    if (controls is None) == (envelope is None):
        raise UsageError("what may be changed is not clear", allowed="either controls=[...] or envelope=...")
    allowed = load_envelope(Path(envelope)) if isinstance(envelope, (str, Path)) else envelope
    training = Training(model, optimizer, scheduler, loader, gathered(parts, controls))
    known = declared(controls or ()) if allowed is None else allowed.controls
    found = survey(training, known, 1 if allowed is None else allowed.deliberation.boundary_every_steps)
    found.close()
    return found.preflight


def survey(training: Training, controls: Sequence[Control], boundary_every_steps: int) -> Survey:
    """Bind every control that can be bound, and say of each what can be done with it.

    Args:
        training: The run's objects.
        controls: The controls, with distinct names.
        boundary_every_steps: The envelope's, >= 1.

    Raises:
        UsageError: There is no optimizer to work with; nothing stays claimed.
    """
    refuse_mismatched(training)
    _refuse_idle_handles(training, controls)
    strangers = schedulers_not_passed(training.optimizers, training.scheduler)
    bindings: dict[str, Binding] = {}
    errors: dict[str, UsageError] = {}
    with ExitStack() as undo:
        undo.callback(_close, bindings)
        for control in controls:
            try:
                _refuse_overlap(control, controls, training)
                for stranger in strangers:
                    refuse_owner(control.name, stranger)
                bindings[control.name] = bind(control, training)
                _check_start(control, bindings[control.name].read())
            except UsageError as error:
                errors[control.name] = error
        regions = compiled_modules(training)
        costly = recompiling([control for control in controls if control.name not in errors], training, regions)
        errors |= {name: error for name, one in costly.items() if (error := recompilation_error(one.control))}
        findings: list[Finding] = []
        for control in controls:
            if control.name in errors:
                findings.append(_impossible(control, bindings.get(control.name), errors[control.name]))
                continue
            one = costly.get(control.name)
            why = remarks(control, training, regions) if one is None else [one.reason]
            reasons = [*_when(control, boundary_every_steps), *why]
            findings.append(_possible(control, one, bindings[control.name], reasons))
        undo.pop_all()
    refused = tuple((control, errors[control.name]) for control in controls if control.name in errors)
    ends, hints = _odd(findings)
    return Survey(Preflight(tuple(findings), (*_notes(training, strangers), *ends), hints), bindings, refused)


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as text, one line per control."""
    rows = [("control", "now", "bounds", "answer", "reason")]
    for one in findings:
        bounds = one.control.bounds
        now = "?" if one.value is None else f"{one.value:.6g}"
        rows.append((one.control.name, now, f"{bounds.low:g} to {bounds.high:g}", one.answer, _explained(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows)


def _explained(finding: Finding) -> str:
    parts = [finding.reason, f"at {finding.places}" if finding.places else ""]
    return " ".join("; ".join(part for part in parts if part).split())


def tell(run: str, preflight: Preflight) -> None:
    """Log the preflight of a run: as a warning, which Python prints unless told otherwise, if something is limited."""
    LOG.log(logging.WARNING if preflight.is_limited else logging.INFO, "%s: preflight\n%s", run, preflight)


def _refuse_idle_handles(training: Training, controls: Sequence[Control]) -> None:
    """Refuse a handle that no control goes by: it is misnamed, or its control is missing."""
    names = [control.name for control in controls]
    for handle in training.find(Handle):
        if handle.name not in names:
            raise ControlError("a handle has no control", received=handle.name, next_step=nearest(handle.name, names))


def _refuse_overlap(control: Control, controls: Sequence[Control], training: Training) -> None:
    """Refuse a control of a part beside the same control of all, unless a handle says where else its value is."""
    base, part = base_name(control.name), part_name(control.name)
    is_found = base in (LEARNING_RATE, WEIGHT_DECAY, MOMENTUM, BETA2, DROPOUT)
    has_handle = any(handle.name == control.name for handle in training.find(Handle))
    if part is not None and is_found and not has_handle and any(other.name == base for other in controls):
        raise ControlError(
            f"{base} and {control.name} would both change {part}",
            allowed=f"{base} for all, or one control for each part",
            next_step=f"leave out {base} or {control.name}",
        )


def _odd(findings: Sequence[Finding]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the controls that cannot move from where they start, and what else is odd about the possible ones."""
    ends: list[str] = []
    hints: list[str] = []
    for one in findings:
        if one.answer != "impossible" and one.value is not None:
            name, end = one.control.name, dead_end(one.control, one.value)
            ends += [f"{name}: {end}"] if end is not None else []
            hints += [f"{name}: {said}" for said in oddities_of(one.control, one.value) if said != end]
    return tuple(ends), tuple(hints)


def _check_start(control: Control, value: float) -> None:
    if not control.bounds.contain(value):
        raise ControlError(
            f"{control.name} starts outside its bounds",
            received=value,
            allowed=f"{control.bounds.low!r} to {control.bounds.high!r}, both included",
            next_step="widen the bounds or change the recipe",
        )


def _impossible(control: Control, binding: Binding | None, error: UsageError) -> Finding:
    return Finding(control, "impossible", None if binding is None else binding.read(), str(error))


def _possible(control: Control, costly: Recompiling | None, binding: Binding, reasons: list[str]) -> Finding:
    return Finding(
        control if costly is None else costly.control,
        control.when if costly is None else "recompiles",
        binding.read(),
        "; ".join(reasons),
        getattr(binding, "detail", ""),
    )


def _when(control: Control, boundary_every_steps: int) -> list[str]:
    if control.when == "live":
        return []
    every = "any step: boundary_every_steps is 1" if boundary_every_steps == 1 else f"every {boundary_every_steps} steps"
    return [f"changes after {every}"]


def _close(bindings: dict[str, Binding]) -> None:
    for binding in reversed(bindings.values()):
        binding.close()


def _notes(training: Training, strangers: Sequence[object]) -> tuple[str, ...]:
    notes: list[str] = []
    loader = training.loader
    if loader is None:
        notes.append("no loader was given: a rollback does not restore the data position")
    elif not (hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")):
        kind = type(loader).__name__
        notes.append(
            f"{kind} cannot go back: after a rollback training goes on with its next batch; ResumableLoader and "
            f"ResumableDataLoader of trimtab can"
        )
    for stranger in strangers:
        kind = type(stranger).__name__
        notes.append(f"a {kind} of this optimizer was not passed: a rollback does not restore it; pass it as scheduler=")
    return tuple(notes)
