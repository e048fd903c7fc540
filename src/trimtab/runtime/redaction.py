"""Keys never leave the process: every text that goes to a ledger, a log or a screen passes here first.

What is caught: a secret as it is, URL-encoded, JSON-escaped, as `repr` shows it, and in base64, also inside a longer
text in base64, and also when it is written in pieces. What is not: a secret cut in two, spelled backwards, hashed or
otherwise encoded, and what does not go through a `RedactingStream`: C code and subprocesses that write to the descriptor
itself, `os.write`, `faulthandler`, `sys.__stderr__`, and logging handlers that took hold of the stream before it was wrapped.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from typing import Final, TextIO
from urllib.parse import quote, quote_plus

MARK: Final = "[redacted]"
LEAST_LENGTH: Final = 8
_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


class Redactor:
    """Replaces secrets by a mark.

    Args:
        secrets: The values to hide. Those shorter than 8 characters are left alone: they would stand in harmless text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret.strip())}
        # Longest first: `redact` then meets the whole before its parts, and `redact_start` knows the longest at once.
        self._forms = tuple(sorted((f for f in forms if len(f) >= LEAST_LENGTH and f not in MARK), key=lambda f: (-len(f), f)))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], secrets: Iterable[str] = ()) -> Redactor:
        """Hide the values of all variables that are named like secrets, whoever they are for.

        Args:
            environ: The process's environment.
            secrets: More values to hide.
        """
        return cls((*secrets, *(value for name, value in environ.items() if _is_secret(name))))

    def redact(self, text: str) -> str:
        """Return ``text`` with every secret replaced by a mark; where secrets overlap, by one for all."""
        return self._replaced(text, self._places(text))

    def redact_start(self, text: str) -> tuple[str, str]:
        """Return what of ``text`` can be shown, redacted, and the rest, which could be the beginning of a secret."""
        end = len(text) - self._length_of_beginning(text)
        places = self._places(text)
        for start, stop in places:
            if start < end < stop:
                end = start
        return self._replaced(text[:end], [place for place in places if place[1] <= end]), text[end:]

    def _places(self, text: str) -> list[tuple[int, int]]:
        """Return where secrets stand, from left to right, with overlapping ones joined."""
        found: list[tuple[int, int]] = []
        for form in self._forms:
            at = text.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = text.find(form, at + 1)
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(found):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        return joined

    def _replaced(self, text: str, places: list[tuple[int, int]]) -> str:
        parts: list[str] = []
        shown = 0
        for start, stop in places:
            parts += [text[shown:start], MARK]
            shown = stop
        return "".join([*parts, text[shown:]])

    def _length_of_beginning(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that is the beginning of a secret, but not all of it."""
        longest = min(len(text), len(self._forms[0]) - 1) if self._forms else 0
        for length in range(longest, 0, -1):
            end = text[-length:]
            if any(len(form) > length and form.startswith(end) for form in self._forms):
                return length
        return 0


class RedactingStream(io.TextIOBase):
    r"""A text stream that redacts what is written before it passes it on.

    An end that could be the beginning of a secret is kept until more is written or the stream is closed, `flush` or not.

    Args:
        stream: Where the text goes; it is flushed with this stream, and not closed with it.
        redactor: What to hide.

    Example:
        >>> import sys
        >>> stream = RedactingStream(sys.stdout, Redactor(["sk-0123456789"]))
        >>> _ = stream.write("the key sk-01") + stream.write("23456789 was refused\n")
        the key [redacted] was refused
    """

    # Declared here too: the one that io.TextIOBase has cannot be assigned.
    encoding: str = "utf-8"

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self.encoding = stream.encoding
        self._stream = stream
        self._redactor = redactor
        self._kept = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the stream behind; what is written to it is not redacted."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the stream behind is a terminal."""
        return self._stream.isatty()

    def write(self, text: str, /) -> int:
        """Pass on what can be shown of everything written so far."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        shown, self._kept = self._redactor.redact_start(self._kept + text)
        if shown:
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        if not self.closed:
            self._stream.flush()

    def close(self) -> None:
        """Pass on what was kept, and accept no more."""
        if not self.closed:
            kept, self._kept = self._kept, ""
            self._stream.write(self._redactor.redact(kept))
            self.flush()
        super().close()


def _is_secret(name: str) -> bool:
    name = name.upper()
    return f"_{name}".endswith(_ENDINGS) or "API_KEY" in name


def _forms(secret: str) -> set[str]:
    if len(secret) < LEAST_LENGTH:
        return set()
    raw = secret.encode("utf-8", "surrogateescape")
    url = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    escaped = {
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
    }
    lower = {_lower_escapes(form) for form in url}
    shown = {repr(secret)[1:-1], repr(raw)[2:-1]}  # as errors quote it
    return {secret, *url, *lower, *escaped, *shown, *_base64_forms(raw)}


def _lower_escapes(form: str) -> str:
    """Return a URL-encoded text with its escapes in lower case, as some write them."""
    head, *rest = form.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _base64_forms(raw: bytes) -> Iterable[str]:
    """Return the characters that ``raw`` alone decides, at each of the three places it can have in a longer text."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode("ascii")
        own = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield own
        yield own.replace("+", "-").replace("/", "_")
