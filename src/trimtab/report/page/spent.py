"""What a run's manager took in all: calls, tokens, money, time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from trimtab.report.account import Decision
from trimtab.report.words import clean, counted, money


@dataclass(frozen=True, slots=True)
class Spent:
    """The consultations of a run, added up.

    Args:
        calls: Calls begun.
        input_tokens: Tokens read; for an unsettled call, the most it can have been. So for the next two.
        output_tokens: Tokens written.
        usd: What the questions with a known price cost in US dollars.
        unpriced: Questions whose price is not known.
        unsettled_calls: Calls of which only the most that they can have used is known.
        models: Names of the models.
        latency_median_seconds: Of the manager's answers; None without any.
        latency_worst_seconds: Likewise.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int
    unsettled_calls: int
    models: tuple[str, ...]
    latency_median_seconds: float | None
    latency_worst_seconds: float | None

    @property
    def price(self) -> str:
        """The price in words: what is known of it, and of how many questions it is not."""
        if not self.calls:
            return "none"
        most = "up to " if self.unsettled_calls else ""
        if not self.unpriced:
            return most + money(self.usd)
        if not self.usd:
            return "price not known"
        return f"{most}{money(self.usd)}, and the price of {counted(self.unpriced, 'question')} is not known"

    @property
    def tokens(self) -> str:
        """The tokens in words."""
        most = "up to " if self.unsettled_calls else ""
        return f"{most}{self.input_tokens:,} read, {most}{self.output_tokens:,} written" if self.calls else "-"

    @property
    def latency(self) -> str:
        """The time of an answer in words: the median and the worst."""
        if self.latency_median_seconds is None or self.latency_worst_seconds is None:
            return "-"
        return f"{self.latency_median_seconds:.2f} s, at worst {self.latency_worst_seconds:.2f} s"


def spent_on(decisions: Iterable[Decision]) -> Spent:
    """Return what all decisions took."""
    known = list(decisions)
    taken = [one.consultation for one in known if one.consultation is not None]
    answers = [one.proposal for one in known if one.proposal is not None and one.proposal.by == "manager"]
    latencies = [one.latency_seconds for one in answers if one.latency_seconds is not None]
    return Spent(
        calls=sum(one.calls for one in taken),
        input_tokens=sum(one.input_tokens for one in taken),
        output_tokens=sum(one.output_tokens for one in taken),
        usd=sum(one.usd for one in taken if one.usd is not None),
        unpriced=sum(one.usd is None for one in taken),
        unsettled_calls=sum(one.unsettled_calls for one in taken),
        models=tuple(dict.fromkeys(clean(one.model, 100) for one in taken)),
        latency_median_seconds=median(latencies) if latencies else None,
        latency_worst_seconds=max(latencies, default=None),
    )
