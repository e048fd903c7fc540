"""From messages to the tokens that a local model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trimtab.decision.llm.provider import Message

_TITLES: Final = {"system": "Instructions", "user": "Question", "assistant": "Answer"}


class Chat:
    """The form in which one model expects a conversation: its own template, or a plain one of ours.

    Args:
        tokenizer: The model's tokenizer, of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._has_template = bool(tokenizer.chat_template)
        self._takes_system = self._has_template and self._can_say_system()
        marks: list[str] = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self._marks = sorted((mark for mark in marks if len(mark) > 1), key=len, reverse=True)

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation up to where the model's reply begins."""
        said = [Message(message.role, self._without_marks(message.text)) for message in messages]
        if not self._has_template:
            # With the tokens that a text of this model begins with; a template has them in itself.
            return list(self._tokenizer(_plain(said))["input_ids"])
        text = self._rendered(said if self._takes_system else _system_into_user(said))
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _rendered(self, messages: Sequence[Message]) -> str:
        conversation = [{"role": message.role, "content": message.text} for message in messages]
        # A model that may think aloud first would have to do so inside the schema.
        return self._tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    def _can_say_system(self) -> bool:
        from jinja2.exceptions import TemplateError

        said = "You steer."
        try:
            return said in self._rendered([Message("system", said), Message("user", "Go on.")])
        except TemplateError:  # so templates say that they do not know the role
            return False

    def _without_marks(self, text: str) -> str:
        """Break up what the tokenizer would read as a mark of its own, such as the end of a message: text is only text."""
        while found := next((mark for mark in self._marks if mark in text), None):
            text = text.replace(found, f"{found[0]} {found[1:]}")
        return text


def _system_into_user(messages: Sequence[Message]) -> list[Message]:
    if messages[0].role != "system":
        return list(messages)
    return [Message("user", f"{messages[0].text}\n\n{messages[1].text}"), *messages[2:]]


def _plain(messages: Sequence[Message]) -> str:
    said = [f"{_TITLES[message.role]}:\n{message.text}" for message in messages]
    return "\n\n".join([*said, f"{_TITLES['assistant']}:\n"])
