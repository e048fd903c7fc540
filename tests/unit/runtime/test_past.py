"""What is known of a run that died: where it goes on, and what came after that."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.runtime.recorded_runs import Kept, asked, evaluated, id_of, received, saved
from trimtab.controller.state import Phase
from trimtab.decision.action import NoAction
from trimtab.decision.proposal import hold
from trimtab.errors import CheckpointError, LedgerDamaged, LedgerError, RunDirectoryError
from trimtab.ledger.record import CheckpointDeleted, Origin, ProblemNoticed, RunEnded, RunResumed, VerdictGiven
from trimtab.runtime import past
from trimtab.runtime.past import read_past
from trimtab.runtime.repetition import Repetition, write_repetition


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "run")


def resumed(step: int, after: int, *, checkpoint: bool = True) -> RunResumed:
    return RunResumed(step, id_of(step) if checkpoint else None, after, ())


class TestPlace:
    def test_it_goes_on_from_the_newest_whole_checkpoint_with_the_state_of_then(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), evaluated(10, 2.0))
        after = kept.add(saved(20))
        kept.add(evaluated(20, 1.0), ProblemNoticed(23, "late", "news"))
        past = read_past(kept.directory)
        assert past.resumed == RunResumed(20, id_of(20), after, ())
        assert past.state.step == 20
        assert [checkpoint.id for checkpoint in past.state.checkpoints] == [id_of(1), id_of(10), id_of(20)]
        assert past.state.objective == 2.0, "what was measured afterwards is not known yet"
        assert past.problems == ()
        assert (past.lost, past.repetition) == ((), None)

    def test_damaged_checkpoints_are_passed_over_and_those_before_the_place_are_told_as_lost(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10))
        after = kept.add(saved(20))
        kept.add(saved(30), saved(40))
        kept.damage(1, 30, 40)
        past = read_past(kept.directory)
        assert past.resumed == RunResumed(20, id_of(20), after, ())
        assert past.lost == (id_of(1),)

    def test_a_checkpoint_that_was_given_up_is_not_gone_back_to(self, kept: Kept) -> None:
        kept.add(saved(10), saved(20), CheckpointDeleted(21, id_of(20)))
        assert read_past(kept.directory).resumed.checkpoint == id_of(10)

    def test_one_that_was_saved_before_another_was_given_up_knows_the_other_as_lost(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), saved(20), CheckpointDeleted(20, id_of(1)))
        (kept.directory.checkpoints / id_of(1) / "state").unlink()
        past = read_past(kept.directory)
        assert past.resumed.checkpoint == id_of(20)
        assert past.lost == (id_of(1),), "in the state of then it is still there"

    def test_without_a_whole_checkpoint_the_run_begins_anew(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), asked(10, 1), received(11, 1))
        kept.damage(1, 10)
        past = read_past(kept.directory)
        assert past.resumed == RunResumed(0, None, 0, ())
        assert past.state.checkpoints == past.lost == ()
        assert past.answers[10].step == 11, "and what was answered is still known"

    def test_a_checkpoint_that_the_ledger_does_not_know_is_not_gone_on_from(self, kept: Kept) -> None:
        kept.add(saved(10))
        kept.checkpoint(id_of(20))  # its writer died before it could say so
        assert read_past(kept.directory).resumed.checkpoint == id_of(10)

    def test_a_name_that_was_saved_again_stands_for_the_newer_state(self, kept: Kept) -> None:
        kept.add(saved(10))
        first = kept.add(saved(20))
        kept.add(evaluated(20))
        kept.add(resumed(10, first - 1), ProblemNoticed(15, "a", "b"))
        assert read_past(kept.directory).resumed.checkpoint == id_of(10), "that of the left course does not count"
        second = kept.add(saved(20))
        assert read_past(kept.directory).resumed.after == second


class TestRefusals:
    def test_a_run_that_was_closed_by_its_script_is_not_gone_on_with(self, kept: Kept) -> None:
        kept.add(saved(10), RunEnded(40, "finished"))
        with pytest.raises(RunDirectoryError, match="ended in order") as refused:
            read_past(kept.directory)
        assert "after step 40" in str(refused.value)

    def test_one_that_ended_otherwise_is(self, kept: Kept) -> None:
        kept.add(saved(10), RunEnded(40, "the training loop raised KeyboardInterrupt"))
        past = read_past(kept.directory)
        assert past.resumed.checkpoint == id_of(10)
        assert past.state.phase is not Phase.ENDED

    def test_a_ledger_that_ends_before_the_line_that_a_checkpoint_names_is_refused(self, kept: Kept) -> None:
        kept.add(saved(10), evaluated(10), evaluated(11), saved(20))
        lines = kept.directory.ledger.read_bytes().splitlines(keepends=True)
        kept.directory.ledger.write_bytes(b"".join(lines[:3]))
        with pytest.raises(LedgerDamaged, match="not the one that the run's checkpoints were saved with"):
            read_past(kept.directory)
        kept.directory.ledger.write_bytes(b"".join(lines[:4]))  # all that the checkpoint names, though not its own record
        assert read_past(kept.directory).resumed.checkpoint == id_of(10)

    def test_a_ledger_that_holds_another_line_than_a_checkpoint_names_is_refused(self, kept: Kept) -> None:
        kept.add(saved(10))
        kept.checkpoint("other", [1, "0" * 64])
        with pytest.raises(LedgerDamaged, match="not the one"):
            read_past(kept.directory)

    @pytest.mark.parametrize("head", [None, "x", [1], {"a": 1}, ["one", "two"]])
    def test_a_checkpoint_that_names_no_line_says_nothing_of_the_ledger(self, kept: Kept, head: object) -> None:
        kept.add(saved(10))
        kept.checkpoint("other", head if head is not None else [])
        assert read_past(kept.directory).resumed.checkpoint == id_of(10)

    def test_a_damaged_ledger_and_one_without_records_are_refused(self, kept: Kept) -> None:
        kept.add(evaluated(5), evaluated(6))
        content = kept.directory.ledger.read_bytes()
        kept.directory.ledger.write_bytes(content.replace(b'"step":5', b'"step":4'))
        with pytest.raises(LedgerDamaged, match="hash"):
            read_past(kept.directory)
        kept.directory.ledger.write_bytes(b"")
        with pytest.raises(LedgerError, match="no record"):
            read_past(kept.directory)
        kept.directory.ledger.unlink()
        with pytest.raises(LedgerError, match="cannot be read"):
            read_past(kept.directory)

    def test_reading_changes_nothing(self, kept: Kept) -> None:
        kept.add(saved(10), saved(20), evaluated(20))
        with kept.directory.ledger.open("ab") as file:
            file.write(b'{"torn')
        kept.damage(20)
        before = {path: path.read_bytes() for path in kept.path.rglob("*") if path.is_file()}
        assert read_past(kept.directory).resumed.checkpoint == id_of(10)
        assert {path: path.read_bytes() for path in kept.path.rglob("*") if path.is_file()} == before


class TestQuestions:
    def test_answers_from_after_the_place_are_known_and_earlier_questions_told(self, kept: Kept) -> None:
        kept.add(saved(10), asked(10, 1), received(12, 1), _verdict(20, 1), saved(20), asked(20, 2), received(22, 2, 0.3))
        past = read_past(kept.directory)
        assert [briefing.question for briefing in past.asked] == [1]
        assert list(past.answers) == [20]
        assert past.answers[20].step == 22

    def test_a_question_that_was_open_at_the_place_is_carried_on_with_what_came_of_it(self, kept: Kept) -> None:
        kept.add(saved(10), asked(10, 1), saved(20))
        unanswered = read_past(kept.directory)
        assert (unanswered.asked, unanswered.answers) == ((), {})
        assert unanswered.state.phase is Phase.ASKED
        kept.add(received(25, 1))
        answered = read_past(kept.directory)
        assert answered.answers[10].step == 25
        assert answered.asked == (), "it will be asked again"

    def test_a_question_that_went_to_the_fallback_at_once_was_not_put_to_the_manager(self, kept: Kept) -> None:
        kept.add(asked(10, 1, sent=False), received(10, 1), _verdict(20, 1), saved(20))
        assert read_past(kept.directory).asked == ()

    def test_what_was_told_before_the_place_is_known(self, kept: Kept) -> None:
        kept.add(ProblemNoticed(3, "one", "told"), saved(10), ProblemNoticed(12, "two", "told later"))
        assert read_past(kept.directory).problems == (("one", "told"),)

    def test_the_evaluation_of_the_very_state_is_known(self, kept: Kept) -> None:
        kept.add(saved(10), evaluated(10, 3.0), saved(20))
        assert read_past(kept.directory).evaluation is None
        kept.add(evaluated(20, 2.0), evaluated(21, 1.0, checkpoint=False))
        assert read_past(kept.directory).evaluation == evaluated(20, 2.0)

    def test_an_evaluation_of_the_step_but_of_another_state_is_not_that(self, kept: Kept) -> None:
        kept.add(saved(20), evaluated(20, 2.0, checkpoint=False))
        assert read_past(kept.directory).evaluation is None
        kept.add(replace(evaluated(20, 2.0), checkpoint="of-another-hand"))
        assert read_past(kept.directory).evaluation is None


class TestResumedBefore:
    def test_a_left_course_counts_for_neither_place_nor_state(self, kept: Kept) -> None:
        kept.add(saved(10))
        after = kept.head
        kept.add(ProblemNoticed(11, "left", "behind"), saved(20), evaluated(20, 9.0), saved(30))
        kept.add(resumed(10, after), evaluated(12, 4.0, checkpoint=False))
        place = kept.add(saved(20))
        past = read_past(kept.directory)
        assert past.resumed == RunResumed(20, id_of(20), place, ())
        assert past.state.objective == 4.0
        assert past.problems == ()

    def test_answers_of_a_run_that_died_again_before_they_came_are_still_known(self, kept: Kept) -> None:
        kept.add(saved(10), asked(10, 1), received(12, 1), _verdict(20, 1))
        after = kept.add(saved(20))
        kept.add(evaluated(20, 2.0), asked(20, 2), received(23, 2, 0.3), _verdict(30, 2), saved(30), asked(30, 3))
        kept.add(received(34, 3, 0.4))
        kept.damage(30)
        kept.add(resumed(20, after))  # and killed at once
        again = read_past(kept.directory)
        assert {step: answer.step for step, answer in again.answers.items() if step >= 20} == {20: 23, 30: 34}
        assert again.evaluation == evaluated(20, 2.0)
        kept.add(evaluated(20, 2.0), asked(20, 2))  # and killed while it was open
        kept.add(resumed(20, after))
        third = read_past(kept.directory)
        assert {step: answer.step for step, answer in third.answers.items() if step >= 20} == {20: 23, 30: 34}
        assert [briefing.question for briefing in third.asked] == [1]

    def test_of_two_answers_to_one_question_that_of_the_newer_course_is_known(self, kept: Kept) -> None:
        after = kept.add(saved(20))
        kept.add(asked(20, 1), received(23, 1, 0.3))
        kept.add(resumed(20, after), asked(20, 1), received(24, 1, 0.4))
        assert read_past(kept.directory).answers[20].step == 24
        kept.add(resumed(20, after))
        assert read_past(kept.directory).answers[20].step == 24


class TestRepetition:
    def repeating(self, kept: Kept, source: Kept, **changes: object) -> None:
        origin = Origin("branch", "source", "a" * 64, 1, "nothing", 3)
        write_repetition(kept.directory.repetition, Repetition(source.directory.ledger, origin, **changes))  # type: ignore[arg-type] - the values are of many types

    def test_its_answers_are_those_of_the_other_run_and_all_of_them(self, kept: Kept, tmp_path: Path) -> None:
        source = Kept(tmp_path / "source")
        source.add(asked(10, 1), received(12, 1), _verdict(20, 1), asked(20, 2))
        kept.add(saved(5), asked(10, 1), received(11, 1, 0.4))
        self.repeating(kept, source)
        past = read_past(kept.directory)
        assert past.answers[10].step == 12
        assert past.answers[20].step > 1_000_000, "nothing came of it, so nobody is asked"
        assert past.resumed.origin == Origin("branch", "source", "a" * 64, 1, "nothing", 3)

    def test_one_answer_is_another(self, kept: Kept, tmp_path: Path) -> None:
        source = Kept(tmp_path / "source")
        source.add(asked(10, 1), received(12, 1), _verdict(20, 1), asked(20, 2), received(22, 2))
        kept.add(saved(5))
        self.repeating(kept, source, asked_step=10, instead=hold("left out"))
        answers = read_past(kept.directory).answers
        assert answers[10] == answers[20].__class__(12, answers[10].outcome)
        assert answers[10].instead(hold("left out")) == answers[10]
        assert answers[20].instead(hold("left out")) != answers[20]


def _verdict(step: int, question: int) -> VerdictGiven:
    return VerdictGiven(step, question, "manager", NoAction(), accepted=True, reasons=())


def test_a_disk_that_fails_for_once_passes_nothing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = CheckpointError("the checkpoint is damaged")
    error.__cause__ = OSError(errno.EIO, "Input/output error")

    def failing(*_: object) -> Path:
        raise error

    monkeypatch.setattr(past, "open_checkpoint", failing)
    with pytest.raises(RunDirectoryError, match=r"a checkpoint cannot be read; received .*step-00000010: .*Input/output error"):
        past._is_whole(tmp_path, "step-00000010")
    error.__cause__ = FileNotFoundError(errno.ENOENT, "gone")
    assert not past._is_whole(tmp_path, "step-00000010")
