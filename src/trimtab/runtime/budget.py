"""The account of one run: what its language model may still spend, shared by all processes that call it.

Rules:
1. The worst case is set aside before a call, in one transaction with the check of every cap. Without that there is no call.
2. What was set aside stays spent until it is replaced by what was used, also after a crash.
3. What was used is kept as it is, also above what was set aside. The excess counts, and every later call sets aside as
   much more.
4. Money is counted in whole micro-dollars, each call rounded up: a sum is never below the truth.
5. Whatever is wrong with the file means no call: nothing is spent that cannot be written down.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Final

from trimtab.decision.llm.prices import Price
from trimtab.errors import CapReached, SpendingError, UsageError

BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = 1
_MICRO: Final = 1_000_000  # micro-dollars in a dollar
_MOST: Final = 10**13  # tokens or micro-dollars of one call: above every cap, and a million of them still fit into 64 bits
_CREATE: Final = """
CREATE TABLE calls (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    asked_input INTEGER NOT NULL CHECK (typeof(asked_input) = 'integer' AND asked_input >= 0),
    asked_output INTEGER NOT NULL CHECK (typeof(asked_output) = 'integer' AND asked_output >= 0),
    input_tokens INTEGER NOT NULL CHECK (typeof(input_tokens) = 'integer' AND input_tokens >= 0),
    output_tokens INTEGER NOT NULL CHECK (typeof(output_tokens) = 'integer' AND output_tokens >= 0),
    micro_usd INTEGER CHECK (micro_usd IS NULL OR typeof(micro_usd) = 'integer' AND micro_usd >= 0),
    settled INTEGER NOT NULL CHECK (settled IN (0, 1))
)
"""
_SUMS: Final = """
SELECT count(*),
    coalesce(sum(input_tokens), 0),
    coalesce(sum(output_tokens), 0),
    coalesce(sum(micro_usd), 0),
    coalesce(sum(CASE WHEN micro_usd IS NULL THEN input_tokens ELSE 0 END), 0),
    coalesce(sum(CASE WHEN micro_usd IS NULL THEN output_tokens ELSE 0 END), 0),
    coalesce(sum(micro_usd IS NULL), 0),
    coalesce(sum(NOT settled), 0),
    coalesce(sum(settled AND (input_tokens > asked_input OR output_tokens > asked_output)), 0),
    coalesce(max(input_tokens - asked_input), 0),
    coalesce(max(output_tokens - asked_output), 0)
