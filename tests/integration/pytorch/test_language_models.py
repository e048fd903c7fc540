"""R2, a portion: a managed run whose language model misbehaves in every way is the run it would have been without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pytorch.conftest import mlp, supervise
from tests.integration.pytorch.managed import a_value, boundary, free, records
from trimtab.controls.envelope import Deliberation
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.llm.prompt import decision_prompt
from trimtab.ledger.record import ActionApplied, ManagerAsked, ManagerFailed, ProposalReceived
from trimtab.runtime.budget import read_spent
from trimtab.runtime.supervisor import Supervisor
from trimtab.testing.provider_server import Misbehaviour, ProviderServer, RecordedRequest, Reply

KEY = "canary-5f2e9d81c4"
DROPOUT = free("dropout", 0.0, 0.9, 0.0, 0.3, 0.5)
QUICK = ManagerSettings(fallback="no_action", breaker_failures=0, reply_tokens=200)

# What a fault is called in the record; where two are named, either may come first.
FAULTS: dict[Misbehaviour, tuple[str, ...]] = {
    Misbehaviour.RESET: ("unreachable",),
    Misbehaviour.HANG_UP: ("unreachable",),
    Misbehaviour.NOT_HTTP: ("unreachable", "malformed"),
    Misbehaviour.UNAUTHORIZED: ("unauthorized",),
    Misbehaviour.NOT_FOUND: ("not_found",),
    Misbehaviour.RATE_LIMITED: ("rate_limited",),
    Misbehaviour.SERVER_ERROR: ("overloaded",),
    Misbehaviour.OVERLOADED: ("overloaded",),
    Misbehaviour.REDIRECT: ("failed", "malformed", "unreachable"),
    Misbehaviour.EMPTY_BODY: ("malformed",),
    Misbehaviour.TRUNCATED_BODY: ("malformed", "unreachable"),
    Misbehaviour.TRUNCATED_JSON: ("malformed",),
    Misbehaviour.HTML: ("malformed",),
    Misbehaviour.HUGE_BODY: ("malformed",),
    Misbehaviour.PACKED_BODY: ("malformed",),
    Misbehaviour.NO_CHOICES: ("malformed",),
    Misbehaviour.REFUSAL: ("refused",),
    Misbehaviour.CONTENT_FILTER: ("refused",),
    Misbehaviour.CUT_OFF: ("cut_off",),
    Misbehaviour.SILENCE: ("timeout", "late"),
    Misbehaviour.SLOW_DRIP: ("timeout", "late"),
}


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TRIMTAB_API_KEY", KEY)
    yield KEY


def run(
    replies: Sequence[Reply] | Callable[[RecordedRequest], Reply],
    path: Path,
    settings: ManagerSettings,
    num_questions: int,
    deadline_seconds: float = 20.0,
) -> tuple[Supervisor, list[str], ProviderServer]:
    """Train with a model behind a server on this machine; return the supervisor, the hashes and the server."""
    workload = mlp(7)
    deliberation = Deliberation(mode="boundary", deadline_seconds=deadline_seconds)
    envelope = replace(boundary((DROPOUT,), deliberation=deliberation), manager=settings)
    with (
        ProviderServer(replies) as server,
        supervise(workload, path, f"{server.url()}#test-model", every=3, envelope=envelope) as supervisor,
    ):
        workload.train(3 * num_questions, supervisor, a_value(), every=3)
        assert not supervisor.is_held
    return supervisor, workload.hashes, server


def plain(num_questions: int) -> list[str]:
    workload = mlp(7)
    workload.train(3 * num_questions, evaluate=a_value(), every=3)
    return workload.hashes


def adjusting(request: RecordedRequest) -> str:
    """Choose the first change that the request's schema offers."""
    schema = request.body["response_format"]["json_schema"]["schema"]
    kinds = schema["properties"]["action"]["anyOf"]
    adjust = next(kind for kind in kinds if kind["properties"]["kind"]["enum"] == ["adjust"])
    item = adjust["properties"]["changes"]["items"]
    option = item["anyOf"][0] if "anyOf" in item else item
    change = {name: option["properties"][name]["enum"][0] for name in ("control", "value")}
    gains = schema["properties"]["expected_gain"]["enum"]
    reply = {"reason": "it overfits", "action": {"kind": "adjust", "changes": [change]}, "expected_gain": gains[0]}
    return json.dumps(reply | {"within_evaluations": "1", "watch": []})


