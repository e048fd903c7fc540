"""`decide`: what is not executable is refused before it is handed in, and nothing is ever applied here."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_briefing, a_standing
from tests.unit.report.sample_run import OVERFITTING, Play, write_ledger
from tests.unit.runtime.exchange_fixtures import ADJUST, a_question
from trimtab.cli.action_words import exact, factor, read_action, shown
from trimtab.cli.app import main
from trimtab.cli.decide import _story
from trimtab.controller.event import AnswerFailed, AnswerReceived, RunClosed, StepTaken
from trimtab.controls.envelope import Authority
from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Action, Adjust, Change, NoAction, Rollback, RollbackAndAdjust, SkipBatches, Stop
from trimtab.decision.proposal import Expectation, Proposal, hold
from trimtab.decision.surface import Options, Surface
from trimtab.errors import UsageError
from trimtab.ledger.journal import Journal
from trimtab.ledger.record import ManagerAsked, ProposalReceived, Record, RunStarted, VerdictGiven
from trimtab.runtime.approval import Decision, read_decision
from trimtab.runtime.exchange import Exchange
from trimtab.runtime.external import read_answer

FOLDER = Path("runs/first/exchange")
BRIEFING = a_briefing(question=3, standing=a_standing(can_skip=True))


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def lay_out(number: int = 3, **changes: Any) -> Exchange:
    if not FOLDER.parent.exists():
        write_ledger(FOLDER.parent, Play(run="first").records)
    exchange = Exchange(FOLDER, "first")
    asked = ManagerAsked(400, number, replace(BRIEFING, question=number))
    exchange.publish(a_question(number, **({"asked": asked, "asked_at_seconds": time.time()} | changes)))
    return exchange


def handed_in(number: int = 3) -> bytes:
    return (FOLDER / f"answer-{number:08d}.json").read_bytes()


# ---- words

DROPOUT = Change("dropout", 0.2)


@pytest.mark.parametrize(
    ("words", "action"),
    [
        ("no_action", NoAction()),
        ("stop", Stop()),
        ("skip_batches 200", SkipBatches(200)),
        ("adjust dropout=0.2", Adjust((DROPOUT,))),
        ("adjust dropout=x2", Adjust((DROPOUT,))),
        ("adjust dropout=.2", Adjust((DROPOUT,))),
        ("adjust dropout=2E-1 learning_rate=x0.5", Adjust((DROPOUT, Change("learning_rate", 0.0005)))),
        ("adjust dropout=0.2000000000001", Adjust((DROPOUT,))),
        ("adjust weight_decay=0", Adjust((Change("weight_decay", 0.0),))),
        ("rollback step-00000200", Rollback("step-00000200")),
        ("rollback_and_adjust step-00000200 dropout=0.2", RollbackAndAdjust("step-00000200", (DROPOUT,))),
    ],
)
def test_an_action_in_words_is_the_executable_action(words: str, action: Action) -> None:
    assert read_action(words.split(), BRIEFING) == action


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "this is no action; received nothing; allowed: no_action, adjust"),
        ("adjst dropout=0.2", "this is no action"),
        ("adjust", "this is no action"),
        ("no_action now", "this is no action"),
        ("rollback", "this is no action"),
        ("rollback step-00000200 dropout=0.2", "this is no action"),
        ("rollback_and_adjust step-00000200", "this is no action"),
        ("skip_batches many", "this is no action"),
        ("skip_batches -3", "this is no action"),
        ("skip_batches 0", "so many batches cannot be skipped"),
        ("skip_batches 201", "allowed: 1 to 200"),
        ("rollback step-200", "did you mean 'step-00000200'?"),
        ("rollback ../../etc/passwd", "there is no rollback to this checkpoint"),
        ("adjust drop=0.2", "did you mean 'dropout'?"),
        ("adjust dropout", "allowed: NAME=VALUE"),
        ("adjust dropout=0.4", "not executable now; received dropout=0.4; allowed: 0, 0.05, 0.15, 0.2, 0.3"),
        ("adjust dropout=0.1", "this value is not executable now"),
        ("adjust dropout=x9", "this value is not executable now"),
        ("adjust dropout=0.20001", "this value is not executable now"),
        ("adjust dropout=nan", "a value is not a number"),
        ("adjust dropout=inf", "a value is not a number"),
        ("adjust dropout=1e999", "this value is not executable now"),
        ("adjust dropout=0x1", "a value is not a number"),
        ("adjust dropout=1_0", "a value is not a number"),
        ("adjust dropout=\u0660.2", "a value is not a number"),
        ("adjust dropout=", "a value is not a number"),
        ("adjust dropout=x", "a value is not a number"),
        ("adjust dropout=0.2 dropout=0.3", "a control is changed twice"),
        ("rollback_and_adjust step-00000200 dropout=x2", "a factor has no meaning here"),
        ("rollback_and_adjust step-00000200 dropout=0.4", "this value is not executable now"),
    ],
)
def test_what_is_not_executable_is_refused_with_what_is(words: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_action(words.split(), BRIEFING)
    assert told in str(refused.value)


def test_no_more_controls_than_the_envelope_allows() -> None:
    surface = replace(BRIEFING.surface, max_controls=1)
    with pytest.raises(UsageError, match="too many controls are changed at once; received 2; allowed: at most 1"):
        read_action(["adjust", "dropout=0.2", "learning_rate=x2"], replace(BRIEFING, surface=surface))


def test_nothing_but_no_action_is_executable_on_an_empty_surface() -> None:
    empty = replace(BRIEFING, surface=Surface((), (), 0, 0, may_stop=False))
    assert read_action(["no_action"], empty) == NoAction()
    for words in ("stop", "skip_batches 1", "adjust dropout=0.2", "rollback step-00000200"):
        with pytest.raises(UsageError):
            read_action(words.split(), empty)


def test_two_values_that_look_alike_are_told_apart_by_more_digits_only() -> None:
    values = (0.123456781, 0.123456789)
    surface = Surface((Options("dropout", values),), (), 3, 0, may_stop=False)
    alike = replace(BRIEFING, surface=surface)
    with pytest.raises(UsageError, match="this value is not executable now"):
        read_action(["adjust", "dropout=0.123457"], alike)
    assert read_action(["adjust", "dropout=0.123456789"], alike) == Adjust((Change("dropout", values[1]),))


NAME = "temperature"


@given(
    st.floats(1e-6, 1e3), st.lists(st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 0.9, 1.1, 2.0, 3.0, 7.0]), min_size=1, unique=True)
)
def test_every_value_can_be_given_as_it_is_shown(present: float, factors: list[float]) -> None:
    values = tuple(sorted({present * each for each in factors}))
    surface = Surface((Options(NAME, values),), (), 3, 0, may_stop=False)
    for value in values:
        for word in (shown(value), repr(value)):
            number = float(word)
            assert exact(Adjust((Change(NAME, number),)), surface) == Adjust((Change(NAME, value),))
        briefing = replace(BRIEFING, surface=surface, recipe=Recipe.of({NAME: present}))
        meant = read_action(["adjust", f"{NAME}={factor(value, present)}"], briefing)
        assert meant == Adjust((Change(NAME, value),))


# ---- handing in


def test_a_decision_is_handed_in_with_its_reason_and_expectation(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    said = ("--reason", "it overfits", "--gain", "0.05", "--within", "1", "--by", "Ada", "--question", "3")
    code, out, err = call(capsys, "decide", "first", "adjust", "dropout=x2", *said)
    assert (code, err) == (0, "")
    proposal, by = read_answer(handed_in())
    assert proposal == Proposal(Adjust((DROPOUT,)), "it overfits", Expectation(0.05, 1))
    assert by == "Ada"
    for told in ("handed in: dropout=0.2", "question 3", "after step 410 at the earliest, after step 600 at the latest"):
        assert told in " ".join(out.split())


def test_without_options_an_action_expects_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    assert call(capsys, "decide", "first", "rollback", "step-00000200")[0] == 0
    proposal, by = read_answer(handed_in())
    assert (proposal.expectation, by) == (Expectation(0.0, 2), "")
    assert proposal.reason == "decided on the command line"


def test_no_action_promises_no_change(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    assert "leaves the recipe as it is" in " ".join(call(capsys, "decide", "first", "no_action")[1].split())
    assert read_answer(handed_in())[0].expectation is None


@pytest.mark.parametrize("asked_before_seconds", [None, 90.0])
def test_on_an_ended_run_it_is_said_that_it_has_ended(
    capsys: pytest.CaptureFixture[str], asked_before_seconds: float | None
) -> None:
    play = Play(run="first")
    play.feed(RunClosed(55, "finished"))
    write_ledger(FOLDER.parent, play.records)
    if asked_before_seconds is not None:
        lay_out(asked_at_seconds=time.time() - asked_before_seconds)
    code, _, err = call(capsys, "decide", "first", "no_action")
    assert code == 2
    assert "the run has ended, so nothing can be decided; received runs/first" in " ".join(err.split())
    assert "trimtab show runs/first" in err
    assert not (FOLDER / "answer-00000003.json").exists()


def test_a_count_between_those_shown_and_a_negative_gain_are_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    assert call(capsys, "decide", "first", "skip_batches", "3", "--gain", "-1")[0] == 0
    proposal, _ = read_answer(handed_in())
    assert (proposal.action, proposal.expectation) == (SkipBatches(3), Expectation(-1.0, 2))


@pytest.mark.parametrize("approve", [True, False])
def test_an_approval_is_handed_in(capsys: pytest.CaptureFixture[str], approve: bool) -> None:
    lay_out(proposal=ADJUST, default="reject")
    word = "approve" if approve else "reject"
    code, out, _ = call(capsys, "decide", "first", word, "--reason", "so", "--by", "Ada")
    assert code == 0
    assert read_decision(handed_in()) == Decision(approve, "so", "Ada")
    assert f"handed in: {word} dropout=0.2" in out
    assert ("leaves the recipe as it is" in " ".join(out.split())) is not approve


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["approve"], "the question wants a proposal"),
        (["adjust", "dropout=0.4"], "allowed: 0, 0.05, 0.15, 0.2, 0.3"),
        (["no_action", "--question", "4"], "this question is not open; received 4; allowed: question 3"),
        (["no_action", "--gain", "1"], "--gain has no meaning for no_action"),
        (["stop", "--within", "1"], "--within has no meaning for stop"),
        (["adjust", "dropout=0.2", "--within", "4"], "within_evaluations"),
        (["adjust", "dropout=0.2", "--gain", "nan"], "--gain is not a finite number"),
        (["adjust", "dropout=0.2", "--watch", "nothing"], "there is no such signal to watch"),
        (["adjust", "dropout=0.2", "--reason", "r" * 2001], "a proposal needs a reason"),
        (["no_action", "--reply", "x.json"], "an action and --reply are two answers"),
        (["--reply", "x.json", "--gain", "1"], "--gain has no meaning for --reply"),
        (["--reply", "nowhere.json"], "the reply cannot be read; received nowhere.json: No such file"),
        ([], "this is no action; received nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_handed_in_is_refused_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    lay_out()
    code, out, err = call(capsys, "decide", "first", *options)
    assert (code, out) == (2, "")
    assert told in " ".join(err.split())
    assert sorted(path.name for path in FOLDER.iterdir()) == ["answered", "question-00000003.json"]


@pytest.mark.parametrize("options", [["no_action"], ["approve", "reject"], [], ["approve", "--gain", "1"]])
def test_a_request_for_approval_takes_approve_or_reject_only(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    lay_out(proposal=ADJUST, default="reject")
    assert call(capsys, "decide", "first", *options)[0] == 2
    assert not (FOLDER / "answer-00000003.json").exists()


def test_without_an_open_question_there_is_nothing_to_decide(capsys: pytest.CaptureFixture[str]) -> None:
    exchange = lay_out()
    assert call(capsys, "decide", "first", "no_action")[0] == 0
    code, _, err = call(capsys, "decide", "first", "stop")
    assert code == 2
    assert "no question is open, or it has an answer already" in err
    assert "trimtab pending runs/first --wait 60" in err
    exchange.withdraw()
    assert call(capsys, "decide", "first", "no_action")[0] == 2
    lay_out(asked_at_seconds=time.time() - 90.0)
    code, _, err = call(capsys, "decide", "first", "no_action")
    assert code == 2
    assert "the question's time is over" in err


# ---- replies as JSON


def test_a_reply_comes_from_a_file_or_from_standard_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = {
        "action": {"kind": "adjust", "changes": [{"control": "learning_rate", "value": 0.00025000000000001}]},
        "reason": "calmer",
        "expectation": {"gain": 0.0, "within_evaluations": 3},
        "by": "agent",
    }
    (tmp_path / "reply.json").write_text(json.dumps(reply))
    lay_out()
    assert call(capsys, "decide", "first", "--reply", "reply.json")[0] == 0
    proposal, by = read_answer(handed_in())
    assert proposal.action == Adjust((Change("learning_rate", 0.00025),)), "a value is made exact"
    assert (proposal.expectation, by) == (Expectation(0.0, 3), "agent")
    lay_out()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"action":{"kind":"stop"},"reason":"r"}')))
    assert call(capsys, "decide", "first", "--reply", "-", "--by", "Ada")[0] == 0
    assert read_answer(handed_in()) == (Proposal(Stop(), "r"), "Ada")
    lay_out(proposal=ADJUST, default="reject")
    (tmp_path / "reply.json").write_text('{"approve": false, "reason": "no"}')
    assert call(capsys, "decide", "first", "--reply", "reply.json")[0] == 0
    assert read_decision(handed_in()) == Decision(approve=False, reason="no", by="a person")


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "{}",
        "[]",
        "x" * 70_000,
        '{"approve": true}',
        '{"action":{"kind":"no_action"},"reason":"r","x":1}',
        '{"action":{"kind":"run"},"reason":"r"}',
        '{"action":{"kind":"adjust","changes":[{"control":"dropout","value":0.4}]},"reason":"r"}',
    ],
)
def test_a_reply_that_is_wrong_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, reply: str) -> None:
    (tmp_path / "reply.json").write_text(reply)
    lay_out()
    assert call(capsys, "decide", "first", "--reply", "reply.json")[0] == 2
    assert not (FOLDER / "answer-00000003.json").exists()


# ---- following


class Trainer(threading.Thread):
    """Plays the run: lays question 1 out, takes the answer, and goes on as ``end`` says, writing the ledger."""

    def __init__(self, end: str) -> None:
        super().__init__(daemon=True)
        self.end = end
        self.play = Play(run="first")
        self.play.evaluate(50, 3.2, OVERFITTING)
        write_ledger(FOLDER.parent, self.play.records)
        assert self.play.state is not None
        assert self.play.state.question is not None
        briefing = self.play.state.question.briefing
        self.exchange = Exchange(FOLDER, "first")
        proposal = Proposal(Adjust((Change("dropout", 0.05),)), "why", Expectation(0.0, 2)) if end == "reject" else None
        default = None if proposal is None else "reject"
        asked = ManagerAsked(50, 1, briefing)
        self.exchange.publish(a_question(1, asked=asked, asked_at_seconds=time.time(), proposal=proposal, default=default))
        self.proposal = proposal

    def run(self) -> None:
        taken = None
        while taken is None:
            time.sleep(0.01)
            taken = self.exchange.take(lambda data: data, time.monotonic())
        match self.end:
            case "another":
                self.play.feed(AnswerReceived(55, 1, hold("me first"), 1.0))
            case "fails":
                self.play.feed(AnswerFailed(55, 1, "superseded", "the reflex answers non_finite"))
            case "ends":
                self.play.feed(RunClosed(55, "the training loop raised KeyboardInterrupt"))
            case "reject":
                assert self.proposal is not None
                objection = "a person rejected it: no"
                self.play.feed(AnswerReceived(55, 1, self.proposal, 1.0, objection=objection))
            case _:
                self.play.fails_with = "the binding broke" if self.end == "breaks" else None
                self.play.feed(AnswerReceived(55, 1, read_answer(taken)[0], 1.0))
        if self.end != "ends":
            self.play.feed(StepTaken(60))
        ledger = FOLDER.parent / "ledger.jsonl"
        with Journal.open(ledger) as journal:
            for record in self.play.records[len(ledger.read_bytes().splitlines()) :]:
                journal.append(record, 2_000_000.0)


@pytest.mark.parametrize(
    ("end", "words", "code", "told"),
    [
        ("applies", ["adjust", "dropout=0.05"], 0, ["step 55: the answer was read", "accepted", "applied as intervention 1"]),
        ("applies", ["no_action"], 0, ["step 60: accepted"]),
        ("breaks", ["adjust", "dropout=0.05"], 1, ["it could not be carried out: the binding broke"]),
        ("another", ["adjust", "dropout=0.05"], 1, ["step 55: another answer counted: no_action"]),
        ("fails", ["adjust", "dropout=0.05"], 1, ["the answer does not count: superseded: the reflex answers non_finite"]),
        ("ends", ["adjust", "dropout=0.05"], 1, ["the run ended: the training loop raised KeyboardInterrupt"]),
        ("reject", ["reject", "--reason", "no"], 0, ["step 60: rejected: approval: a person rejected it: no"]),
        ("reject", ["approve"], 1, ["another answer counted: dropout=0.05"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_following_tells_what_the_ledger_says(
    capsys: pytest.CaptureFixture[str], end: str, words: list[str], code: int, told: list[str]
) -> None:
    trainer = Trainer(end)
    trainer.start()
    found, out, err = call(capsys, "decide", "first", *words, "--follow", "--timeout", "60")
    trainer.join(20)
    assert (found, err) == (code, "")
    for line in told:
        assert line in out, out


def test_following_a_shadow_ends_with_the_verdict() -> None:
    question = a_question(1)
    started = Play(run="first").records[0]
    assert isinstance(started, RunStarted)
    shadow = replace(started, envelope=replace(started.envelope, authority=Authority(shadow=True)))
    answer = {"action": {"kind": "stop"}, "reason": "r"}
    records: list[Record] = [
        shadow,
        ProposalReceived(55, 1, Proposal(Stop(), "r"), 1.0),
        VerdictGiven(60, 1, "manager", Stop(), accepted=True, reasons=()),
    ]
    story = list(_story(records, question, answer))
    assert story[-1] == ("step 60: accepted, but a shadow applies nothing", 0)
    assert list(_story([started, *records[1:]], question, answer))[-1] == ("step 60: accepted", None)


def test_following_ends_after_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out()
    code, out, _ = call(capsys, "decide", "first", "no_action", "--follow", "--timeout", "0.3")
    assert code == 1
    assert "Nothing more within 0.3 s; the run goes on." in out
