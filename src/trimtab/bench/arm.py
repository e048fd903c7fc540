"""One arm of the demonstration, in a process of its own: trains once and reports JSON lines.

Started as ``python -m trimtab.bench.arm SPEC`` with a JSON object: ``arm`` (``unmanaged`` or
``managed``), ``seed``, ``steps``, ``manager``, ``text`` (a path or null), ``run_dir``, ``temperature`` (of a language model, or
null) and ``canary`` (whether proposals are tried first). Lines on standard output are ``progress``, then one ``result`` or
``error``.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

import trimtab
from trimtab.bench.scenarios.text_model import CharacterGPT, TextTask, loss_of, prepare, read_prose, validation_loss
from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.preset import load_preset
from trimtab.decision.action import describe
from trimtab.decision.briefing import Intervention
from trimtab.errors import TrimtabError
from trimtab.integrations.pytorch.untyped import backward, seed_torch
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.supervisor import Supervisor

EVALUATE_EVERY_STEPS: Final = 100
_PROGRESS_EVERY_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """What one arm is to do; see the module."""

    arm: str
    seed: int
    steps: int
    manager: str
    text: str | None
    run_dir: str
    temperature: float | None = None
    canary: bool = False


@dataclass(slots=True)
class Course:
    """What was measured along an arm: validation losses with their steps."""

    curve: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def best(self) -> tuple[int, float]:
        """Return step and value of the lowest finite validation loss; the last one if none is finite."""
        finite = [point for point in self.curve if math.isfinite(point[1])]
        return min(finite or self.curve[-1:], key=lambda point: point[1])


def demo_envelope(manager: str, temperature: float | None = None, *, canary: bool = False) -> Envelope:
    """Return the envelope the demonstration runs in: the preset, a canary if wanted, time for a language model.

    A step takes some 15 ms, so the run would be over before a model has answered a few times: it waits at every second
    evaluation. Nobody answers for a model that fails, so that what is shown is its own doing.
    """
    envelope = load_preset("small_transformer").envelope()
    if canary:
        envelope = replace(envelope, canary=replace(envelope.canary, mode="win"))
    if not ManagerSpec.parse(manager).is_language_model:
        return envelope
    patient = replace(envelope.deliberation, mode="boundary", every_evaluations=2, deadline_seconds=120.0)
    settings = ManagerSettings(briefing_tokens=2000, reply_tokens=300, temperature=temperature, fallback="no_action")
    return replace(envelope, deliberation=patient, manager=settings)


def run(spec: ArmSpec) -> dict[str, Any]:
    """Train one arm and return its result."""
    torch.set_num_threads(1)
    task = TextTask()
    data = prepare(read_prose(None if spec.text is None else Path(spec.text), task), task)
    seed_torch(spec.seed)
    model = CharacterGPT(data.num_characters, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    loader = trimtab.ResumableLoader(data.train, batch_size=task.batch_size, seed=spec.seed)
    supervisor: Supervisor | None = None
    if spec.arm == "managed":
        supervisor = trimtab.supervise(
            model,
            optimizer,
            loader=loader,
            envelope=demo_envelope(spec.manager, spec.temperature, canary=spec.canary),
            manager=spec.manager,
            run_dir=spec.run_dir,
            total_steps=spec.steps,
            evaluate_every_steps=EVALUATE_EVERY_STEPS,
        )
    course = Course()
    begin = time.perf_counter()
    stopped = _train(spec, model, optimizer, loader, data.validation, supervisor, course)
    seconds = time.perf_counter() - begin
    interventions: tuple[Intervention, ...] = ()
    if supervisor is not None:
        interventions = supervisor.state.interventions
        supervisor.close("the demonstration ended")
    best_step, best = course.best()
    return {
        "event": "result",
        "arm": spec.arm,
        "final": course.curve[-1][1],
        "best": best,
        "best_step": best_step,
        "seconds": seconds,
        "interventions": len(interventions),
        "run_dir": spec.run_dir,
        "curve": course.curve,
        "marks": [[done.step, describe(done.action), mark_kind(done)] for done in interventions],
        "stopped": stopped,
    }


def _train(
    spec: ArmSpec,
    model: CharacterGPT,
    optimizer: torch.optim.Optimizer,
    loader: Any,
    validation: torch.Tensor,
    supervisor: Supervisor | None,
    course: Course,
) -> str | None:
    """Run the loop; this is the loop a user writes. Return why it ended early, or None."""
    step = 0
    while step < spec.steps:
        for inputs, targets in loader:
            loss = loss_of(model, inputs, targets)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
            step += 1
            if supervisor is not None:
                supervisor.step(loss=loss)
            is_last = step == spec.steps
            due = supervisor.evaluation_due if supervisor is not None else step % EVALUATE_EVERY_STEPS == 0
            if due or is_last:
                value = validation_loss(model, validation)
                if supervisor is None or not supervisor.in_trial:  # the evaluations of trials are none of the run's
                    course.curve.append((step, value))
                if supervisor is not None and due:
                    supervisor.evaluated({"val/loss": value})
            if due or step % _PROGRESS_EVERY_STEPS == 0:
                emit(_progress(spec, step, float(loss.detach()), course, supervisor))
            if supervisor is not None and supervisor.should_stop:
                course.curve.append((step, validation_loss(model, validation)))
                return supervisor.state.stop_reason
            if is_last:
                break
    return None


def _progress(spec: ArmSpec, step: int, loss: float, course: Course, supervisor: Supervisor | None) -> dict[str, Any]:
    done = supervisor.state.interventions[-1] if supervisor is not None and supervisor.state.interventions else None
    return {
        "event": "progress",
        "arm": spec.arm,
        "step": step,
        "steps": spec.steps,
        "loss": loss,
        "val_loss": course.curve[-1][1] if course.curve else None,
        "recipe": {} if supervisor is None else dict(supervisor.recipe.values),
        "decision": None if done is None else f"step {done.step}: {describe(done.action)}",
    }


def mark_kind(done: Intervention) -> str:
    """Return as what a chart marks an intervention."""
    if done.source in ("reflex", "guard"):
        return done.source
    return "rollback" if done.action.kind.startswith("rollback") else done.action.kind


def emit(message: dict[str, Any]) -> None:
    """Write one line for the process that started the arm."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the arm that the first argument describes."""
    try:
        emit(run(ArmSpec(**json.loads(sys.argv[1]))))
    except TrimtabError as error:
        emit({"event": "error", "message": str(error)})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
