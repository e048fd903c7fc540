"""The provider's double: it answers and misbehaves as it says, over plain sockets, and ends at once."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from trimtab.testing.provider_server import UNRESOLVABLE_URL, ProviderServer, RecordedRequest, Reply
from trimtab.testing.provider_wire import HUGE_BYTES, STATUS, Misbehaviour, Wire, bad_body, reply_body, tool_of, wire_of

PATHS: dict[Wire, str] = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/test-model:generateContent",
}
WIRES: tuple[Wire, ...] = get_args(Wire)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def asked(
    server: ProviderServer, path: str = PATHS["openai"], body: Any = None, method: str = "POST"
) -> tuple[int, Any, bytes]:
    """Return status, headers and body of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url()).port, timeout=5)
    try:
        connection.request(method, path, json.dumps(body or {}), {"Content-Type": "application/json", "X-Test": "yes"})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def text_of(wire: Wire, body: dict[str, Any]) -> str:
    if wire == "openai":
        return body["choices"][0]["message"]["content"]
    return body["content"][0]["text"] if wire == "anthropic" else body["candidates"][0]["content"]["parts"][0]["text"]


def test_replies_come_in_their_order_in_the_format_that_is_asked() -> None:
    with ProviderServer(["one", "two", "three"]) as server:
        for wire, text in zip(WIRES, ["one", "two", "three"], strict=True):
            status, _, body = asked(server, PATHS[wire])
            assert (status, text_of(wire, json.loads(body))) == (200, text)
        assert asked(server)[0] == 500, "no reply is left"


def test_a_function_replies_to_what_was_recorded_so_far() -> None:
    def reply(request: RecordedRequest) -> Reply:
        return f"{request.body['say']} after {len(server.requests)}"

    with ProviderServer(reply) as server:
        asked(server, body={"say": "first"})
        assert text_of("openai", json.loads(asked(server, body={"say": "second"})[2])) == "second after 2"


def test_requests_are_recorded_with_path_headers_and_body() -> None:
    with ProviderServer(["{}"]) as server:
        asked(server, PATHS["anthropic"] + "?beta=true", {"model": "m"})
        (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/messages?beta=true", {"model": "m"})
    assert request.headers["x-test"] == "yes"


def test_models_are_listed_and_other_paths_are_not_found() -> None:
    with ProviderServer(["{}"], models=["a", "b"]) as server:
        status, _, body = asked(server, "/v1/models", method="GET")
        assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["a", "b"])
        assert asked(server, "/v1/other", method="GET")[0] == 404
        assert asked(server, "/v1/completions")[0] == 404


