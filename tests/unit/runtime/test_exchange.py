"""The exchange folder: hostile, half-written and late files end as nothing applied, and never as an exception unforeseen."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.decision.test_wire import BAD, mutated
from tests.unit.runtime.exchange_fixtures import ADJUST, HOLD, a_question, notes, open_files, put
from trimtab.decision.proposal import Proposal
from trimtab.decision.wire import encode_proposal
from trimtab.errors import ReplyError, UsageError
from trimtab.runtime import exchange_form, files
from trimtab.runtime.exchange import BROKEN_AFTER_SECONDS, LOOK_EVERY_SECONDS, MAX_REFUSALS, Exchange
from trimtab.runtime.exchange_form import (
    ANSWERED,
    answer_name,
    decode_question,
    encode_question,
    hand_in,
    number_in,
    question_name,
    read_regular,
    waiting_question,
)
from trimtab.runtime.external import read_answer


class Desk:
    """An exchange whose clock goes on by one look with every call of `take`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exchange = Exchange(folder, "first")
        self.now = 0.0

    def take(self, after: float = LOOK_EVERY_SECONDS) -> tuple[Proposal, str] | None:
        self.now += after
        return self.exchange.take(read_answer, self.now)

    def take_in_the_end(self) -> tuple[Proposal, str] | None:
        """Look until even a broken answer has been given up."""
        return self.take() or self.take(BROKEN_AFTER_SECONDS + 0.1)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "exchange")
    desk.exchange.publish(a_question())
    return desk


# ---- questions


def test_a_question_is_laid_out_whole_and_reads_back(desk: Desk) -> None:
    assert open_files(desk.folder) == ["question-00000003.json"]
    tree = json.loads((desk.folder / "question-00000003.json").read_text(), parse_constant=pytest.fail)
    assert list(tree) == ["schema", "run", "question", "kind", "asked", "proposal", "deadline"]
    assert (tree["schema"], tree["run"], tree["question"], tree["kind"]) == ("trimtab/exchange/1", "first", 3, "proposal")
    assert tree["asked"]["kind"] == "manager_asked"
    assert tree["deadline"] == {
        "stale_after_step": 600,
        "deadline_seconds": 60.0,
        "asked_at_seconds": 1_700_000_000.0,
        "answer_by_seconds": 1_700_000_060.0,
        "default": None,
    }
    assert waiting_question(desk.folder) == a_question()


def test_a_question_for_approval_holds_the_proposal_and_the_default() -> None:
    question = a_question(proposal=ADJUST, default="reject")
    tree = encode_question(question)
    assert (tree["kind"], tree["deadline"]["default"]) == ("approval", "reject")
    assert tree["proposal"] == encode_proposal(ADJUST)
    assert decode_question(json.dumps(tree).encode()) == question


