"""The trackers themselves, where they are installed: `pip install tensorboard mlflow-skinny trackio wandb`.

They are no dependency of trimtab, so these tests run on demand. Each story logs as a user does, with a run of trimtab beside
it, and reads back what the tracker has kept. Each has a process of its own: trackers leave threads and hooks behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_TRAIN = """
import json, random, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.integration.pytorch.conftest import WORKLOADS, supervise
from tests.integration.pytorch.managed import a_value, adjust, boundary, script
from trimtab.decision.action import Rollback

folder = Path(sys.argv[1])

def train(tracker, log):
    workload = WORKLOADS["mlp"](5)
    manager = script((10, adjust(dropout=0.3)), (30, Rollback("step-00000020")))
    with supervise(workload, folder / "run", manager, envelope=boundary(), tracker=tracker) as supervisor:
        workload.train(50, supervisor, a_value(), before_step=log)
        assert not supervisor.is_held
    return workload.hashes[-1]

def tell(**found):
    print("FOUND", json.dumps(found))
"""

_TENSORBOARD = """
from torch.utils.tensorboard import SummaryWriter
writer = SummaryWriter(str(folder / "events"))
state = train(writer, lambda step: writer.add_scalar("loss", 1.0 / step, step))
writer.close()
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
recipe = [(one.step, one.value) for one in events.Scalars("trimtab/recipe/dropout")]
texts = [one.tensor_proto.string_val[0].decode() for one in events.Tensors("trimtab/intervention/text_summary")]
tell(state=state, recipe=recipe, texts=texts, own=[one.step for one in events.Scalars("loss")])
"""

_MLFLOW = """
import mlflow
mlflow.set_tracking_uri(f"file://{folder}/store")
with mlflow.start_run() as run:
    state = train("auto", lambda step: mlflow.log_metric("loss", 1.0 / step, step=step))
client = mlflow.MlflowClient()
recipe = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "trimtab/recipe/dropout")]
tags = client.get_run(run.info.run_id).data.tags
own = [one.step for one in client.get_metric_history(run.info.run_id, "loss")]
texts = [value for name, value in tags.items() if name.startswith("trimtab.intervention")]
tell(state=state, recipe=recipe, texts=texts, own=own)
"""

_TRACKIO = """
import trackio
run = trackio.init(project="test", name="one")
steps = []
def log(step):
    trackio.log({"loss": 1.0 / step})
    steps.append(run._next_step)
state = train("auto", log)
trackio.finish()
from trackio.sqlite_storage import SQLiteStorage
system = SQLiteStorage.get_system_logs("test", "one")
alerts = SQLiteStorage.get_alerts("test")
recipe = [(one["trimtab/step"], one["trimtab/recipe/dropout"]) for one in system if "trimtab/recipe/dropout" in one]
texts = [one["text"] for one in alerts if one["title"] == "trimtab: intervention"]
tell(state=state, recipe=recipe, texts=texts, own=steps)
"""

_WANDB = """
import wandb
run = wandb.init(project="test", mode="offline", dir=str(folder))
steps = []
def log(step):
    run.log({"loss": 1.0 / step}, step=step)
    steps.append(run.step)
state = train("auto", log)
run.log({"loss": 0.0}, step=51)
texts = [str(run.summary.get("trimtab/intervention"))]
recipe = [(run.summary.get("trimtab/step"), run.summary.get("trimtab/recipe/dropout"))]
wandb.finish()
tell(state=state, recipe=recipe, texts=texts, own=steps)
"""


def play(story: str, folder: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_SILENT": "true",
        "WANDB_MODE": "offline",
        "HOME": str(folder),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), *sys.path]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN + story, folder],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = [line.removeprefix("FOUND ") for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, done.stderr[-3000:] + done.stdout[-2000:]
    return json.loads(found[-1])


@pytest.fixture(scope="module")
def state_without(tmp_path_factory: pytest.TempPathFactory) -> str:
    return play("tell(state=train(None, None))", tmp_path_factory.mktemp("none"))["state"]


STORIES = {
    "tensorboard": ("tensorboard", _TENSORBOARD, list(range(1, 51))),
    "mlflow": ("mlflow", _MLFLOW, list(range(1, 51))),
    "trackio": ("trackio", _TRACKIO, list(range(1, 51))),
    "wandb": ("wandb", _WANDB, list(range(1, 51))),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_real_tracker_keeps_what_it_is_told_beside_its_users_own_steps(name: str, tmp_path: Path, state_without: str) -> None:
    package, story, own = STORIES[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install {package}")
    found = play(story, tmp_path / name)
    assert found["state"] == state_without, "the run is another with a tracker"
    assert any("intervention" in text for text in found["texts"])
    assert found["own"] == own, "the user's own steps"
    if name != "wandb":
        recipe = [(int(step), round(value, 6)) for step, value in found["recipe"]]
        assert {(0, 0.1), (10, 0.1), (11, 0.3), (20, 0.3)} <= set(recipe), recipe
    else:
        assert [value for _, value in found["recipe"]] == [0.3]
