"""A language model in the manager's own process: any that transformers reads, kept to the schema by llguidance.

It costs nothing, needs no server and no network, and the same prompt always gets the same reply.
"""

from __future__ import annotations

from collections.abc import Callable

from trimtab.decision.llm.constrained import Grammars
from trimtab.decision.llm.local_chat import Chat
from trimtab.decision.llm.local_decoding import Decoder, Limits, Written
from trimtab.decision.llm.local_files import ModelFiles, find_model
from trimtab.decision.llm.local_loading import load_model
from trimtab.decision.llm.provider import Completion, Request
from trimtab.errors import ProviderError

__all__ = ["LocalProvider", "find_model"]


class LocalProvider:
    """Answers with a local model.

    Args:
        files: The model, as `find_model` found it; it is loaded here, which takes seconds.
        device: Where it runs, as torch names it.
        clock: Seconds that never go back.

    Raises:
        UsageError: Choose another model or device.
    """

    def __init__(self, files: ModelFiles, device: str, clock: Callable[[], float]) -> None:
        loaded = load_model(files, device)
        self._model = f"local:{files.name}"
        self._tokenizer = loaded.tokenizer
        self._context_tokens = loaded.context_tokens
        self._clock = clock
        self._chat = Chat(loaded.tokenizer)
        self._grammars = Grammars(loaded.tokenizer.backend_tokenizer.to_str(), loaded.num_scores, loaded.end_tokens)
        self._decoder = Decoder(loaded, clock)

    @property
    def model(self) -> str:
        """Name of the model: ``local:`` and the name of its file or directory."""
        return self._model

    def most_input_tokens(self, request: Request) -> int:
        """Return exactly how many tokens reading ``request`` takes."""
        return len(self._chat.tokens(request.messages))

    def complete(self, request: Request) -> Completion:
        """Return the model's reply; with a schema, JSON that keeps to it.

        Raises:
            ProviderError: Out of time, too long a prompt, a reply that was cut off, or a schema that cannot be enforced.
        """
        end_seconds = self._clock() + request.timeout_seconds
        prompt = self._chat.tokens(request.messages)
        limits = Limits(self._room(prompt, request), end_seconds, request.temperature or 0.0)
        try:
            grammar = None if request.schema is None else self._grammars.grammar(request.schema)
            written = self._decoder.write(prompt, grammar, limits)
        except (RuntimeError, MemoryError) as error:  # out of memory, most of all
            raise ProviderError(
                "failed", f"{type(error).__name__}: {error}", input_tokens=len(prompt), output_tokens=0
            ) from error
        if grammar is None:
            text: str = self._tokenizer.decode(written.tokens, skip_special_tokens=True)
        else:
            self._require_whole(written, len(prompt), request)
            text = grammar.text(written.tokens)
        return Completion(text, self._model, len(prompt), len(written.tokens))

    def _room(self, prompt: list[int], request: Request) -> int:
        """Return how many tokens the reply may have."""
        room = self._context_tokens - len(prompt)
        if room < 1:
            most = self._context_tokens - request.reply_tokens
            raise ProviderError(
                "failed",
                f"the prompt has {len(prompt)} tokens and the model's context holds {self._context_tokens}, the reply "
                f"included: set manager.briefing_tokens to at most {most}"
                if most > 0
                else f"the prompt has {len(prompt)} tokens and the model's context holds {self._context_tokens}: set "
                "manager.briefing_tokens and manager.reply_tokens to less than that together",
                input_tokens=0,
                output_tokens=0,
            )
        return min(room, request.reply_tokens)

    def _require_whole(self, written: Written, num_read: int, request: Request) -> None:
        if written.is_whole:
            return
        num_written = len(written.tokens)
        if num_written < request.reply_tokens:
            detail = (
                f"prompt and reply fill the model's context of {self._context_tokens} tokens: lower manager.briefing_tokens"
            )
        else:
            detail = f"it was not finished after {num_written} tokens: raise manager.reply_tokens"
        raise ProviderError("cut_off", detail, input_tokens=num_read, output_tokens=num_written)
