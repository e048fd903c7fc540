"""What is known of each control before a user says anything: a table, one row each.

Limits a row leaves out (None) are the whole range between the bounds that the user gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from trimtab.controls.control import Cost, Scale
from trimtab.controls.moves import Moves, Multiply, SetTo


@dataclass(frozen=True, slots=True)
class Entry:
    """One control of the catalogue.

    Args:
        meaning: What the value is, in a few words.
        unit: What it counts.
        scale: How a change is measured.
        moves: Permitted moves unless the user says otherwise.
        largest_change: Most in one intervention; None for the whole range.
        cumulative_drift: Most from the starting value; None for the whole range.
        effect_lag_steps: Steps until a change can show in the objective.
        cost: What a new value costs.
        least: Lowest bound that makes sense, inclusive.
        below: Every bound is below this, exclusive.
        is_whole: Whether only whole numbers make sense.
        takes_name: Whether ``NAME/PART`` selects one parameter group, module pattern or term.
    """

    meaning: str
    unit: str
    scale: Scale
    moves: Moves
    largest_change: float | None = None
    cumulative_drift: float | None = None
    effect_lag_steps: int = 0
    cost: Cost = "free"
    least: float = 0.0
    below: float = math.inf
    is_whole: bool = False
    takes_name: bool = False


LEARNING_RATE: Final = "learning_rate"
WEIGHT_DECAY: Final = "weight_decay"
MOMENTUM: Final = "momentum"
BETA2: Final = "beta2"
DROPOUT: Final = "dropout"
LABEL_SMOOTHING: Final = "label_smoothing"
GRADIENT_CLIP_NORM: Final = "gradient_clip_norm"
LOSS_WEIGHT: Final = "loss_weight"
BATCH_SIZE: Final = "batch_size"
GRADIENT_ACCUMULATION: Final = "gradient_accumulation"
MIXTURE_WEIGHT: Final = "mixture_weight"
ENTROPY_COEFFICIENT: Final = "entropy_coefficient"
VALUE_COEFFICIENT: Final = "value_coefficient"
CLIP_RANGE: Final = "clip_range"
TARGET_KL: Final = "target_kl"
NUM_EPOCHS: Final = "num_epochs"
EXPLORATION_NOISE: Final = "exploration_noise"
TARGET_ENTROPY: Final = "target_entropy"
TARGET_SMOOTHING: Final = "target_smoothing"
EMA_DECAY: Final = "ema_decay"

_FACTORS: Final = Multiply((0.25, 0.5, 0.75, 1.25, 1.5, 2.0))
_DOUBLINGS: Final = Multiply((0.25, 0.5, 2.0, 4.0))

# The lags are rough and meant to be overridden: an average over 1/(1-beta) gradients, a few batches for what acts
# on the next gradient, longer for what acts through the weights' size.
ENTRIES: Final[dict[str, Entry]] = {
    LEARNING_RATE: Entry(
        "the optimizer's reference rate, a factor on its schedule",
        "per step",
        "ratio",
        _FACTORS,
        4.0,
        1000.0,
        effect_lag_steps=10,
        takes_name=True,
    ),
    WEIGHT_DECAY: Entry(
        "the optimizer's weight decay",
        "per unit of learning rate",
        "difference",
        SetTo((0.0, 0.01, 0.03, 0.1, 0.3, 1.0)),
        effect_lag_steps=50,
        cost="recompiles",
        takes_name=True,
    ),
    MOMENTUM: Entry(
        "momentum, or Adam's first beta",
        "fraction kept per step",
        "difference",
        SetTo((0.0, 0.5, 0.8, 0.85, 0.9, 0.95, 0.98)),
        largest_change=0.5,
        effect_lag_steps=20,
        cost="recompiles",
        below=1.0,
        takes_name=True,
    ),
    BETA2: Entry(
        "Adam's second beta",
        "fraction kept per step",
        "difference",
        SetTo((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),
        effect_lag_steps=100,
        cost="recompiles",
        below=1.0,
        takes_name=True,
    ),
    DROPOUT: Entry(
        "the largest probability among the dropout modules",
        "probability",
        "difference",
        SetTo((0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)),
        largest_change=0.25,
        effect_lag_steps=20,
        cost="recompiles",
        below=1.0,
        takes_name=True,
    ),
    LABEL_SMOOTHING: Entry(
        "the share of each target spread over all classes",
        "probability",
        "difference",
        SetTo((0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
        largest_change=0.2,
        effect_lag_steps=20,
        cost="recompiles",
        below=1.0,
    ),
    GRADIENT_CLIP_NORM: Entry(
        "the largest global gradient norm that is let through", "norm", "ratio", _FACTORS, 4.0, 100.0, effect_lag_steps=5
    ),
    LOSS_WEIGHT: Entry(
        "the weight of one term of the loss", "factor", "ratio", _FACTORS, 4.0, 100.0, effect_lag_steps=20, takes_name=True
    ),
    BATCH_SIZE: Entry(
        "items per batch", "items", "ratio", _DOUBLINGS, 4.0, 64.0, effect_lag_steps=10, least=1.0, is_whole=True
    ),
    GRADIENT_ACCUMULATION: Entry(
        "batches per optimizer step", "batches", "ratio", _DOUBLINGS, 4.0, 64.0, effect_lag_steps=10, least=1.0, is_whole=True
    ),
    MIXTURE_WEIGHT: Entry(
        "the weight of one source of data, before the weights are normalised",
        "factor",
        "ratio",
        _FACTORS,
        4.0,
        100.0,
        effect_lag_steps=50,
        takes_name=True,
    ),
    ENTROPY_COEFFICIENT: Entry(
        "the weight of the policy's entropy in the loss",
        "factor",
        "difference",
        Multiply((0.25, 0.5, 0.75, 1.5, 2.0, 5.0)),
        effect_lag_steps=5,
    ),
    VALUE_COEFFICIENT: Entry("the weight of the value loss", "factor", "ratio", _FACTORS, 4.0, 100.0, effect_lag_steps=5),
    CLIP_RANGE: Entry(
        "PPO's clip range",
        "probability ratio",
        "difference",
        SetTo((0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3)),
        effect_lag_steps=5,
    ),
    TARGET_KL: Entry(
        "the divergence at which a PPO update ends early",
        "nats",
        "difference",
        SetTo((0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08)),
        effect_lag_steps=5,
    ),
    NUM_EPOCHS: Entry(
        "passes over each rollout",
        "epochs",
        "difference",
        SetTo((1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)),
        effect_lag_steps=5,
        least=1.0,
        is_whole=True,
    ),
    EXPLORATION_NOISE: Entry(
        "the deviation of the noise added to actions, or epsilon",
        "action units, or probability",
        "difference",
        Multiply((0.5, 0.75, 1.5, 2.0)),
        effect_lag_steps=50,
    ),
    TARGET_ENTROPY: Entry(
        "the entropy that SAC steers to",
        "nats",
        "difference",
        Multiply((0.5, 0.75, 1.25, 1.5, 2.0)),
        effect_lag_steps=50,
        least=-math.inf,
    ),
    TARGET_SMOOTHING: Entry(
        "the share of the online network taken into the target network (tau)",
        "fraction per step",
        "ratio",
        Multiply((0.5, 2.0)),
        4.0,
        100.0,
        effect_lag_steps=100,
    ),
    EMA_DECAY: Entry(
        "the share of the averaged weights kept per step",
        "fraction kept per step",
        "difference",
        SetTo((0.9, 0.99, 0.995, 0.999, 0.9995, 0.9999)),
        effect_lag_steps=100,
        below=1.0,
    ),
}
