from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.decision.llm.tiny_model import DECISION, save_model
from trimtab.decision.llm.constrained import Grammar, Grammars
from trimtab.decision.llm.local_decoding import CHUNK_TOKENS, Decoder, Limits, Written, _Chance
from trimtab.decision.llm.local_files import find_model
from trimtab.decision.llm.local_loading import LoadedModel, load_model

LIMITS = Limits(tokens=300, end_seconds=float("inf"), temperature=0.0)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(find_model(str(save_model(tmp_path_factory.mktemp("tiny")))), "cpu")


def decision(loaded: LoadedModel) -> Grammar:
    return Grammars(loaded.tokenizer.backend_tokenizer.to_str(), loaded.num_scores, loaded.end_tokens).grammar(DECISION)


def write(decoder: Decoder, loaded: LoadedModel, prompt: list[int], limits: Limits = LIMITS) -> Written:
    return decoder.write(prompt, decision(loaded), limits)


def prompt_of(number: int, start: int = 5, ending: int = 0) -> list[int]:
    return [start + (7 * place) % 300 for place in range(number - 1)] + [10 + ending]


def cached(decoder: Decoder, number: int) -> list[torch.Tensor]:
    return [part[..., :number, :].clone() for layer in decoder._cache.layers for part in (layer.keys, layer.values)]


@pytest.mark.parametrize("number", [CHUNK_TOKENS - 1, CHUNK_TOKENS, CHUNK_TOKENS + 1, 3 * CHUNK_TOKENS + 5, 4 * CHUNK_TOKENS])
def test_a_shared_beginning_is_read_once_and_changes_no_bit(loaded: LoadedModel, number: int) -> None:
    decoder, fresh = Decoder(loaded, time.monotonic), Decoder(loaded, time.monotonic)
    write(decoder, loaded, prompt_of(number, ending=1))
    second = write(decoder, loaded, prompt_of(number, ending=2))
    alone = write(fresh, loaded, prompt_of(number, ending=2))
    assert second.num_reused == (number - 1) // CHUNK_TOKENS * CHUNK_TOKENS
    assert alone.num_reused == 0
    assert second.tokens == alone.tokens
    everything = number + len(alone.tokens)
    for mine, theirs in zip(cached(decoder, everything), cached(fresh, everything), strict=True):
        assert torch.equal(mine, theirs)


def test_of_another_prompt_nothing_is_reused(loaded: LoadedModel) -> None:
    decoder = Decoder(loaded, time.monotonic)
    write(decoder, loaded, prompt_of(400))
    assert write(decoder, loaded, prompt_of(400, start=6)).num_reused == 0


@pytest.mark.parametrize(("place", "reused"), [(10, 0), (127, 0), (128, 128), (300, 256), (399, 384)])
def test_nothing_behind_the_first_difference_is_reused(loaded: LoadedModel, place: int, reused: int) -> None:
    decoder = Decoder(loaded, time.monotonic)
    write(decoder, loaded, prompt_of(400))
    other = prompt_of(400)
    other[place] = 4
    written = write(decoder, loaded, other)
    assert written.num_reused == reused
    assert written.tokens == write(Decoder(loaded, time.monotonic), loaded, other).tokens


def test_a_failure_inside_the_model_leaves_nothing_to_reuse(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(loaded, time.monotonic)
    expected = write(decoder, loaded, prompt_of(400)).tokens
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise RuntimeError("out of memory")

        # The first layer has then written to the cache, and the second has not.
        patch.setattr(loaded.model.model.layers[0].mlp, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            write(decoder, loaded, prompt_of(400, ending=1))
    again = write(decoder, loaded, prompt_of(400))
    assert (again.num_reused, again.tokens) == (0, expected)


def test_a_shorter_and_a_longer_prompt_reuse_what_they_share(loaded: LoadedModel) -> None:
    decoder = Decoder(loaded, time.monotonic)
    long, short = prompt_of(900), prompt_of(900)[:300]
    for prompt, reused in ((long, 0), (short, 256), (long, 256), (long, 896), ([*long, 9, 9, 9], 896)):
        written = write(decoder, loaded, prompt)
        assert written.num_reused == reused
        assert written.tokens == write(Decoder(loaded, time.monotonic), loaded, prompt).tokens


def test_prose_and_sampled_replies_reuse_the_same_way(loaded: LoadedModel) -> None:
    limits = Limits(40, float("inf"), 1.2)
    decoder = Decoder(loaded, time.monotonic)
    first = decoder.write(prompt_of(300), None, limits)
    again = decoder.write(prompt_of(300), None, limits)
    assert (first.num_reused, again.num_reused) == (0, 256)
    assert first.tokens == again.tokens
    assert decoder.write(prompt_of(300, ending=3), None, limits).tokens != first.tokens


def test_a_model_with_a_sliding_window_reads_everything_again(tmp_path: Path) -> None:
    loaded = load_model(find_model(str(save_model(tmp_path, sliding=True))), "cpu")
    decoder = Decoder(loaded, time.monotonic)
    first = write(decoder, loaded, prompt_of(300))
    second = write(decoder, loaded, prompt_of(300))
    assert (second.num_reused, second.tokens) == (0, first.tokens)


def test_the_reply_is_the_best_that_the_grammar_allows(loaded: LoadedModel) -> None:
    # Judged anew at each place by one reading of everything before it, without cache, chunks or batches.
    prompt = prompt_of(200)
    written = write(Decoder(loaded, time.monotonic), loaded, prompt)
    grammar = decision(loaded)
    reply: list[int] = []
    while True:
        reply += grammar.take_forced()
        if grammar.has_ended:
            break
        with torch.inference_mode():
            scores = loaded.model(input_ids=torch.tensor([prompt + reply])).logits[0, -1]
        allowed = grammar.allowed()
        possible = [token for token in range(loaded.num_scores) if allowed[token // 8] >> token % 8 & 1]
        reply.append(max(possible, key=lambda token: scores[token].item()))
        grammar.take(reply[-1])
    assert written.tokens == reply


def test_what_is_forced_is_not_asked_of_the_model(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(loaded, time.monotonic)
    sizes: list[int] = []
    read = decoder._read

    def count(tokens: list[int]) -> Any:
        sizes.append(len(tokens))
        return read(tokens)

    monkeypatch.setattr(decoder, "_read", count)
    prompt = prompt_of(CHUNK_TOKENS + 10)
    written = write(decoder, loaded, prompt)
    assert written.is_whole
    assert written.num_forced > 10
    # One reading of the whole chunk, and one for each token the model chose.
    assert len(sizes) == 1 + len(written.tokens) - written.num_forced
    assert max(sizes[2:]) > 1


def test_at_no_temperature_chance_plays_no_part(loaded: LoadedModel) -> None:
    best = write(Decoder(loaded, time.monotonic), loaded, prompt_of(60)).tokens
    assert write(Decoder(loaded, time.monotonic), loaded, prompt_of(60), Limits(300, float("inf"), 1e-9)).tokens == best
    hot = write(Decoder(loaded, time.monotonic), loaded, prompt_of(60), Limits(300, float("inf"), 2.0)).tokens
    assert hot != best


def test_another_prompt_has_other_luck() -> None:
    def draw(prompt: list[int]) -> list[int]:
        chance = _Chance(prompt, 1.0)
        return [chance.pick(torch.zeros(100), None) for _ in range(10)]

    assert draw([1, 2]) == draw([1, 2])
    assert draw([1, 2]) != draw([12])
