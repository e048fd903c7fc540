"""Healthy trainings: ten settings each of four kinds, all of them sane and all different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class HealthyRun:
    """One healthy training.

    Args:
        scenario: Name of the training.
        settings: Changes to its settings.
        seed: Of everything drawn, before the offset that a benchmark gives.
    """

    scenario: str
    settings: Mapping[str, Any]
    seed: int


def _rows(scenario: str, *settings: dict[str, Any], first_seed: int = 0) -> tuple[HealthyRun, ...]:
    return tuple(HealthyRun(scenario, each, first_seed + number) for number, each in enumerate(settings))


_TEXT: Final = _rows(
    "text",
    {"learning_rate": 1e-3},
    {"learning_rate": 3e-3, "schedule": "cosine"},
    {"learning_rate": 3e-3, "schedule": "warmup", "width": 32},
    {"learning_rate": 2e-3, "batch_size": 8},
    {"learning_rate": 2e-3, "batch_size": 32, "width": 32},
    {"learning_rate": 1e-3, "optimizer": "adam", "weight_decay": 0.0},
    {"learning_rate": 5e-3, "schedule": "cosine", "width": 32},
    {"learning_rate": 2e-3, "dropout": 0.1},
    {"learning_rate": 2e-3, "weight_decay": 0.1, "width": 64},
    {"learning_rate": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "schedule": "warmup"},
)

_PERCEPTRONS: Final = _rows(
    "digits_mlp",
    {"learning_rate": 3e-4},
    {"learning_rate": 1e-3, "schedule": "cosine", "width": 32},
    {"learning_rate": 5e-4, "batch_size": 16, "dropout": 0.1},
    {"learning_rate": 0.01, "optimizer": "sgd", "weight_decay": 1e-4},
    {"learning_rate": 5e-4, "schedule": "warmup", "batch_size": 64, "width": 128},
)

_CONVOLUTIONS: Final = _rows(
    "digits_cnn",
    {"learning_rate": 0.01},
    {"learning_rate": 0.02, "schedule": "cosine", "batch_size": 64},
    {"learning_rate": 5e-4, "optimizer": "adamw", "weight_decay": 0.01},
    {"learning_rate": 5e-4, "optimizer": "adam", "batch_size": 16, "width": 32},
    {"learning_rate": 1e-3, "optimizer": "adamw", "schedule": "warmup", "dropout": 0.2},
    first_seed=5,
)

_AUTOENCODERS: Final = _rows(
    "autoencoder",
    {"learning_rate": 3e-4},
    {"learning_rate": 5e-4, "batch_size": 16},
    {"learning_rate": 1e-3, "schedule": "cosine", "width": 32},
    {"learning_rate": 5e-4, "batch_size": 64, "width": 128},
    {"learning_rate": 2e-4, "optimizer": "adam", "weight_decay": 0.0, "width": 128},
    {"learning_rate": 1e-3, "schedule": "warmup", "width": 32},
    {"learning_rate": 0.2, "optimizer": "sgd", "weight_decay": 0.0},
    {"learning_rate": 5e-4, "weight_decay": 0.1},
    {"learning_rate": 5e-4, "schedule": "cosine", "batch_size": 128},
    {"learning_rate": 3e-4, "batch_size": 8},
)

_POLICIES: Final = _rows(
    "cart_pole",
    {"learning_rate": 3e-4},
    {"learning_rate": 2e-4, "num_epochs": 10},
    {"learning_rate": 5e-4, "entropy_coefficient": 0.0},
    {"learning_rate": 3e-4, "entropy_coefficient": 0.01},
    {"learning_rate": 3e-4, "value_learning_rate": 1e-3},
    {"learning_rate": 1e-4, "num_epochs": 10},
    {"learning_rate": 3e-4, "discount": 0.99},
    {"learning_rate": 3e-4, "clip_range": 0.1},
    {"learning_rate": 1e-3, "num_epochs": 3, "discount": 0.99},
    {"learning_rate": 2e-4, "gae_lambda": 0.98},
)

HEALTHY: Final = _TEXT + _PERCEPTRONS + _CONVOLUTIONS + _AUTOENCODERS + _POLICIES
