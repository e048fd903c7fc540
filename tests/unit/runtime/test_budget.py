"""Promise C1: what is spent never passes its cap."""

from __future__ import annotations

import json
import math
import random
import sqlite3
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.runtime import spender
from trimtab.decision.llm.prices import Price
from trimtab.errors import CapReached, SpendingError, UsageError
from trimtab.runtime.budget import Account, Caps, Spent, carry_over, read_spent

HOSTILE = [-1, True, False, math.nan, math.inf, -math.inf, None, "12"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spending.sqlite"


def account(path: Path, price: Price | None = None, **caps: Any) -> Account:
    return Account(path, Caps(**caps), price, busy_seconds=5.0)


def test_an_account_that_was_never_used_has_spent_nothing(path: Path) -> None:
    account(path, calls=1)
    assert read_spent(path) == Spent(0, 0, 0, 0.0, 0, 0)


def test_the_worst_case_is_spent_until_it_is_settled(path: Path) -> None:
    spending = account(path, spender.PRICE, tokens=2000)
    number = spending.reserve(900, 300)
    assert read_spent(path) == Spent(1, 900, 300, 0.000315, 1, 0)
    with pytest.raises(CapReached, match="tokens"):
        spending.reserve(900, 300)
    spending.settle(number, 500, 10)
    assert read_spent(path) == Spent(1, 500, 10, 0.000081, 0, 0)
    spending.reserve(900, 300)


@pytest.mark.parametrize(
    ("caps", "allowed"),
    [
        ({"calls": 3}, 3),
        ({"calls": 0}, 0),
        ({"tokens": 3600}, 3),
        ({"tokens": 3599}, 2),
        ({"tokens": 0}, 0),
        ({"usd": 0.000945}, 3),
        ({"usd": 0.000944}, 2),
        ({"usd": 0}, 0),
        ({"calls": 3, "tokens": 2400, "usd": 1.0}, 2),
    ],
)
def test_a_cap_is_used_up_to_its_last_token_and_no_further(path: Path, caps: dict[str, Any], allowed: int) -> None:
    spending = account(path, spender.PRICE, **caps)
    for _ in range(allowed):
        spending.reserve(900, 300)
    for _ in range(2):
        with pytest.raises(CapReached, match="raise manager"):
            spending.reserve(900, 300)
    assert read_spent(path).calls == allowed


@pytest.mark.parametrize(("cap", "value"), [("tokens", 10_000), ("usd", 0.001)])
def test_a_cap_that_is_reached_says_how_the_most_arises_and_what_lowers_it(path: Path, cap: str, value: float) -> None:
    with pytest.raises(CapReached) as caught:
        account(path, spender.PRICE, **{cap: value}).reserve(9500, 2000)
    for words in (
        "another call could use up to 11,500 tokens: ",
        ": 9,500 for the prompt and the schema (at most a token a byte), 2,000 for reply_tokens",
        f"raise manager.{cap} in the envelope, or lower manager.reply_tokens or manager.briefing_tokens",
    ):
        assert words in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_a_cap_on_calls_says_nothing_of_tokens(path: Path) -> None:
    with pytest.raises(CapReached) as caught:
        account(path, calls=0).reserve(9500, 2000)
    assert "_tokens" not in str(caught.value)


def test_a_call_without_a_settlement_stays_spent_after_a_restart(path: Path) -> None:
    account(path, calls=2, tokens=3000).reserve(900, 300)
    again = account(path, calls=2, tokens=3000)
    again.settle(again.reserve(900, 300), 1, 1)
    assert read_spent(path).unsettled == 1
    with pytest.raises(CapReached, match="calls"):
        account(path, calls=2, tokens=3000).reserve(1, 1)


def test_more_than_was_set_aside_is_kept_and_every_later_call_sets_aside_as_much_more(path: Path) -> None:
    spending = account(path, tokens=10_000)
    spending.settle(spending.reserve(1000, 300), 1000, 2300)
    assert read_spent(path) == Spent(1, 1000, 2300, None, 0, overruns=1)
    spending.reserve(1000, 300)
    spent = read_spent(path)
    assert (spent.input_tokens, spent.output_tokens) == (2000, 4600)
    with pytest.raises(CapReached, match="6,600 spent or set aside and up to 3,401 more") as caught:
        spending.reserve(1000, 401)
    assert "1,000 for the prompt" in str(caught.value)
    assert "2,401 for reply_tokens (each with what an earlier call used beyond its most)" in str(caught.value)
    spending.reserve(1000, 400)


def test_a_settlement_beyond_the_cap_is_recorded_and_nothing_more_is_allowed(path: Path) -> None:
    spending = account(path, spender.PRICE, tokens=5000, usd=1.0)
    spending.settle(spending.reserve(10, 10), 2**70, 2**70)
    spent = read_spent(path)
    assert spent.overruns == 1
    assert min(spent.input_tokens, spent.output_tokens) >= 10**12
    assert spent.usd is not None
    assert spent.usd > 1.0
    with pytest.raises(CapReached):
        spending.reserve(0, 0)


@pytest.mark.parametrize("number", HOSTILE)
def test_a_count_that_is_no_number_of_tokens_leaves_what_was_set_aside(path: Path, number: Any) -> None:
    spending = account(path, tokens=2000)
    spending.settle(spending.reserve(900, 300), number, 7)
    assert read_spent(path) == Spent(1, 900, 7, None, 1, 0)
    assert spending.usd(number, 7) is None


@pytest.mark.parametrize("number", HOSTILE)
def test_a_call_that_may_cost_nobody_knows_what_is_not_made(path: Path, number: Any) -> None:
    with pytest.raises(UsageError, match="not a number of tokens"):
        account(path).reserve(5, number)
    assert read_spent(path).calls == 0


def test_a_reservation_is_settled_once(path: Path) -> None:
    spending = account(path)
    number = spending.reserve(900, 300)
    spending.settle(number, 800, 200)
    for reservation in (number, number + 1, -1):
        with pytest.raises(UsageError, match="no such reservation"):
            spending.settle(reservation, 1, 1)
    assert read_spent(path).input_tokens == 800


@given(
    tokens=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=8),
    prices=st.tuples(*[st.decimals(0, 100, allow_nan=False, places=4)] * 2),
)
def test_the_sum_of_money_is_never_below_the_truth(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[tuple[int, int]], prices: tuple[Any, Any]
) -> None:
    path = tmp_path_factory.mktemp("run") / "spending.sqlite"
    spending = Account(path, Caps(), Price(float(prices[0]), float(prices[1]), "a test"))
    for used in tokens:
        spending.settle(spending.reserve(10_000, 10_000), *used)
    truth = sum(Fraction(prices[0]) * read + Fraction(prices[1]) * written for read, written in tokens)
    spent = read_spent(path).usd
    assert spent is not None
    micro_usd = Fraction(round(spent * 1_000_000))
    assert truth - Fraction(1, 10**6) <= micro_usd < truth + len(tokens) + Fraction(1, 10**6)


