"""The language-model manager: renders a briefing, calls a model, reads its reply back into a proposal.

Rules:
1. The model sees a rendered briefing and nothing else; what it answers is a choice among labels of what is executable.
2. Every call is reserved in the run's account before it is made, and reported before and after.
3. A reply that cannot be read is asked for once more, with what is wrong with it; then the question has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.briefing import Briefing
from trimtab.decision.consultation import MAX_REPLY_TEXT, Consultation
from trimtab.decision.llm.prompt import (
    Prompt,
    decision_prompt,
    offers_something,
    reasoning_prompt,
    retry_messages,
    transcription_prompt,
)
from trimtab.decision.llm.provider import Completion, Provider, Request
from trimtab.decision.llm.schema import read_choice
from trimtab.decision.llm.spending import Spending
from trimtab.decision.proposal import Proposal, hold
from trimtab.errors import ProviderError, ReplyError

_LEAST_SECONDS: Final = 0.05


class LlmManager:
    """Proposes what a language model chooses.

    Args:
        provider: The model.
        settings: How it is asked.
        spending: The run's account.
        envelope_hash: SHA-256 of the envelope, for the record.
        deadline_seconds: Longest one question may take, over all its calls.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        provider: Provider,
        settings: ManagerSettings,
        spending: Spending,
        envelope_hash: str,
        deadline_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._settings = settings
        self._spending = spending
        self._envelope_hash = envelope_hash
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._listener: Callable[[Consultation], None] | None = None
        self._consultation: Consultation | None = None
        self._end_seconds = 0.0

    def report_to(self, listener: Callable[[Consultation], None]) -> None:
        """Call ``listener`` before and after every call, with the consultation so far."""
        self._listener = listener

    def propose(self, briefing: Briefing) -> Proposal:
        """Return the model's choice.

        Raises:
            ProviderError: The model cannot be reached or gave no reply; no_action or the fallback.
            CapReached: The run's account does not allow another call.
            ReplyError: The model's reply is no choice of what was offered, twice.
        """
        self._end_seconds = self._clock() + self._deadline_seconds
        self._consultation = None
        prompt = decision_prompt(briefing, self._settings)
        if not offers_something(prompt):
            return hold(f"manager.briefing_tokens={self._settings.briefing_tokens} leaves room for no_action only: raise it")
        if self._settings.stages == 2:
            reasoning = reasoning_prompt(briefing, self._settings)
            prose = self._call(reasoning).text
            prompt = transcription_prompt(briefing, prose, self._settings)
        return self._choice(briefing, prompt)

    def _choice(self, briefing: Briefing, prompt: Prompt) -> Proposal:
        reply = self._call(prompt).text
        try:
            return read_choice(reply, briefing)
        except ReplyError as problem:
            again = replace(prompt, messages=(*prompt.messages, *retry_messages(reply, problem)))
            return read_choice(self._call(again).text, briefing)

    def _call(self, prompt: Prompt) -> Completion:
        request = Request(
            messages=prompt.messages,
            schema=prompt.schema,
            reply_tokens=self._settings.reply_tokens,
            timeout_seconds=self._end_seconds - self._clock(),
            temperature=self._settings.temperature,
        )
        if request.timeout_seconds < _LEAST_SECONDS:
            raise ProviderError("timeout", "no time is left for another call")
        most_input = self._provider.most_input_tokens(request)
        reservation = self._spending.reserve(most_input, request.reply_tokens)
        before = self._consultation or self._opened(prompt)
        if prompt.schema is not None:
            before = replace(before, schema=prompt.schema_hash)
        self._report(before, most_input, request.reply_tokens, None, is_settled=False)
        try:
            completion = self._provider.complete(request)
        except ProviderError as error:
            if error.input_tokens is not None and error.output_tokens is not None:
                self._spending.settle(reservation, error.input_tokens, error.output_tokens)
                self._report(before, error.input_tokens, error.output_tokens, None, is_settled=True)
            raise
        # What the provider does not count stays reserved at its most.
        used_input = most_input if completion.input_tokens is None else completion.input_tokens
        used_output = request.reply_tokens if completion.output_tokens is None else completion.output_tokens
        self._spending.settle(reservation, used_input, used_output)
        is_settled = completion.input_tokens is not None and completion.output_tokens is not None
        answered = replace(before, model=completion.model)
        self._report(answered, used_input, used_output, completion.text, is_settled=is_settled)
        return completion

    def _opened(self, prompt: Prompt) -> Consultation:
        return Consultation(
            model=self._provider.model,
            template=prompt.template,
            prompt=prompt.hash,
            schema=prompt.schema_hash,
            envelope=self._envelope_hash,
            calls=0,
            input_tokens=0,
            output_tokens=0,
            usd=self._spending.usd(0, 0),
        )

    def _report(self, before: Consultation, used_input: int, used_output: int, reply: str | None, *, is_settled: bool) -> None:
        """Add one call to what was there before it, and pass that on; unsettled, its tokens are the most it can take."""
        input_tokens, output_tokens = before.input_tokens + used_input, before.output_tokens + used_output
        self._consultation = replace(
            before,
            calls=before.calls + 1,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            usd=self._spending.usd(input_tokens, output_tokens),
            unsettled_calls=before.unsettled_calls + (not is_settled),
            replies=before.replies if reply is None else (*before.replies, reply[:MAX_REPLY_TEXT]),
        )
        if self._listener is not None:
            self._listener(self._consultation)
