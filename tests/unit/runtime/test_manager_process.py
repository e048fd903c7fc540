"""A manager's process may die, hang, flood or lie: the client returns a Failure and never blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_briefing
from tests.unit.runtime.workers import ANSWERS, a_setup, eventually, is_alive, outcome_of, start, zombies
from trimtab.decision.action import NoAction
from trimtab.decision.briefing import Briefing
from trimtab.ledger.record import SCHEMA
from trimtab.runtime import manager_process
from trimtab.runtime.answer import Answer, Failure
from trimtab.runtime.clock import SystemClock
from trimtab.runtime.manager_process import MAX_STARTS, ManagerProcess
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.telemetry.snapshot import Snapshot, Summary

MILLISECONDS_5 = 0.005


@pytest.fixture
def clients() -> Iterator[list[ManagerProcess]]:
    made: list[ManagerProcess] = []
    yield made
    for client in made:
        client.close()
    assert zombies() == []


@pytest.fixture
def begin(clients: list[ManagerProcess], tmp_path: Path) -> Any:
    def begin(source: str, deadline_seconds: float = 20.0) -> ManagerProcess:
        client = start(source, tmp_path / "manager.log", deadline_seconds)
        clients.append(client)
        return client

    return begin


def ask(client: ManagerProcess, question: int = 1, briefing: Briefing | None = None) -> Answer | Failure:
    client.ask(400, briefing or a_briefing(question=question))
    return outcome_of(client)


def a_large_briefing(question: int = 1) -> Briefing:
    """One that is several times larger than a pipe's buffer."""
    row = Summary("x", "step", 1, 0, 0.1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    summaries = tuple(
        Summary(f"signal_{index}", *[getattr(row, field) for field in row.__slots__[1:]])  # type: ignore[arg-type] - the values are of many types
        for index in range(3000)
    )
    return a_briefing(question=question, snapshot=Snapshot(400, summaries))


def failure(outcome: Answer | Failure | None, problem: str) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.problem == problem, outcome
    return outcome


def test_an_answer_arrives(begin: Any) -> None:
    client = begin(ANSWERS)
    assert client.poll() is None, "nothing was asked"
    outcome = ask(client)
    assert isinstance(outcome, Answer)
    assert outcome.question == 1
    assert outcome.proposal.action == NoAction()
    assert 0 < outcome.latency_seconds < 20
    assert client.poll() is None, "an outcome is returned once"


def test_the_real_worker_answers(tmp_path: Path, clients: list[ManagerProcess]) -> None:
    client = ManagerProcess(ManagerSpec("random", "3"), tmp_path / "manager.log", 30.0, SystemClock(), a_setup(tmp_path))
    clients.append(client)
    client.ask(400, a_briefing(question=2))
    outcome = client.wait(30.0)
    assert isinstance(outcome, Answer), outcome
    assert (outcome.question, outcome.proposal.reason) == (2, "drawn at random")


def test_a_late_answer_is_passed_over_and_the_right_one_in_the_same_chunk_is_taken(begin: Any) -> None:
    client = begin(
        "late = json.dumps({'question': 1, 'reply': GOOD}) + '\\n'\n"
        "for n in questions():\n"
        " if n == 2: sys.stdout.write(late); say(2, reply=GOOD)"
    )
    client.ask(400, a_briefing(question=1))
    outcome = ask(client, 2)
    assert isinstance(outcome, Answer)
    assert outcome.question == 2


LIES = {
    "not JSON": ("for n in questions(): print('hello', flush=True)", "not a proposal"),
    "not an object": ("for n in questions(): print('[1]', flush=True)", "not a proposal"),
    "no question": ("for n in questions(): print('{}', flush=True)", "not a proposal"),
    "nested too deeply": ("for n in questions(): print('[' * 60000, flush=True)", "not a proposal"),
    "an endless number": ("for n in questions(): print('9' * 60000, flush=True)", "not a proposal"),
    "not UTF-8": ("for n in questions(): sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()", "not a proposal"),
    "an error": ("for n in questions(): say(n, error='no idea')", "error"),
    "an error that is no text": ("for n in questions(): say(n, error=[[1]])", "error"),
    "no reply": ("for n in questions(): say(n)", "error"),
    "a reply that is no text": ("for n in questions(): say(n, reply={})", "error"),
    "a reply that is no proposal": ("for n in questions(): say(n, reply='{}')", "not a proposal"),
    "a huge reply": ("for n in questions(): say(n, reply='x' * 100000)", "not a proposal"),
    "a flood without a newline": ("for n in questions():\n while True: sys.stdout.write('x' * 65536)", "flood"),
    "a flood of answers to other questions": ("for n in questions():\n while True: say(99, reply=GOOD)", "flood"),
    "half an answer, then death": ("for n in questions(): print('{', end='', flush=True); os._exit(3)", "died"),
    "death by exit": ("for n in questions(): os._exit(3)", "died"),
    "death by signal": ("for n in questions(): os.kill(os.getpid(), signal.SIGKILL)", "died"),
    "death at the start": ("os._exit(4)", "died"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_whatever_a_worker_does_is_a_failure_and_polling_never_blocks(begin: Any, name: str) -> None:
    source, problem = LIES[name]
    client = begin(source)
    client.ask(400, a_briefing())
    outcome, slowest = None, 0.0
    end = time.monotonic() + 20
    while outcome is None and time.monotonic() < end:
        before = time.thread_time()
        outcome = client.poll()
        slowest = max(slowest, time.thread_time() - before)
        time.sleep(0.0005)
    detail = failure(outcome, problem).detail
    assert len(detail) <= 500
    assert slowest < 0.05, "more work in one poll than a step can bear"
    assert client.poll() is None


def test_an_error_is_passed_on_in_its_own_words(begin: Any) -> None:
    assert failure(ask(begin("for n in questions(): say(n, error='no idea' * 1000)")), "error").detail.startswith("no idea")


@pytest.mark.parametrize("source", [LIES[name][0] for name in ("not JSON", "a flood without a newline", "death by exit")])
def test_after_a_fault_the_next_question_goes_to_a_fresh_process(begin: Any, tmp_path: Path, source: str) -> None:
    once = f"path = {str(tmp_path / 'once')!r}\nif os.path.exists(path):\n {ANSWERS}\nopen(path, 'w').close()\n{source}"
    client = begin(once)
    first = client.pid
    assert isinstance(ask(client, 1), Failure)
    assert client.pid is None
    assert isinstance(ask(client, 2), Answer)
    assert client.pid not in (None, first)
    assert not is_alive(first)


def test_extra_lines_do_not_put_the_answers_out_of_step_for_good(begin: Any) -> None:
    # The second line would otherwise be taken for the answer to the next question, and so on for ever.
    client = begin("for n in questions():\n if n == 1: print('noise\\nnoise\\nnoise', flush=True)\n else: say(n, reply=GOOD)")
    failure(ask(client, 1), "not a proposal")
    assert isinstance(ask(client, 2), Answer)


def test_a_worker_that_died_before_the_question_is_noticed(begin: Any) -> None:
    client = begin("os._exit(5)")
    time.sleep(0.2)
    detail = failure(ask(client), "died").detail
    assert "exit code 5" in detail or "Broken pipe" in detail
    assert "manager.log" in detail


def test_a_killed_worker_is_noticed(begin: Any) -> None:
    client = begin("time.sleep(600)")
    client.ask(400, a_briefing())
    assert client.poll() is None
    os.kill(client.pid, signal.SIGKILL)
    assert "exit code -9" in failure(outcome_of(client), "died").detail


def test_a_hanging_worker_is_ended_at_the_deadline(begin: Any) -> None:
    client = begin("for n in questions():\n if n == 1: time.sleep(600)\n say(n, reply=GOOD)", 0.3)
    first = client.pid
    began = time.monotonic()
    assert "0.3 seconds" in failure(ask(client, 1), "late").detail
    assert 0.3 <= time.monotonic() - began < 5
    assert not is_alive(first)
    client._deadline_seconds = 20.0
    assert isinstance(ask(client, 2), Answer)


def test_waiting_ends_at_the_deadline_and_before_it_when_there_is_an_answer(begin: Any) -> None:
    client = begin("for n in questions():\n if n == 1: say(n, reply=GOOD)\n else: time.sleep(600)", 20.0)
    client.ask(400, a_briefing())
    began = time.monotonic()
    assert isinstance(client.wait(20.0), Answer)
    assert time.monotonic() - began < 10
    client._deadline_seconds = 0.3
    client.ask(400, a_briefing(question=2))
    assert client.wait(0.0) is None
    began = time.monotonic()
    failure(client.wait(0.4), "late")
    assert time.monotonic() - began < 5
    assert client.wait(0.2) is None, "nothing is open"


def test_polling_is_quick_while_a_worker_does_not_read_a_briefing_larger_than_the_pipe(begin: Any) -> None:
    client = begin("time.sleep(600)")
    briefing = a_large_briefing()
    client.ask(400, briefing)
    assert len(client._outgoing) > 100_000, "the briefing fitted in the pipe, so nothing was shown"
    times: list[float] = []
    for _ in range(200):
        before = time.perf_counter()
        assert client.poll() is None
        times.append(time.perf_counter() - before)
    # The middle one: a machine that is busy with others may stop any single poll.
    assert sorted(times)[len(times) // 2] < MILLISECONDS_5


def test_a_briefing_larger_than_the_pipe_arrives_whole(begin: Any) -> None:
    counts = "len(asked['briefing']['snapshot']['summaries'])"
    client = begin(
        f"for line in sys.stdin:\n asked = json.loads(line)\n say(asked['question'], reply=GOOD.replace('fine', str({counts})))"
    )
    outcome = ask(client, 1, a_large_briefing())
    assert isinstance(outcome, Answer), outcome
    assert outcome.proposal.reason == "3000"
    client.ask(400, a_large_briefing(2))
    waited = client.wait(20.0)
    assert isinstance(waited, Answer), waited


def test_a_worker_that_never_works_is_started_so_many_times_and_no_more(begin: Any) -> None:
    client = begin("os._exit(1)")
    problems: list[str] = []
    for question in range(1, MAX_STARTS + 4):
        outcome = ask(client, question)
        assert isinstance(outcome, Failure)
        problems.append(outcome.problem)
    assert problems == ["died"] * MAX_STARTS + ["gone"] * 3
    assert client._num_starts == MAX_STARTS


def test_an_answer_makes_up_for_earlier_starts(begin: Any) -> None:
    client = begin("for n in questions():\n if n % 2: os._exit(1)\n say(n, reply=GOOD)")
    outcomes = [ask(client, question) for question in range(1, 2 * MAX_STARTS + 3)]
    assert [type(outcome) for outcome in outcomes] == [Failure, Answer] * (MAX_STARTS + 1)


def test_a_process_that_cannot_be_started_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ManagerProcess(
        ManagerSpec("rules"), tmp_path / "log", 5.0, SystemClock(), a_setup(tmp_path), ("/does/not/exist",)
    )
    missing.ask(1, a_briefing())
    assert "cannot be started" in failure(missing.poll(), "gone").detail
    unwritable = ManagerProcess(ManagerSpec("rules"), tmp_path / "no" / "log", 5.0, SystemClock(), a_setup(tmp_path))
    unwritable.ask(1, a_briefing())
    assert "cannot be started" in failure(unwritable.poll(), "gone").detail

    def no_memory(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(manager_process.subprocess, "Popen", no_memory)
    client = ManagerProcess(ManagerSpec("rules"), tmp_path / "log", 5.0, SystemClock(), a_setup(tmp_path))
    for question in range(1, MAX_STARTS + 2):
        client.ask(1, a_briefing(question=question))
        failure(client.poll(), "gone")
    client.close()


def test_closing_ends_the_process_and_leaves_no_zombie(begin: Any) -> None:
    client = begin("time.sleep(600)")
    pid = client.pid
    client.ask(1, a_briefing())
    client.close()
    client.close()
    assert not is_alive(pid)
    assert zombies() == []


def test_the_worker_ends_when_the_training_process_is_killed(tmp_path: Path) -> None:
    parent = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from trimtab.runtime.clock import SystemClock
        from trimtab.runtime.manager_process import ManagerProcess
        from trimtab.runtime.manager_spec import ManagerSpec
        from trimtab.controls.manager_settings import ManagerSettings
        from trimtab.runtime.worker_setup import WorkerSetup
        setup = WorkerSetup(ManagerSettings(), "", "", 30.0)
        client = ManagerProcess(ManagerSpec("no_action"), Path(sys.argv[1]), 30.0, SystemClock(), setup)
        print(client.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert is_alive(worker)
        process.kill()
    eventually(lambda: not _runs(worker))


def _runs(pid: int) -> bool:
    try:  # an orphan may stay a zombie where nothing adopts it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_manager_prints_goes_to_the_log_and_not_into_the_protocol(
    tmp_path: Path, clients: list[ManagerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        import os, sys
        from trimtab.decision.proposal import hold
        print("imported")
        class Chatty:
            def propose(self, briefing):
                print('{"question": 1, "reply": "forged"}', flush=True)
                os.write(1, b"straight to the descriptor\\n")
                sys.stderr.write("and to the other\\n")
                return hold(str(os.getpid()))
    """
    (tmp_path / "chatty.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    client = ManagerProcess(
        ManagerSpec.parse("python:chatty:Chatty"), tmp_path / "manager.log", 30.0, SystemClock(), a_setup(tmp_path)
    )
    clients.append(client)
    client.ask(1, a_briefing())
    pid, outcome = client.pid, client.wait(30.0)
    assert isinstance(outcome, Answer), outcome
    assert int(outcome.proposal.reason) == pid != os.getpid(), "the class runs in the worker"
    client.close()
    log = (tmp_path / "manager.log").read_text()
    for printed in ("imported", "forged", "straight to the descriptor", "and to the other"):
        assert printed in log


def test_a_class_that_cannot_be_built_says_so_in_the_answer_and_in_the_log(
    tmp_path: Path, clients: list[ManagerProcess]
) -> None:
    client = ManagerProcess(
        ManagerSpec.parse("python:json:Nothing"), tmp_path / "manager.log", 30.0, SystemClock(), a_setup(tmp_path)
    )
    clients.append(client)
    client.ask(1, a_briefing())
    detail = failure(client.wait(30.0), "error").detail
    assert detail.startswith("the manager's class cannot be built; received json:Nothing")
    assert detail in (tmp_path / "manager.log").read_text()


def test_what_a_call_takes_comes_with_the_outcome_even_of_a_process_that_is_ended(begin: Any) -> None:
    taken = (
        "{'model': 'tiny', 'template': 'v1', 'prompt': 'a', 'schema': 'b', 'envelope': 'c', 'calls': 1,"
        " 'input_tokens': 900, 'output_tokens': 50, 'usd': None, 'replies': []}"
    )
    client = begin(
        f"for n in questions():\n say(n, consultation={taken})\n say(n, reply=GOOD) if n == 1 else time.sleep(60)", 1.0
    )
    outcomes = [ask(client, question) for question in (1, 2)]
    assert [type(outcome) for outcome in outcomes] == [Answer, Failure]
    for outcome in outcomes:
        assert outcome.consultation is not None
        assert (outcome.consultation.model, outcome.consultation.input_tokens) == ("tiny", 900)


@pytest.mark.parametrize("lie", ["[]", "{'model': 3}", "'all of it'", "{'model': 'tiny', 'calls': float('nan')}"])
def test_a_report_that_is_none_breaks_the_protocol(begin: Any, lie: str) -> None:
    failure(ask(begin(f"for n in questions(): say(n, consultation={lie}); say(n, reply=GOOD)")), "not a proposal")


def test_a_flood_of_reports_ends_the_process(begin: Any) -> None:
    taken = "dict.fromkeys(('model', 'template', 'prompt', 'schema', 'envelope'), '')"
    counts = "dict.fromkeys(('calls', 'input_tokens', 'output_tokens'), 1)"
    source = f"for n in questions():\n while True: say(n, consultation={{**{taken}, **{counts}, 'usd': None, 'replies': []}})"
    assert "reports" in failure(ask(begin(source)), "flood").detail


def test_the_schema_of_the_protocol_is_the_ledgers(begin: Any) -> None:
    client = begin("for line in sys.stdin: r = json.loads(line); say(r['question'], reply=GOOD.replace('fine', r['kind']))")
    outcome = ask(client)
    assert isinstance(outcome, Answer)
    assert outcome.proposal.reason == "manager_asked"
    assert SCHEMA.startswith("trimtab/ledger/")
