"""The files of an exchange: their names and forms, and the end of those who answer.

Rules:
1. A file is written under another name and renamed, so what stands under its own name is whole.
2. An answer is handed in only where none lies: the first one counts.
3. Only regular files up to a stated length are read; a link is never followed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.controls.manager_settings import Approval
from trimtab.decision.json_text import MAX_REPLY_BYTES
from trimtab.decision.proposal import Proposal
from trimtab.decision.wire import encode_proposal, proposal_from
from trimtab.errors import ReplyError, TrimtabError, UsageError
from trimtab.ledger.codec import decode, encode
from trimtab.ledger.record import ManagerAsked
from trimtab.runtime.files import write_new

SCHEMA: Final = "trimtab/exchange/1"
ANSWERED: Final = "answered"
MAX_NAME: Final = 80

_MAX_QUESTION_BYTES: Final = 16_777_216
_QUESTION: Final = "question-"
_NO_FILE: Final = "the exchange's file cannot be read"


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that waits for an answer from outside.

    Args:
        run: Name of the run.
        asked: What was asked, as it stands in the ledger.
        deadline_seconds: How long an answer is waited for, from ``asked_at_seconds`` on.
        asked_at_seconds: When it was laid out, in seconds since 1970.
        proposal: What awaits approval; None if a proposal is wanted.
        default: What the proposal gets if nobody answers; None if a proposal is wanted.
    """

    run: str
    asked: ManagerAsked
    deadline_seconds: float
    asked_at_seconds: float
    proposal: Proposal | None = None
    default: Approval | None = None

    @property
    def number(self) -> int:
        """Number of the question."""
        return self.asked.question

    @property
    def answer_by_seconds(self) -> float:
        """When it is withdrawn at the latest, in seconds since 1970."""
        return self.asked_at_seconds + self.deadline_seconds


