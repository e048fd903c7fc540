"""Managers that are language models: what can be checked at attach, and how they are built in their own process.

Keys come from the environment only. They are read in the manager's process and go nowhere but to the provider. The
modules of the providers are imported in the functions that need them: a run without a language model does not load them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.errors import MissingExtraError, UsageError
from trimtab.runtime.worker_setup import WorkerSetup

if TYPE_CHECKING:
    from trimtab.decision.llm.manager import LlmManager
    from trimtab.decision.llm.prices import Price
    from trimtab.decision.llm.provider import Provider

# A key for one provider is never sent to another: a URL has a variable of its own.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "url": ("TRIMTAB_API_KEY",),
}
KINDS: Final = (*KEYS, "local")
_MARGIN: Final = 0.9  # of the deadline: the process answers by itself before it is ended from outside


def check_language_model(kind: str, argument: str, settings: ManagerSettings) -> None:
    """Check at attach whatever can be known without a call.

    Raises:
        MissingExtraError: Install the extra that the message names.
        UsageError: Name a model, set the key, or say what the model costs.
    """
    if kind == "local":
        from trimtab.decision.llm.local import find_model

        find_model(argument)
    else:
        _check_remote(kind, argument)
    if settings.usd is not None and _price(kind, argument, settings) is None:
        raise UsageError(
            "the model's price is not known, so a cap on money cannot be kept",
            received=argument,
            next_step="set manager.input_usd_per_million and manager.output_usd_per_million, or cap tokens or calls instead",
        )


def build_language_model(kind: str, argument: str, setup: WorkerSetup) -> LlmManager:
    """Build the manager, inside the process that runs it.

    Raises:
        UsageError: Correct the model's name or set its key.
    """
    from trimtab.decision.llm.manager import LlmManager
    from trimtab.runtime.budget import Account, Caps

    settings = setup.settings
    caps = Caps(settings.calls, settings.tokens, settings.usd)
    account = Account(Path(setup.account), caps, _price(kind, argument, settings))
    deadline_seconds = setup.deadline_seconds * _MARGIN
    return LlmManager(_provider(kind, argument, settings), settings, account, setup.envelope, deadline_seconds, time.monotonic)


def split_url(argument: str) -> tuple[str, str]:
    """Return model and base URL of ``http://host:port/v1`` or ``http://host:port/v1#MODEL``; the model may be empty."""
    url, _, model = argument.partition("#")
    return model, url


def _provider(kind: str, argument: str, settings: ManagerSettings) -> Provider:
    if kind == "local":
        from trimtab.decision.llm.local import LocalProvider, find_model

        return LocalProvider(find_model(argument), settings.device, time.monotonic)
    from trimtab.decision.llm.remote import open_remote

    model, url = split_url(argument) if kind == "url" else (argument, None)
    return open_remote(kind, model, url=url, key=_key(kind), output=settings.output)


def _price(kind: str, argument: str, settings: ManagerSettings) -> Price | None:
    from trimtab.decision.llm.prices import FREE, Price, price_of

    if settings.input_usd_per_million is not None and settings.output_usd_per_million is not None:
        return Price(settings.input_usd_per_million, settings.output_usd_per_million, "the envelope")
    return FREE if kind == "local" else price_of(kind, argument)


def _key(kind: str) -> str:
    return next((value for name in KEYS[kind] if (value := os.environ.get(name))), "")


def _check_remote(kind: str, argument: str) -> None:
    if find_spec("pydantic_ai") is None:
        raise MissingExtraError(
            f"the manager {kind} needs pydantic-ai, which is not installed", next_step="pip install 'trimtab[llm]'"
        )
    if kind == "url":
        _check_url(argument)
        return
    if not argument:
        raise UsageError("the model is missing", received=kind, allowed=f"{kind}:MODEL")
    if not _key(kind):
        names = " or ".join(KEYS[kind])
        raise UsageError(f"the key for {kind} is missing", received=f"{names} is not set", next_step=f"export {KEYS[kind][0]}")


def _check_url(argument: str) -> None:
    allowed = "http://HOST:PORT/v1 or https://HOST/v1, with #MODEL behind it if the server has several"
    try:
        parts = urlsplit(argument)
        named = parts.port
    except ValueError as error:
        raise UsageError("the server's URL is malformed", received=str(error), allowed=allowed) from None
    if parts.username is not None or parts.password is not None or parts.query:
        # Not repeated here: it would stand in logs.
        raise UsageError(
            "the server's URL holds more than an address",
            received="a user, a password or a query",
            allowed=allowed,
            next_step=f"put the key into {KEYS['url'][0]}: the URL is written to the ledger",
        )
    if not parts.hostname or named == 0:
        raise UsageError("the server's URL is malformed", received=argument, allowed=allowed)
