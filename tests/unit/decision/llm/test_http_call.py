"""What a status and a body mean, and what of a server's words is shown."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.decision.llm.http_call import HttpCall, _check_body, _check_status, check_url, run_within
from trimtab.errors import Fault, ProviderError

KEY = "sk-0123456789-Ab\"\\'"


@pytest.mark.parametrize(
    ("status", "body", "fault", "words"),
    [
        (400, {"error": {"message": "no such field", "code": "bad"}}, "failed", "HTTP 400 no such field bad"),
        (400, {"message": "no such field"}, "failed", "HTTP 400 no such field"),
        (422, {"detail": "no such field"}, "failed", "HTTP 422 no such field"),
        (400, {"error": "no such field"}, "failed", "HTTP 400 no such field"),
        (400, {"error": {"message": "Bad.", "details": [{"reason": "API_KEY_INVALID"}]}}, "unauthorized", "HTTP 400"),
        (400, {"error": {"message": "Blocked.", "code": "content_filter"}}, "refused", "HTTP 400 Blocked. content_filter"),
        (400, {"error": {"message": "Output blocked by content filtering policy"}}, "refused", "content filtering policy"),
        (401, {"error": {"message": "Incorrect key sk-01***89"}}, "unauthorized", "HTTP 401"),
        (402, {"error": {"message": "Pay first."}}, "failed", "HTTP 402 Pay first."),
        (408, {}, "timeout", "HTTP 408"),
        (429, {"error": {"message": "Slow down.", "details": "none"}}, "rate_limited", "HTTP 429 Slow down."),
        (529, {"error": {"message": 7, "details": [1, {"reason": 2}]}}, "overloaded", "HTTP 529"),
        (302, [], "failed", "HTTP 302 redirects are not followed"),
        (100, "odd", "failed", "HTTP 100 odd"),
    ],
)
def test_a_status_is_a_fault_in_the_servers_words(status: int, body: Any, fault: Fault, words: str) -> None:
    with pytest.raises(ProviderError) as caught:
        _check_status(HttpCall(KEY), status, json.dumps(body).encode())
    assert caught.value.fault == fault
    assert words in str(caught.value)
    assert "***" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"\xff", b"<html>secret</html>", b"[" * 100_000, b'"text', b"null", b"7"])
def test_an_error_that_cannot_be_read_keeps_its_status(body: bytes) -> None:
    with pytest.raises(ProviderError, match="HTTP 500") as caught:
        _check_status(HttpCall(KEY), 500, body)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body", ["[]", "7", "null", '"text"', '{"n": 1e999}', '{"n": Infinity}', '{"a": {"b": 1, "b": 2}}', " "]
)
def test_only_a_plain_json_object_is_a_body(body: str) -> None:
    with pytest.raises(ProviderError) as caught:
        _check_body(HttpCall(KEY), "application/json", body.encode())
    assert caught.value.fault == "malformed"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"])
def test_json_goes_by_several_names(kind: str) -> None:
    _check_body(HttpCall(KEY), kind, b'{"a": 1.5}')
    with pytest.raises(ProviderError, match="of no type"):
        _check_body(HttpCall(KEY), "", b'{"a": 1.5}')


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from([KEY, json.dumps(KEY)[1:-1], repr(KEY)[1:-1]]))
def test_what_is_shown_is_short_and_has_no_key(before: str, after: str, form: str) -> None:
    shown = HttpCall(KEY).shown(before + form + after)
    assert "0123456789" not in shown, "the key, or a part of it where the text is cut"
    assert len(shown) <= 240
    assert shown.isprintable()
    assert KEY not in repr(HttpCall(KEY))


def test_an_exchange_that_is_cut_off_is_cleaned_up() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("child")

    async def endless() -> None:
        task = asyncio.create_task(child())
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("call")
        await task

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        run_within(endless(), 0.05)
    assert time.monotonic() - start < 1
    assert ended == ["call", "child"]


def test_a_base_url_loses_the_slash_at_its_end() -> None:
    assert check_url(" https://host:8000/v1/ ") == "https://host:8000/v1"
    assert check_url("http://[::1]:8000") == "http://[::1]:8000"
