"""From what a user names as a manager to the client that the supervisor talks to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab.controls.envelope import Envelope
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.manager import Manager
from trimtab.decision.schedule import Schedule
from trimtab.decision.schedule_file import load_schedule
from trimtab.errors import UsageError
from trimtab.ledger.record import Isolation
from trimtab.runtime.answer import ManagerClient
from trimtab.runtime.clock import Clock
from trimtab.runtime.manager_process import ManagerProcess
from trimtab.runtime.manager_spec import ManagerSpec
from trimtab.runtime.manager_thread import ManagerThread
from trimtab.runtime.nobody import Nobody
from trimtab.runtime.run_dir import RunDirectory
from trimtab.runtime.worker_setup import WorkerSetup, envelope_hash

_BREAKER_FAILURES = 3


def read_manager(manager: str | Manager, settings: ManagerSettings, *, is_asked: bool = True) -> ManagerSpec | Manager:
    """Read and check what a user gave as the manager; one that will not be asked needs no key.

    Raises:
        UsageError: Write one of the forms that the message lists, or set what it says is missing.
        MissingExtraError: Install the extra that the message names.
    """
    if isinstance(manager, str):
        spec = ManagerSpec.parse(manager)
        if is_asked:
            spec.check(settings)
        return spec
    if isinstance(manager, type) or not isinstance(manager, Manager):
        raise UsageError(
            "the manager has no method propose",
            received=type(manager).__name__,
            next_step='pass "rules", or an object that has one',
        )
    return manager


def settled(settings: ManagerSettings, manager: ManagerSpec | Manager) -> ManagerSettings:
    """Return the settings with what depends on the kind of manager decided, as it stands in the ledger."""
    is_language_model = isinstance(manager, ManagerSpec) and manager.is_language_model
    fallback = settings.fallback
    if fallback == "by_kind":
        # Nobody would approve what the rules propose for a person.
        is_approved = isinstance(manager, ManagerSpec) and manager.inner is not None
        fallback = "rules" if is_language_model and not is_approved else "no_action"
    breaker = settings.breaker_failures
    if breaker is None:
        breaker = _BREAKER_FAILURES if is_language_model else 0
    return replace(settings, fallback=fallback, breaker_failures=breaker)


def isolation_of(manager: ManagerSpec | Manager) -> Isolation:
    """Return where the manager runs."""
    if not isinstance(manager, ManagerSpec):
        return "thread"
    elsewhere: dict[str, Isolation] = {"external": "outside", "schedule": "nowhere"}
    return elsewhere.get(manager.kind, "process")


def schedule_of(manager: ManagerSpec | Manager) -> Schedule | None:
    """Return the plan that takes the manager's place; None if somebody is asked.

    Raises:
        UsageError: Correct the schedule file at the lines that the message names.
    """
    if isinstance(manager, ManagerSpec) and manager.kind == "schedule":
        return load_schedule(Path(manager.argument))
    return None


def open_manager(manager: ManagerSpec | Manager, envelope: Envelope, directory: RunDirectory, clock: Clock) -> ManagerClient:
    """Start the manager and return its client."""
    deadline_seconds = envelope.deliberation.deadline_seconds
    if not isinstance(manager, ManagerSpec):
        return ManagerThread(manager, deadline_seconds, clock)
    if manager.kind == "schedule":
        return Nobody()
    if manager.kind == "external":
        from trimtab.runtime.exchange import Exchange
        from trimtab.runtime.external import ExternalClient

        return ExternalClient(Exchange(directory.exchange, directory.path.name), deadline_seconds, clock)
    if manager.inner is not None:
        from trimtab.runtime.approval import ApprovingClient
        from trimtab.runtime.exchange import Exchange

        # Half of the time is for the manager, so that some is left for the person.
        hurried = replace(envelope, deliberation=replace(envelope.deliberation, deadline_seconds=deadline_seconds / 2))
        inner = open_manager(manager.inner, hurried, directory, clock)
        exchange = Exchange(directory.exchange, directory.path.name)
        return ApprovingClient(inner, exchange, envelope.manager.approval_default, deadline_seconds, clock)
    setup = WorkerSetup(envelope.manager, envelope_hash(envelope), str(directory.account), deadline_seconds)
    return ManagerProcess(manager, directory.manager_log, deadline_seconds, clock, setup)