FROM calls
"""


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that a run may spend, inclusive; None for no cap.

    Args:
        calls: Calls begun, >= 0.
        tokens: Tokens read and written, >= 0.
        usd: Money in US dollars, >= 0; needs a price.

    Raises:
        UsageError: Correct the cap that the message names.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for name in ("calls", "tokens", "usd"):
            cap = getattr(self, name)
            if cap is not None and (isinstance(cap, bool) or not math.isfinite(cap) or cap < 0):
                raise UsageError(f"the cap on {name} is out of range", received=cap, allowed=">= 0, or none")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has spent so far, with all that is set aside.

    Args:
        calls: Calls begun.
        input_tokens: Tokens read; for calls without a settlement the most it can have been. So for the next two.
        output_tokens: Tokens written.
        usd: Money, rounded up by call; None if the price of a call is not known.
        unsettled: Calls under way, and calls that never came back.
        overruns: Calls that used more than what was set aside for them.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    unsettled: int
    overruns: int


class Account:
    """The account in one file; any number of threads and processes may use it at the same time.

    Args:
        path: The file; created if it is not there.
        caps: The most that may be spent.
        price: What tokens cost; None if that is not known.
        busy_seconds: Longest one access waits for other processes, > 0.

    Raises:
        UsageError: Cap tokens or calls instead of money, or say what the model costs.
        SpendingError: The file cannot be created, or is no account.
    """

    def __init__(self, path: Path, caps: Caps, price: Price | None, *, busy_seconds: float = BUSY_SECONDS) -> None:
        if caps.usd is not None and price is None:
            raise UsageError(
                "a cap on money needs a price",
                received=f"{caps.usd:g} US dollars, and no price",
                next_step="set manager.input_usd_per_million and manager.output_usd_per_million, or cap tokens instead",
            )
        self._path = path
        self._caps = caps
        self._price = price
        self._busy_seconds = busy_seconds
        self._open()

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        """Set aside the most a call can cost; return the reservation's number.

        Raises:
            CapReached: Do not call.
            SpendingError: Do not call: it cannot be written down.
            UsageError: Say what the call can cost.
        """
        asked_input, asked_output = _usable(input_tokens), _usable(output_tokens)
        if asked_input is None or asked_output is None:
            received = f"{input_tokens!r:.40} read and {output_tokens!r:.40} written"
            raise UsageError("what a call can cost is not a number of tokens", received=received, allowed="whole, >= 0")
        with _access(self._path, "rw", self._busy_seconds) as database:
            database.execute("BEGIN IMMEDIATE")
            sums = _sums(database)
            most_input = min(asked_input + sums.excess_input, _MOST)
            most_output = min(asked_output + sums.excess_output, _MOST)
            micro_usd = self._micro_usd(most_input, most_output)
            self._check(sums, most_input, most_output, micro_usd)
            added = database.execute(
                "INSERT INTO calls (asked_input, asked_output, input_tokens, output_tokens, micro_usd, settled)"
                " VALUES (?, ?, ?, ?, ?, 0)",
                (asked_input, asked_output, most_input, most_output, micro_usd),
            )
            number = added.lastrowid
            assert number is not None
            database.execute("COMMIT")
            return number

    def settle(self, reservation: int, input_tokens: int, output_tokens: int) -> None:
        """Replace a reservation by what was really used, once; without this it stays spent.

        A count that is no number of tokens leaves its part as it was set aside, and the call unsettled.

        Raises:
            SpendingError: The reservation stays as it is.
            UsageError: There is no such reservation, or it was settled before.
        """
        used_input, used_output = _usable(input_tokens), _usable(output_tokens)
        with _access(self._path, "rw", self._busy_seconds) as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute(
                "SELECT input_tokens, output_tokens FROM calls WHERE number = ? AND NOT settled", (reservation,)
            ).fetchone()
            if row is None:
                raise UsageError("there is no such reservation, or it was settled before", received=reservation)
            is_settled = used_input is not None and used_output is not None
            used_input = int(row[0]) if used_input is None else used_input
            used_output = int(row[1]) if used_output is None else used_output
            database.execute(
                "UPDATE calls SET input_tokens = ?, output_tokens = ?, micro_usd = ?, settled = ? WHERE number = ?",
                (used_input, used_output, self._micro_usd(used_input, used_output), is_settled, reservation),
            )
            database.execute("COMMIT")

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Return the price of so many tokens; None if it is not known."""
        read, written = _usable(input_tokens), _usable(output_tokens)
        if self._price is None or read is None or written is None:
            return None
        return self._price.usd(read, written)

    def _check(self, sums: _Sums, most_input: int, most_output: int, micro_usd: int | None) -> None:
        caps, spent, tokens = self._caps, sums.spent, most_input + most_output
        if caps.calls is not None and spent.calls + 1 > caps.calls:
            raise _reached("calls", f"{spent.calls:,} made", f"{caps.calls:,}")
        most = _most(sums, most_input, most_output)
        used = spent.input_tokens + spent.output_tokens
        if caps.tokens is not None and used + tokens > caps.tokens:
            raise _reached("tokens", f"{used:,} spent or set aside and up to {tokens:,} more", f"{caps.tokens:,}", most)
        if caps.usd is not None:
            # Calls from before a price was set are counted at the present one.
            known, more = sums.micro_usd + (self._micro_usd(*sums.unpriced) or 0), micro_usd or 0
            if known + more > _micro(caps.usd, ROUND_FLOOR):
                received = f"{_shown(known)} spent or set aside and up to {_shown(more)} more"
                raise _reached("usd", received, f"{caps.usd:g} US dollars", most)

    def _micro_usd(self, input_tokens: int, output_tokens: int) -> int | None:
        if self._price is None:
            return None
        usd = self._price.usd(input_tokens, output_tokens)
        if not math.isfinite(usd) or usd < 0:
            raise UsageError("the price is not an amount of money", received=usd, allowed="finite, >= 0")
        return min(_micro(usd, ROUND_CEILING), _MOST)

    def _open(self) -> None:
        """Create the file or look whether it is an account. After this it is never created again: it would be empty."""
        with _access(self._path, "rwc", self._busy_seconds) as database:
            database.execute("BEGIN IMMEDIATE")
            _create_or_check(database, self._path)
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _unusable(self._path, str(found))
            _sums(database)
            database.execute("COMMIT")


