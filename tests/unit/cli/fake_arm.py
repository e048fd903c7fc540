"""Stands in for a training arm: speaks the demo's protocol in milliseconds.

Its first argument says how it behaves, its second is the spec. In `good`, the managed curve goes down
where the unmanaged one turns up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def loss_at(arm: str, step: int, steps: int) -> float:
    done = step / steps
    base = 1.8 + 1.6 * 2.0 ** (-12 * done)
    return base - 0.1 * done if arm == "managed" and done > 0.3 else base + max(0.0, done - 0.25) ** 1.2


def progress(spec: dict[str, Any], step: int) -> dict[str, Any]:
    arm, steps = spec["arm"], spec["steps"]
    decided = arm == "managed" and step > 0.3 * steps
    return {
        "event": "progress",
        "arm": arm,
        "step": step,
        "steps": steps,
        "loss": 3.0 - step / steps,
        "val_loss": loss_at(arm, step, steps),
        "recipe": {"dropout": 0.1 if decided else 0.0, "learning_rate": 0.003} if arm == "managed" else {},
        "decision": f"step {int(0.3 * steps)}: rollback to step-1, dropout=0.1" if decided else None,
    }


def result(spec: dict[str, Any], **others: Any) -> dict[str, Any]:
    arm, steps = spec["arm"], spec["steps"]
    curve = [[step, loss_at(arm, step, steps)] for step in range(0, steps + 1, max(1, steps // 40))]
    best_step, best = min(curve, key=lambda point: point[1])
    at = int(0.3 * steps)
    marks = [[at, "rollback to step-1, dropout=0.1", "rollback"], [2 * at, "learning_rate=0.0015", "adjust"]]
    found = {
        "event": "result",
        "arm": arm,
        "final": curve[-1][1],
        "best": best,
        "best_step": best_step,
        "seconds": 1.5,
        "interventions": 2 if arm == "managed" else 0,
        "run_dir": spec["run_dir"],
        "curve": curve,
        "marks": marks if arm == "managed" else [],
        "stopped": None,
    }
    return found | others


def sleep_long(spec: dict[str, Any]) -> None:
    Path(spec["run_dir"] + ".pid").write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(60)


def main() -> int:
    behaviour, spec = sys.argv[1], json.loads(sys.argv[2])
    is_managed = spec["arm"] == "managed"
    say(progress(spec, 0))
    for tenth in range(1, 11):
        say(progress(spec, spec["steps"] * tenth // 10))
        if behaviour == "slow":
            time.sleep(0.1)
    match behaviour:
        case "noise":
            for line in ("a warning \x1b[31m[red]", "[1, 2]", '{"event": "progress"}', '{"event": "what"}', "[" * 5000, ""):
                sys.stdout.write(line + "\n")
        case "crash" if is_managed:
            raise MemoryError("out of \x1b[31mmemory")
        case "killed" if is_managed:
            os.abort()
        case "error" if is_managed:
            say({"event": "error", "message": "there is no such manager"})
            return 2
        case "crash" | "error" | "hang" | "killed":
            sleep_long(spec)
        case "orphan" if is_managed:  # gone, while a process of its own holds the pipe open
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(12)"])
            return 0
        case "non_finite":
            say(result(spec, final=float("nan"), best="NaN", curve=[[0, None], [1, float("inf")]]))
            return 0
        case "bad_result" if is_managed:
            say(result(spec, final="low"))
            return 0
        case _:
            pass
    say(result(spec))
    if behaviour == "lingers" and is_managed:
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
