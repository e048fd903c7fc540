"""Every error trimtab raises, drawn as a tree.

    TrimtabError
    ├── UsageError (also ValueError)       the call or file is wrong: correct it and call again
    │   ├── ControlError                   a control cannot be bound, or its limits make no sense
    │   │   └── OwnershipError             something else already owns the control
    │   ├── EnvelopeError                  the envelope file is wrong: path, line and column are given
    │   ├── RunDirectoryError              the run directory is taken, missing or not a run
    │   └── ReplyError                     a manager's reply is not a proposal; ends in no_action
    ├── MissingExtraError (also ImportError)  install the named extra
    ├── ProviderError                      a call to a language model brought no reply; ends in no_action or the fallback
    ├── CapReached                         a call could pass a cap on calls, tokens or money; it is not made
    ├── SpendingError                      the account of calls, tokens and money cannot be kept; no call is made
    ├── LedgerError                        the record cannot be trusted or written
    │   ├── LedgerDamaged                  a line was changed, lost, swapped or repeated
    │   └── LedgerVersionUnknown           written by a version this one cannot read
    ├── CheckpointError                    a checkpoint is incomplete, damaged or cannot be encoded
    ├── ActuationError                     a change could not be carried out; the recipe was put back
    └── IllegalTransition                  a defect in trimtab: the controller saw an impossible order

After attaching, none of them leaves `Supervisor.step` or `Supervisor.evaluated`: the recipe is held,
the fault is recorded, and training goes on.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable


Fault = Literal[
    "timeout",
    "unreachable",
    "unauthorized",
    "not_found",
    "rate_limited",
    "overloaded",
    "refused",
    "cut_off",
    "malformed",
    "failed",
]

_FAULTS: Final[dict[Fault, str]] = {
    "timeout": "the model did not answer in time",
    "unreachable": "the model's server cannot be reached",
    "unauthorized": "the model's server does not accept the key",
    "not_found": "the model's server does not know the model",
    "rate_limited": "the model's server wants fewer calls",
    "overloaded": "the model's server has failed or is overloaded",
    "refused": "the model refused to answer",
    "cut_off": "the model's reply was cut off",
    "malformed": "what the model's server sent cannot be read",
    "failed": "the call to the model failed",
}


class TrimtabError(Exception):
    """Base of all errors raised by trimtab.

    Args:
        what: What is wrong, as a clause without a full stop.
        received: The value that was received.
        allowed: What is allowed instead.
        next_step: What to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        allowed: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what = what
        self.received = received
        self.allowed = allowed
        self.next_step = next_step
        parts = [what]
        if received is not None:
            parts.append(f"received {received if isinstance(received, str) else repr(received)}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if next_step is not None:
            parts.append(f"next: {next_step}")
        super().__init__("; ".join(parts))


class UsageError(TrimtabError, ValueError):
    """The call or the file is wrong; correct what the message names and call again."""


class ControlError(UsageError):
    """A control cannot be bound to this run, or its limits make no sense; change its declaration."""


class OwnershipError(ControlError):
    """Something else already owns the control; remove one of the two owners."""


class EnvelopeError(UsageError):
    """The envelope file is wrong; go to the given line and column."""


class RunDirectoryError(UsageError):
    """The run directory is taken, missing or not a run; choose another."""


class ReplyError(UsageError):
    """A manager's reply is not a proposal; the controller turns it into no_action and a record."""


class MissingExtraError(TrimtabError, ImportError):
    """An optional dependency is missing; install the extra that the message names."""


class ProviderError(TrimtabError):
    """A call to a language model brought no usable reply; it counts as no_action or goes to the fallback.

    Args:
        fault: What kind of fault.
        detail: What happened, in the provider's words where there are some.
        input_tokens: Tokens that the failed call is known to have read; None if that is not known.
        output_tokens: Tokens that it is known to have written.
    """

    def __init__(self, fault: Fault, detail: str, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        super().__init__(_FAULTS[fault], received=detail[:400] or None)
        self.fault: Fault = fault
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens


class CapReached(TrimtabError):
    """A call could pass a cap on calls, tokens or money, so it is not made; raise the cap to go on."""


class SpendingError(TrimtabError):
    """The account of calls, tokens and money cannot be read or written, so no call is made; see to its file."""


class LedgerError(TrimtabError):
    """The ledger cannot be written or trusted."""


class LedgerDamaged(LedgerError):
    """A ledger line was changed, lost, swapped or repeated; do not trust what follows it."""


class LedgerVersionUnknown(LedgerError):
    """The ledger was written in a schema this version cannot read; install a newer trimtab."""


class CheckpointError(TrimtabError):
    """A checkpoint is incomplete, damaged or cannot be encoded; use another one."""


class ActuationError(TrimtabError):
    """A change could not be carried out; the recipe before it was put back."""


class IllegalTransition(TrimtabError):
    """A record that cannot follow the present phase: a defect in trimtab, please report it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the valid name nearest to ``name``, or lists them all."""
    known = sorted(names)
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known names: {', '.join(known) or 'none'}"