def carry_over(path: Path, known: Spent) -> None:
    """Let an account hold at least what is known to have been spent: its file may have been lost between two processes.

    Args:
        path: The account; created if it is not there.
        known: What the run's record says was spent.

    Raises:
        SpendingError: It cannot be written, or is no account.
    """
    with _access(path, "rwc", BUSY_SECONDS) as database:
        database.execute("BEGIN IMMEDIATE")
        _create_or_check(database, path)
        spent = _sums(database).spent
        calls = max(0, known.calls - spent.calls)
        read = max(0, known.input_tokens - spent.input_tokens)
        written = max(0, known.output_tokens - spent.output_tokens)
        usd = None if known.usd is None else max(0.0, known.usd - (spent.usd or 0.0))
        for number in range(max(calls, 1) if read or written or calls else 0):
            # All of it stands with the first of the missing calls; which of them took what is not known here.
            row = (read, written, None if usd is None else _micro(usd, ROUND_CEILING)) if number == 0 else (0, 0, 0)
            database.execute(
                "INSERT INTO calls (asked_input, asked_output, input_tokens, output_tokens, micro_usd, settled)"
                " VALUES (?, ?, ?, ?, ?, 1)",
                (row[0], row[1], *row),
            )
        database.execute("COMMIT")


def read_spent(path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Spent:
    """Return what a run has spent, also while it goes on.

    Raises:
        SpendingError: There is no account, or it cannot be read.
    """
    # "rw", not "ro": a reader that comes first after a crash has to finish what was begun.
    with _access(path, "rw", busy_seconds) as database:
        return _sums(database).spent


@dataclass(frozen=True, slots=True)
class _Sums:
    """What the account adds up to.

    Args:
        spent: The sums.
        micro_usd: Money of the calls whose price was known.
        unpriced: Tokens read and written by the other calls.
        excess_input: The most that a call has read beyond what it was said to read.
        excess_output: The most that a call has written beyond what it was said to write.
    """

    spent: Spent
    micro_usd: int
    unpriced: tuple[int, int]
    excess_input: int
    excess_output: int


def _sums(database: sqlite3.Connection) -> _Sums:
    row: tuple[int, ...] = database.execute(_SUMS).fetchone()
    calls, read, written, micro_usd, unpriced_read, unpriced_written, unpriced, unsettled, overruns, over_in, over_out = row
    usd = None if unpriced else micro_usd / _MICRO
    spent = Spent(calls, read, written, usd, unsettled, overruns)
    return _Sums(spent, micro_usd, (unpriced_read, unpriced_written), max(over_in, 0), max(over_out, 0))


def _create_or_check(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.execute(_CREATE)
        database.execute(f"PRAGMA user_version = {_SCHEMA}")
    elif version != _SCHEMA:
        raise SpendingError(
            "the account of spending was written by another version",
            received=f"{path}: schema {version}",
            allowed=f"schema {_SCHEMA}",
            next_step="install the version of trimtab that wrote it, or a newer one",
        )


@contextmanager
def _access(path: Path, mode: str, busy_seconds: float) -> Generator[sqlite3.Connection]:
    """Open the file for one transaction, which is taken back unless it was committed.

    A connection of its own for each: none is shared by threads or carried into another process.
    """
    try:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=busy_seconds, isolation_level=None)) as database:
            yield database
    except (sqlite3.Error, OverflowError, TypeError) as error:  # the last two: what the file holds are not our numbers
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, why: str) -> SpendingError:
    return SpendingError(
        "the account of spending cannot be used, so no call is made",
        received=f"{path}: {why}",
        next_step="see that the file is whole and can be written, and that no other process holds it",
    )


def _most(sums: _Sums, most_input: int, most_output: int) -> str:
    """Say how the most that a call could use arises."""
    parts = f"{most_input:,} for the prompt and the schema (at most a token a byte), {most_output:,} for reply_tokens"
    before = " (each with what an earlier call used beyond its most)" if sums.excess_input or sums.excess_output else ""
    return f"another call could use up to {most_input + most_output:,} tokens: {parts}{before}"


def _reached(cap: str, received: str, allowed: str, most: str = "") -> CapReached:
    what = f"another call could pass the cap on {'money' if cap == 'usd' else cap}"
    lower = ", or lower manager.reply_tokens or manager.briefing_tokens" if most else ""
    next_step = f"raise manager.{cap} in the envelope{lower}, or let the fallback answer"
    what = f"{what}: {most}" if most else what
    return CapReached(what, received=received, allowed=allowed, next_step=next_step)


def _usable(tokens: object) -> int | None:
    """Return a count of tokens, rounded up and at most `_MOST`; None for what is no such count."""
    if isinstance(tokens, bool) or not isinstance(tokens, (int, float)) or not 0 <= tokens < math.inf:
        return None
    return min(math.ceil(tokens), _MOST)


def _micro(usd: float, rounding: str) -> int:
    # By way of its shortest text, so that 0.1 dollars are 100,000 micro-dollars and not one more.
    return int((Decimal(repr(float(usd))) * _MICRO).to_integral_value(rounding))


def _shown(micro_usd: int) -> str:
    return f"{micro_usd / _MICRO:.6f} US dollars"
