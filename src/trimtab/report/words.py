"""Numbers and facts of a run in words, for the terminal and the page alike: text made harmless, values, tokens, money."""

from __future__ import annotations

import math
import shlex
from typing import Final, Protocol

from trimtab.decision.proposal import Expectation
from trimtab.ledger.record import Origin
from trimtab.report.account import Ending

ENDINGS: Final[dict[Ending, str]] = {
    "applied": "applied",
    "shadow": "would have been applied",
    "not_better": "tried, and not applied",
    "no_action": "no action",
    "rejected": "rejected",
    "manager_failed": "no answer",
    "dropped": "dropped",
    "failed": "failed",
    "unanswered": "left open when the run ended",
    "open": "open",
}


class Usage(Protocol):
    """What calls to a language model took."""

    @property
    def input_tokens(self) -> int:
        """Tokens read."""
        ...

    @property
    def output_tokens(self) -> int:
        """Tokens written."""
        ...

    @property
    def usd(self) -> float | None:
        """Price in US dollars; None if it is not known."""
        ...

    @property
    def unsettled_calls(self) -> int:
        """Calls of which only the most that they can have used is known."""
        ...


def clean(text: str, most: int = 2000) -> str:
    """Return text that can only be read: control and direction characters as escapes, on one line."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text[: 2 * most])
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def number(value: float | None) -> str:
    """Return a number in five digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.5g}" if math.isfinite(value) else "NaN" if math.isnan(value) else f"{value:+}".replace("+inf", "inf")


def resume_command(run_dir: str) -> str:
    """Return what to type to go on with a run that was cut off."""
    return f"trimtab resume {shlex.quote(clean(run_dir, 500))}"


def counted(count: int, noun: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def follows(origin: Origin) -> str:
    """Say whose course a run follows."""
    if origin.kind == "replay":
        return f"a replay of {clean(origin.run, 200)}"
    change = f"{clean(origin.change, 200)} instead" if origin.change else "as it was"
    seed = f", seed {origin.seed}" if origin.seed else ""
    return f"a branch of {clean(origin.run, 200)}: question {origin.decision}, {change}{seed}"


def expected(expectation: Expectation) -> str:
    """Say what is expected of an action."""
    within = counted(expectation.within_evaluations, "evaluation")
    gain = expectation.gain
    wanted = f"a gain of at least {number(gain)}" if gain >= 0 else f"no loss of more than {number(-gain)}"
    return f"{wanted} within {within}"


def used(taken: Usage) -> str:
    """Say how many tokens calls took and what they cost; where not all are settled, that it is the most it can have been."""
    most = "up to " if taken.unsettled_calls else ""
    tokens = f"{most}{taken.input_tokens:,} tokens read, {most}{taken.output_tokens:,} written"
    return f"{tokens} · {money(taken.usd) if taken.usd is None else most + money(taken.usd)}"


def money(usd: float | None) -> str:
    """Return an amount of US dollars; says so where the price is not known."""
    return "price not known" if usd is None else f"${usd:,.4f}" if usd < 1 else f"${usd:,.2f}"
