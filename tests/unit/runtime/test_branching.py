"""Directories for runs that repeat another: where they begin, what is copied, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.recorded_runs import Kept, a_proposal, asked, evaluated, id_of, received, saved
from trimtab.actuation.checkpoint_files import open_checkpoint
from trimtab.decision.action import NoAction
from trimtab.errors import RunDirectoryError, UsageError
from trimtab.ledger.reading import read_ledger
from trimtab.ledger.record import (
    SUPERSEDED,
    CheckpointDeleted,
    ManagerFailed,
    Origin,
    ProblemNoticed,
    ProposalReceived,
    RunResumed,
    VerdictGiven,
)
from trimtab.ledger.verify import verify_file
from trimtab.runtime.answer import Answer
from trimtab.runtime.branching import Base, find_answered, find_base, head_of, keep_copy, lay_out
from trimtab.runtime.past import read_past
from trimtab.runtime.recorded import RecordedAnswer
from trimtab.runtime.repetition import Repetition, read_repetition
from trimtab.runtime.run_dir import RunDirectory


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "run")


def repetition_of(kept: Kept) -> Repetition:
    return Repetition(kept.directory.ledger, Origin("replay", "run", head_of(kept.directory.ledger)))


def verdict(step: int, question: int) -> VerdictGiven:
    return VerdictGiven(step, question, "manager", NoAction(), accepted=True, reasons=())


class TestAnswered:
    def test_a_question_that_was_answered_is_found_with_what_came_of_it(self, kept: Kept) -> None:
        kept.add(asked(10, 1), received(12, 1), verdict(20, 1), asked(20, 2), ManagerFailed(24, 2, "late", "x"))
        found = find_answered(kept.directory, 1)
        assert found.asked == asked(10, 1)
        assert found.answer == RecordedAnswer(12, Answer(1, a_proposal(), 0.5))
        assert find_answered(kept.directory, 2).answer.step == 24

    def test_one_that_was_not_asked_is_refused_with_those_that_were(self, kept: Kept) -> None:
        with pytest.raises(UsageError, match="no such decision") as refused:
            find_answered(kept.directory, 1)
        assert "nobody was asked" in str(refused.value)
        kept.add(asked(10, 1), received(12, 1))
        with pytest.raises(UsageError, match="no such decision") as refused:
            find_answered(kept.directory, 2)
        assert "1 to 1" in str(refused.value)

    def test_one_of_which_nothing_came_cannot_be_answered_differently(self, kept: Kept) -> None:
        kept.add(asked(10, 1), ManagerFailed(12, 1, SUPERSEDED, "the reflex answers"), asked(20, 2))
        for question in (1, 2):
            with pytest.raises(UsageError, match="nothing came of this question") as refused:
                find_answered(kept.directory, question)
            assert "the reflex acted" in str(refused.value)

    def test_one_that_no_manager_was_given_cannot_be_answered_differently_either(self, kept: Kept) -> None:
        kept.add(asked(10, 1, sent=False), ManagerFailed(10, 1, "paused", "too often"))
        rules = ProposalReceived(20, 2, a_proposal(), 0.0, by="rules", failure="paused: too often")
        kept.add(asked(20, 2, sent=False), rules)
        for question in (1, 2):
            with pytest.raises(UsageError, match="nothing came of this question") as refused:
                find_answered(kept.directory, question)
            assert "the fallback answered at once" in str(refused.value)

    def test_a_question_of_a_course_that_was_left_is_none(self, kept: Kept) -> None:
        kept.add(saved(10))
        after = kept.head
        kept.add(asked(10, 1), received(12, 1), RunResumed(10, id_of(10), after, ()))
        with pytest.raises(UsageError, match="no such decision"):
            find_answered(kept.directory, 1)


class TestBase:
    def test_it_is_the_newest_place_that_is_not_behind_the_step(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), evaluated(10))
        after = kept.add(saved(20))
        kept.add(asked(20, 1), received(22, 1), saved(30))
        expected = Base(after, 20, (id_of(1), id_of(10), id_of(20)))
        assert find_base(kept.directory, 20) == find_base(kept.directory, 29) == expected
        assert find_base(kept.directory, 0) == Base()
        assert find_base(kept.directory, 1).checkpoints == (id_of(1),)

    def test_all_that_could_be_gone_back_to_there_has_to_be_whole(self, kept: Kept) -> None:
        first = kept.add(saved(1))
        kept.add(saved(10), saved(20), saved(30))
        kept.damage(10)
        assert find_base(kept.directory, 40) == Base(first, 1, (id_of(1),))
        kept.damage(1)
        assert find_base(kept.directory, 40) == Base()

    def test_what_was_given_up_later_is_missing_there_so_it_is_no_place(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), saved(20))
        kept.add(saved(30), CheckpointDeleted(30, id_of(1)), CheckpointDeleted(41, id_of(10)), saved(50))
        for step in (1, 10):
            (kept.directory.checkpoints / id_of(step) / "state").unlink()
        assert find_base(kept.directory, 49) == Base(), "step 30 could be gone on from, but its briefings offer step 10"
        assert find_base(kept.directory, 50).checkpoints == (id_of(20), id_of(30), id_of(50))

    def test_what_was_given_up_for_it_at_once_is_not_needed(self, kept: Kept) -> None:
        kept.add(saved(1), saved(10), saved(20))
        place = kept.add(saved(30))
        kept.add(CheckpointDeleted(30, id_of(1)))
        (kept.directory.checkpoints / id_of(1) / "state").unlink()
        assert find_base(kept.directory, 40) == Base(place, 30, (id_of(10), id_of(20), id_of(30)))

    def test_a_course_that_was_left_has_no_place(self, kept: Kept) -> None:
        after = kept.add(saved(10))
        kept.add(saved(20), saved(30), RunResumed(10, id_of(10), after, ()), evaluated(12, checkpoint=False))
        assert find_base(kept.directory, 40).step == 10


class TestLayout:
    def lay(self, kept: Kept, tmp_path: Path, step: int) -> tuple[RunDirectory, Base]:
        for file in (kept.directory.envelope, kept.directory.command, kept.directory.start):
            file.write_text(file.name)
        kept.directory.series.write_text("curves")
        kept.directory.hashes.write_text("hashes")
        target, base = RunDirectory(tmp_path / "deep" / "copy"), find_base(kept.directory, step)
        lay_out(kept.directory, target, base, repetition_of(kept))
        return target, base

    def test_it_is_the_run_as_it_stood_there_and_no_more(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(1), saved(10), evaluated(10), saved(20), evaluated(20), saved(30), ProblemNoticed(31, "a", "b"))
        target, base = self.lay(kept, tmp_path, 25)
        whole = kept.directory.ledger.read_bytes().splitlines(keepends=True)
        assert target.ledger.read_bytes() == b"".join(whole[: base.after + 1])
        assert read_ledger(target.ledger)[-1].record == saved(20)
        assert verify_file(target.ledger).ok
        assert sorted(path.name for path in target.checkpoints.iterdir()) == [id_of(1), id_of(10), id_of(20)]
        for id in base.checkpoints:
            open_checkpoint(target.checkpoints, id)
        for name in ("envelope.yaml", "command.json", "start.json", "series.jsonl", "hashes.jsonl"):
            assert (target.path / name).read_bytes() == (kept.path / name).read_bytes()
        assert read_repetition(target.repetition) == repetition_of(kept)

    def test_the_copy_goes_on_from_the_place_like_a_run_that_died_there(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(10), evaluated(10), saved(20), asked(20, 1), received(22, 1))
        target, base = self.lay(kept, tmp_path, 20)
        past = read_past(target)
        assert past.resumed == RunResumed(20, id_of(20), base.after, (), repetition_of(kept).origin, "copy")
        assert (past.lost, past.answers[20].step) == ((), 22)

    def test_from_the_beginning_only_the_first_record_is_taken_over(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(10), evaluated(10))
        target, base = self.lay(kept, tmp_path, 5)
        assert base == Base()
        assert [entry.record.kind for entry in read_ledger(target.ledger)] == ["run_started"]
        assert sorted(path.name for path in target.path.iterdir()) == [
            "checkpoints", "command.json", "envelope.yaml", "ledger.jsonl", "repetition.json", "start.json",
        ]  # fmt: skip
        assert list(target.checkpoints.iterdir()) == []

    def test_a_directory_that_is_there_is_left_alone(self, kept: Kept, tmp_path: Path) -> None:
        target = RunDirectory(tmp_path / "taken")
        target.path.mkdir()
        with pytest.raises(RunDirectoryError, match="cannot be made"):
            lay_out(kept.directory, target, Base(), repetition_of(kept))
        assert list(target.path.iterdir()) == []

    def test_what_is_deleted_in_one_of_the_two_stays_in_the_other(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(10))
        target, _ = self.lay(kept, tmp_path, 10)
        for file in (kept.directory.checkpoints / id_of(10)).iterdir():
            file.unlink()
        open_checkpoint(target.checkpoints, id_of(10))

    def test_without_links_files_are_copied(self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr("os.link", refuse)
        kept.add(saved(10))
        target, _ = self.lay(kept, tmp_path, 10)
        assert (target.checkpoints / id_of(10) / "state").stat().st_nlink == 1
        open_checkpoint(target.checkpoints, id_of(10))

    def test_a_copy_holds_the_run_as_it_is_but_for_what_is_being_written(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(10), evaluated(10))
        kept.directory.envelope.write_text("an envelope")
        (kept.directory.checkpoints / ".partial-step").mkdir()
        keep_copy(kept.directory, tmp_path / "copy")
        copy = RunDirectory(tmp_path / "copy")
        assert copy.ledger.read_bytes() == kept.directory.ledger.read_bytes()
        assert [path.name for path in copy.checkpoints.iterdir()] == [id_of(10)]
        assert copy.envelope.read_text() == "an envelope"
        assert find_base(copy, 10) == find_base(kept.directory, 10)
        with pytest.raises(FileExistsError):
            keep_copy(kept.directory, tmp_path / "copy")

    def test_the_head_is_the_newest_line_that_counts(self, kept: Kept, tmp_path: Path) -> None:
        kept.add(saved(10))
        assert head_of(kept.directory.ledger) == kept.journal.head.hash
        (tmp_path / "empty").write_bytes(b"")
        assert head_of(tmp_path / "empty") == ""
