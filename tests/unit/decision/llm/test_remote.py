"""Remote models: what is sent, what comes back, and every way in which a provider fails, against a server on this machine."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_briefing
from trimtab.controls.manager_settings import ManagerSettings, Output
from trimtab.decision.llm.http_call import HttpCall, _check_status
from trimtab.decision.llm.prompt import decision_prompt
from trimtab.decision.llm.provider import Completion, Message, Request
from trimtab.decision.llm.remote import RemoteProvider, open_remote
from trimtab.errors import Fault, MissingExtraError, ProviderError, UsageError
from trimtab.testing.provider_server import UNRESOLVABLE_URL, ProviderServer
from trimtab.testing.provider_wire import HUGE_BYTES, INPUT_TOKENS, OUTPUT_TOKENS, Misbehaviour, Wire

KEY = "sk-secret-0123456789abcdef"
WIRES: tuple[Wire, ...] = get_args(Wire)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"choice": {"type": "string", "enum": ["hold", "halve"]}},
    "required": ["choice"],
    "additionalProperties": False,
}
DEADLINE_SECONDS = 0.5
SLACK_SECONDS = 1.0  # for a machine that is busy; the faults that end by the deadline would last for minutes

# What each misbehaviour ends as. Those that are not here bring a completion.
FAULTS: dict[Misbehaviour, Fault] = {
    Misbehaviour.SILENCE: "timeout",
    Misbehaviour.SLOW_HEADERS: "timeout",
    Misbehaviour.SLOW_DRIP: "timeout",
    Misbehaviour.RESET: "unreachable",
    Misbehaviour.HANG_UP: "unreachable",
    Misbehaviour.NOT_HTTP: "malformed",
    Misbehaviour.BAD_REQUEST: "failed",
    Misbehaviour.UNAUTHORIZED: "unauthorized",
    Misbehaviour.FORBIDDEN: "unauthorized",
    Misbehaviour.NOT_FOUND: "not_found",
    Misbehaviour.RATE_LIMITED: "rate_limited",
    Misbehaviour.SERVER_ERROR: "overloaded",
    Misbehaviour.OVERLOADED: "overloaded",
    Misbehaviour.REDIRECT: "failed",
    Misbehaviour.EMPTY_BODY: "malformed",
    Misbehaviour.TRUNCATED_BODY: "malformed",
    Misbehaviour.TRUNCATED_JSON: "malformed",
    Misbehaviour.HTML: "malformed",
    Misbehaviour.WRONG_CONTENT_TYPE: "malformed",
    Misbehaviour.NOT_UTF8: "malformed",
    Misbehaviour.HUGE_BODY: "malformed",
    Misbehaviour.PACKED_BODY: "malformed",
    Misbehaviour.DEEP_JSON: "malformed",
    Misbehaviour.DUPLICATE_KEYS: "malformed",
    Misbehaviour.NOT_A_NUMBER: "malformed",
    Misbehaviour.NO_CHOICES: "malformed",
    Misbehaviour.EMPTY_REPLY: "malformed",
    Misbehaviour.LONE_SURROGATE: "malformed",
    Misbehaviour.REFUSAL: "refused",
    Misbehaviour.CONTENT_FILTER: "refused",
    Misbehaviour.CUT_OFF: "cut_off",
    Misbehaviour.OTHER_TOOL: "malformed",
}
UNCOUNTED = (Misbehaviour.NO_USAGE, Misbehaviour.NEGATIVE_USAGE, Misbehaviour.HUGE_USAGE)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No test may leave a thread or an open file, or print anything."""
    threads, files = set(threading.enumerate()), num_files()
    yield
    end = time.monotonic() + 2
    while time.monotonic() < end and (set(threading.enumerate()) - threads or num_files() > files):
        gc.collect()
        time.sleep(0.01)
    assert set(threading.enumerate()) <= threads
    assert num_files() <= files
    assert capfd.readouterr() == ("", "")