@pytest.mark.parametrize(
    "changes",
    [{"schema": "trimtab/exchange/2"}, {"extra": 1}, {"question": 4}, {"asked": {}}, {"kind": "order"}, {"deadline": {}}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_question_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    tree = encode_question(a_question()) | changes
    with pytest.raises(UsageError, match="an open question cannot be read"):
        decode_question(json.dumps(tree).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_question_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="an open question cannot be read"):
        decode_question(data)


def test_a_new_question_replaces_the_open_one(desk: Desk) -> None:
    desk.exchange.publish(a_question(4))
    assert open_files(desk.folder) == ["question-00000004.json"]


def test_withdrawing_removes_the_question_and_what_came_too_late(desk: Desk) -> None:
    put(desk.folder, HOLD)
    desk.exchange.withdraw()
    assert open_files(desk.folder) == []
    assert notes(desk.folder) == ["not applied: question 3 was not open\n"]
    put(desk.folder, HOLD)
    assert desk.take() is None


def test_a_question_that_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    Desk(tmp_path / "exchange").exchange.publish(a_question(9))
    Desk(tmp_path / "exchange").exchange.publish(a_question(3))
    assert open_files(tmp_path / "exchange") == ["question-00000003.json"]


# ---- answers


def test_an_answer_is_taken_once_and_kept(desk: Desk) -> None:
    put(desk.folder, encode_proposal(ADJUST) | {"by": "agent \x1b[31m7"})
    assert desk.take() == (ADJUST, "agent [31m7")
    assert desk.take() is None
    assert open_files(desk.folder) == []
    kept = desk.folder / ANSWERED / "answer-00000003-1.json"
    assert json.loads(kept.read_text())["by"] == "agent \x1b[31m7"
    assert notes(desk.folder) == []


def test_looking_costs_nothing_between_looks_and_one_lstat_then(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    original = Path.lstat

    def counted(path: Path) -> os.stat_result:
        calls.append(path)
        return original(path)

    monkeypatch.setattr(Path, "lstat", counted)
    for _ in range(1000):
        desk.take(LOOK_EVERY_SECONDS / 100)
    assert 10 <= len(calls) <= 11
    assert set(calls) == {desk.folder / "answer-00000003.json"}


def test_a_half_written_answer_is_left_until_it_is_whole(desk: Desk) -> None:
    path = desk.folder / answer_name(3)
    for end in (0, 10, 30):
        path.write_text(HOLD[:end])
        assert desk.take(0.9) is None
        assert path.exists()
    path.write_text(HOLD)
    found = desk.take()
    assert found is not None
    assert found[0].reason == "calm"


def test_a_broken_answer_is_refused_after_a_second_and_the_question_stays(desk: Desk) -> None:
    (desk.folder / answer_name(3)).write_text(HOLD[:10])
    assert desk.take() is None
    assert desk.take(BROKEN_AFTER_SECONDS - 0.1) is None
    assert notes(desk.folder) == []
    assert desk.take(0.2) is None
    assert "the reply is not JSON" in notes(desk.folder)[0]
    assert open_files(desk.folder) == ["question-00000003.json"]
    put(desk.folder, HOLD)
    assert desk.take() is not None


def test_a_slip_can_be_corrected_but_not_for_ever(desk: Desk) -> None:
    for count in range(1, MAX_REFUSALS):
        put(desk.folder, '{"action":{"kind":"no_action"},"raeson":"calm"}')
        assert desk.take() is None
        assert len(notes(desk.folder)) == count
        assert f"{count} answer{'s' if count > 1 else ''} refused, the last: the reply is not a proposal: reason" in (
            desk.exchange.refusals
        )
    put(desk.folder, "[]")
    with pytest.raises(ReplyError, match=f"{MAX_REFUSALS} answers refused, the last: the reply is not a proposal"):
        desk.take()
    assert open_files(desk.folder) == []


def test_the_count_of_refusals_begins_anew_with_the_next_question(desk: Desk) -> None:
    put(desk.folder, "[]")
    assert desk.take() is None
    desk.exchange.publish(a_question(4))
    assert desk.exchange.refusals == ""


def test_answers_to_other_questions_are_put_aside_and_never_applied(desk: Desk) -> None:
    for number in (1, 2, 4, 99_999_999, 123_456_789):
        put(desk.folder, HOLD, number)
    assert desk.take() is None
    desk.exchange.publish(a_question(4))
    assert open_files(desk.folder) == ["question-00000004.json"]
    assert desk.take() is None
    numbers = (1, 2, 4, 99_999_999, 123_456_789)
    assert sorted(notes(desk.folder)) == sorted(f"not applied: question {number} was not open\n" for number in numbers)


def test_of_two_answers_the_first_counts_and_the_other_is_put_aside(desk: Desk) -> None:
    put(desk.folder, encode_proposal(ADJUST))

    def read(data: bytes) -> Proposal:
        put(desk.folder, HOLD)  # the second agent is this quick
        return read_answer(data)[0]

    assert desk.exchange.take(read, 1.0) == ADJUST
    assert desk.take() is None
    assert notes(desk.folder) == ["not applied: question 3 was not open\n"]


def test_what_is_kept_is_what_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(desk.folder, HOLD)
    original = Exchange._is_half_written

    def replaced_meanwhile(*arguments: Any) -> bool:
        result = original(*arguments)
        put(desk.folder, encode_proposal(ADJUST))
        return result

    monkeypatch.setattr(Exchange, "_is_half_written", replaced_meanwhile)
    found = desk.take()
    assert found is not None
    kept = [json.loads(path.read_text()) for path in (desk.folder / ANSWERED).glob("*.json")]
    assert kept == [encode_proposal(found[0])]


# ---- hostile answers


def hostile_contents() -> list[bytes]:
    """Five hundred: every class of bad output, and replies with a few bytes changed."""
    contents = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text for text in BAD.values()]
    contents += [HOLD[:-1].encode() + f',"by":{by}}}'.encode() for by in ("1", "null", '["me"]', "{}", '"me","by":"you"')]
    draw = random.Random(11)
    contents += [mutated(draw, json.dumps(encode_proposal(ADJUST))) for _ in range(500 - len(contents))]
    return contents


def test_500_hostile_answers_are_refused_or_read_as_the_wire_reads_them(tmp_path: Path) -> None:
    desk, num_read = Desk(tmp_path / "exchange"), 0
    contents = hostile_contents()
    assert len(contents) == 500
    for number, content in enumerate(contents, start=1):
        desk.exchange.publish(a_question(number))
        put(desk.folder, content, number)
        found = desk.take_in_the_end()
        try:
            expected = read_answer(content)
        except ReplyError:
            assert found is None
            assert (desk.folder / ANSWERED / f"answer-{number:08d}-1.refused").read_text().strip()
            assert open_files(desk.folder) == [question_name(number)]
        else:
            assert found == expected
            assert open_files(desk.folder) == []
            num_read += 1
    assert num_read < 100, "most of them should have been bad"


def a_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def a_socket(path: Path, _: Path) -> None:
    # Its address may have about a hundred bytes: bound from inside its folder.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def a_full_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)
    os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # stays open, so that the pipe stays full when its writer has gone
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, HOLD.encode())
    os.close(writer)


def a_full_folder(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "inside").write_text(HOLD)


def a_large_file(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it all would end the test


THINGS: dict[str, Callable[[Path, Path], None]] = {
    "a link to a good answer": a_link,
    "a link to nothing": lambda path, _: path.symlink_to("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to a folder": lambda path, secret: path.symlink_to(secret.parent),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a pipe with a good answer in it": a_full_pipe,
    "a socket": a_socket,
    "an empty folder": lambda path, _: path.mkdir(),
    "a full folder": a_full_folder,
    "a large file": a_large_file,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("thing", THINGS)
def test_what_is_no_regular_file_is_put_aside_unread(desk: Desk, tmp_path: Path, thing: str) -> None:
    secret = tmp_path / "elsewhere" / "secret.json"
    secret.parent.mkdir()
    secret.write_text(HOLD)
    THINGS[thing](desk.folder / answer_name(3), secret)
    assert desk.take_in_the_end() is None
    assert len(notes(desk.folder)) == 1
    assert secret.read_text() == HOLD
    assert open_files(desk.folder) == ["question-00000003.json"]
    put(desk.folder, HOLD)
    assert desk.take() is not None


def test_no_more_of_a_file_is_read_than_stated(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 11)
    assert read_regular(tmp_path / "file", 11) == b"x" * 11
    with pytest.raises(ReplyError, match="more than 10 bytes"):
        read_regular(tmp_path / "file", 10)


def hostile_names() -> list[str]:
    """Three hundred names that are nearly the answer's, or nobody's business."""
    name = "answer-00000003.json"
    names = {name.upper(), f" {name}", f"{name} ", f"{name}\n", f".{name}", f"{name}~", f"{name}.tmp", f"{name}.json"}
    names |= {"answer-3.json", "answer-.json", "answer--0000003.json", "answer-+0000003.json", "answer-0000000x3.json", "-rf"}
    names |= {
        "answer-00000003",
        "answer-00000003.JSON",
        "answer-0000_0003.json",
        "answer-\u0660\u0660000003.json",
        "\u202e" + name,
    }
    names |= {"answer-00000003\\..\\x.json", "answer-%2e%2e%2f.json", "..%2f..%2fanswer-00000003.json", "a" * 255, "*", "$(id)"}
    names |= {f"answer-{'9' * count}.json" for count in range(19, 40)}
    draw = random.Random(3)
    names.discard(name)
    while len(names) < 300:
        letters = list(name)
        for _ in range(draw.randint(1, 3)):
            letters[draw.randrange(len(letters))] = chr(draw.choice((draw.randrange(1, 47), draw.randrange(58, 0x3000))))
        if number_in("".join(letters), "answer-") is None:
            names.add("".join(letters))
    return sorted(names)


def test_300_hostile_names_are_never_read_nor_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path / "exchange")
    desk.folder.mkdir()
    names = hostile_names()
    assert len(names) == 300
    assert {number_in(name, "answer-") for name in names} == {None}
    secret = tmp_path / "secret.json"
    secret.write_text(HOLD)
    for place, name in enumerate(names):
        path = desk.folder / name
        path.symlink_to(secret) if place % 3 == 0 else path.write_text(HOLD)
    read: list[Path] = []
    monkeypatch.setattr("trimtab.runtime.exchange.read_regular", lambda path: read.append(path) or HOLD.encode())
    desk.exchange.publish(a_question())
    assert desk.take_in_the_end() is None
    desk.exchange.withdraw()
    assert read == []
    assert set(open_files(desk.folder)) == set(names)
    assert secret.read_text() == HOLD
    assert notes(desk.folder) == []


@given(st.integers(0, 10**18 - 1))
def test_a_number_reads_back_from_a_name(number: int) -> None:
    assert number_in(answer_name(number), "answer-") == number
    assert number_in(question_name(number), "question-") == number


# ---- when the folder fails


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("exchange", f"other/{ANSWERED}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    for folder in ("exchange", "other"):
        with pytest.raises(NotADirectoryError):
            Exchange(tmp_path / folder, "first").publish(a_question())
    assert list((tmp_path / "elsewhere").glob("question*")) == []


def test_a_full_disk_leaves_no_half_question(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_new", full)
    with pytest.raises(OSError, match="No space left"):
        desk.exchange.publish(a_question(4))
    assert open_files(desk.folder) == []
    assert desk.take() is None


def test_a_note_that_cannot_be_written_does_not_keep_a_bad_answer_in_the_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trimtab.runtime.exchange.write_whole", full)
    put(desk.folder, "[]")
    assert desk.take() is None
    put(desk.folder, HOLD)
    assert desk.take() is not None


def test_an_answer_that_cannot_be_moved_away_ends_the_question(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(desk.folder, HOLD)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        desk.take()
    assert desk.take() is None, "it would be read at every step"


def test_a_folder_that_is_gone_is_no_answer_and_the_next_question_brings_it_back(desk: Desk) -> None:
    (desk.folder / question_name(3)).unlink()
    (desk.folder / ANSWERED).rmdir()
    desk.folder.rmdir()
    assert desk.take() is None
    desk.exchange.withdraw()
    desk.exchange.publish(a_question(4))
    assert open_files(desk.folder) == ["question-00000004.json"]


# ---- those who answer


def test_handing_in_is_for_the_first_only(desk: Desk) -> None:
    hand_in(desk.folder, 3, encode_proposal(ADJUST))
    assert waiting_question(desk.folder) is None
    with pytest.raises(UsageError, match="somebody else has answered this question"):
        hand_in(desk.folder, 3, json.loads(HOLD))
    assert open_files(desk.folder) == ["answer-00000003.json", "question-00000003.json"]
    found = desk.take()
    assert found is not None
    assert found[0] == ADJUST


def test_an_answer_under_judgement_keeps_others_out(desk: Desk) -> None:
    (desk.folder / "answer-00000003.taken").touch()
    assert waiting_question(desk.folder) is None
    with pytest.raises(UsageError, match="somebody else has answered this question"):
        hand_in(desk.folder, 3, json.loads(HOLD))


def test_an_answer_to_a_question_that_is_gone_is_taken_back(desk: Desk) -> None:
    desk.exchange.withdraw()
    with pytest.raises(UsageError, match="the question was withdrawn meanwhile"):
        hand_in(desk.folder, 3, json.loads(HOLD))
    assert open_files(desk.folder) == []


def test_a_question_whose_answer_is_taken_while_it_is_read_is_not_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(desk.folder, HOLD)

    def taken_meanwhile(path: Path, most: int) -> bytes:
        data = read_regular(path, most)
        assert desk.take() is not None
        return data

    monkeypatch.setattr(exchange_form, "read_regular", taken_meanwhile)
    assert waiting_question(desk.folder) is None


def test_without_hard_links_the_first_still_counts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "not permitted")))
    hand_in(desk.folder, 3, encode_proposal(ADJUST))
    with pytest.raises(UsageError, match="somebody else has answered this question"):
        hand_in(desk.folder, 3, json.loads(HOLD))
    assert desk.take() == (ADJUST, "")


def test_a_missing_folder_is_an_error_with_its_name(tmp_path: Path) -> None:
    assert waiting_question(tmp_path / "nowhere") is None
    with pytest.raises(UsageError, match=r"the answer cannot be written; received .*nowhere: No such file"):
        hand_in(tmp_path / "nowhere", 3, json.loads(HOLD))


def test_a_damaged_question_file_is_an_error(desk: Desk) -> None:
    (desk.folder / question_name(3)).write_text("{")
    with pytest.raises(UsageError, match="an open question cannot be read"):
        waiting_question(desk.folder)
    (desk.folder / question_name(3)).unlink()
    (desk.folder / question_name(3)).symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="the exchange's file cannot be read"):
        waiting_question(desk.folder)


_AGENT = """
import json, sys, time
from pathlib import Path
from trimtab.errors import UsageError
from trimtab.runtime.exchange_form import hand_in
folder, name = Path(sys.argv[1]), sys.argv[2]
won = []
for number in range(1, 31):
    while not (folder / f"go-{number}").exists():
        time.sleep(0.0002)
    try:
        hand_in(folder, number, {"action": {"kind": "no_action"}, "reason": "calm", "by": name})
        won.append(number)
    except UsageError:
        pass
print(json.dumps(won))
"""


@pytest.mark.timeout(60)
def test_of_two_agents_that_answer_at_once_exactly_one_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "exchange")
    command = [sys.executable, "-c", _AGENT, str(desk.folder)]
    agents = [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in ("Ada", "Bob")]
    counted: dict[int, str] = {}
    try:
        for number in range(1, 31):
            desk.exchange.publish(a_question(number))
            (desk.folder / f"go-{number}").touch()
            while (found := desk.take()) is None:
                time.sleep(0.0002)
            counted[number] = found[1]
        outputs = [agent.communicate(timeout=30)[0] for agent in agents]
    finally:
        for agent in agents:  # they wait for the next question for ever
            agent.kill()
            agent.communicate()
    assert [agent.returncode for agent in agents] == [0, 0]
    won: dict[str, list[int]] = dict(zip(("Ada", "Bob"), map(json.loads, outputs), strict=True))
    assert len(counted) == 30
    assert all(number in won[name] for number, name in counted.items()), "an answer counted that was said not to"
    kept = [json.loads(path.read_text()) for path in (desk.folder / ANSWERED).glob("*-1.json")]
    assert sorted(one["by"] for one in kept) == sorted(counted.values())


_CRASHING = """
import os, signal, sys
from pathlib import Path
sys.stdout.write("ready"); sys.stdout.flush()
file = open(sys.argv[1], "w")
file.write('{"action":{"kind":"stop"},"rea'); file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_dies_half_way_is_refused_and_another_one_answers(desk: Desk) -> None:
    path = desk.folder / answer_name(3)
    done = subprocess.run([sys.executable, "-S", "-E", "-c", _CRASHING, str(path)], check=False, timeout=20)
    assert done.returncode == -9
    assert desk.take() is None
    assert path.exists()
    assert desk.take(BROKEN_AFTER_SECONDS + 0.1) is None
    assert "the reply is not JSON" in notes(desk.folder)[0]
    hand_in(desk.folder, 3, json.loads(HOLD))
    assert desk.take() is not None


def test_a_writer_that_dies_before_the_rename_leaves_nothing_that_is_read(desk: Desk) -> None:
    (desk.folder / f".{answer_name(3)}.4242.tmp").write_text(HOLD)
    assert desk.take_in_the_end() is None
    assert waiting_question(desk.folder) is not None


def test_a_reader_never_sees_half_a_question(tmp_path: Path) -> None:
    desk, stop, seen = Desk(tmp_path / "exchange"), threading.Event(), 0
    errors: list[Exception] = []

    def watch() -> None:
        nonlocal seen
        while not stop.is_set():
            try:
                seen += waiting_question(desk.folder) is not None
            except UsageError as error:
                errors.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 200):
        desk.exchange.publish(a_question(number))
    stop.set()
    watcher.join(20)
    assert errors == []
    assert seen > 0
