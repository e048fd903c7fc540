"""Builders of ordinary values, for tests to vary one thing of."""

from __future__ import annotations

from typing import Any

from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import dropout, learning_rate, weight_decay
from trimtab.controls.control import Control
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.moves import Add
from trimtab.controls.recipe import Recipe
from trimtab.controls.safeguards import Guard, Reflex
from trimtab.controls.standing import Checkpoint, Standing
from trimtab.decision.action import Action
from trimtab.decision.briefing import Briefing, Intervention, Timing
from trimtab.decision.proposal import Expectation
from trimtab.decision.surface import build_surface
from trimtab.diagnosis.base import Evidence, Severity, Symptom, SymptomName
from trimtab.ledger.record import RunStarted
from trimtab.telemetry.snapshot import Snapshot
from trimtab.verification.case import Case
from trimtab.verification.verdict import Accepted, Rejected, Verdict

RECIPE = Recipe.of({"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.1})
OBJECTIVE = Objective("val/loss", "minimize")


def an_envelope(**changes: Any) -> Envelope:
    """Three controls with short dwell; ``changes`` replace arguments of `Envelope`."""
    controls = (
        learning_rate(1e-6, 1e-2, dwell_steps=20),
        weight_decay(0.0, 1.0, dwell_steps=20),
        dropout(0.0, 0.5, dwell_steps=20),
    )
    known: dict[str, Any] = {
        "objective": OBJECTIVE,
        "controls": controls,
        "authority": Authority(),
        "deliberation": Deliberation(),
        "reflex": Reflex(),
        "guard": Guard(baseline_evaluations=1),
    }
    return Envelope(**(known | changes))


def a_control(**changes: Any) -> Control:
    known: dict[str, Any] = {
        "name": "temperature",
        "bounds": Bounds(0.0, 10.0),
        "moves": Add((-1.0, 1.0)),
        "scale": "difference",
        "largest_change": 2.0,
        "cumulative_drift": 5.0,
        "dwell_steps": 10,
    }
    return Control(**(known | changes))


def a_standing(**changes: Any) -> Standing:
    """A run at step 400 with two evaluated checkpoints and nothing spent."""
    known: dict[str, Any] = {
        "step": 400,
        "recipe": RECIPE,
        "initial": RECIPE,
        "changed_at": (),
        "interventions_used": 0,
        "rollbacks_used": 0,
        "reflex_rollbacks_used": 0,
        "version": 0,
        "checkpoints": (Checkpoint("step-00000200", 200, 2.0, RECIPE), Checkpoint("step-00000400", 400, 2.5, RECIPE)),
        "can_skip": False,
    }
    return Standing(**(known | changes))


def a_case(action: Action, **changes: Any) -> Case:
    standing = changes.get("standing", a_standing())
    known: dict[str, Any] = {
        "action": action,
        "source": "manager",
        "envelope": an_envelope(),
        "standing": standing,
        "asked_step": standing.step,
        "asked_version": standing.version,
    }
    return Case(**(known | changes))


def objections(verdict: Verdict) -> set[str]:
    """Return the names of the constraints against it; empty if it was accepted."""
    return {reason.constraint for reason in verdict.reasons} if isinstance(verdict, Rejected) else set()


def accepted_recipe(verdict: Verdict) -> Recipe:
    assert isinstance(verdict, Accepted), verdict
    return verdict.verified.recipe


def a_symptom(
    name: SymptomName = "overfitting", severity: Severity = "warning", step: int = 400, signal: str = "val/loss"
) -> Symptom:
    return Symptom(name, severity, step, signal, (Evidence("objective", 2.5),))


def an_intervention(action: Action, *, met: bool | None = None, is_complete: bool = True, **changes: Any) -> Intervention:
    known: dict[str, Any] = {
        "number": 1,
        "source": "rules",
        "step": 300,
        "action": action,
        "symptoms": ("overfitting",),
        "reason": "because",
        "recipe_before": RECIPE,
        "expectation": Expectation(0.0, 1),
        "objective_before": 2.0,
        "objective_after": 2.1,
        "gain": -0.1,
        "evaluations_measured": 2,
        "is_complete": is_complete,
        "met": met,
    }
    return Intervention(**(known | changes))


def a_briefing(envelope: Envelope | None = None, standing: Standing | None = None, **changes: Any) -> Briefing:
    """The briefing that the controller would give from ``standing``."""
    envelope, standing = envelope or an_envelope(), standing or a_standing()
    known: dict[str, Any] = {
        "question": 1,
        "version": standing.version,
        "objective": envelope.objective,
        "timing": Timing(standing.step, standing.step + 10, standing.step + 200, None, 100),
        "recipe": standing.recipe,
        "initial": standing.initial,
        "snapshot": Snapshot(standing.step, ()),
        "symptoms": (),
        "best": standing.best_checkpoint(envelope),
        "interventions": (),
        "surface": build_surface(envelope, standing),
    }
    return Briefing(**(known | changes))


def a_run_started(envelope: Envelope | None = None, recipe: Recipe = RECIPE, *, can_skip: bool = False) -> RunStarted:
    return RunStarted(
        step=0,
        schema="trimtab/ledger/1",
        run="run",
        envelope=envelope or an_envelope(),
        recipe=recipe,
        manager="scripted",
        isolation="thread",
        total_steps=None,
        evaluate_every_steps=100,
        can_skip=can_skip,
        notes=(),
        versions=(),
    )
