"""Which manager a user means, and how to build it inside the process that runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.manager import Manager
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.random import RandomManager
from trimtab.decision.rules.manager import RulesManager
from trimtab.decision.schedule_file import load_schedule
from trimtab.decision.scripted import ScriptedManager
from trimtab.errors import UsageError, nearest
from trimtab.runtime import language_model
from trimtab.runtime.worker_setup import WorkerSetup

KINDS: Final = (
    "rules",
    "random",
    "scripted",
    "schedule",
    "no_action",
    "python",
    *language_model.KINDS,
    "external",
    "human",
)
_FORMS: Final = (
    "rules, no_action, random, random:SEED, scripted:FILE, schedule:FILE, python:MODULE:CLASS, openai:MODEL, anthropic:MODEL, "
    "google:MODEL, http://HOST:PORT/v1, local:PATH or local:PACKAGE, external, human:MANAGER, or an object with propose()"
)
REMEMBERING: Final = ("scripted", "python")  # whose answers may depend on what they were asked before
REMEMBER: Final = "+"  # before a question that a manager's process shall only take note of
_BARE: Final = ("rules", "no_action", "external")
_SERVER: Final = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+)(:\d+)(/\S*)?|localhost(/\S*)?|[\w-]+:\d+/\S*")
_MODELS: Final = (
    ("openai", re.compile(r"(chat)?gpt-|o\d")),
    ("anthropic", re.compile(r"claude-")),
    ("google", re.compile(r"gemini-")),
)
_NOT_INSIDE_HUMAN: Final = ("external", "human", "schedule")


@dataclass(frozen=True, slots=True)
class ManagerSpec:
    """A manager by name, such as ``rules`` or ``random:7``; it can travel to another process.

    Args:
        kind: One of `KINDS`.
        argument: What follows the colon; empty if nothing does.
    """

    kind: str
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> ManagerSpec:
        """Read a manager's name.

        Raises:
            UsageError: Write one of the forms the message lists.
        """
        if text.startswith(("http://", "https://")):
            return cls("url", text)
        kind, _, argument = text.partition(":")
        if kind not in KINDS or kind == "url":
            raise UsageError("there is no such manager", received=text, allowed=_FORMS, next_step=_meant(text))
        if kind == "human" and not argument:
            example = "say who proposes what a person approves, for example human:rules"
            raise UsageError("the manager human needs an argument", received=text, allowed="human:MANAGER", next_step=example)
        if kind in ("scripted", "schedule", "python") and not argument:
            raise UsageError(f"the manager {kind} needs an argument", received=text, allowed=_FORMS)
        if kind == "python" and not all(argument.partition(":")):
            raise UsageError("the manager's class is missing", received=text, allowed="python:MODULE:CLASS")
        if kind in _BARE and argument:
            raise UsageError(f"the manager {kind} takes no argument", received=text, allowed=_FORMS)
        return cls(kind, argument)

    @property
    def inner(self) -> ManagerSpec | None:
        """Whose proposals a person approves, for ``human``; None for all others."""
        return ManagerSpec.parse(self.argument) if self.kind == "human" else None

    @property
    def is_language_model(self) -> bool:
        """Whether it, or the manager whose proposals a person approves, is a language model."""
        return self.kind in language_model.KINDS or (self.inner is not None and self.inner.is_language_model)

    def check(self, settings: ManagerSettings) -> None:
        """Check at attach that the manager can be built.

        Raises:
            UsageError: Correct the argument, or set the key that the message names.
            MissingExtraError: Install the extra that the message names.
        """
        inner = self.inner
        if inner is not None:
            if inner.kind in _NOT_INSIDE_HUMAN:
                raise UsageError(
                    "a person cannot approve this manager", received=str(self), allowed="human:MANAGER, such as human:rules"
                )
            if settings.fallback == "rules":
                raise UsageError(
                    "with a person to approve, nothing else may answer",
                    received="manager.fallback: rules",
                    allowed="no_action",
                    next_step="leave fallback out",
                )
            inner.check(settings)
        elif self.kind in language_model.KINDS:
            language_model.check_language_model(self.kind, self.argument, settings)
        elif self.kind == "schedule":
            load_schedule(Path(self.argument))
        elif self.kind == "python":
            _check_module(self.argument)
        elif self.kind != "external":
            _build_plain(self)  # cheap, and shows a bad seed or script

    def __str__(self) -> str:
        if self.kind == "url":
            return self.argument
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


def _meant(text: str) -> str:
    """Return a hint for a name that is none: an address without http, or a model without its provider, is common."""
    if _SERVER.fullmatch(text):
        return f"did you mean {f'http://{text}' if '/' in text else f'http://{text}/v1'!r}?"
    for provider, names in _MODELS:
        if names.match(text):
            return f"did you mean {f'{provider}:{text}'!r}?"
    return nearest(text.partition(":")[0], (kind for kind in KINDS if kind != "url"))


def build_manager(spec: ManagerSpec, setup: WorkerSetup) -> Manager:
    """Build the manager in the process that runs it.

    Raises:
        UsageError: Correct the seed, the script, the class or the model that the message names.
    """
    if spec.kind in language_model.KINDS:
        return language_model.build_language_model(spec.kind, spec.argument, setup)
    return _build_plain(spec)


def _build_plain(spec: ManagerSpec) -> Manager:
    match spec.kind:
        case "rules":
            return RulesManager()
        case "no_action":
            return NoActionManager()
        case "random":
            return RandomManager(_seed(spec.argument))
        case "scripted":
            return ScriptedManager.from_file(Path(spec.argument))
        case _:
            return _import_manager(spec.argument)


def _seed(argument: str) -> int:
    try:
        return int(argument or "0")
    except ValueError:
        raise UsageError("the seed is not a whole number", received=argument, allowed="random:7") from None


def _check_module(argument: str) -> None:
    """Look whether the module can be found; it is imported in its own process only."""
    package = argument.partition(":")[0].partition(".")[0]
    # In its own process __main__ is another module.
    if package == "__main__" or find_spec(package) is None:
        raise UsageError(
            "the manager's module cannot be found",
            received=argument,
            allowed="python:MODULE:CLASS, with a module that another process can import",
            next_step="put it beside the training script, or on PYTHONPATH",
        )


def _import_manager(argument: str) -> Manager:
    module, _, name = argument.partition(":")
    try:
        manager = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            "the manager's class cannot be built",
            received=f"{argument}: {error!r}",
            allowed="python:MODULE:CLASS, a class that takes no arguments",
        ) from error
    if not isinstance(manager, Manager):
        raise UsageError("the manager has no method propose", received=argument, allowed="propose(briefing) -> Proposal")
    return manager
