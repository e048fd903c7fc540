"""What `import trimtab` offers, and what it leaves alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

import trimtab

ROOT: Final = Path(__file__).parents[2]

# The public names. Edit this list together with `__all__`, and say so in CHANGELOG.md.
PUBLIC: Final = [
    "Add",
    "Bounds",
    "CalibrationSetup",
    "Control",
    "Envelope",
    "GradientAccumulation",
    "GradientClip",
    "LossWeights",
    "ManagerSettings",
    "MixtureLoader",
    "Multiply",
    "Objective",
    "ResumableBatchSampler",
    "ResumableDataLoader",
    "ResumableLoader",
    "SetTo",
    "Supervisor",
    "TrimtabError",
    "__version__",
    "attribute",
    "batch_size",
    "beta2",
    "calibrate",
    "custom",
    "declare",
    "dropout",
    "entropy_coefficient",
    "gradient_accumulation",
    "gradient_clip_norm",
    "handle",
    "label_smoothing",
    "learning_rate",
    "load_envelope",
    "loss_weight",
    "mixture_weight",
    "momentum",
    "preflight",
    "supervise",
    "weight_decay",
]

# Too heavy, or too far from the training loop, for `import trimtab`.
NOT_IMPORTED: Final = {
    "accelerate", "anthropic", "genai_prices", "google", "gymnasium", "httpx", "lightning", "llama_cpp",
    "llguidance", "numpy", "openai", "pandas", "pydantic_ai", "pytorch_lightning", "ray", "requests", "safetensors",
    "stable_baselines3", "starlette", "torch", "transformers", "typer",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``statement``."""
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_is_light() -> None:
    loaded = modules_after("import trimtab")
    assert "trimtab" in loaded
    assert loaded & NOT_IMPORTED == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert modules_after("import trimtab, numpy") & NOT_IMPORTED == {"numpy"}


def test_the_public_names_are_these() -> None:
    assert sorted(trimtab.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(trimtab, name) is not None
    assert name in dir(trimtab)


def test_an_unknown_name_is_refused_by_name() -> None:
    name = "no_such_name"
    with pytest.raises(AttributeError, match=name):
        getattr(trimtab, name)


def test_the_version_is_that_of_the_project_and_of_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert trimtab.__version__ == project["version"]
    assert re.search(rf"^## \[?{re.escape(project['version'])}\]?", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "trimtab" / "py.typed").is_file()
