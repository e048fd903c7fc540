"""Which manager a user means, and how to build it inside the process that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from trimtab.decision.manager import Manager
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.random import RandomManager
from trimtab.decision.rules.manager import RulesManager
from trimtab.decision.scripted import ScriptedManager
from trimtab.errors import UsageError, nearest

KINDS: Final = ("rules", "random", "scripted", "no_action", "python")
_FORMS: Final = "rules, no_action, random, random:SEED, scripted:FILE, python:MODULE:CLASS, or an object with propose()"


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
        """Read a manager's name and check that it could be built.

        Raises:
            UsageError: Write one of the forms the message lists.
        """
        kind, _, argument = text.partition(":")
        if kind not in KINDS:
            raise UsageError("there is no such manager", received=text, allowed=_FORMS, next_step=nearest(kind, KINDS))
        spec = cls(kind, argument)
        if kind in ("scripted", "python") and not argument:
            raise UsageError(f"the manager {kind} needs an argument", received=text, allowed=_FORMS)
        if kind == "python" and not all(argument.partition(":")):
            raise UsageError("the manager's class is missing", received=text, allowed="python:MODULE:CLASS")
        if kind in ("rules", "no_action") and argument:
            raise UsageError(f"the manager {kind} takes no argument", received=text, allowed=_FORMS)
        if kind != "python":
            # Everything but a user's own class is cheap to build: a bad seed or script shows here, at attach.
            build_manager(spec)
        return spec

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


def build_manager(spec: ManagerSpec) -> Manager:
    """Build the manager.

    Raises:
        UsageError: Correct the seed, the script or the class that the message names.
    """
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
