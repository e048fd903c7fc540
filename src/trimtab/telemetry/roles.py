"""Roles: what a signal means, whatever name the run reports it under.

Detectors ask for a role. The envelope may say under which name the run reports it; otherwise the usual names
are looked for, the first that the run reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trimtab.errors import UsageError, nearest
from trimtab.telemetry.signal import GRAD_NORM, LOSS
from trimtab.telemetry.telemetry import Telemetry
from trimtab.telemetry.window import Window

UPDATE_RATIO: Final = "update_ratio"
WEIGHT_NORM: Final = "weight_norm"
EFFECTIVE_RATE: Final = "learning_rate"
THROUGHPUT: Final = "throughput"
MEMORY: Final = "memory"
DEAD_UNITS: Final = "dead_units"
ENTROPY: Final = "entropy"
KL: Final = "kl"
EXPLAINED_VARIANCE: Final = "explained_variance"
VALUE_LOSS: Final = "value_loss"
SUCCESS_RATE: Final = "success_rate"
UNSAFE_RATE: Final = "unsafe_rate"

# Signals under these prefixes belong together, one per part: NAME is a parameter group, a term of the loss.
GRAD_NORM_OF_GROUP: Final = "grad_norm/"
LOSS_TERM: Final = "loss_term/"

USUAL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    LOSS: (LOSS,),
    GRAD_NORM: (GRAD_NORM,),
    UPDATE_RATIO: (UPDATE_RATIO,),
    WEIGHT_NORM: (WEIGHT_NORM,),
    EFFECTIVE_RATE: (EFFECTIVE_RATE,),
    THROUGHPUT: (THROUGHPUT,),
    MEMORY: (MEMORY,),
    DEAD_UNITS: (DEAD_UNITS,),
    # Beside trimtab's own names those of CleanRL (losses/), Stable-Baselines3 (train/, rollout/), RLlib (learners/), TRL
    # (policy/, loss/) and verl (actor/, critic/). Left out: train/entropy_loss, which is minus the entropy, and
    # objective/kl, which is the distance from a reference model and not the length of an update.
    ENTROPY: (
        ENTROPY,
        "policy/entropy",
        "train/entropy",
        "losses/entropy",
        "learners/default_policy/entropy",
        "policy/entropy_avg",
        "actor/entropy",
    ),
    KL: (
        KL,
        "approx_kl",
        "policy/kl",
        "train/approx_kl",
        "losses/approx_kl",
        "learners/default_policy/mean_kl_loss",
        "policy/approxkl_avg",
        "actor/ppo_kl",
    ),
    EXPLAINED_VARIANCE: (
        EXPLAINED_VARIANCE,
        "train/explained_variance",
        "losses/explained_variance",
        "learners/default_policy/vf_explained_var",
        "critic/vf_explained_var",
    ),
    VALUE_LOSS: (
        VALUE_LOSS,
        "train/value_loss",
        "losses/value_loss",
        "learners/default_policy/vf_loss",
        "loss/value_avg",
        "critic/vf_loss",
    ),
    SUCCESS_RATE: (SUCCESS_RATE, "eval/success_rate", "rollout/success_rate"),
    UNSAFE_RATE: (UNSAFE_RATE, "collision_rate", "violation_rate", "eval/unsafe_rate", "eval/collision_rate"),
}


@dataclass(frozen=True, slots=True)
class Roles:
    """Finds signals by what they mean.

    Args:
        named: Pairs of a role and the name the run reports it under; these go before the usual names.

    Raises:
        UsageError: Name a role of `USUAL_NAMES`.
    """

    named: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for role, _ in self.named:
            if role not in USUAL_NAMES:
                raise UsageError("there is no such role for a signal", received=role, next_step=nearest(role, USUAL_NAMES))

    def name(self, telemetry: Telemetry, role: str) -> str | None:
        """Return the name under which the run reports ``role``, or None if it does not."""
        for known, name in self.named:
            if known == role:
                return name if telemetry.window(name) is not None else None
        return next((name for name in USUAL_NAMES[role] if telemetry.window(name) is not None), None)

    def window(self, telemetry: Telemetry, role: str) -> Window | None:
        """Return the window of the signal with that role, or None if the run does not report it."""
        name = self.name(telemetry, role)
        return None if name is None else telemetry.window(name)
