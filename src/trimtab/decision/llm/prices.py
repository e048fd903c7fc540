"""What a model costs, from the price list that comes with the package genai-prices; nothing is fetched.

One price a model, and the dearest that can apply: a price that rises with the length of the prompt stands at its
highest, and of a price in force and one announced after it the higher one counts. So what is reserved before a call
is never less than what is settled after it, and neither is less than the bill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimtab.errors import MissingExtraError

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

# What a token that is read can cost. OpenAI keeps prompts by itself, and some of its models charge for that;
# Anthropic and Google charge for it only when they are asked to, which is never done here.
_INPUT_KEYS: Final = {
    "openai": ("input_mtok", "cache_write_mtok"),
    "anthropic": ("input_mtok",),
    "google": ("input_mtok",),
}


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model's tokens.

    Args:
        input_usd_per_million: US dollars for a million tokens read, >= 0.
        output_usd_per_million: US dollars for a million tokens written, >= 0.
        source: Where the price is from.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    source: str

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of so many tokens; it never falls when a count grows."""
        return (input_tokens * self.input_usd_per_million + output_tokens * self.output_usd_per_million) / 1e6


FREE: Final = Price(0.0, 0.0, "a local model costs nothing")


def price_of(kind: str, model: str) -> Price | None:
    """Return the price of a model.

    Args:
        kind: ``openai``, ``anthropic``, ``google``, ``local`` or ``url``.
        model: Its name, as the provider takes it.

    Returns:
        The price; None for a model that the list does not have, and for every URL, whose owner sets the price.

    Raises:
        MissingExtraError: Install trimtab[llm], which brings the list.
    """
    if kind == "local":
        return FREE
    if kind not in _INPUT_KEYS:
        return None
    try:
        from genai_prices import Usage, __version__, calc_price
    except ImportError as error:
        raise MissingExtraError("prices need the package genai-prices", next_step="pip install 'trimtab[llm]'") from error
    try:
        found = calc_price(Usage(), model, provider_id=kind)
    except LookupError:
        return None
    listed = _applicable(found.model, found.model_price)
    prices_in = [_dearest(price, key) for price in listed for key in _INPUT_KEYS[kind]]
    prices_out = [_dearest(price, "output_mtok") for price in listed]
    known_in, known_out = [p for p in prices_in if p is not None], [p for p in prices_out if p is not None]
    if not known_in or not known_out:
        return None  # a model that speaks or draws, priced by the hour or the picture
    return Price(max(known_in), max(known_out), f"genai-prices {__version__}, {found.provider.id}: {found.model.id}")


def _applicable(model: ModelInfo, now: ModelPrice) -> list[ModelPrice]:
    """Return the price in force and those that can come into force during a run."""
    from genai_prices.types import StartDateConstraint

    if not isinstance(model.prices, list):
        return [model.prices]
    dated = all(isinstance(entry.constraint, StartDateConstraint) for entry in model.prices[1:])
    prices = [entry.prices for entry in model.prices]
    # The later entry goes first. By date, the earlier ones are over; by time of day, they all come again.
    return prices[prices.index(now) :] if dated else prices


def _dearest(price: ModelPrice, key: str) -> float | None:
    from genai_prices.types import TieredPrices

    value = getattr(price, key)
    if isinstance(value, TieredPrices):
        return float(max(value.base, *(tier.price for tier in value.tiers)))
    return None if value is None else float(value)
