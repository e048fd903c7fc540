"""Numbers drawn from a hash chain: the same for the same seed everywhere, and no state that is shared."""

from __future__ import annotations

from hashlib import sha256


class Draws:
    """A chain of whole numbers.

    Args:
        seed: Any text; another text is another chain.
    """

    def __init__(self, seed: str) -> None:
        self._block = sha256(seed.encode()).digest()

    def below(self, bound: int) -> int:
        """Return the next number, from 0 to ``bound`` - 1."""
        self._block = sha256(self._block).digest()
        return int.from_bytes(self._block[:8]) % bound