def test_an_offered_tool_is_called() -> None:
    offers: dict[Wire, Any] = {
        "openai": {"tools": [{"type": "function", "function": {"name": "decide"}}]},
        "anthropic": {"tools": [{"name": "decide"}]},
        "google": {"tools": [{"functionDeclarations": [{"name": "decide"}]}]},
    }
    with ProviderServer(['{"a": 1}'] * 3) as server:
        bodies = {wire: json.loads(asked(server, PATHS[wire], offer)[2]) for wire, offer in offers.items()}
    call = bodies["openai"]["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], call["arguments"]) == ("decide", '{"a": 1}')
    assert bodies["anthropic"]["content"][0]["input"] == {"a": 1}
    assert bodies["google"]["candidates"][0]["content"]["parts"][0]["functionCall"] == {"name": "decide", "args": {"a": 1}}
    assert all(tool_of(wire, offer) == "decide" for wire, offer in offers.items())


@pytest.mark.parametrize("misbehaviour", STATUS, ids=lambda misbehaviour: misbehaviour.name)
def test_a_status_is_answered(misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        status, headers, body = asked(server)
    assert status == STATUS[misbehaviour]
    assert json.loads(body)["error"]["message"].startswith("answers")
    assert (headers["Retry-After"] == "3600") == (misbehaviour is Misbehaviour.RATE_LIMITED)
    assert (b"X-Test" in body) == (misbehaviour is Misbehaviour.UNAUTHORIZED), "the request's headers are repeated"
    assert ("//localhost:" in (headers["Location"] or "")) == (misbehaviour is Misbehaviour.REDIRECT)


@pytest.mark.parametrize(
    "misbehaviour", [Misbehaviour.SILENCE, Misbehaviour.SLOW_HEADERS, Misbehaviour.SLOW_DRIP], ids=lambda m: m.name
)
def test_a_slow_reply_outlasts_any_patience_and_ends_with_the_server(misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        client = threading.Thread(target=_until_the_end, args=(server,))
        client.start()
        client.join(0.2)
        assert client.is_alive(), "it has answered"
        start = time.monotonic()
    assert time.monotonic() - start < 1
    client.join(1)
    assert not client.is_alive(), "the connection is still open"


def _until_the_end(server: ProviderServer) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        asked(server)


@pytest.mark.parametrize(
    ("misbehaviour", "error"),
    [
        (Misbehaviour.RESET, ConnectionResetError),
        (Misbehaviour.HANG_UP, http.client.RemoteDisconnected),
        (Misbehaviour.NOT_HTTP, http.client.BadStatusLine),
        (Misbehaviour.TRUNCATED_BODY, http.client.IncompleteRead),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_a_broken_connection_is_broken(misbehaviour: Misbehaviour, error: type[Exception]) -> None:
    with ProviderServer([misbehaviour]) as server, pytest.raises(error) as caught:
        asked(server)
    assert type(caught.value) is error


@pytest.mark.parametrize("wire", WIRES)
def test_bodies_are_wrong_in_the_way_they_say(wire: Wire) -> None:
    good = reply_body(wire, "{}")
    bad = {misbehaviour: bad_body(wire, misbehaviour, good) for misbehaviour in Misbehaviour}
    assert bad[Misbehaviour.EMPTY_BODY] == b""
    assert bad[Misbehaviour.HTML].startswith(b"<!DOCTYPE html>")
    for broken in (Misbehaviour.TRUNCATED_JSON, Misbehaviour.NOT_UTF8, Misbehaviour.DEEP_JSON):
        with pytest.raises((ValueError, RecursionError)):
            json.loads(bad[broken])
    assert b"NaN" in bad[Misbehaviour.NOT_A_NUMBER]
    assert json.loads(bad[Misbehaviour.DUPLICATE_KEYS]) == good
    assert len(bad[Misbehaviour.DUPLICATE_KEYS]) > 1.9 * len(json.dumps(good))
    assert len(bad[Misbehaviour.PACKED_BODY]) < 200_000
    assert len(gzip.decompress(bad[Misbehaviour.PACKED_BODY])) > HUGE_BYTES
    assert text_of(wire, json.loads(bad[Misbehaviour.LONE_SURROGATE])) == "\ud800"
    assert text_of(wire, json.loads(bad[Misbehaviour.EMPTY_REPLY])) == ""
    assert b"format_disk" in bad[Misbehaviour.OTHER_TOOL]
    for changed in (
        "NO_CHOICES",
        "REFUSAL",
        "CONTENT_FILTER",
        "CUT_OFF",
        "NOT_THE_SCHEMA",
        "NO_USAGE",
        "NEGATIVE_USAGE",
        "HUGE_USAGE",
    ):
        assert json.loads(bad[Misbehaviour[changed]]) != good, changed


def test_a_huge_body_is_sent_as_long_as_somebody_reads() -> None:
    with ProviderServer([Misbehaviour.HUGE_BODY]) as server:
        with socket.create_connection(("127.0.0.1", urlsplit(server.url()).port or 0), timeout=5) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            num_bytes = 0
            while num_bytes < 20 * 2**20:
                num_bytes += len(client.recv(2**20))
        start = time.monotonic()
    assert time.monotonic() - start < 1
    assert 20 * 2**20 <= server.num_bytes_sent < HUGE_BYTES


def test_a_refusing_url_refuses_and_an_unresolvable_one_cannot_be_resolved_by_anybody() -> None:
    with ProviderServer([]) as server:
        for wire in WIRES:
            port = urlsplit(server.refusing_url(wire)).port or 0
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
    assert (urlsplit(UNRESOLVABLE_URL).hostname or "").endswith(".invalid")  # RFC 2606


def test_the_format_follows_from_the_path() -> None:
    assert {wire: wire_of(path) for wire, path in PATHS.items()} == {wire: wire for wire in WIRES}
    assert wire_of("/v1/messages?beta=true") == "anthropic"
    assert wire_of("/v1/models") is None
