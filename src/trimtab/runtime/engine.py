"""The engine: gives events to the controller and carries out the effects, in order.

Rules:
1. A record is in the ledger before what follows it is done. If the ledger cannot be written, nothing
   more is done to the run.
2. An action's outcome goes back to the controller as an event, whatever it was.
3. Events that come up while effects are carried out wait until those are done, so the ledger has the
   order in which the state was folded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trimtab.actuation.binding import Binding, RateDecay, StateStore
from trimtab.actuation.enact import enact, read_recipe, write_recipe
from trimtab.controller.effect import Append, Ask, Decay, DeleteCheckpoint, Effect, Enact, Shift
from trimtab.controller.event import (
    CheckpointWritten,
    EnactmentDone,
    EnactmentFailed,
    Event,
    ProblemFound,
    ReadBackTaken,
    RunBegan,
    RunWentOn,
    Shifted,
    ShiftFailed,
    SymptomRaised,
)
from trimtab.controller.state import State
from trimtab.controller.step import step as control
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import base_name
from trimtab.controls.entries import LEARNING_RATE
from trimtab.controls.recipe import Recipe
from trimtab.controls.standing import Checkpoint
from trimtab.decision.action import checkpoint_of
from trimtab.errors import ActuationError, CheckpointError, TrimtabError
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import ManagerFailed, ProposalReceived, TrialBegan, TrialEnded
from trimtab.runtime.announce import Announcer
from trimtab.runtime.answer import ManagerClient, Withdrawing
from trimtab.runtime.clock import Clock
from trimtab.runtime.forks import Forks
from trimtab.runtime.past import Past
from trimtab.runtime.soundness import Soundness
from trimtab.runtime.tracking import Tracking
from trimtab.telemetry.telemetry import Telemetry
from trimtab.verification.verdict import VerifiedAction

_READ_BACK_WITHIN_STEPS = 50
_FOREIGN_RATE = 10.0  # times the upper bound


@dataclass(frozen=True, slots=True)
class _Unproved:
    """An intervention whose values no optimizer step has used yet."""

    intervention: int
    applied_step: int
    controls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Position:
    """Where the value in effect of a control was found last, and on which side of its bounds that was said to be."""

    observed: float
    said: str


class Engine:
    """Runs the controller over one run.

    Args:
        journal: The ledger.
        bindings: By control name.
        store: Saves and restores the run's state.
        manager: The manager, behind its client.
        telemetry: Goes back with the state on a rollback.
        clock: Time, for the record.
        on_rewind: Called after the state went back to a checkpoint.
        look_around: Returns pairs of a problem and its detail: what the integration sees going wrong around the run.
        tracking: Tells the run's own tracker what is in the ledger.
        decay: Lets the rate of a trial's arm decay; None where no trial can be.
    """

    def __init__(
        self,
        journal: Journal,
        bindings: Mapping[str, Binding],
        store: StateStore,
        manager: ManagerClient,
        telemetry: Telemetry,
        clock: Clock,
        on_rewind: Callable[[], None],
        look_around: Callable[[], Iterable[tuple[str, str]]] = tuple,
        tracking: Tracking | None = None,
        decay: RateDecay | None = None,
    ) -> None:
        self._journal = journal
        self._bindings = bindings
        self._rates = {name: binding for name, binding in bindings.items() if base_name(name) == LEARNING_RATE}
        self._store = store
        self._manager = manager
        self._withdrawing = manager if isinstance(manager, Withdrawing) else None
        self._telemetry = telemetry
        self._clock = clock
        self._on_rewind = on_rewind
        self._look_around = look_around
        self._rates_out: dict[str, _Position] = {}
        self._soundness = Soundness()
        self._announcer = Announcer()
        self._tracking = tracking or Tracking()
        self._forks = Forks(store, telemetry, decay)
        self._state: State | None = None
        self._unproved: _Unproved | None = None
        self._waiting: deque[Event] = deque()
        self._is_busy = False
        self.checkpoint_due = False
        self.on_restored: Callable[[int], None] = lambda _: None

    def go_on(self, past: Past) -> Mapping[str, Any]:
        """Restore the state that the run goes on from, and record that it does.

        Returns:
            What the supervisor kept beside that state; empty if the run begins anew.

        Raises:
            CheckpointError: The training objects are not those of the run; nothing was changed.
            ActuationError: A control of the recipe then in force cannot be written.
            LedgerError: It cannot be recorded.
        """
        extra: Mapping[str, Any] = {}
        if past.resumed.checkpoint is not None:
            extra = self._store.restore(past.resumed.checkpoint)
            self._telemetry.load_state(extra["telemetry"], None)
            write_recipe(past.state.recipe, self._bindings, after_restore=True)
            self._load_watch(extra["watch"])
        self.dispatch(RunWentOn(past.resumed, past.state, past.lost))
        known = {checkpoint.id for checkpoint in self.state.checkpoints}
        for id in self._store.ids():
            if id not in known:  # of the course that is left: its name will be wanted again
                self._delete(past.resumed.step, id)
        return extra.get("supervisor", {})

    def hashes(self) -> Mapping[str, str]:
        """Return a hash of each part of the present state."""
        return self._store.hashes()

    def reseed(self, seed: int) -> None:
        """Let random numbers go on from another seed."""
        self._store.reseed(seed)

    @property
    def state(self) -> State:
        """The controller's state; only after the run began."""
        assert self._state is not None
        return self._state

    def dispatch(self, event: Event) -> None:
        """Give an event to the controller and carry out what it orders.

        Raises:
            LedgerError: The record cannot be written: hold the recipe and do nothing more.
        """
        self._waiting.append(event)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._waiting:
                self._respond(self._waiting.popleft())
        finally:
            self._is_busy = False
            self._waiting.clear()

    def save_checkpoint(self, step: int, supervisor: Mapping[str, Any]) -> str | None:
        """Save the state after ``step`` if it is sound; return the checkpoint's id. One that is damaged calls the reflex.

        Args:
            step: The step.
            supervisor: What the supervisor keeps beside it, JSON-ready.
        """
        self.checkpoint_due = False
        scales = self._scales()
        if self._is_damaged(step, scales):
            return None
        if not all(map(math.isfinite, scales.values())):
            self.dispatch(ProblemFound(step, "no checkpoint", "weights or optimizer state are not finite"))
            return None
        self._soundness.learn(step, scales)
        id = f"step-{step:08d}"
        # The checkpoint names the head of the ledger, so that head has to be on disk before it.
        self._journal.sync()
        head = self._journal.head
        extra = {
            "step": step,
            "ledger_head": [head.sequence, head.hash],
            "telemetry": self._telemetry.state(),
            "watch": self._watch(),
            "supervisor": dict(supervisor),
        }
        try:
            state_hash = self._store.save(id, extra)
        except (CheckpointError, OSError) as error:
            self.dispatch(ProblemFound(step, "no checkpoint", str(error)[:500]))
            return None
        self.dispatch(CheckpointWritten(step, id, state_hash))
        return id

    def look_closely(self, step: int, *, is_shocked: bool) -> None:
        """Look at each state behind a gradient far out of the ordinary, until one is saved or left; damage calls the reflex.

        Args:
            step: The step.
            is_shocked: Whether the gradient of this very step was.
        """
        self._soundness.is_suspect |= is_shocked and self.state.envelope.reflex.armed
        if self._soundness.is_suspect:
            self._is_damaged(step, self._scales())

    def _is_damaged(self, step: int, scales: Mapping[str, float]) -> bool:
        """Return whether the state after ``step`` is not sound, and let the reflex answer if it is not."""
        if not self.state.envelope.reflex.armed or self.state.is_exhausted:
            return False
        floors = {name: _FOREIGN_RATE * self.state.envelope.control(name).bounds.high for name in self._rates}
        found = self._soundness.judge(step, scales, floors)
        if found is None:
            return False
        now, before = (evidence.value for evidence in found.evidence)
        detail = f"{found.signal} came to {now:.3g} from {before:.3g} at most, and not by learning"
        self.dispatch(ProblemFound(step, "the state is damaged", detail))
        self.dispatch(SymptomRaised(step, found))
        return True

    def _scales(self) -> dict[str, float]:
        """Return the largest magnitude of each part of the state, and the rates in effect."""
        taken = {name: binding.took_effect() for name, binding in self._rates.items()}
        return {**self._store.scales(), **{name: read.observed for name, read in taken.items() if read is not None}}

    def _watch(self) -> dict[str, Any]:
        """Return what is watched but not in the ledger yet, JSON-ready."""
        unproved = self._unproved
        return {
            "unproved": None if unproved is None else [unproved.intervention, unproved.applied_step, list(unproved.controls)],
            "rates_out": {name: [position.observed, position.said] for name, position in self._rates_out.items()},
            "soundness": self._soundness.state(),
        }

    def _load_watch(self, saved: Mapping[str, Any]) -> None:
        if saved["unproved"] is not None:
            intervention, applied_step, controls = saved["unproved"]
            self._unproved = _Unproved(intervention, applied_step, tuple(controls))
        self._rates_out = {name: _Position(observed, said) for name, (observed, said) in saved["rates_out"].items()}
        self._soundness.load_state(saved["soundness"])

    def surroundings(self) -> tuple[tuple[str, str], ...]:
        """Return pairs of a problem and its detail: what goes wrong around the run."""
        return tuple(self._look_around())

    def foreign_hands(self) -> tuple[tuple[str, str], ...]:
        """Return what is wrong with the controls because of somebody else's hand on them: pairs of problem and detail.

        A value in effect that left its bounds is told once, until it was inside again.
        """
        envelope, recipe = self.state.envelope, self.state.recipe
        wrong: list[tuple[str, str]] = []
        for name, binding in self._bindings.items():
            live, taken = binding.read(), binding.took_effect()
            if live != recipe[name]:
                detail = f"{name} is {live!r}, not {recipe[name]!r} as trimtab left it"
                wrong.append(("something else has a hand on a control", detail))
            elif taken is not None:
                before, now = self._rates_out.get(name), self._position(name, envelope.control(name).bounds, taken.observed)
                self._rates_out[name] = now
                if now.said and (before is None or before.said != now.said):
                    detail = f"{name} is {now.observed:.6g} in effect, {now.said}, and not through trimtab: by a schedule, say"
                    wrong.append(("a control is outside its bounds", detail))
        return tuple(wrong)

    def _position(self, name: str, bounds: Bounds, observed: float) -> _Position:
        before = self._rates_out.get(name)
        if observed > bounds.high + abs(bounds.high) * 1e-6:
            return _Position(observed, f"above its bound {bounds.high!r}")
        # A warm-up begins below and comes in by itself.
        is_rising = before is None or observed > before.observed
        if observed < bounds.low - abs(bounds.low) * 1e-6 and not is_rising:
            return _Position(observed, f"below its bound {bounds.low!r}")
        return _Position(observed, "")

    def read_back(self, step: int) -> None:
        """Record what the first optimizer step after an intervention really used."""
        unproved = self._unproved
        if unproved is None or step <= unproved.applied_step:
            return
        taken = [self._bindings[name].took_effect() for name in unproved.controls]
        results = tuple(result for result in taken if result is not None)
        if len(results) == len(taken):
            self._unproved = None
            self.dispatch(ReadBackTaken(step, unproved.intervention, results))
        elif step - unproved.applied_step > _READ_BACK_WITHIN_STEPS:
            self._unproved = None
            detail = f"no optimizer step could show it within {_READ_BACK_WITHIN_STEPS} steps, so nothing can be read back"
            self.dispatch(ProblemFound(step, "a change was not seen in effect", detail))

    def _respond(self, event: Event) -> None:
        at = event.record.step if isinstance(event, (RunBegan, RunWentOn)) else event.step
        self._state, effects = control(self._state, event)
        for effect in effects:
            self._carry_out(at, effect)

    def _carry_out(self, at: int, effect: Effect) -> None:
        match effect:
            case Append():
                self._journal.append(effect.record, self._clock.wall_seconds())
                if isinstance(effect.record, TrialEnded):
                    self._forks.forget()
                self._announcer.tell(effect.record, self.state.envelope.canary)
                self._tracking.tell(effect.record, self.state.recipe)
                if self._withdrawing is not None and isinstance(effect.record, (ProposalReceived, ManagerFailed)):
                    self._withdrawing.withdraw(effect.record.question)  # the reflex or the steps may have closed it
            case Ask():
                self._manager.ask(at, effect.briefing)
            case Enact():
                self._enact(at, effect.verified, effect.fork)
            case Shift():
                self._shift(at, effect)
            case Decay():
                self._forks.decay(effect.factor)
            case DeleteCheckpoint():
                self._delete(at, effect.checkpoint)

    def _shift(self, at: int, effect: Shift) -> None:
        """Change the state for a trial; what goes wrong is reported as an event."""
        went_back = attempted = False
        try:
            if effect.keep:
                self._forks.keep(effect.keep)
            if effect.back_to:
                extra = self._forks.bring_back(effect.back_to, for_the_last_time=effect.for_the_last_time)
                went_back = True
                self._rewind(at, None, extra)
                recipe = self.state.recipe if effect.attempt is not None else effect.record.recipe
                write_recipe(recipe, self._bindings, after_restore=True)
            if effect.attempt is not None:
                attempted = True
                self._attempt(at, effect.attempt)
        except TrimtabError as error:
            self.dispatch(ShiftFailed(at, read_recipe(self._bindings), str(error)[:500], effect, went_back, attempted))
            return
        record = effect.record
        if not isinstance(record, TrialBegan):
            record = replace(record, recipe=read_recipe(self._bindings))
        self.dispatch(Shifted(at, record))

    def leave_trial(self) -> None:
        """Bring back the run's own course, whatever the record says: trimtab is about to hold the recipe.

        Raises:
            TrimtabError: The state is that of an arm, or the recipe is another.
        """
        trial = self.state.trial
        if self._forks.leave() and trial is not None:
            write_recipe(trial.base, self._bindings, after_restore=True)

    def _attempt(self, at: int, verified: VerifiedAction) -> None:
        """Carry out an action in an arm of a trial.

        Raises:
            ActuationError: It failed; the state may be any.
        """
        outcome = enact(verified, self.state.recipe, self._bindings, self._store)
        checkpoint = checkpoint_of(verified.action)
        if outcome.problem is not None:
            raise ActuationError("the action could not be tried", received=outcome.problem)
        if outcome.restored is not None:
            self._rewind(at, checkpoint, outcome.restored)
        if outcome.recipe != self._recipe_behind(checkpoint, self.state.recipe):
            self._telemetry.rebase()

    def _enact(self, at: int, verified: VerifiedAction, fork: str) -> None:
        before = self.state.recipe
        adopted = (lambda: self._forks.bring_back(fork)) if fork else None
        outcome = enact(verified, before, self._bindings, self._store, adopted)
        checkpoint = checkpoint_of(verified.action)
        if outcome.restored is not None:
            self._rewind(at, None if fork else checkpoint, outcome.restored)
        changed = tuple(name for name, _ in outcome.recipe.difference(before))
        if outcome.problem is not None:
            # What could not be brought back for a trial's winner is its fork; the checkpoint is as good as before.
            restored = None if outcome.restored is None or fork else checkpoint
            unusable = checkpoint if outcome.checkpoint_is_unusable and not fork else None
            self.dispatch(EnactmentFailed(at, outcome.recipe, outcome.problem, restored, unusable))
            return
        if not fork and verified.source != "reflex" and outcome.recipe != self._recipe_behind(checkpoint, before):
            # Another recipe has another level of loss: what was normal before says nothing now. Not so
            # after the reflex: a lower rate is no reason for a higher loss, and a loss that is still high
            # after its rollback must be found again, or a bad checkpoint would become the new normal.
            self._telemetry.rebase()
        self._unproved = _Unproved(self.state.num_interventions, at, changed) if changed else None
        # The changed course must be reachable: otherwise the reflex's next rollback would undo the change.
        self.checkpoint_due = verified.source == "manager"
        self.dispatch(EnactmentDone(at, outcome.recipe))

    def _recipe_behind(self, checkpoint: str | None, before: Recipe) -> Recipe:
        """Return the recipe under which the telemetry was gathered: the checkpoint's after a rollback."""
        saved = self._saved(checkpoint)
        return before if saved is None else saved.recipe

    def _saved(self, checkpoint: str | None) -> Checkpoint | None:
        return next((saved for saved in self.state.checkpoints if saved.id == checkpoint), None)

    def _rewind(self, at: int, checkpoint: str | None, extra: dict[str, Any]) -> None:
        """Take the telemetry back with the state, and add the evaluation made on that very state."""
        self._telemetry.load_state(extra["telemetry"], at)
        self._soundness.is_suspect = False
        self._on_rewind()
        if checkpoint is not None:  # what a trial has kept is the run's own as it stands, a branch's seeds included
            self.on_restored(at)
        saved = self._saved(checkpoint)
        if saved is not None and saved.objective is not None:
            self._telemetry.observe(saved.step, {self.state.envelope.objective.signal: saved.objective}, "evaluation")

    def _delete(self, at: int, checkpoint: str) -> None:
        try:
            self._store.delete(checkpoint)
        except (TrimtabError, OSError) as error:
            self.dispatch(ProblemFound(at, "a checkpoint was not deleted", str(error)[:500]))
