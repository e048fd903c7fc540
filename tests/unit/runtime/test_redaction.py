"""Keys are hidden, whatever way they are written down."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import time
import traceback
from contextlib import redirect_stderr
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime.redaction import MARK, RedactingStream, Redactor

KEY = 'sk-proj-Ab1/+=%"\\é-0123456789'
letters = st.text("ab", min_size=8, max_size=12)  # two letters: secrets overlap and repeat


def form_of(name: str) -> str:
    raw = KEY.encode()
    return {
        "as it is": KEY,
        "url-encoded": quote(KEY, safe=""),
        "url-encoded path": quote(KEY),
        "url-encoded form": quote_plus(KEY),
        "url-encoded in lower case": quote(KEY, safe="")
        .replace("%2F", "%2f")
        .replace("%2B", "%2b")
        .replace("%C3%A9", "%c3%a9"),
        "repr": repr(KEY)[1:-1],
        "repr of bytes": repr(raw)[2:-1],
        "json": json.dumps(KEY)[1:-1],
        "json with letters as they are": json.dumps(KEY, ensure_ascii=False)[1:-1],
        "base64": base64.b64encode(raw).decode(),
        "base64 for urls": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "base64 after a user's name": base64.b64encode(b"user:" + raw).decode(),
        "base64 in the middle": base64.b64encode(b"{'a': '" + raw + b"'}").decode(),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "as it is",
        "url-encoded",
        "url-encoded path",
        "url-encoded form",
        "repr",
        "repr of bytes",
        "json",
        "json with letters as they are",
        "base64",
        "base64 for urls",
        "base64 after a user's name",
        "base64 in the middle",
    ],
)
def test_a_key_is_hidden_in_every_form(name: str) -> None:
    text = f"before {form_of(name)} after {form_of(name)}"
    hidden = Redactor([KEY]).redact(text)
    assert form_of(name) not in hidden
    assert hidden.count(MARK) == 2
    assert hidden.startswith("before ")
    # Of a longer text in base64, all that the key decides is gone; what stands around it may stay.
    assert not any(form_of(name)[at : at + 10] in hidden for at in range(8, len(form_of(name)) - 18))


def test_lower_case_escapes_are_hidden_too() -> None:
    assert Redactor(["abcdef/+ghij"]).redact("x abcdef%2f%2bghij y") == f"x {MARK} y"


def test_secrets_come_from_variables_named_like_them() -> None:
    environ = {
        "OPENAI_API_KEY": "the-openai-key",
        "my_api_key_2": "the-second-key",
        "GITHUB_TOKEN": "the-github-token",
        "DB_PASSWORD": "the-db-password",
        "SESSION_SECRET": "the-session-secret",
        "TOKEN": "the-bare-token",
        "SHORT_TOKEN": "1234567",
        "KEYBOARD": "qwertz-layout",
        "HOME": "the-home-directory",
    }
    redactor = Redactor.from_environment(environ, ["a-given-secret"])
    text = " ".join([*environ.values(), "a-given-secret"])
    assert redactor.redact(text) == f"{MARK} {MARK} {MARK} {MARK} {MARK} {MARK} 1234567 qwertz-layout the-home-directory {MARK}"


def test_without_secrets_text_stays_as_it_is() -> None:
    for redactor in (Redactor(), Redactor([""]), Redactor(["       \n"]), Redactor.from_environment({})):
        assert redactor.redact("anything [redacted] \ud800") == "anything [redacted] \ud800"


def test_the_longer_of_two_keys_goes_first() -> None:
    redactor = Redactor(["abcdefgh", "abcdefghijkl", "ijklmnop"])
    assert redactor.redact("abcdefghijkl.") == f"{MARK}."
    assert redactor.redact("abcdefgh.") == f"{MARK}."
    assert redactor.redact("abcdefghijklmnop.") == f"{MARK}.", "of two that overlap, none may show its end"


def test_a_secret_that_is_part_of_the_mark_does_not_grow_the_text() -> None:
    assert Redactor(["redacted"]).redact("it was redacted") == "it was redacted"


@given(st.lists(letters, max_size=4), st.text("ab-", max_size=60))
def test_no_secret_is_left(secrets: list[str], text: str) -> None:
    hidden = Redactor(secrets).redact(text)
    assert not any(secret in hidden for secret in secrets)
    assert Redactor(secrets).redact(hidden) == hidden


@given(st.lists(letters, max_size=4), st.lists(st.text("ab-", max_size=20), max_size=6))
def test_a_stream_in_pieces_shows_what_the_whole_would(secrets: list[str], pieces: list[str]) -> None:
    redactor = Redactor(secrets)
    behind = io.StringIO()
    stream = RedactingStream(behind, redactor)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
        stream.flush()
        assert not any(secret in behind.getvalue() for secret in secrets)
    stream.close()
    assert behind.getvalue() == redactor.redact("".join(pieces))


def test_a_key_never_shows_even_half_between_two_writes() -> None:
    behind = io.StringIO()
    stream = RedactingStream(behind, Redactor(["sk-0123456789"]))
    stream.write("key: sk-0123")
    stream.flush()
    assert behind.getvalue() == "key: "
    stream.write("9\n")
    assert behind.getvalue() == "key: sk-01239\n"


def test_tracebacks_and_logs_are_redacted() -> None:
    behind = io.StringIO()
    logger = logging.getLogger("trimtab.test_redaction")
    logger.propagate = False
    with redirect_stderr(RedactingStream(behind, Redactor([KEY]))):
        handler = logging.StreamHandler()  # writes to what sys.stderr is now
        logger.addHandler(handler)
        logger.warning("refused: %s", KEY)
        logger.removeHandler(handler)
        try:
            int(KEY)
        except ValueError:
            traceback.print_exc()
        sys.stderr.write(json.dumps({"authorization": f"Bearer {quote(KEY)}"}))
    assert behind.getvalue().count(MARK) == 3
    assert "0123456789" not in behind.getvalue()
    assert "Traceback" in behind.getvalue()


def test_a_closed_stream_leaves_the_one_behind_open() -> None:
    behind = io.StringIO()
    stream = RedactingStream(behind, Redactor(["sk-0123456789"]))
    stream.write("ends in sk")
    stream.close()
    stream.close()
    stream.flush()
    assert behind.getvalue() == "ends in sk"
    with pytest.raises(ValueError, match="closed"):
        stream.write("more")


def test_redaction_is_cheap() -> None:
    redactor = Redactor([f"sk-{number:030d}" for number in range(10)])
    text = "x" * 100_000
    start = time.perf_counter()
    redactor.redact(text)
    assert time.perf_counter() - start < 0.5  # a few milliseconds; it reads the text once a form
