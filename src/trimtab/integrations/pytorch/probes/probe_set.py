"""All probes of a run: opened by name, guarded against their own faults, collected after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import torch
from torch import Tensor

from trimtab.errors import UsageError, nearest
from trimtab.integrations.pytorch.probes.dead_units import DeadUnitsProbe
from trimtab.integrations.pytorch.probes.grad_norm import GradNormProbe
from trimtab.integrations.pytorch.probes.learning_rate import LearningRateProbe
from trimtab.integrations.pytorch.probes.loss import LossProbe
from trimtab.integrations.pytorch.probes.memory import MemoryProbe
from trimtab.integrations.pytorch.probes.probe import Probe
from trimtab.integrations.pytorch.probes.throughput import ThroughputProbe
from trimtab.integrations.pytorch.probes.update_ratio import UpdateRatioProbe
from trimtab.integrations.pytorch.probes.weight_norm import WeightNormProbe
from trimtab.integrations.pytorch.training import Training

ALL: Final = "all"
Wanted = Literal["all"] | Sequence["str | Probe"]

_MAKERS: Final[tuple[Callable[[], Probe], ...]] = (
    LossProbe,
    GradNormProbe,
    UpdateRatioProbe,
    WeightNormProbe,
    LearningRateProbe,
    ThroughputProbe,
    MemoryProbe,
    DeadUnitsProbe,
)
PROBES: Final[dict[str, Callable[[], Probe]]] = {cast("Any", make).name: make for make in _MAKERS}


class _Guarded:
    """One probe, and why it was switched off, if it was.

    As a context it does that: what the probe raises in it goes no farther.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.fault: str | None = None

    def hook(self, function: Callable[..., None]) -> Callable[..., None]:
        """Return a hook that keeps no history, returns nothing, and lets no fault out."""

        def guarded(*args: object) -> None:
            # A compiled graph must not be changed; the probe then measures nothing.
            if torch.compiler.is_compiling() or self.fault is not None:
                return
            with self, torch.no_grad():
                function(*args)

        return guarded

    def collect(self, step: int) -> Mapping[str, Tensor | float]:
        """Return what the probe has measured; nothing if that fails."""
        with self, torch.no_grad():
            return self.probe.collect(step)
        return {}

    def close(self) -> None:
        """Let the probe remove its hooks."""
        with self:
            self.probe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Switch the probe off if it has failed; its hooks are removed later, as one may be running.

        No generator: hooks enter it at every call of a module.
        """
        if not isinstance(error, Exception):
            return False
        self.fault = f"{self.probe.name}: {type(error).__name__}: {error}"[:500]
        return True


class ProbeSet:
    """The probes of a run; made by `open_probes`.

    Args:
        probes: Attached already.
        left_out: Why some of those that were wanted are not among them.
    """

    def __init__(self, probes: Sequence[_Guarded], left_out: tuple[str, ...]) -> None:
        self._probes = list(probes)
        self._left_out = left_out
        self._faults: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the probes that are on."""
        return tuple(guarded.probe.name for guarded in self._probes)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Notes: which of all probes this run has no use for, and why."""
        return self._left_out

    def collect(self, step: int) -> Mapping[str, object]:
        """Return what was measured since the last call."""
        measured: dict[str, object] = {}
        has_fault = False
        for guarded in self._probes:
            if guarded.fault is None:
                measured.update(guarded.collect(step))
            has_fault = has_fault or guarded.fault is not None
        if has_fault:
            self._switch_off()
        return measured

    def faults(self) -> Sequence[str]:
        """Return which probes were switched off since the last call, and why."""
        told, self._faults = self._faults, []
        return told

    def close(self) -> None:
        """Remove all hooks."""
        for guarded in self._probes:
            guarded.close()
        self._probes.clear()

    def _switch_off(self) -> None:
        for guarded in self._probes:
            if guarded.fault is not None:
                self._faults.append(guarded.fault)
                guarded.close()
        self._probes = [guarded for guarded in self._probes if guarded.fault is None]


def open_probes(names: Wanted, training: Training) -> ProbeSet:
    """Attach probes to a run. Do it after the controls are bound: the rate in effect is seen only then.

    Args:
        names: Names of probes, or probes with options of their own; or ``"all"``, which leaves out those that this run
            has nothing for.
        training: The run.

    Raises:
        UsageError: Correct what the message names; nothing stays attached.
    """
    opened: list[_Guarded] = []
    left_out: list[str] = []
    try:
        for probe in _wanted(names):
            guarded = _Guarded(probe)
            opened.append(guarded)
            try:
                probe.attach(training, guarded.hook)
            except UsageError as error:
                if names != ALL:
                    raise
                opened.pop().close()
                left_out.append(f"no probe {probe.name}: {error.what}")
    except BaseException:  # whatever it was, nothing stays attached
        ProbeSet(opened, ()).close()
        raise
    return ProbeSet(opened, tuple(left_out))


def _wanted(names: Wanted) -> Iterator[Probe]:
    seen: set[str] = set()
    if isinstance(names, str) and names != ALL:
        raise UsageError("probes are given as a list", received=names, next_step=f'write probes=["{names}"], or probes="all"')
    for name in PROBES if names == ALL else names:
        if isinstance(name, str) and name not in PROBES:
            raise UsageError("there is no such probe", received=name, next_step=nearest(name, PROBES))
        if not isinstance(name, (str, Probe)) or isinstance(name, type):
            raise UsageError(
                "not a probe", received=type(name).__name__, allowed="a name, or an object with attach, collect, close"
            )
        probe = PROBES[name]() if isinstance(name, str) else name
        if probe.name in seen:
            raise UsageError("a probe is named twice", received=probe.name, next_step="keep one of the two")
        seen.add(probe.name)
        yield probe
