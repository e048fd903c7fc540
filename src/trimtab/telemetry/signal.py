"""Signals: the measured series of a run, known by registered names.

Names are data that may reach a prompt, so they are restricted to a harmless alphabet.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from trimtab.errors import UsageError

Kind = Literal["step", "evaluation"]

LOSS: Final = "loss"
GRAD_NORM: Final = "grad_norm"
# The running average of the training loss, taken at every evaluation: comparable with the objective.
LOSS_AT_EVALUATION: Final = "loss/at_evaluation"
MAX_SIGNALS: Final = 1000

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*([./@-][A-Za-z0-9_]+)*")
_MAX_LENGTH = 80


def check_signal_name(name: str) -> str:
    """Return ``name`` if it can name a signal.

    Raises:
        UsageError: Use letters, digits and ``_ . / @ -``, starting with a letter.
    """
    if not isinstance(name, str) or len(name) > _MAX_LENGTH or not _NAME.fullmatch(name):
        raise UsageError(
            "the signal's name is malformed",
            received=str(name)[: _MAX_LENGTH + 20],
            allowed=f"1 to {_MAX_LENGTH} of A-Z a-z 0-9 _ . / @ -, starting with a letter, no empty part",
            next_step='rename it, for example "val/loss"',
        )
    return name
