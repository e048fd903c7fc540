"""The briefing as text: all its sections, or only what is executable."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.briefing import Briefing
from trimtab.decision.llm import tables
from trimtab.decision.llm.detail import Detail
from trimtab.decision.llm.offer import Offer, offer_of
from trimtab.decision.llm.offered import action_forms, as_json, example_reply, offered
from trimtab.decision.llm.plain import name
from trimtab.decision.llm.tables import Section


@dataclass(frozen=True, slots=True)
class Briefed:
    """A rendered briefing.

    Args:
        sections: What is shown, in order.
        offer: What is offered in it.
        is_short: Whether the rules and the reply's form are to be the short ones.
        objective: The objective's name, as it is shown.
    """

    sections: tuple[Section, ...]
    offer: Offer
    is_short: bool
    objective: str

    @property
    def text(self) -> str:
        """The sections, one after the other."""
        return "\n\n".join(map(str, self.sections))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Titles of the sections that were shortened."""
        return tuple(section.title for section in self.sections if section.left_out)

    @property
    def forms(self) -> list[str]:
        """One action of each kind that is offered, as JSON."""
        return [as_json(form) for form in action_forms(self.offer)]

    @property
    def example(self) -> str:
        """A whole reply, as JSON."""
        return as_json(example_reply(self.offer))


def brief(briefing: Briefing, settings: ManagerSettings, detail: Detail) -> Briefed:
    """Return the whole briefing with so much detail."""
    offer = offer_of(briefing, detail)
    sections = (
        *tables.task(briefing, settings, detail),
        tables.recipe(briefing, detail),
        tables.trends(briefing, detail),
        tables.symptoms(briefing, detail),
        tables.best_checkpoint(briefing, detail),
        tables.interventions(briefing, settings, detail),
        tables.timing(briefing, detail),
        offered(briefing, offer, detail),
    )
    return Briefed(sections, offer, not detail.columns, name(briefing.objective.signal))


def brief_surface(briefing: Briefing, detail: Detail) -> Briefed:
    """Return only what is executable, for putting a decision into the schema."""
    offer = offer_of(briefing, detail)
    return Briefed((offered(briefing, offer, detail),), offer, not detail.columns, name(briefing.objective.signal))
