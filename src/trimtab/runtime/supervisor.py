"""The supervisor: what a training loop talks to.

Rules:
1. Nothing raised here reaches the training loop after attaching. On any failure the recipe is held,
   the failure is recorded and logged, and training goes on.
2. State is saved, restored and changed only inside `step`, so always at the same point of the loop.
3. `step` never waits for a manager; `evaluated` waits in mode ``boundary`` only, up to the deadline. The first `step` after a
   resume takes in the evaluation that the loop owes, as if by `evaluated`.
4. What comes apart from a step is telemetry only: the detectors look at it with the next step or evaluation.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from trimtab.controller import canary
from trimtab.controller.event import (
    AnswerFailed,
    AnswerReceived,
    EvaluationReported,
    ProblemFound,
    RunBegan,
    RunClosed,
    ScheduleReached,
    StepTaken,
    SymptomRaised,
    TrialCutOff,
)
from trimtab.controller.fallback import said_late
from trimtab.controller.following import due_after
from trimtab.controller.state import Phase, State
from trimtab.controls.recipe import Recipe
from trimtab.diagnosis.base import Symptom, View
from trimtab.diagnosis.examine import EVALUATION_DETECTORS, STEP_DETECTORS, examine
from trimtab.diagnosis.gradient_explosion import is_shock
from trimtab.errors import CheckpointError, LedgerDamaged, UsageError
from trimtab.ledger.hashes import HashFile
from trimtab.ledger.record import NOTICED_AT_RESUME, RAISED, EvaluationRecorded, RunStarted
from trimtab.ledger.series import SeriesFile
from trimtab.runtime.answer import Answer, ManagerClient
from trimtab.runtime.engine import Engine
from trimtab.runtime.past import Past
from trimtab.runtime.probe import Probes
from trimtab.runtime.reading import Reader, Reading
from trimtab.runtime.run_dir import RunDirectory
from trimtab.telemetry.roles import Roles
from trimtab.telemetry.signal import LOSS, LOSS_AT_EVALUATION, Kind
from trimtab.telemetry.snapshot import Snapshot
from trimtab.telemetry.telemetry import Telemetry

_LOG: Final = logging.getLogger("trimtab")
_UNREPORTED_AFTER: Final = 3
_NOTICES_PER_PROBLEM: Final = 5
_MOST_APART: Final = 1000
_KINDS: Final[tuple[Kind, ...]] = ("step", "evaluation")


class Supervisor:
    """Watches a run and carries out what was decided; made by `trimtab.supervise`.

    Args:
        started: The run's first record.
        engine: Runs the controller.
        manager: The manager's client; shared with the engine.
        telemetry: Shared with the engine.
        reader: Turns reported values into numbers.
        series: The curves.
        directory: The run's directory.
        on_close: Called once when the run is closed.
        probes: Measure signals by themselves; what the training loop reports under the same name goes first.
        past: What the run goes on from; None for one that begins.
        hash_every_steps: Steps between hashes of the whole state; 0 for none.

    Raises:
        CheckpointError: The training objects are not those that the run goes on with.
        TrimtabError: The run cannot be recorded.
    """

    def __init__(
        self,
        started: RunStarted,
        engine: Engine,
        manager: ManagerClient,
        telemetry: Telemetry,
        reader: Reader,
        series: SeriesFile,
        directory: RunDirectory,
        on_close: Callable[[], None],
        probes: Probes | None = None,
        past: Past | None = None,
        hash_every_steps: int = 0,
    ) -> None:
        self._engine = engine
        self._manager = manager
        self._telemetry = telemetry
        self._reader = reader
        self._series = series
        self._directory = directory
        self._every = started.evaluate_every_steps
        self._on_close = on_close
        self._probes = probes
        self._apart: deque[tuple[object, Mapping[str, object]]] = deque()
        self._num_lost = 0
        self._num_rewinds: int = telemetry.num_rewinds
        self._left_until_step: int = -1
        self._objective = started.envelope.objective
        self._roles = Roles(started.envelope.signals)
        self._step = 0
        self._event = 0
        self._evaluated_step: int | None = None
        self._deferred: list[Symptom] = []
        self._noticed: dict[str, set[str]] = {}
        self._is_held = False
        self._is_closed = False
        self._hash_file = HashFile(directory.hashes)
        self._hash_every = hash_every_steps
        self._recorded_evaluation: EvaluationRecorded | None = None
        self._is_evaluation_owed = False
        self._checkpoint: str | None = None
        if past is None:
            engine.dispatch(RunBegan(started))
        else:
            self._go_on(past)
        if self._checkpoint is None:
            self._follow_schedule()
            # Something to go back to before the first evaluation; at this point of the loop only once.
            self._checkpoint = self._save()

    @property
    def run_directory(self) -> RunDirectory:
        """Where the run is recorded."""
        return self._directory

    @property
    def state(self) -> State:
        """What the controller knows; for display."""
        return self._engine.state

    @property
    def recipe(self) -> Recipe:
        """The recipe in force."""
        return self._engine.state.recipe

    @property
    def num_steps(self) -> int:
        """Optimizer steps made so far, those before a resume included: where the loop goes on from."""
        return self._step

    @property
    def evaluation_due(self) -> bool:
        """Whether the loop should evaluate now and report it with `evaluated`; true also right after some resumes."""
        if self._evaluated_step == self._step:
            return False
        return canary.is_due(self.state, self._step) if self.in_trial else self._step > 0 and self._step % self._every == 0

    @property
    def in_trial(self) -> bool:
        """Whether the present steps are those of a trial, of which one arm is kept: their logs may be left out."""
        return not self._is_held and self._engine.state.trial is not None

    @property
    def should_stop(self) -> bool:
        """Whether the loop was asked to end; it is free not to."""
        return self._engine.state.stop_reason is not None

    @property
    def is_held(self) -> bool:
        """Whether trimtab has failed and only holds the recipe."""
        return self._is_held

    def step(self, **signals: object) -> None:
        """Report one optimizer step; call it right after `optimizer.step()`.

        Never waits for a manager and never raises. All changes to the run happen here, and so does
        the saving of a checkpoint when an evaluation is due.

        Args:
            **signals: Measured values by name: numbers, or tensors with one element. ``loss`` and
                ``grad_norm`` are watched by the reflex.
        """
        if self._is_evaluation_owed:
            self._catch_up()
        self._step += 1
        if self._is_held or self._is_closed:
            return
        with self._holding():
            self._take_step(signals)

    def observe(self, values: Mapping[str, object], *, step: int | None = None) -> None:
        """Report values that come apart from `step`, or late: from an asynchronous evaluator, from environment workers.

        Never raises and never changes the run; may be called from any thread. The values are in the telemetry from the
        next `step` or `evaluated` on. A value for a step that has one already replaces it. The objective counts only
        with `evaluated`, and what was measured before a rollback is left out: that course is no longer the run's.

        Args:
            values: By name: numbers, or tensors with one element.
            step: Step after which they were measured, 0 <= step <= the present one; by default the present one.
        """
        if self._is_held or self._is_closed:
            return
        if len(self._apart) >= _MOST_APART:
            self._num_lost += 1
            return
        # Only this queue is touched here: the call may come from another thread while a step is taken in.
        try:
            self._apart.append((self._step if step is None else step, dict(values)))
        except Exception as error:  # noqa: BLE001 - dict() runs the methods of a user's mapping, of any errors; these values alone are lost, which is logged
            _LOG.warning("trimtab was given values that cannot be read: %r", error)

    def evaluated(self, metrics: Mapping[str, object]) -> None:
        """Report an evaluation of the present state.

        Never raises. In mode ``boundary`` it waits for the manager, up to the deadline.

        Args:
            metrics: Values by name; the objective must be among them.
        """
        if self._is_held or self._is_closed:
            return
        with self._holding():
            self._take_evaluation(metrics)

    def close(self, reason: str = "finished") -> None:
        """End supervision; the recipe in force stays. Calling it again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        ended = RunClosed(self._step, reason)
        # Each on its own: a full disk must not leave the manager running or the optimizer claimed.
        for end in (
            self._close_sources,
            self._series.flush,
            self._hash_file.flush,
            self._end_trial,
            lambda: self._engine.dispatch(ended),
            self._on_close,
        ):
            try:
                end()
            except Exception:  # noqa: BLE001 - a user's binding or a full disk, of any errors: logged, and what is left is still ended
                _LOG.warning("the run could not be closed in order", exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close("finished" if kind is None else f"{RAISED} {kind.__name__}")

    def _go_on(self, past: Past) -> None:
        kept = self._engine.go_on(past)
        self._step = past.resumed.step
        self._event = int(kept.get("event", 0))
        self._left_until_step = int(kept.get("left_until_step", -1))
        self._checkpoint = past.resumed.checkpoint
        for problem, detail in past.problems:
            self._noticed.setdefault(problem, set()).add(detail)
        for file, place in ((self._series, self._event), (self._hash_file, self._step)):
            try:
                file.rewind(place)
            except (OSError, LedgerDamaged) as error:
                self._notice(NOTICED_AT_RESUME[3], str(error))
        if past.damaged:
            self._notice(NOTICED_AT_RESUME[0], ", ".join(past.damaged))
        if past.without_position:
            detail = (
                "the data begins anew: pass loader= with state_dict and load_state_dict, such as trimtab.ResumableDataLoader"
            )
            self._notice(NOTICED_AT_RESUME[1], detail)
        if self._checkpoint is not None:
            self._hash_if_due()  # that of the checkpoint's own step was still buffered when the process died
        self._recorded_evaluation = past.evaluation
        self._is_evaluation_owed = self.evaluation_due or past.evaluation is not None

    def _catch_up(self) -> None:
        """Take the evaluation that was due when the run was resumed from the record, if the loop did not make it again."""
        self._is_evaluation_owed = False
        recorded, self._recorded_evaluation = self._recorded_evaluation, None
        if self._evaluated_step == self._step or self._is_held or self._is_closed:
            return
        if recorded is not None:
            self.evaluated(dict(recorded.metrics))
            return
        detail = f"of step {self._step}: after supervise, evaluate if supervisor.evaluation_due, then train"
        with self._holding():
            self._notice(NOTICED_AT_RESUME[2], detail)

    def _save(self) -> str | None:
        """Save a checkpoint of the present state; what was measured before it is on disk first."""
        try:
            self._series.flush()
            self._hash_file.flush()
        except OSError as error:
            self._notice("the curves cannot be written", str(error))
        kept = {"event": self._event, "left_until_step": self._left_until_step}
        return self._engine.save_checkpoint(self._step, kept)

    def _end_trial(self) -> None:
        """Leave the loop with the run's own course, not with an arm of a trial."""
        if self.in_trial:
            self._engine.dispatch(TrialCutOff(self._step))

    def _close_sources(self) -> None:
        """Let nothing more come from the probes and the manager."""
        if self._probes is not None:
            self._probes.close()
        self._manager.close()

    def _take_step(self, signals: Mapping[str, object]) -> None:
        step = self._step
        version, rewinds = self._engine.state.version, self._telemetry.num_rewinds
        if self._probes is not None:
            signals = {**self._probes.collect(step), **signals}
            for fault in self._probes.faults():
                self._notice("a probe was switched off", fault)
        self._take_apart()
        readings = [*self._reader.take(step, signals)]
        if self._is_checkpoint_due():
            readings += self._reader.drain()  # saving waits for the device anyway, and nothing is then in flight
        for reading in readings:
            self._take_reading(reading)
            if self._engine.state.version != version or self._telemetry.num_rewinds != rewinds:
                break  # the reflex went back, or a trial has ended: later readings belong to the course that was left
        self._engine.read_back(step)
        for symptom in self._deferred:
            self._engine.dispatch(SymptomRaised(step, symptom))
        self._deferred.clear()
        self._hear(wait_seconds=0.0)
        self._follow_schedule()
        self._note_rewind()
        self._save_if_due()
        self._hash_if_due()
        if step == self._every * _UNREPORTED_AFTER and self._engine.state.num_evaluations == 0:
            self._notice(
                "the objective was never reported",
                f"call supervisor.evaluated({{{self._objective.signal!r}: ...}}) when supervisor.evaluation_due; "
                f"until then the run has only the reflex",
            )

    def _take_apart(self) -> None:
        """Take in what was observed since; these values call nobody."""
        if self._num_lost:
            self._num_lost = 0
            self._notice("observed values were lost", f"more than {_MOST_APART} observations came between two steps")
        for _ in range(len(self._apart)):
            step, values = self._apart.popleft()
            if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= self._step:
                names = ", ".join(map(str, values))[:200]
                self._notice("observed values were refused", f"their step is not one from 0 to the present step: {names}")
            elif step > self._left_until_step:
                self._take_late(self._reader.take_apart(step, values))

    def _take_late(self, reading: Reading) -> None:
        values = dict(reading.values)
        if values.pop(self._objective.signal, None) is not None:
            detail = f"{self._objective.signal!r} counts only with supervisor.evaluated, at the state that it measures"
            self._notice("the objective was observed", detail)
        known: dict[str, float] = {}
        for kind in _KINDS:
            of_kind = {name: value for name, value in values.items() if (self._telemetry.kind(name) or "step") == kind}
            known.update(self._known(reading, of_kind, kind))
        if known:
            self._record(reading.step, known)

    def _take_reading(self, reading: Reading) -> None:
        if reading.is_apart:
            self._take_late(reading)
            return
        self._record(reading.step, self._known(reading, reading.values, "step"))
        version, view = self._engine.state.version, self._view(reading.step)
        is_in_trial, rewinds = self.in_trial, self._telemetry.num_rewinds
        for symptom in examine(view, STEP_DETECTORS):
            if symptom.severity == "critical" and not is_in_trial:
                self._notice_foreign_hands()  # the reflex takes them back, and then nobody would know why it had to
            self._engine.dispatch(SymptomRaised(self._step, symptom))
            if is_in_trial and self._telemetry.num_rewinds != rewinds:
                return  # what was found next was found on the course that was left
        if self._engine.state.version == version:
            self._engine.look_closely(self._step, is_shocked=is_shock(view))

    def _view(self, step: int) -> View:
        return View(step, self._telemetry, self._objective, self._roles, self._engine.state.recipe, self._every, self.in_trial)

    def _save_if_due(self) -> None:
        self._checkpoint = None
        if self._is_checkpoint_due():
            version = self._engine.state.version
            self._checkpoint = self._save()
            if self._checkpoint is None and self._engine.state.version != version:
                self._note_rewind()
                self._checkpoint = self._save()  # the state was damaged, and the reflex has taken it back
            self._notice_foreign_hands()
            for problem, detail in self._engine.surroundings():
                self._notice(problem, detail)

    def _is_checkpoint_due(self) -> bool:
        if self.in_trial:
            return False
        return self._step == 1 or self._step % self._every == 0 or self._engine.checkpoint_due

    def _note_rewind(self) -> None:
        """Remember that what was measured until now belongs to a course that was left, if the state went back."""
        if self._telemetry.num_rewinds != self._num_rewinds:
            self._num_rewinds, self._left_until_step = self._telemetry.num_rewinds, self._step

    def _hash_if_due(self) -> None:
        if self._hash_every and self._step % self._hash_every == 0:
            try:
                self._hash_file.append(self._step, self._engine.hashes())
            except (OSError, CheckpointError) as error:
                self._notice("the hashes cannot be written", str(error))

    def _take_evaluation(self, metrics: Mapping[str, object]) -> None:
        step = self._step
        if self._evaluated_step == step:
            self._notice("an evaluation was reported twice", "only the first one of a step counts")
            return
        if not isinstance(metrics, Mapping):
            self._notice("an evaluation is not a mapping", f"give values by name: {{{self._objective.signal!r}: ...}}")
            return
        self._take_apart()
        reading = self._reader.take_now(step, metrics)
        name = self._objective.signal
        if name not in reading.values:
            if reading.refused is not None:
                self._notice("a signal was refused", reading.refused)
            given = [f"{key}{'' if key in reading.values else ' (no number)'}" for key in list(metrics)[:20]]
            reported = ", ".join(given) or "nothing"
            self._notice("the objective is missing from an evaluation", f"expected {name!r}; reported: {reported}")
            return
        if self._checkpoint is None and not self.in_trial:
            self._notice(
                "an evaluation without a checkpoint",
                "nothing can be rolled back to it: evaluate when supervisor.evaluation_due, or set evaluate_every_steps",
            )
        self._evaluated_step = step
        if self.in_trial:  # an arm's, or one that the loop makes by its own count: none of the run's own
            self._engine.dispatch(EvaluationReported(step, reading.values[name], (), None, Snapshot(step, ()), ()))
            return
        known = self._known(reading, {**reading.values, **self._loss_now()}, "evaluation")
        values = {name: value for name, value in known.items() if name in reading.values}
        self._record(step, values)
        symptoms = examine(self._view(step), EVALUATION_DETECTORS)
        # The reflex acts inside `step` only (rule 2): a checkpoint fits that point of the loop alone.
        self._deferred = [symptom for symptom in symptoms if symptom.severity == "critical"]
        snapshot = self._telemetry.snapshot(step)
        reported = tuple(sorted(values.items()))
        self._engine.dispatch(EvaluationReported(step, reading.values[name], reported, self._checkpoint, snapshot, symptoms))
        deliberation = self._engine.state.envelope.deliberation
        if deliberation.mode == "boundary":
            self._hear(wait_seconds=deliberation.deadline_seconds)

    def _known(self, reading: Reading, values: Mapping[str, float], kind: Kind) -> Mapping[str, float]:
        """Take values into the telemetry; return those whose names it accepts."""
        if reading.refused is not None:
            self._notice("a signal was refused", reading.refused)
        try:
            self._telemetry.observe(reading.step, values, kind)
        except UsageError as error:
            self._notice("a signal was refused", str(error))
            return {name: value for name, value in values.items() if self._telemetry.window(name) is not None}
        return values

    def _loss_now(self) -> dict[str, float]:
        window = self._roles.window(self._telemetry, LOSS)
        return {} if window is None or not window.count else {LOSS_AT_EVALUATION: window.slow}

    def _hear(self, wait_seconds: float) -> None:
        """Take in the manager's answer if it is there, and let the controller act on it when due."""
        state = self._engine.state
        if state.phase is Phase.ASKED:
            outcome = self._manager.wait(wait_seconds) if wait_seconds else self._manager.poll()
            asked, stale = state.question, state.envelope.deliberation.stale_after_steps
            if outcome is None and not wait_seconds and asked is not None and self._step - asked.asked_step >= stale:
                outcome = self._manager.give_up(said_late(self._step - asked.asked_step))
            if isinstance(outcome, Answer):
                event = AnswerReceived(
                    self._step,
                    outcome.question,
                    outcome.proposal,
                    outcome.latency_seconds,
                    outcome.objection,
                    outcome.approved_by,
                    outcome.consultation,
                )
                self._engine.dispatch(event)
            elif outcome is not None:
                failed = AnswerFailed(self._step, outcome.question, outcome.problem, outcome.detail, outcome.consultation)
                self._engine.dispatch(failed)
        state = self._engine.state
        is_waiting = state.question is not None or state.harm is not None or state.trial is not None
        if is_waiting and not wait_seconds:
            self._engine.dispatch(StepTaken(self._step))

    def _follow_schedule(self) -> None:
        """Let the controller apply what the schedule says after this step."""
        if self._engine.state.schedule is not None:
            for entry in due_after(self._engine.state, self._step):
                self._engine.dispatch(ScheduleReached(self._step, entry))

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        self._event += 1
        try:
            self._series.append(self._event, step, values)
        except OSError as error:
            self._notice("the curves cannot be written", str(error))

    def _notice_foreign_hands(self) -> None:
        for problem, detail in self._engine.foreign_hands():
            self._notice(problem, detail)

    def _notice(self, problem: str, detail: str) -> None:
        """Record a problem, which logs it too: each detail once, and few of each kind."""
        detail = detail.encode("utf-8", "backslashreplace").decode()  # names from the run may hold lone surrogates
        told = self._noticed.setdefault(problem, set())
        if detail in told or len(told) >= _NOTICES_PER_PROBLEM:
            return
        told.add(detail)
        self._engine.dispatch(ProblemFound(self._step, problem, detail))

    @contextmanager
    def _holding(self) -> Generator[None]:
        """Keep trimtab's own failures out of the training loop: from the first one on, the recipe is held."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - any failure, even a bug of ours, would end a run that is not ours; it is logged and recorded
            self._hold(error)

    def _hold(self, error: Exception) -> None:
        self._is_held = True
        _LOG.error("trimtab holds the recipe from step %d on; training goes on", self._step, exc_info=error)
        try:
            self._engine.leave_trial()
        except Exception:  # noqa: BLE001 - the user's objects may refuse their state with any error; training goes on all the same, and the log says from what
            _LOG.exception("the run's own course could not be brought back: training goes on from a trial's arm")
        try:
            self._close_sources()
            self._engine.dispatch(ProblemFound(self._step, "trimtab failed and holds the recipe", repr(error)[:500]))
        except Exception:  # noqa: BLE001 - already failing: a second error of any kind must not undo the hold; both are in the log
            _LOG.error("the failure could not be recorded in the ledger")