def test_ten_calls_of_ten_cents_fit_into_a_dollar(path: Path) -> None:
    spending = Account(path, Caps(usd=1.0), Price(100_000.0, 0.0, "a test"))
    for _ in range(10):
        spending.reserve(1, 0)
    with pytest.raises(CapReached, match="money"):
        spending.reserve(1, 0)
    assert read_spent(path).usd == 1.0


def test_calls_from_before_a_price_was_known_count_at_the_present_one(path: Path) -> None:
    account(path).reserve(900, 300)
    assert read_spent(path).usd is None
    with pytest.raises(CapReached, match="money"):
        account(path, spender.PRICE, usd=0.0005).reserve(900, 300)
    account(path, spender.PRICE, usd=0.00063).reserve(900, 300)


def test_a_cap_on_money_without_a_price_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="needs a price"):
        account(path, usd=1.0)
    assert not path.exists()


@pytest.mark.parametrize("cap", [-1, True, math.nan, math.inf])
def test_a_cap_is_a_finite_amount(cap: Any) -> None:
    for name in ("calls", "tokens", "usd"):
        with pytest.raises(UsageError, match=name):
            Caps(**{name: cap})


def test_an_account_held_by_another_process_is_an_error_within_its_time(path: Path) -> None:
    spending = Account(path, Caps(), None, busy_seconds=0.2)
    number = spending.reserve(1, 1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for access in (
        lambda: spending.reserve(1, 1),
        lambda: spending.settle(number, 1, 1),
        lambda: Account(path, Caps(), None, busy_seconds=0.2),
        lambda: read_spent(path, busy_seconds=0.2),
    ):
        began = time.monotonic()
        with pytest.raises(SpendingError, match="locked"):
            access()
        assert time.monotonic() - began < 3.0
    holder.close()
    spending.settle(number, 1, 1)
    assert read_spent(path) == Spent(1, 1, 1, None, 0, 0)


def damage_head(path: Path) -> None:
    path.write_bytes(b"nothing of the kind" * 400)


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:4140] = b"\xff" * 44
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage_head, damage_middle, cut_short, empty, Path.unlink])
def test_a_file_that_is_damaged_or_gone_allows_no_call(path: Path, harm: Any) -> None:
    spending = account(path, calls=5)
    number = spending.reserve(1, 1)
    harm(path)
    with pytest.raises(SpendingError, match="no call is made"):
        spending.reserve(1, 1)
    with pytest.raises(SpendingError):
        spending.settle(number, 1, 1)
    with pytest.raises(SpendingError):
        read_spent(path)
    if path.exists() and path.stat().st_size:
        with pytest.raises(SpendingError):
            account(path, calls=5)


