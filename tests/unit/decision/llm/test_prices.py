"""Prices: known models, unknown ones, and a reservation that is never too small."""

from __future__ import annotations

import datetime as dt
import socket
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price, types
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from trimtab.decision.llm.prices import Price, price_of

KINDS = ("openai", "anthropic", "google")
PRICED = [(p.id, m.id) for p in providers if p.id in KINDS for m in p.models if price_of(p.id, m.id) is not None]
counts = st.integers(min_value=0, max_value=2_000_000)


def test_a_listed_model_has_its_price_and_source() -> None:
    price = price_of("openai", "gpt-5")
    assert price is not None
    assert (price.input_usd_per_million, price.output_usd_per_million) == (1.25, 10.0)
    assert price.source.startswith("genai-prices ")
    assert price.source.endswith("openai: gpt-5")


def test_most_listed_models_that_write_text_are_priced() -> None:
    assert len(PRICED) > 150
    assert {kind for kind, _ in PRICED} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-none-such"),
        ("openai", ""),
        ("openai", "ft:gpt-4o-mini:me::1"),
        ("anthropic", "gpt-5"),
        ("google", "gemma-4-31b-it"),  # listed, without a price
        ("openai", "whisper-1"),  # listed, by the hour
        ("url", "gpt-5"),
        ("rules", "gpt-5"),
    ],
)
def test_an_unknown_price_is_said_to_be_unknown(kind: str, model: str) -> None:
    assert price_of(kind, model) is None


def test_a_local_model_costs_nothing() -> None:
    price = price_of("local", "anything")
    assert price is not None
    assert price.usd(10**9, 10**9) == 0.0


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert price_of("anthropic", "claude-sonnet-4-5") is not None


def test_a_price_that_rises_with_the_prompt_stands_at_its_highest() -> None:
    price = price_of("anthropic", "claude-sonnet-4-5")
    assert price is not None
    assert (price.input_usd_per_million, price.output_usd_per_million) == (6.0, 22.5)


def test_a_price_that_is_over_no_longer_counts() -> None:
    price = price_of("openai", "o3")
    assert price is not None
    assert (price.input_usd_per_million, price.output_usd_per_million) == (2.0, 8.0)


def test_an_announced_rise_counts_before_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    today = dt.datetime.now(tz=dt.UTC).date()
    dear = types.ModelPrice(input_mtok=Decimal(100), output_mtok=Decimal(200))
    entry = types.ConditionalPrice(types.StartDateConstraint(today + dt.timedelta(days=5)), prices=dear)
    assert priced_as(monkeypatch, entry) == (100.0, 200.0)


def test_a_price_for_some_hours_counts_at_its_dearest(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = types.ModelPrice(input_mtok=Decimal("0.1"), output_mtok=Decimal("0.1"))
    always = types.TimeOfDateConstraint(dt.time(0, 0, tzinfo=dt.UTC), dt.time.max.replace(tzinfo=dt.UTC))
    assert priced_as(monkeypatch, types.ConditionalPrice(always, prices=cheap)) == (1.25, 10.0)


def priced_as(monkeypatch: pytest.MonkeyPatch, entry: types.ConditionalPrice) -> tuple[float, float]:
    found = calc_price(Usage(), "gpt-5", provider_id="openai").model
    assert isinstance(found.prices, types.ModelPrice)
    monkeypatch.setattr(found, "prices", [types.ConditionalPrice(prices=found.prices), entry])
    price = price_of("openai", "gpt-5")
    assert price is not None
    return price.input_usd_per_million, price.output_usd_per_million


@given(st.sampled_from(PRICED), counts, counts)
def test_what_is_settled_is_never_below_the_bill(model: tuple[str, str], input_tokens: int, output_tokens: int) -> None:
    price = price_of(*model)
    assert price is not None
    bill = calc_price(Usage(input_tokens=input_tokens, output_tokens=output_tokens), model[1], provider_id=model[0])
    assert price.usd(input_tokens, output_tokens) >= float(bill.total_price) * (1 - 1e-12)


@given(st.sampled_from(PRICED), counts, counts, counts, counts)
def test_what_is_reserved_is_never_below_what_is_settled(
    model: tuple[str, str], input_tokens: int, output_tokens: int, unread: int, unwritten: int
) -> None:
    price = price_of(*model)
    assert price is not None
    assert price.usd(input_tokens + unread, output_tokens + unwritten) >= price.usd(input_tokens, output_tokens)


@given(st.floats(0, 1000), st.floats(0, 1000), counts, counts, counts, counts)
def test_any_price_never_falls_when_a_count_grows(low: float, high: float, a: int, b: int, c: int, d: int) -> None:
    price = replace(Price(0.0, 0.0, "test"), input_usd_per_million=low, output_usd_per_million=high)
    assert price.usd(a + c, b + d) >= price.usd(a, b)
