"""The training process's end of the exchange: a folder where questions lie open and answers are handed in.

Rules:
1. An answer is taken once: it is moved out of the way first and judged from there. What was judged stays under ``answered``.
2. A refused answer gets a note that says why, and the question stays open, a few times.
3. An answer to any other question is put aside, never applied.
4. Looking costs one `lstat`, and not more often than every `LOOK_EVERY_SECONDS`.
5. Nothing but questions and answers is touched; what else lies in the folder is nobody's business.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from trimtab.decision.json_text import MAX_REPLY_BYTES, read_json
from trimtab.errors import ReplyError
from trimtab.runtime.exchange_form import (
    ANSWERED,
    OpenQuestion,
    answer_name,
    encode_question,
    number_in,
    question_name,
    read_regular,
    taken_name,
)
from trimtab.runtime.files import write_whole

LOOK_EVERY_SECONDS: Final = 0.02
BROKEN_AFTER_SECONDS: Final = 1.0
MAX_REFUSALS: Final = 5
_MOST_SWEPT: Final = 1000

Read = TypeVar("Read")
_Seen = tuple[int, int, int]


class Exchange:
    """One question at a time, and what is handed in as the answer to it.

    Args:
        folder: The run's exchange folder; created with the first question.
        run: Name of the run.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.run = run
        self._folder = folder.absolute()  # the training loop may go elsewhere
        self._kept = self._folder / ANSWERED
        self._number: int | None = None
        self._answer = self._folder
        self._look_at_seconds = 0.0
        self._seen: _Seen | None = None
        self._seen_since_seconds = 0.0
        self._num_refused = 0
        self._last_refusal = ""

    @property
    def refusals(self) -> str:
        """Say how many answers to the open question were refused, and why the last one was; empty for none."""
        if not self._num_refused:
            return ""
        return f"{self._num_refused} answer{'s' if self._num_refused > 1 else ''} refused, the last: {self._last_refusal}"

    def publish(self, question: OpenQuestion) -> None:
        """Lay a question out; an earlier one is withdrawn.

        Raises:
            OSError: The folder cannot be used.
            LedgerError: The question cannot be written.
        """
        self.withdraw()
        self._num_refused, self._last_refusal = 0, ""
        self._seen, self._look_at_seconds = None, 0.0
        for folder in (self._folder, self._kept):
            folder.mkdir(exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise NotADirectoryError(f"{folder} is a link")
        self._sweep()
        text = json.dumps(encode_question(question), allow_nan=False)
        write_whole(self._folder / question_name(question.number), text.encode())
        self._number = question.number
        self._answer = self._folder / answer_name(question.number)

    def take(self, read: Callable[[bytes], Read], now_seconds: float) -> Read | None:
        """Return what ``read`` makes of the answer, once; None while there is no good one.

        Args:
            read: Reads an answer, or raises ReplyError: it is then put aside with a note, and the next one may be better.
            now_seconds: The time, from a clock that never goes back.

        Raises:
            ReplyError: `MAX_REFUSALS` answers were refused; the question is withdrawn.
            OSError: The folder cannot be used; the question is withdrawn as far as that goes.
        """
        if self._number is None or now_seconds < self._look_at_seconds:
            return None
        self._look_at_seconds = now_seconds + LOOK_EVERY_SECONDS
        try:
            found = self._answer.lstat()
        except FileNotFoundError:
            return None
        try:
            return None if self._is_half_written(found, now_seconds) else self._take(self._number, read)
        except OSError:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Take the open question back; answers to it no longer count. Never raises."""
        number, self._number = self._number, None
        if number is None:
            return
        with suppress(OSError):  # nobody is harmed by a question that stays: its time is written in it
            (self._folder / question_name(number)).unlink()
        with suppress(OSError):
            self._sweep()

    def _is_half_written(self, found: os.stat_result, now_seconds: float) -> bool:
        """Return whether an answer's writer may still be at it: it is not JSON yet, and changed within the last second."""
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_REPLY_BYTES:
            return False
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return now_seconds - self._seen_since_seconds < BROKEN_AFTER_SECONDS
        self._seen, self._seen_since_seconds = seen, now_seconds
        try:
            read_json(read_regular(self._answer))
        except (ReplyError, OSError):
            return True
        self._seen = None
        return False

    def _take(self, number: int, read: Callable[[bytes], Read]) -> Read | None:
        taken = self._folder / taken_name(number)
        try:
            self._answer.rename(taken)
        except FileNotFoundError:  # its writer thought better of it
            return None
        self._seen = None
        try:
            result = read(_content(taken))
        except ReplyError as error:
            self._refuse(number, taken, error)
            return None
        with suppress(OSError):  # the answer counts all the same; the question's file says when its time is over
            (self._folder / question_name(number)).unlink()
        self._put_aside(taken, number)
        self.withdraw()
        return result

    def _refuse(self, number: int, taken: Path, error: ReplyError) -> None:
        self._num_refused += 1
        self._last_refusal = str(error)[:300]
        self._put_aside(taken, number, str(error))
        if self._num_refused >= MAX_REFUSALS:
            refusals = self.refusals
            self.withdraw()
            raise ReplyError(refusals)

    def _sweep(self) -> None:
        """Put every answer aside, and remove every question: none of them is open."""
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MOST_SWEPT), strict=False)]
        for name in names:
            number = number_in(name, "answer-")
            number = number_in(name, "answer-", ".taken") if number is None else number
            with suppress(FileNotFoundError):  # whoever wrote it took it back at this moment
                if number is not None:
                    self._put_aside(self._folder / name, number, f"not applied: question {number} was not open")
                elif number_in(name, "question-") is not None:
                    (self._folder / name).unlink()

    def _put_aside(self, path: Path, number: int, note: str = "") -> None:
        """Move an answer, whatever it is, to ``answered``; say beside it why it did not count."""
        count = 1
        while os.path.lexists(kept := self._kept / f"answer-{number:08d}-{count}.json"):
            count += 1
        path.rename(kept)
        if note:
            with suppress(OSError):  # a full disk: the answer is out of the way, and that is what counts
                write_whole(kept.with_suffix(".refused"), f"{note}\n".encode("utf-8", "backslashreplace"))


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ReplyError("the answer cannot be read", received=error.strerror, allowed="a file of one's own") from error