def num_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def a_request(
    schema: dict[str, Any] | None = SCHEMA,
    *,
    messages: tuple[Message, ...] = (Message("system", "Steer."), Message("user", "The loss is 2.")),
    seconds: float = 5.0,
    temperature: float | None = None,
) -> Request:
    return Request(messages, schema, 100, seconds, temperature)


def a_provider(server: ProviderServer, wire: Wire = "openai", output: Output = "native") -> RemoteProvider:
    return open_remote(wire, "test-model", url=server.url(wire), key=KEY, output=output)


def failure_of(provider: RemoteProvider, request: Request | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        provider.complete(request or a_request())
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in everything
    assert caught.value.__context__ is None, "the SDK's error, with its request, travels on"
    return caught.value


# ------------------------------------------------------------------------------------- what is sent and read


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("output", get_args(Output))
def test_a_reply_is_read_with_its_model_and_tokens(wire: Wire, output: Output) -> None:
    with ProviderServer(['{"choice": "hold"}']) as server:
        completion = a_provider(server, wire, output).complete(a_request())
    assert completion == Completion('{"choice": "hold"}', "test-model", INPUT_TOKENS, OUTPUT_TOKENS)


@pytest.mark.parametrize("wire", WIRES)
def test_prose_is_asked_for_without_a_schema(wire: Wire) -> None:
    with ProviderServer(["The loss falls.\nHold."]) as server:
        completion = a_provider(server, wire).complete(a_request(None))
        (request,) = server.requests
    assert completion.text == "The loss falls.\nHold."
    assert "schema" not in json.dumps(request.body).lower()
    assert "tools" not in request.body


def test_the_schema_stands_where_each_provider_has_a_place_for_it() -> None:
    bodies: dict[tuple[Wire, Output], Any] = {}
    for wire in WIRES:
        outputs: tuple[Output, ...] = ("native", "tool", "text")
        for output in outputs:
            with ProviderServer(["{}"]) as server:
                a_provider(server, wire, output).complete(a_request())
                bodies[wire, output] = server.requests[0].body
    openai = bodies["openai", "native"]["response_format"]["json_schema"]
    assert (openai["schema"], openai["strict"], openai["name"]) == (SCHEMA, True, "decision")
    assert bodies["openai", "tool"]["tools"][0]["function"]["parameters"] == SCHEMA
    assert bodies["openai", "tool"]["tool_choice"] == "required"
    anthropic = bodies["anthropic", "native"]["output_config"]["format"]["schema"]
    assert anthropic["properties"]["choice"]["enum"] == ["hold", "halve"]
    assert bodies["anthropic", "tool"]["tools"][0]["name"] == "decide"
    assert bodies["anthropic", "tool"]["tool_choice"] == {"type": "any"}
    google = bodies["google", "native"]["generationConfig"]
    assert google["responseJsonSchema"]["properties"] == SCHEMA["properties"]
    assert bodies["google", "tool"]["toolConfig"]["functionCallingConfig"]["mode"] == "ANY"
    for wire in WIRES:
        assert "halve" not in json.dumps(bodies[wire, "text"]), "the schema was sent, though only text was wanted"


def test_messages_are_sent_exactly_as_they_stand() -> None:
    messages = (
        Message("system", "Steer the run."),
        Message("user", "  Loss\t2.0 ± 0.1\n"),
        Message("assistant", '{"choice": "jump"}'),
        Message("user", "There is no jump."),
    )
    with ProviderServer(["{}"] * 3) as server:
        sent = {}
        for wire in WIRES:
            a_provider(server, wire).complete(a_request(messages=messages))
            sent[wire] = server.requests[-1].body
    assert [(m["role"], m["content"]) for m in sent["openai"]["messages"]] == [(m.role, m.text) for m in messages]
    assert sent["anthropic"]["system"] == "Steer the run."
    assert [(m["role"], m["content"][0]["text"]) for m in sent["anthropic"]["messages"]] == [
        (m.role, m.text) for m in messages[1:]
    ]
    assert [p["text"] for p in sent["google"]["systemInstruction"]["parts"]] == ["Steer the run."]
    assert [c["parts"][0]["text"] for c in sent["google"]["contents"]] == [m.text for m in messages[1:]]
    assert [c["role"] for c in sent["google"]["contents"]] == ["user", "model", "user"]


@pytest.mark.parametrize(
    ("kind", "wire", "field"),
    [
        ("openai", "openai", "max_completion_tokens"),
        ("url", "openai", "max_tokens"),
        ("anthropic", "anthropic", "max_tokens"),
        ("google", "google", "maxOutputTokens"),
    ],
)
def test_the_limit_and_a_given_temperature_are_sent(kind: str, wire: Wire, field: str) -> None:
    with ProviderServer(["{}", "{}"]) as server:
        provider = open_remote(kind, "test-model", url=server.url(wire), key=KEY, output="native")
        provider.complete(a_request(temperature=0.25))
        provider.complete(a_request())
        settings = [request.body.get("generationConfig", request.body) for request in server.requests]
    assert [setting[field] for setting in settings] == [100, 100]
    assert [setting.get("temperature") for setting in settings] == [0.25, None]


def test_a_temperature_that_a_model_does_not_take_is_left_out_in_silence() -> None:
    with ProviderServer(["{}"]) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_remote("openai", "o3", url=server.url(), key=KEY, output="native").complete(a_request(temperature=0.5))
        assert "temperature" not in server.requests[0].body
    assert [str(warning.message) for warning in caught] == []


def test_the_key_goes_into_its_header_and_nowhere_else() -> None:
    headers = {"openai": ["authorization"], "anthropic": ["authorization"], "google": ["x-goog-api-key"]}
    with ProviderServer(["{}"] * 3) as server:
        for wire in WIRES:
            a_provider(server, wire).complete(a_request())
            request = server.requests[-1]
            assert [name for name, value in request.headers.items() if KEY in value] == headers[wire]
            assert KEY not in request.path + json.dumps(request.body)


def test_a_server_without_a_key_gets_none() -> None:
    with ProviderServer(["{}"]) as server:
        open_remote("url", "test-model", url=server.url(), key="", output="text").complete(a_request())
        assert "authorization" not in server.requests[0].headers


def test_the_environment_changes_neither_the_address_nor_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProviderServer(["{}"] * 3) as server:
        elsewhere = server.refusing_url()
        for name in (
            "OPENAI_BASE_URL",
            "ANTHROPIC_BASE_URL",
            "GOOGLE_GEMINI_BASE_URL",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
        ):
            monkeypatch.setenv(name, elsewhere)
        for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY"):
            monkeypatch.setenv(name, "of-the-environment")
        monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
        open_remote("url", "test-model", url=server.url(), key=KEY, output="text").complete(a_request())
        a_provider(server, "anthropic").complete(a_request())
        a_provider(server, "google").complete(a_request())
        assert len(server.requests) == 3
        assert not any("of-the-environment" in value for request in server.requests for value in request.headers.values())


def test_many_calls_from_one_thread_each_have_a_connection_of_their_own() -> None:
    with ProviderServer(lambda request: Misbehaviour.RESET if len(server.requests) % 2 else "{}") as server:
        provider = a_provider(server)
        for _ in range(3):
            assert failure_of(provider).fault == "unreachable"
            assert provider.complete(a_request()).text == "{}"


# --------------------------------------------------------------------------------------------- the one model


def test_the_only_model_of_a_server_is_taken() -> None:
    with ProviderServer(["{}", "{}"], models=["qwen"]) as server:
        provider = open_remote("url", "", url=server.url() + "/", key=KEY, output="native")
        assert server.requests == ()
        assert provider.model == server.url()
        provider.complete(a_request())
        provider.complete(a_request())
        assert [request.path for request in server.requests] == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.requests[1].body["model"] == "qwen"
        assert provider.model == "qwen"


@pytest.mark.parametrize(
    ("models", "fault", "words"),
    [
        (["llama", KEY, "qwen"], "not_found", "name one of the 3 models"),
        ([], "not_found", "name one of the 0 models"),
        (["x" * 201], "malformed", "without a usable name"),
        (["a\nb"], "malformed", "without a usable name"),
    ],
)
def test_a_server_with_other_than_one_model_says_which_it_has(models: list[str], fault: Fault, words: str) -> None:
    with ProviderServer([], models=models) as server:
        problem = failure_of(open_remote("url", "", url=server.url(), key=KEY, output="native"))
    assert problem.fault == fault
    assert words in str(problem)
    assert all(name in str(problem) for name in models if name.isalpha() and len(name) < 10)


# --------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("misbehaviour", FAULTS, ids=lambda misbehaviour: misbehaviour.name)
def test_a_misbehaviour_ends_as_its_fault_within_the_deadline(wire: Wire, misbehaviour: Misbehaviour) -> None:
    slow = FAULTS[misbehaviour] == "timeout"
    with ProviderServer([misbehaviour], drip_seconds=0.05) as server:  # no single read takes as long as the deadline
        provider = a_provider(server, wire)
        start = time.monotonic()
        problem = failure_of(provider, a_request(seconds=DEADLINE_SECONDS if slow else 20.0))
        assert time.monotonic() - start < DEADLINE_SECONDS + SLACK_SECONDS
        assert len(server.requests) == 1, "it was asked again, or a redirect was followed"
        assert server.num_bytes_sent < HUGE_BYTES / 2
        start = time.monotonic()
    assert time.monotonic() - start < SLACK_SECONDS, "the server is slow to end"
    assert problem.fault == FAULTS[misbehaviour]
    assert ("packed" in str(problem)) == (misbehaviour is Misbehaviour.PACKED_BODY)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "misbehaviour", [Misbehaviour.OTHER_TOOL, Misbehaviour.CUT_OFF, Misbehaviour.REFUSAL], ids=lambda m: m.name
)
def test_a_tool_call_that_misbehaves_ends_as_its_fault(wire: Wire, misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        assert failure_of(a_provider(server, wire, "tool")).fault == FAULTS[misbehaviour]


def test_every_misbehaviour_is_tried() -> None:
    assert set(FAULTS) | set(UNCOUNTED) | {Misbehaviour.NOT_THE_SCHEMA} == set(Misbehaviour)
    assert set(FAULTS.values()) == set(get_args(Fault))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("misbehaviour", [Misbehaviour.CUT_OFF, Misbehaviour.REFUSAL], ids=lambda m: m.name)
def test_tokens_of_a_reply_that_is_none_are_known(wire: Wire, misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        problem = failure_of(a_provider(server, wire))
    assert (problem.input_tokens, problem.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("misbehaviour", UNCOUNTED, ids=lambda misbehaviour: misbehaviour.name)
def test_absurd_counts_of_tokens_are_not_believed(wire: Wire, misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        provider = a_provider(server, wire)
        if (wire, misbehaviour) == ("anthropic", Misbehaviour.NO_USAGE):
            assert failure_of(provider).fault == "malformed"  # its SDK cannot read a message without them
            return
        assert provider.complete(a_request()) == Completion("{}", "test-model", None, None)


def test_a_reply_of_another_schema_is_passed_on_for_the_manager_to_judge() -> None:
    with ProviderServer([Misbehaviour.NOT_THE_SCHEMA]) as server:
        assert a_provider(server).complete(a_request()).text == '{"weather": "fine"}'


def test_what_the_server_says_is_passed_on_without_the_key() -> None:
    with ProviderServer([Misbehaviour.BAD_REQUEST, Misbehaviour.UNAUTHORIZED]) as server:
        provider = a_provider(server)
        assert "answers 400 and says why" in str(failure_of(provider))
        assert "Bearer" not in str(failure_of(provider)), "of a refused key nothing is repeated, not even a part"


@pytest.mark.parametrize("wire", WIRES)
def test_a_closed_port_is_unreachable(wire: Wire) -> None:
    with ProviderServer([]) as server:
        provider = open_remote(wire, "test-model", url=server.refusing_url(wire), key=KEY, output="native")
        problem = failure_of(provider)
    assert (problem.fault, *counts(problem)) == ("unreachable", 0, 0)


def test_a_server_without_tls_is_unreachable_over_https() -> None:
    with ProviderServer([]) as server:
        url = server.url().replace("http://", "https://")
        problem = failure_of(open_remote("url", "m", url=url, key=KEY, output="native"))
    assert (problem.fault, *counts(problem)) == ("unreachable", 0, 0)


def test_an_unknown_host_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unknown(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # so that no name server is asked
    problem = failure_of(open_remote("url", "m", url=UNRESOLVABLE_URL, key=KEY, output="native"))
    assert (problem.fault, *counts(problem)) == ("unreachable", 0, 0)
    assert b"provider.invalid" in asked or "provider.invalid" in asked


def test_a_name_server_that_hangs_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        released.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    try:
        problem = failure_of(open_remote("url", "m", url=UNRESOLVABLE_URL, key=KEY, output="native"), a_request(seconds=0.3))
        assert problem.fault == "timeout"
        assert time.monotonic() - start < 0.3 + SLACK_SECONDS
    finally:
        released.set()


def test_an_error_inside_an_sdk_is_a_failed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProviderServer([]) as server:
        provider = a_provider(server)

        def broken(*args: Any) -> Any:
            raise RuntimeError(f"defect near {KEY}")

        monkeypatch.setattr(provider, "_open_model", broken)
        problem = failure_of(provider)
    assert problem.fault == "failed"
    assert "RuntimeError: defect near [redacted]" in str(problem)


def test_a_deadline_that_is_over_already_asks_nobody() -> None:
    with ProviderServer(["{}"]) as server:
        assert failure_of(a_provider(server), a_request(seconds=0.0)).fault == "timeout"
        assert server.requests == ()


def test_an_interrupt_ends_a_call_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProviderServer([]) as server:
        provider = a_provider(server)

        def interrupted(*args: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(provider, "_open_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            provider.complete(a_request())
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


# ------------------------------------------------------------------------------------------------ what was read

NOTHING_READ = (
    Misbehaviour.BAD_REQUEST,
    Misbehaviour.UNAUTHORIZED,
    Misbehaviour.FORBIDDEN,
    Misbehaviour.NOT_FOUND,
    Misbehaviour.RATE_LIMITED,
    Misbehaviour.REDIRECT,
)
PERHAPS_READ = (
    Misbehaviour.SILENCE,
    Misbehaviour.RESET,
    Misbehaviour.HANG_UP,
    Misbehaviour.NOT_HTTP,
    Misbehaviour.SERVER_ERROR,
    Misbehaviour.OVERLOADED,
    Misbehaviour.HTML,
    Misbehaviour.TRUNCATED_JSON,
)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("misbehaviour", [*NOTHING_READ, *PERHAPS_READ], ids=lambda misbehaviour: misbehaviour.name)
def test_only_what_was_turned_away_is_known_to_be_unread(wire: Wire, misbehaviour: Misbehaviour) -> None:
    with ProviderServer([misbehaviour]) as server:
        problem = failure_of(a_provider(server, wire), a_request(seconds=0.5 if misbehaviour is Misbehaviour.SILENCE else 20.0))
    assert counts(problem) == ((0, 0) if misbehaviour in NOTHING_READ else (None, None))


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_a_prompt_that_was_turned_away_for_what_is_in_it_may_have_been_read(code: str) -> None:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    call = HttpCall(KEY)
    with pytest.raises(ProviderError) as caught:
        _check_status(call, 400, body)
    assert counts(caught.value) == (None, None)


def test_a_list_of_models_is_no_prompt() -> None:
    with ProviderServer([], models=["llama", "qwen"]) as server:
        assert counts(failure_of(open_remote("url", "", url=server.url(), key=KEY, output="native"))) == (0, 0)
    with ProviderServer([Misbehaviour.SERVER_ERROR], models=["qwen"]) as server:
        assert counts(failure_of(open_remote("url", "", url=server.url(), key=KEY, output="native"))) == (None, None)


def counts(problem: ProviderError) -> tuple[int | None, int | None]:
    return problem.input_tokens, problem.output_tokens


# ----------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "mistral"}, "no such provider"),
        ({"key": ""}, "the key for openai is missing"),
        ({"key": "sk-with\nnewline"}, "the key cannot be sent"),
        ({"key": "sk-schlüssel"}, "the key cannot be sent"),
        ({"kind": "url"}, "the server's URL is missing"),
        ({"model": ""}, "the model's name is missing"),
        ({"model": "gpt\x00"}, "the model's name is missing or cannot be sent"),
        ({"url": "ftp://host/v1"}, "URL cannot be used"),
        ({"url": f"http://user:{KEY}@host/v1"}, "URL cannot be used"),
        ({"url": f"http://host/v1?key={KEY}"}, "URL cannot be used"),
        ({"url": "http:///v1"}, "URL cannot be used"),
        ({"url": "http://host:port/v1"}, "no URL"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(arguments: dict[str, str], words: str) -> None:
    given_ = {"kind": "openai", "model": "gpt-5", "key": KEY, "url": None, "output": "native", **arguments}
    with pytest.raises(UsageError, match=words) as caught:
        open_remote(**given_)  # type: ignore[arg-type] - the values are of many types
    assert KEY not in str(caught.value)
    assert "schlüssel" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydantic_ai.models.google", None)
    with pytest.raises(MissingExtraError, match=r"trimtab\[llm\]"):
        open_remote("google", "gemini-2.5-pro", url=None, key=KEY, output="native")


# ------------------------------------------------------------------------------------------------------- bound


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), max_size=4), st.booleans())
def test_what_is_reserved_is_no_less_than_the_bytes_that_are_read(messages: list[Message], schema: bool) -> None:
    provider = RemoteProvider("openai", "m", "http://127.0.0.1:1", "", "native")
    request = a_request(SCHEMA if schema else None, messages=tuple(messages))
    num_bytes = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in messages)
    num_bytes += len(json.dumps(SCHEMA, separators=(",", ":"))) + 530 if schema else 0  # Anthropic's words about a tool
    most = provider.most_input_tokens(request)
    assert num_bytes + 10 * len(messages) <= most <= num_bytes + 200 + 20 * len(messages)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("output", get_args(Output))
def test_what_is_reserved_is_no_less_than_the_request_that_a_provider_gets(wire: Wire, output: Output) -> None:
    briefing = a_briefing()
    prompt = decision_prompt(briefing, ManagerSettings())
    request = a_request(prompt.schema, messages=prompt.messages)
    with ProviderServer(["{}"]) as server:
        provider = a_provider(server, wire, output)
        provider.complete(request)
        (sent,) = server.requests
    most = provider.most_input_tokens(request)
    assert most >= sum(len(text.encode()) for text in texts_of(sent.body))
    if output == "native":
        assert most < len(json.dumps(prompt.schema, indent=2)) + 1000, "the schema is counted once, and compact"


def texts_of(tree: Any) -> Iterator[str]:
    """Return every text of a request's body, names among them, once."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield name
            yield from texts_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts_of(value)
    elif isinstance(tree, str):
        yield tree