def test_an_account_of_another_version_or_kind_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(SpendingError, match="schema 7"):
        account(path)
    database.execute("PRAGMA user_version = 1")
    database.close()
    with pytest.raises(SpendingError, match="no such table"):
        account(path)


def test_a_folder_that_cannot_be_written_or_is_missing_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", Path("/proc")):
        with pytest.raises(SpendingError, match="account of spending"):
            account(folder / "spending.sqlite")
        with pytest.raises(SpendingError):
            read_spent(folder / "spending.sqlite")


def test_a_path_with_signs_of_an_address_names_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=memory#b%20c ü"
    folder.mkdir()
    account(folder / "spending.sqlite").reserve(1, 1)
    assert read_spent(folder / "spending.sqlite").calls == 1


def start(path: Path, calls: Path, **setup: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.runtime.spender", str(path), str(calls), json.dumps(setup)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def made(calls: Path) -> list[tuple[int, int]]:
    """Return what the callers say that they used; a torn last line is a call as well."""
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [(int(line.split()[0]), int(line.split()[-1])) for line in lines]


def assert_within(caps: dict[str, Any], calls: list[tuple[int, int]]) -> None:
    assert len(calls) <= caps.get("calls", math.inf)
    assert sum(map(sum, calls)) <= caps.get("tokens", math.inf)
    usd = sum((read * spender.INPUT_USD + written * spender.OUTPUT_USD for read, written in calls), Fraction())
    assert usd <= Fraction(str(caps.get("usd", 10**9)))


def spend_together(path: Path, caps: dict[str, Any], processes: int, **setup: Any) -> list[tuple[int, int]]:
    calls = path.with_name("calls.txt")
    running = [start(path, calls, caps=caps, seed=seed, **setup) for seed in range(processes)]
    for process in running:
        _, printed = process.communicate(timeout=500)
        assert process.returncode == 0, printed
    return made(calls)


CAPS: list[dict[str, Any]] = [{"calls": 57}, {"tokens": 40_000}, {"usd": 0.012}, {"calls": 57, "tokens": 60_000, "usd": 0.015}]


@pytest.mark.parametrize("caps", CAPS)
def test_two_hundred_callers_at_once_stay_within_every_cap(path: Path, caps: dict[str, Any]) -> None:
    calls = spend_together(path, caps, processes=8, threads=25, attempts=1, pause_seconds=0.002)
    assert_within(caps, calls)
    spent = read_spent(path)
    assert spent.calls == len(calls)
    assert spent.input_tokens + spent.output_tokens >= sum(map(sum, calls))
    assert len(calls) >= 30  # and the caps were used
    if caps == {"calls": 57}:
        assert len(calls) == 57


def kill_and_restart(path: Path, caps: dict[str, Any], kills: int, seed: int) -> int:
    """Kill spenders at random moments and start others in their place; return how many were killed while they spent."""
    chance = random.Random(seed)
    calls, running, killed = path.with_name("calls.txt"), [], 0
    for number in range(kills):
        running.append(start(path, calls, caps=caps, seed=number, threads=3, attempts=10**6, pause_seconds=0.02))
        assert running[-1].stdout is not None
        assert running[-1].stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.05))
        if len(running) > 2:
            victim = running.pop(0)
            killed += victim.poll() is None
            victim.kill()
            victim.communicate(timeout=20)
    for process in running:
        process.kill()
        process.communicate(timeout=20)
    return killed