@pytest.mark.parametrize("fallback", ["no_action", "rules"])
def test_every_fault_ends_in_one_record_and_no_change(fallback: Any, tmp_path: Path, key: str) -> None:
    slow = (Misbehaviour.SILENCE, Misbehaviour.SLOW_DRIP)
    # The process needs a moment to start: what takes the whole deadline comes last, in a run of its own.
    faults = [fault for fault in FAULTS if fault not in slow]
    supervisor, hashes, _ = run(faults, tmp_path / "run", replace(QUICK, fallback=fallback), len(faults))
    assert len(records(supervisor, ManagerAsked)) == len(faults)
    if fallback == "no_action":
        found = [record.problem for record in records(supervisor, ManagerFailed)]
        assert hashes == plain(len(faults))
    else:
        assert not records(supervisor, ManagerFailed)
        answers = records(supervisor, ProposalReceived)
        assert {answer.by for answer in answers} == {"rules"}
        found = [answer.failure.partition(":")[0] for answer in answers]
    assert len(found) == len(faults), "one record for each question"
    wrong = {fault.name: problem for fault, problem in zip(faults, found, strict=True) if problem not in FAULTS[fault]}
    assert not wrong
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), f"the key stands in {file.name}"


@pytest.mark.parametrize("fault", [Misbehaviour.SILENCE, Misbehaviour.SLOW_DRIP])
def test_a_fault_that_takes_for_ever_takes_the_deadline(fault: Misbehaviour, tmp_path: Path, key: str) -> None:
    supervisor, hashes, _ = run([fault] * 9, tmp_path / "run", QUICK, 2, deadline_seconds=4.0)
    assert hashes == plain(2)
    assert all(record.problem in FAULTS[fault] for record in records(supervisor, ManagerFailed))
    assert len(records(supervisor, ManagerFailed)) == 2


def test_a_black_hole_for_a_whole_run_never_slows_it(tmp_path: Path, key: str) -> None:
    workload = mlp(7)
    envelope = boundary((DROPOUT,), deliberation=Deliberation(apply_after_steps=2, stale_after_steps=8))
    settings = replace(QUICK, breaker_failures=3, breaker_questions=2)
    with ProviderServer(lambda _: Misbehaviour.SILENCE) as server:
        url = f"{server.url()}#test-model"
        with supervise(workload, tmp_path / "run", url, every=3, envelope=replace(envelope, manager=settings)) as supervisor:
            workload.train(150, supervisor, a_value(), every=3)
    reference = mlp(7)
    reference.train(150, evaluate=a_value(), every=3)
    assert workload.hashes == reference.hashes
    failures = records(supervisor, ManagerFailed)
    assert {record.problem for record in failures} == {"late", "paused"}
    sent = [record.sent for record in records(supervisor, ManagerAsked)]
    assert sent[:7] == [True, True, True, False, False, True, False]


def test_a_good_answer_is_applied_and_everything_about_it_is_recorded(tmp_path: Path, key: str) -> None:
    supervisor, hashes, server = run(adjusting, tmp_path / "run", QUICK, 3)
    assert hashes != plain(3)
    assert records(supervisor, ActionApplied)
    answer, asked = records(supervisor, ProposalReceived)[0], records(supervisor, ManagerAsked)[0]
    taken = answer.consultation
    assert taken is not None
    prompt = decision_prompt(asked.briefing, QUICK)
    assert (taken.prompt, taken.schema) == (prompt.hash, prompt.schema_hash)
    assert (taken.calls, taken.model) == (1, "test-model")
    assert taken.replies == (adjusting(server.requests[0]),)
    assert taken.usd is None, "nobody knows what this server costs"
    sent = server.requests[0].body["messages"]
    assert [message["content"] for message in sent] == [message.text for message in prompt.messages]
    spent = read_spent(supervisor.run_directory.account)
    assert spent.calls == len(records(supervisor, ManagerAsked))


def test_a_cap_on_calls_ends_them_and_the_run_goes_on(tmp_path: Path, key: str) -> None:
    supervisor, _, server = run(adjusting, tmp_path / "run", replace(QUICK, calls=2), 5)
    assert len(server.requests) == 2
    assert [record.problem for record in records(supervisor, ManagerFailed)] == ["cap reached"] * 3


def test_two_stages_and_a_retry_are_recorded_as_one_answer(tmp_path: Path, key: str) -> None:
    def reply(request: RecordedRequest) -> str:
        if "response_format" not in request.body:
            return "I would lower the dropout."
        return "no JSON at all" if len(request.body["messages"]) == 2 else adjusting(request)

    supervisor, _, server = run(reply, tmp_path / "run", replace(QUICK, stages=2), 1)
    assert len(server.requests) == 3
    (answer,) = records(supervisor, ProposalReceived)
    assert answer.consultation is not None
    assert answer.consultation.replies[:2] == ("I would lower the dropout.", "no JSON at all")
    assert answer.consultation.calls == 3
