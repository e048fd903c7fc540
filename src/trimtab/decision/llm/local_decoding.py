"""Writes a reply token by token.

Rules:
1. A prompt is read in chunks on a fixed grid: whole chunks from its beginning, then what is left. What a chunk leaves in the
   cache depends on the tokens up to its end and on nothing else, so chunks that two prompts share are read once, and the
   reply is the same, bit for bit, as if they were read again.
2. What the grammar forces is not asked of the model; it is read together with the token that was chosen before it.
3. The deadline is looked at before each chunk and each token.
4. torch's global state (random numbers, default type, threads) is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from trimtab.decision.llm.constrained import Grammar
from trimtab.decision.llm.local_loading import LoadedModel
from trimtab.errors import ProviderError

CHUNK_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class Written:
    """A reply.

    Args:
        tokens: Its tokens, without one that ends it.
        is_whole: Whether it ended by itself; else it was cut off.
        num_forced: Tokens that the grammar left no choice about.
        num_reused: Tokens of the prompt that were still in the cache.
    """

    tokens: list[int]
    is_whole: bool
    num_forced: int
    num_reused: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a reply may go.

    Args:
        tokens: Most tokens.
        end_seconds: When it has to be finished, on the decoder's clock.
        temperature: 0 takes the best token.
    """

    tokens: int
    end_seconds: float
    temperature: float


class Decoder:
    """Reads prompts and writes replies with one model; one at a time.

    Args:
        loaded: The model.
        clock: Seconds that never go back.
    """

    def __init__(self, loaded: LoadedModel, clock: Callable[[], float]) -> None:
        from inspect import signature

        self._model = loaded.model
        self._ends = frozenset(loaded.end_tokens)
        self._clock = clock
        # Scores of the last token alone: those of a whole prompt can be larger than the model.
        keeps = "logits_to_keep" in signature(loaded.model.forward).parameters
        self._keep: dict[str, int] = {"logits_to_keep": 1} if keeps else {}
        self._cache: Any = None
        self._chunks: list[int] = []  # the tokens of the whole chunks at the cache's beginning

    def write(self, prompt: list[int], grammar: Grammar | None, limits: Limits) -> Written:
        """Return the reply to a prompt.

        Raises:
            ProviderError: Out of time, or the model's scores cannot be used.
        """
        import torch

        with torch.inference_mode():
            try:
                return self._write(prompt, grammar, limits)
            except (RuntimeError, MemoryError):
                self.forget()  # it may have been left half written
                raise

    def forget(self) -> None:
        """Drop what was read before."""
        self._cache, self._chunks = None, []

    def _write(self, prompt: list[int], grammar: Grammar | None, limits: Limits) -> Written:
        num_reused = self._reuse(prompt)
        waiting = self._read_chunks(prompt, num_reused, limits)
        chance = _Chance(prompt, limits.temperature)
        reply: list[int] = []
        num_forced = 0
        while True:
            if grammar is not None:
                forced = grammar.take_forced()
                num_forced += len(forced)
                reply += forced
                waiting += forced
                if grammar.has_ended and len(reply) <= limits.tokens:
                    return Written(reply, True, num_forced, num_reused)
            if len(reply) >= limits.tokens:
                return Written(reply[: limits.tokens], False, num_forced, num_reused)
            self._require_time(limits, len(prompt), len(reply))
            token = chance.pick(self._read(waiting), None if grammar is None else grammar.allowed())
            if token in self._ends:
                return Written(reply, True, num_forced, num_reused)
            if grammar is not None:
                grammar.take(token)
            reply.append(token)
            waiting = [token]

    def _reuse(self, prompt: list[int]) -> int:
        """Keep the whole chunks that the prompt shares with the one before it, and return how many tokens these are."""
        shared = 0
        for mine, theirs in zip(self._chunks, prompt, strict=False):
            if mine != theirs:
                break
            shared += 1
        shared = _whole_chunks(min(shared, len(prompt) - 1))
        if shared == 0 or not self._can_crop():
            from transformers import DynamicCache

            self._cache, self._chunks = DynamicCache(config=self._model.config), []
            return 0
        self._cache.crop(shared - self._cache.get_seq_length())
        self._chunks = self._chunks[:shared]
        return shared

    def _can_crop(self) -> bool:
        """Say whether the cache can be cut back to any length: not so with sliding windows and recurrent states."""
        from transformers.cache_utils import DynamicLayer

        return self._cache is not None and all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def _read_chunks(self, prompt: list[int], start: int, limits: Limits) -> list[int]:
        """Read the whole chunks from ``start`` on; return what is left, at least one token."""
        end = _whole_chunks(len(prompt) - 1)
        for place in range(start, end, CHUNK_TOKENS):
            self._require_time(limits, place, 0)
            chunk = prompt[place : place + CHUNK_TOKENS]
            self._read(chunk)
            self._chunks += chunk
        return prompt[end:]

    def _read(self, tokens: list[int]) -> Any:
        """Return the scores of what follows; shape (num_scores,)."""
        import torch

        ids = torch.tensor([tokens], device=self._model.device)
        return self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **self._keep).logits[0, -1]

    def _require_time(self, limits: Limits, num_read: int, num_written: int) -> None:
        late = self._clock() - limits.end_seconds
        if late >= 0:
            detail = f"{num_read} tokens were read and {num_written} written"
            raise ProviderError("timeout", detail, input_tokens=num_read, output_tokens=num_written)


class _Chance:
    """Picks tokens: the best, or by chance that the prompt alone decides."""

    def __init__(self, prompt: list[int], temperature: float) -> None:
        import torch

        self._temperature = temperature
        digest = sha256(" ".join(map(str, prompt)).encode()).digest()
        # Its own generator: torch's global one belongs to the training.
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)

    def pick(self, scores: Any, allowed: bytes | None) -> int:
        import torch

        scores = scores.float().cpu()
        if allowed is not None:
            scores = scores.masked_fill(~_bits(allowed, scores.numel()), -torch.inf)
        best = scores.max()
        if not torch.isfinite(best):
            raise ProviderError("failed", f"the model's best score is {best.item()}: its weights are damaged")
        if self._temperature <= 0:
            return int(scores.argmax())
        weights = torch.softmax((scores - best) / self._temperature, dim=0)
        return int(torch.multinomial(weights, 1, generator=self._generator))


def _bits(packed: bytes, number: int) -> Any:
    import torch

    columns = torch.frombuffer(bytearray(packed), dtype=torch.uint8).unsqueeze(1)
    return ((columns >> torch.arange(8, dtype=torch.uint8)) & 1).bool().flatten()[:number]


def _whole_chunks(number: int) -> int:
    return number // CHUNK_TOKENS * CHUNK_TOKENS