def assert_whole_after(path: Path, caps: dict[str, Any]) -> None:
    calls, spent = made(path.with_name("calls.txt")), read_spent(path)
    assert_within(caps, calls)
    # A call that was killed between its reservation and its making is spent and was not made: never the other way.
    assert spent.calls >= len(calls) > 0
    assert spent.input_tokens >= sum(read for read, _ in calls)
    assert spent.output_tokens >= sum(written for _, written in calls)
    assert spent.unsettled > 0
    account(path, spender.PRICE, **caps)


def test_spenders_killed_at_random_moments_stay_within_the_caps(path: Path) -> None:
    caps = {"calls": 400, "tokens": 150_000, "usd": 0.05}
    assert kill_and_restart(path, caps, kills=8, seed=1) == 6
    assert_whole_after(path, caps)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("caps", [{"calls": 611}, {"calls": 700, "tokens": 400_000, "usd": 0.1}])
def test_a_thousand_callers_at_once_stay_within_every_cap(path: Path, caps: dict[str, Any]) -> None:
    calls = spend_together(path, caps, processes=20, threads=50, attempts=3, pause_seconds=0.01)
    assert_within(caps, calls)
    spent = read_spent(path)
    assert spent.calls == len(calls) >= 300
    print(f"C1: 1,000 callers, 3,000 attempts, {len(calls)} calls made, {spent}, caps {caps}")  # noqa: T201 - the count


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_killed_spenders_stay_within_the_caps(path: Path, seed: int) -> None:
    caps = {"calls": 100_000, "tokens": 2_500_000, "usd": 0.7}
    killed = kill_and_restart(path, caps, kills=100, seed=seed)
    assert_whole_after(path, caps)
    num_calls, spent = len(made(path.with_name("calls.txt"))), read_spent(path)
    print(f"C1: {killed} spenders killed, {num_calls} calls made, {spent}, seed {seed}")  # noqa: T201 - the count


def test_what_the_record_knows_to_be_spent_counts_in_a_lost_account(path: Path) -> None:
    known = Spent(calls=3, input_tokens=500, output_tokens=70, usd=0.25, unsettled=1, overruns=0)
    carry_over(path, known)
    found = read_spent(path)
    assert (found.calls, found.input_tokens, found.output_tokens, found.usd) == (3, 500, 70, 0.25)
    carry_over(path, known)
    assert read_spent(path) == found, "nothing is counted twice"
    account = Account(path, Caps(calls=4), None)
    account.settle(account.reserve(10, 10), 10, 10)
    with pytest.raises(CapReached):
        account.reserve(1, 1)
    carry_over(path, known)
    assert read_spent(path).calls == 4, "an account that knows more is left as it is"


def test_a_price_that_was_not_known_stays_unknown(path: Path) -> None:
    carry_over(path, Spent(calls=1, input_tokens=5, output_tokens=7, usd=None, unsettled=0, overruns=0))
    assert read_spent(path).usd is None
