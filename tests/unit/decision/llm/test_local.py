from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.decision.llm.tiny_model import CONTEXT_TOKENS, DECISION, SCHEMAS, closed, follows, parsed, save_model
from trimtab.decision.llm.local import LocalProvider, find_model
from trimtab.decision.llm.provider import Completion, Message, Request
from trimtab.errors import ProviderError, UsageError


def ask(
    text: str = "What now?", schema: dict[str, Any] | None = DECISION, tokens: int = 600, temperature: float | None = None
) -> Request:
    messages = (Message("system", "You steer a run."), Message("user", text))
    return Request(messages, schema, tokens, timeout_seconds=60, temperature=temperature)


def load(directory: Path, clock: Callable[[], float] = time.monotonic) -> LocalProvider:
    return LocalProvider(find_model(str(directory)), "cpu", clock)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def provider(directory: Path) -> LocalProvider:
    return load(directory)


@pytest.mark.parametrize("temperature", [None, 0.7, 2.0])
@pytest.mark.parametrize("name", SCHEMAS)
def test_even_a_random_model_keeps_to_the_schema(provider: LocalProvider, name: str, temperature: float | None) -> None:
    for number in range(6):
        reply = provider.complete(ask(f"Question {number}", SCHEMAS[name], temperature=temperature)).text
        assert follows(parsed(reply), SCHEMAS[name]), reply