class _Deadline(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    stale_after_step: int
    deadline_seconds: float
    asked_at_seconds: float
    answer_by_seconds: float
    default: Approval | None


class _Published(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    schema_: Literal["trimtab/exchange/1"]
    run: str
    question: int
    kind: Literal["proposal", "approval"]
    asked: dict[str, Any]
    proposal: dict[str, Any] | None
    deadline: _Deadline


def question_name(number: int) -> str:
    """Return the name of a question's file."""
    return f"{_QUESTION}{number:08d}.json"


def answer_name(number: int) -> str:
    """Return the name under which its answer is handed in."""
    return f"answer-{number:08d}.json"


def taken_name(number: int) -> str:
    """Return the name that an answer has while it is judged."""
    return f"answer-{number:08d}.taken"


def encode_question(question: OpenQuestion) -> dict[str, Any]:
    """Return the tree of a question's file.

    Raises:
        LedgerError: The question cannot be written, since it could not be read back.
    """
    return {
        "schema": SCHEMA,
        "run": question.run,
        "question": question.number,
        "kind": "proposal" if question.proposal is None else "approval",
        "asked": encode(question.asked),
        "proposal": None if question.proposal is None else encode_proposal(question.proposal),
        "deadline": {
            "stale_after_step": question.asked.briefing.timing.stale_after_step,
            "deadline_seconds": question.deadline_seconds,
            "asked_at_seconds": question.asked_at_seconds,
            "answer_by_seconds": question.answer_by_seconds,
            "default": question.default,
        },
    }


def decode_question(data: bytes) -> OpenQuestion:
    """Read a question's file.

    Raises:
        UsageError: It is not one that this version of trimtab can read.
    """
    try:
        tree: Any = json.loads(data)
        published = _Published.model_validate({"schema_" if key == "schema" else key: value for key, value in tree.items()})
        asked = _asked(published)
        proposal = None if published.proposal is None else proposal_from(published.proposal)
    except (ValidationError, ValueError, AttributeError, RecursionError, TrimtabError) as error:
        allowed = f"a question of {SCHEMA}"
        raise UsageError("an open question cannot be read", received=str(error)[:200], allowed=allowed) from error
    deadline = published.deadline
    return OpenQuestion(published.run, asked, deadline.deadline_seconds, deadline.asked_at_seconds, proposal, deadline.default)


def waiting_question(folder: Path) -> OpenQuestion | None:
    """Return the question of an exchange that still has no answer, whatever the time; None if there is none.

    Raises:
        UsageError: The question's file is damaged, or of another version of trimtab.
    """
    try:
        names = [path.name for path in folder.iterdir() if number_in(path.name, _QUESTION) is not None]
        if not names:
            return None
        data = read_regular(folder / max(names), _MAX_QUESTION_BYTES)
    except FileNotFoundError:  # no exchange, or withdrawn a moment ago
        return None
    except (OSError, ReplyError) as error:
        raise UsageError(_NO_FILE, received=f"{folder}: {error}", next_step="check the folder") from error
    question = decode_question(data)
    # In this order: a question goes before its answer is put away, so no answer and no question means answered meanwhile.
    is_open = not is_answered(folder, question.number) and (folder / question_name(question.number)).exists()
    return question if is_open else None


def is_answered(folder: Path, number: int) -> bool:
    """Return whether an answer lies there, or is being judged."""
    return any(os.path.lexists(folder / name) for name in (answer_name(number), taken_name(number)))


def hand_in(folder: Path, number: int, answer: Mapping[str, object]) -> None:
    """Hand in an answer, if nobody has yet and the question is still open.

    Raises:
        UsageError: Another answer was first, the question was withdrawn, or the folder cannot be written.
    """
    target = folder / answer_name(number)
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        write_new(temporary, json.dumps(answer, allow_nan=False).encode())
        inode = temporary.lstat().st_ino
        _rename_new(temporary, target, taken=folder / taken_name(number))
    except FileExistsError:
        raise UsageError(
            "somebody else has answered this question", received=f"question {number}", next_step="see what: trimtab show RUN"
        ) from None
    except OSError as error:
        raise UsageError(
            "the answer cannot be written", received=f"{folder}: {error.strerror}", next_step="check the folder"
        ) from error
    finally:
        with suppress(OSError):  # it has its own name by now, or was never written
            temporary.unlink()
    if not (folder / question_name(number)).exists() and _take_back(target, inode):
        raise UsageError("the question was withdrawn meanwhile", received=f"question {number}", next_step="trimtab pending RUN")


def number_in(name: str, prefix: str, suffix: str = ".json") -> int | None:
    """Return the number in a file's name; None for names that are not of this form."""
    digits = name.removeprefix(prefix).removesuffix(suffix)
    is_of_form = name == f"{prefix}{digits}{suffix}" and 8 <= len(digits) <= 18 and digits.isascii() and digits.isdigit()
    return int(digits) if is_of_form else None


def read_regular(path: Path, most: int = MAX_REPLY_BYTES) -> bytes:
    """Read a regular file, never through a link, and never waiting for a writer.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        ReplyError: It is not a regular file, or longer than ``most`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ReplyError("the answer is not a regular file", allowed="a file, written and then renamed")
        data = b""
        while len(data) <= most and (chunk := os.read(descriptor, most + 1 - len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise ReplyError("the answer is too long", received=f"more than {most} bytes", allowed=f"at most {most} bytes")
    return data


def name_of(text: str, default: str) -> str:
    """Return a name that somebody gave themselves as one short line; ``default`` if nothing is left of it."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_NAME])
    return " ".join(shown.split())[:MAX_NAME].rstrip() or default


def split_name(tree: object) -> tuple[object, str]:
    """Return an answer without the field ``by``, and what stood in it.

    Raises:
        ReplyError: ``by`` is not text.
    """
    if not isinstance(tree, dict) or "by" not in tree:
        return cast("object", tree), ""
    fields = dict(cast("dict[str, object]", tree))
    by = fields.pop("by")
    if not isinstance(by, str):
        raise ReplyError("the answer's field by is not text", received=type(by).__name__, allowed="a name")
    return fields, by


def _asked(published: _Published) -> ManagerAsked:
    asked = decode(published.asked)
    if not isinstance(asked, ManagerAsked) or asked.question != published.question:
        raise ValueError("what was asked is not this question")
    return asked


def _rename_new(source: Path, target: Path, taken: Path) -> None:
    if os.path.lexists(taken):
        raise FileExistsError
    try:
        os.link(source, target)  # unlike a rename, it fails if somebody was first
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the trainer still takes one answer only
        if os.path.lexists(target):
            raise FileExistsError from None
        source.rename(target)


def _take_back(path: Path, inode: int) -> bool:
    """Remove an answer that nobody will read; return whether it was still there."""
    try:
        if path.lstat().st_ino != inode:
            return False
        path.unlink()
    except OSError:  # it was read, or put aside
        return False
    return True
