from __future__ import annotations

import doctest

from tests.builders import a_briefing
from trimtab.decision.llm.provider import Message, Request
from trimtab.decision.llm.schema import read_choice, reply_schema
from trimtab.testing import random_model
from trimtab.testing.random_model import RandomModel

BRIEFING = a_briefing()


def a_request() -> Request:
    return Request((Message("user", "Choose."),), reply_schema(BRIEFING), 200, 1.0)


def test_the_example_runs() -> None:
    results = doctest.testmod(random_model)
    assert (results.failed, results.attempted) == (0, 3)


def test_every_reply_is_a_choice_and_every_kind_comes() -> None:
    model = RandomModel(1)
    kinds = {read_choice(model.complete(a_request()).text, BRIEFING).action.kind for _ in range(300)}
    assert kinds == {"no_action", "adjust", "rollback", "rollback_and_adjust", "stop"}


def test_a_seed_gives_the_same_replies_and_another_gives_others() -> None:
    def replies(seed: int) -> list[str]:
        model = RandomModel(seed)
        return [model.complete(a_request()).text for _ in range(20)]

    assert replies(4) == replies(4)
    assert replies(4) != replies(5)


def test_it_counts_what_it_reads() -> None:
    assert RandomModel().most_input_tokens(Request((Message("user", "zwölf"),), None, 1, 1.0)) == 6