def test_other_random_models_keep_to_it_too(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        reply = load(save_model(tmp_path / str(seed), seed)).complete(ask(temperature=1.0)).text
        assert follows(parsed(reply), DECISION), reply


def test_the_replies_are_the_models_choice(provider: LocalProvider) -> None:
    replies = {provider.complete(ask(f"Question {number}", temperature=1.5)).text for number in range(12)}
    kinds = {parsed(reply)["action"]["kind"] for reply in replies}
    assert len(replies) > 6
    assert len(kinds) > 1


def test_the_same_prompt_gets_the_same_reply(directory: Path, provider: LocalProvider) -> None:
    fresh = load(directory)
    for temperature in (None, 1.3):
        first = provider.complete(ask(temperature=temperature))
        provider.complete(ask("Something else", temperature=temperature))
        assert provider.complete(ask(temperature=temperature)) == first
        assert fresh.complete(ask(temperature=temperature)) == first


def test_tokens_are_counted_exactly(provider: LocalProvider) -> None:
    request = ask()
    reply = provider.complete(request)
    assert reply.model == provider.model
    assert provider.model.startswith("local:tiny")
    assert reply.input_tokens == provider.most_input_tokens(request)
    # Compact JSON, forced parts included: what a tokenizer makes of the text.
    assert reply.output_tokens is not None
    assert 20 < reply.output_tokens <= len(reply.text)
    with pytest.raises(ProviderError, match="cut off"):
        provider.complete(ask(tokens=reply.output_tokens - 1))
    assert provider.complete(ask(tokens=reply.output_tokens)) == reply


def test_prose_is_the_models_own(provider: LocalProvider) -> None:
    reply = provider.complete(ask(schema=None, tokens=20, temperature=1.0))
    assert reply.output_tokens == 20
    assert reply.text


def test_prose_ends_where_the_model_ends_it(provider: LocalProvider) -> None:
    lengths: list[int] = []
    for number in range(40):
        reply = provider.complete(ask(f"Question {number}", None, tokens=60, temperature=2.0))
        assert isinstance(reply, Completion)
        assert "<|im_end|>" not in reply.text
        lengths.append(reply.output_tokens or 0)
    assert min(lengths) < 60


def test_a_retry_conversation_reads_on_from_the_first_call(provider: LocalProvider) -> None:
    request = ask("Steps so far: " + "3.25 " * 60)
    first = provider.complete(request)
    more = (Message("assistant", first.text), Message("user", "That control is resting. Choose again."))
    again = Request((*request.messages, *more), DECISION, 600, 60.0)
    assert provider.most_input_tokens(again) > provider.most_input_tokens(request)
    assert follows(parsed(provider.complete(again).text), DECISION)


def test_an_unfinished_reply_is_cut_off(provider: LocalProvider) -> None:
    with pytest.raises(ProviderError, match=r"not finished after 10 tokens.*manager\.reply_tokens") as caught:
        provider.complete(ask(tokens=10))
    assert caught.value.fault == "cut_off"
    assert (caught.value.input_tokens, caught.value.output_tokens) == (provider.most_input_tokens(ask()), 10)


def test_what_the_schema_leaves_open_ends_all_the_same(provider: LocalProvider) -> None:
    schema = closed(text={"type": "string"}, names={"type": "array", "items": {"enum": ["a", "b"]}})
    longest = 0
    for number in range(6):
        text, names = parsed(provider.complete(ask(f"Question {number}", schema, tokens=1500)).text).values()
        assert 1 <= len(text) <= 300
        assert len(names) <= 8
        longest = max(longest, len(text))
    assert longest > 100  # the model did babble


def test_a_prompt_longer_than_the_context_is_refused(provider: LocalProvider) -> None:
    request = ask("3.25 " * CONTEXT_TOKENS, tokens=100)
    number = provider.most_input_tokens(request)
    with pytest.raises(ProviderError, match=rf"{number} tokens.*{CONTEXT_TOKENS}.*briefing_tokens to at most 1948") as caught:
        provider.complete(request)
    assert (caught.value.fault, caught.value.input_tokens, caught.value.output_tokens) == ("failed", 0, 0)


def test_a_reply_that_fills_the_context_is_cut_off(provider: LocalProvider) -> None:
    request = ask(
        "3 " * ((CONTEXT_TOKENS - 100) // 2),
        closed(text={"type": "string", "minLength": 900, "maxLength": 1000}),
        tokens=CONTEXT_TOKENS,
    )
    number = provider.most_input_tokens(request)
    assert CONTEXT_TOKENS - 200 < number < CONTEXT_TOKENS
    with pytest.raises(ProviderError, match=r"fill the model's context of 2048 tokens") as caught:
        provider.complete(request)
    assert (caught.value.fault, caught.value.output_tokens) == ("cut_off", CONTEXT_TOKENS - number)


@pytest.mark.parametrize(
    "schema",
    [{"type": "strange"}, {"type": "object", "unevaluatedProperties": 3}, {"type": "string", "pattern": "("}, {"enum": []}],
)
def test_a_schema_that_cannot_be_enforced_is_said(provider: LocalProvider, schema: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="the schema cannot be enforced") as caught:
        provider.complete(ask(schema=schema))
    assert (caught.value.fault, caught.value.input_tokens, caught.value.output_tokens) == ("failed", 0, 0)


class Ticks:
    """A clock that goes on by a second each time it is looked at."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.mark.parametrize(("timeout_seconds", "read"), [(1.0, 0), (2.0, 128), (5.0, 512)])
def test_the_deadline_holds_inside_a_long_prompt(directory: Path, timeout_seconds: float, read: int) -> None:
    provider = load(directory, Ticks())
    messages = (Message("user", "3.25 " * 300),)
    with pytest.raises(ProviderError) as caught:
        provider.complete(Request(messages, DECISION, 600, timeout_seconds))
    assert (caught.value.fault, caught.value.input_tokens, caught.value.output_tokens) == ("timeout", read, 0)


def test_the_deadline_holds_at_each_token(directory: Path) -> None:
    provider = load(directory, Ticks())
    request = Request((Message("user", "Hi"),), closed(text={"type": "string", "minLength": 100, "maxLength": 200}), 600, 21.0)
    with pytest.raises(ProviderError) as caught:
        provider.complete(request)
    assert caught.value.fault == "timeout"
    assert caught.value.output_tokens is not None
    assert 20 <= caught.value.output_tokens < 40  # 20 chosen, the others forced
    assert caught.value.input_tokens == provider.most_input_tokens(request)


def test_after_a_failure_the_next_reply_is_as_if_there_had_been_none(directory: Path) -> None:
    request = ask("3.25 " * 200)
    expected = load(directory).complete(request)
    clock = Ticks()
    provider = load(directory, clock)
    for timeout_seconds in (2.0, 4.0, 8.0, 12.0):
        with pytest.raises(ProviderError):
            provider.complete(Request(request.messages, DECISION, 600, timeout_seconds))
    assert provider.complete(Request(request.messages, DECISION, 600, 1e6)) == expected


def test_a_failure_of_torch_is_a_failed_call(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = load(directory)
    expected = provider.complete(ask())

    def run_out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 3 GiB")

    with monkeypatch.context() as patch, pytest.raises(ProviderError, match=r"OutOfMemoryError: tried to allocate") as caught:
        patch.setattr(type(provider._decoder._model), "forward", run_out_of_memory)
        provider.complete(ask("Another"))
    assert caught.value.fault == "failed"
    assert provider.complete(ask()) == expected


def test_damaged_weights_are_noticed(directory: Path, tmp_path: Path) -> None:
    save_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * torch.nan},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ProviderError, match=r"best score is nan"):
        load(tmp_path).complete(ask())


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    save_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks weights.*layers\.1\.mlp\.up_proj"):
        load(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    save_model(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=rf"cannot be loaded; received {tmp_path.name} on cpu: \w+"):
        load(tmp_path)


def test_an_unknown_device_is_refused(directory: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be loaded.*on warp.*manager\.device"):
        LocalProvider(find_model(str(directory)), "warp", time.monotonic)


def test_code_in_the_models_directory_is_not_run(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModelForCausalLM": "odd.Odd"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Odd: ...")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_asked_of_the_network(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load(directory).complete(ask()).text
    assert asked == []
    with contextlib.suppress(OSError):
        socket.create_connection(("localhost", 9))
    assert asked  # the trap works


def test_torchs_global_state_is_left_alone(directory: Path) -> None:
    def state() -> tuple[bytes, torch.dtype, int, bool]:
        numbers = bytes(torch.get_rng_state().numpy())
        return numbers, torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()

    before = state()
    load(directory).complete(ask(temperature=1.0))
    assert state() == before


def test_loading_is_quiet(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(directory).complete(ask())
    assert capfd.readouterr() == ("", "")
