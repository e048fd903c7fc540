"""What a language model may spend, as the manager sees it: reserve before a call, settle after it."""

from __future__ import annotations

from typing import Protocol


class Spending(Protocol):
    """The account of one run; several processes may share it."""

    def reserve(self, input_tokens: int, output_tokens: int) -> int:
        """Set aside the most a call can cost; return the reservation's number.

        Raises:
            CapReached: Do not call.
        """
        ...

    def settle(self, reservation: int, input_tokens: int, output_tokens: int) -> None:
        """Replace a reservation by what was really used; without this it stays spent."""
        ...

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Return the price of so many tokens; None if it is not known."""
        ...
