"""A managed training run in a process that is killed: at a step, at a call into the operating system, or from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import adjust, boundary, script
from tests.promises.killing import READY, Killed, say, serve
from trimtab.decision.action import Rollback
from trimtab.ledger.reading import iter_ledger
from trimtab.ledger.record import RunEnded
from trimtab.runtime import engine

STEPS: Final = 40
PLAN: Final = (
    (10, adjust(dropout=0.3)),
    (20, adjust(learning_rate=5e-3, weight_decay=0.3)),
    (30, Rollback("step-00000020")),
)
POINTS: Final = ("open", "write", "fsync", "rename", "mkdir", "ftruncate")


class Points:
    """Counts the points at which a process may die: before and after each call into os, and each change of the run.

    Args:
        kill_at: Number of the point at which it is killed; None for none.
    """

    def __init__(self, kill_at: int | None) -> None:
        self._kill_at = kill_at
        self.passed = 0

    def arm(self) -> None:
        """Count from now on."""
        for name in POINTS:
            setattr(os, name, self._around(getattr(os, name)))
        engine.enact = self._around(engine.enact)

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            result = real(*args, **kwargs)
            self._pass()
            return result

        return call

    def _pass(self) -> None:
        if self.passed == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


def evaluate() -> float:
    return 1.0 + 0.0 * float(torch.rand(()))  # draws a random number, as a careless one does


def train(
    name: str, run_dir: str, seed: int, *, resume: bool, kill_at_step: int | None = None, kill_at_point: int | None = None
) -> None:
    """Train, and say the hash of the whole state after every step; then how many points were passed."""
    torch.set_num_threads(1)
    workload = WORKLOADS[name](seed)

    def after_step(step: int) -> None:
        say("step", step, workload.hashes[-1])
        if step == kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    points = Points(kill_at_point)
    points.arm()
    say(READY)
    with supervise(workload, Path(run_dir), script(*PLAN), envelope=boundary(), resume=resume) as supervisor:
        workload.train(STEPS, supervisor, evaluate, after_step=after_step, goes_on=True)
        assert not supervisor.is_held
    say("points", points.passed)


def job(arguments: dict[str, Any]) -> None:
    train(**arguments)


def hashes_of(said: list[list[Any]]) -> dict[int, str]:
    """Return the hash of the state after every step that a process said."""
    return {words[1]: words[2] for words in said if words[0] == "step"}


def run_to_the_end(killed: Killed, **arguments: Any) -> tuple[dict[int, str], int]:
    """Run without a kill; return the hash after every step, and how many points were passed."""
    end = killed.run(arguments, kill_after_seconds=None)
    assert end.code == 0, end
    return hashes_of(end.said), next(words[1] for words in end.said if words[0] == "points")


def has_ended(run_dir: Path) -> bool:
    """Return whether the run was closed in order: then there is nothing to go on with."""
    ledger = run_dir / "ledger.jsonl"
    records = [entry.record for entry in iter_ledger(ledger)] if ledger.exists() else []
    return bool(records) and isinstance(records[-1], RunEnded)


def check_steps(before: dict[int, str], resumed: dict[int, str], whole: dict[int, str], what: str) -> None:
    """Check that every step was made, and came to the state that it has in a run that nobody killed."""
    missing = whole.keys() - before.keys() - resumed.keys()
    # A step may have been saved, and not yet said, when the process died: then the next one shows its state.
    assert missing <= {min(resumed, default=STEPS + 1) - 1}, f"{what}: steps {sorted(missing)} are missing"
    for step, hash_ in [*before.items(), *resumed.items()]:
        assert hash_ == whole[step], f"{what}: step {step} has another state"


if __name__ == "__main__":
    warm = torch.nn.Parameter(torch.ones(1))
    warm.grad = torch.ones(1)
    torch.optim.AdamW([warm]).step()  # torch imports more at the first step: once, and not in every copy
    serve(job)
