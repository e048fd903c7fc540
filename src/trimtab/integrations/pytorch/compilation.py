"""What torch.compile means for a run's controls.

A compiled model recompiles for every new value of a module's plain attribute, a compiled optimizer step for every new
value of a plain number in a group; after `torch._dynamo.config.recompile_limit` graphs of one function torch compiles
no more, and what is new then runs uncompiled. As measured with torch 2.13:

- Dropout: a graph per value and way of calling the model (to train, to evaluate), and once more as many where a second
  batch size makes shapes dynamic. A limit of 8 is room for three values. Blocks that are compiled one by one share the
  graphs of their class and are called in three ways: there the limit has to be raised.
- Groups of an optimizer: a graph per value, with momentum one more for the first step. A number kept as a tensor is
  no constant and never recompiles. Where every number meets a tensor (AdamW without foreach), one graph serves all.

Seen are compiled modules and a compiled step that took the place of ``optimizer.step``. A compiled function that calls
the model or the step, and the result of ``torch.compile(optimizer.step)`` under another name, cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from torch import Tensor, nn
from torch._dynamo import config as dynamo

from trimtab.controls.catalogue import base_name, part_name
from trimtab.controls.control import Control
from trimtab.controls.entries import BATCH_SIZE, BETA2, LABEL_SMOOTHING, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.attribute import Handle
from trimtab.integrations.pytorch.bindings.groups import Selection, unwrap
from trimtab.integrations.pytorch.hidden import has_compiled_wrapper
from trimtab.integrations.pytorch.training import Training

Site = Literal["model", "optimizer step"]

# Where an optimizer's group keeps the number of a control: the first of these that it has.
_KEYS: Final = {
    LEARNING_RATE: ("lr",),
    WEIGHT_DECAY: ("weight_decay",),
    MOMENTUM: ("momentum", "betas"),
    BETA2: ("betas",),
}
_WAYS_OF_CALLING: Final = 2  # to train and to evaluate
_WAYS_INSIDE: Final = 3  # the first of many blocks is trained on inputs without a gradient, the others on inputs with one
_FEWEST_VALUES: Final = 2  # with one, nothing could change


@dataclass(frozen=True, slots=True)
class Room:
    """How many graphs torch keeps of one place, and what they are needed for.

    Args:
        site: The place.
        limit: `torch._dynamo.config.recompile_limit`.
        graphs_per_combination: Graphs for one combination of the values of all controls there.
        graphs_aside: Graphs needed besides, for dynamic shapes or the first step.
    """

    site: Site
    limit: int
    graphs_per_combination: int
    graphs_aside: int

    @property
    def combinations(self) -> int:
        """Combinations of values that fit."""
        return (self.limit - self.graphs_aside) // self.graphs_per_combination

    def limit_for(self, combinations: int) -> int:
        """Return the recompile limit under which so many combinations fit."""
        return self.graphs_aside + self.graphs_per_combination * combinations

    def reason(self, values: int, combinations: int) -> str:
        """Return what there is to know for a control that may take ``values`` in a run."""
        said = f"each new value recompiles the {self.site}: at most {values} in this run, the first included"
        if combinations <= self.combinations:
            return f"{said} (torch._dynamo.config.recompile_limit={self.limit})"
        return (
            f"{said}; {combinations} combinations of all controls there, {max(self.combinations, 0)} of them compiled: "
            f"set torch._dynamo.config.recompile_limit={self.limit_for(combinations)}"
        )


@dataclass(frozen=True, slots=True)
class Recompiling:
    """A control whose new values recompile something.

    Args:
        control: The control, with ``max_values`` as this run has room for.
        reason: Why, and what it means.
    """

    control: Control
    reason: str


def recompiling(controls: Sequence[Control], training: Training, regions: Sequence[nn.Module]) -> dict[str, Recompiling]:
    """Return the controls that recompile in this run, by name, each narrowed to the values there is room for.

    Controls of one place share its room: their combinations are what is compiled. Each may take two values at least.
    ``regions`` are the `compiled_modules`.
    """
    is_step_compiled = _is_compiled(unwrap(training.optimizer).step)
    found: dict[Site, list[Control]] = {"model": [], "optimizer step": []}
    for control in controls:
        if is_step_compiled and not _follows_schedule(control, training) and _is_plain_number(control, training):
            found["optimizer step"].append(control)
        elif regions and _reaches_modules(control, training, regions):
            found["model"].append(control)
    whole = getattr(training.model, "_orig_mod", training.model)
    is_inside = any(region is not whole for region in regions)
    graphs = (_WAYS_INSIDE if is_inside else _WAYS_OF_CALLING) * _variants(regions)
    rooms = (Room("model", _limit(), graphs, graphs), Room("optimizer step", _limit(), 1, 1))
    return {name: one for room in rooms for name, one in _narrowed(found[room.site], room).items()}


def recompilation_error(control: Control) -> ControlError | None:
    """Return why a control that recompiles is impossible: torch was told to raise an error instead."""
    if not getattr(dynamo, "error_on_recompile", False):  # not in the oldest torch
        return None
    return ControlError(
        f"each new value of {control.name} recompiles, and torch was told to raise an error then",
        received="torch._dynamo.config.error_on_recompile=True",
        next_step=f"set it to False, or leave {control.name} out of the controls",
    )


def _narrowed(controls: Sequence[Control], room: Room) -> Mapping[str, Recompiling]:
    values = shares(room.combinations, [control.max_values for control in controls])
    combinations = math.prod(values)
    return {
        control.name: Recompiling(
            replace(control, max_values=count),
            room.reason(count, combinations),
        )
        for control, count in zip(controls, values, strict=True)
    }


def shares(combinations: int, wanted: Sequence[int | None]) -> list[int]:
    """Divide ``combinations`` among controls: how many values each may take, so that their product fits.

    Args:
        combinations: What fits.
        wanted: For each control the most values it is allowed, >= 1; None for any number.

    Returns:
        Two for each control, or less if it wants less; and more, one after the other, while the product fits.
    """
    given = [_FEWEST_VALUES if most is None else min(most, _FEWEST_VALUES) for most in wanted]
    while True:
        before = list(given)
        for index, most in enumerate(wanted):
            more = [*given[:index], given[index] + 1, *given[index + 1 :]]
            if (most is None or more[index] <= most) and math.prod(more) <= combinations:
                given = more
        if given == before:
            return given


def _limit() -> int:
    # Until torch 2.6 under its older name.
    return int(getattr(dynamo, "recompile_limit", 0) or dynamo.cache_size_limit)


def _is_compiled(function: object) -> bool:
    return hasattr(function, "_torchdynamo_orig_callable")


def compiled_modules(training: Training) -> list[nn.Module]:
    """Return the modules that are compiled as a whole: model and parts, or modules inside them."""
    roots = [part for part in (training.model, *training.parts) if isinstance(part, nn.Module)]
    regions = [root for root in roots if has_compiled_wrapper(root)]
    for root in roots:
        for module in root.modules():
            original = getattr(module, "_orig_mod", None)  # the wrapper that torch.compile returns
            if getattr(module, "_compiled_call_impl", None) is not None or isinstance(original, nn.Module):
                regions.append(original if isinstance(original, nn.Module) else module)
    return list({id(region): region for region in regions}.values())


def _reaches_modules(control: Control, training: Training, regions: Sequence[nn.Module]) -> bool:
    inside = [module for region in regions for module in region.modules()]
    handle = next((handle for handle in training.find(Handle) if handle.name == control.name), None)
    if handle is not None:
        return any(handle.owner is module for module in inside) and not isinstance(handle.get(), Tensor)
    if control.cost != "recompiles" or base_name(control.name) in _KEYS:
        return False
    return base_name(control.name) != LABEL_SMOOTHING or any(isinstance(module, nn.CrossEntropyLoss) for module in inside)


def _keys(control: Control, training: Training) -> tuple[str, ...] | None:
    """Return where a group keeps a control's number; None if it is kept elsewhere, as by a handle."""
    if any(handle.name == control.name for handle in training.find(Handle)):
        return None
    return _KEYS.get(base_name(control.name))


def _is_plain_number(control: Control, training: Training) -> bool:
    """Return whether a control is a number in the optimizer's groups that a compiled step takes as a constant."""
    keys = _keys(control, training)
    if keys is None:
        return False
    optimizer = unwrap(training.optimizer)
    groups = Selection.of(optimizer, base_name(control.name), part_name(control.name)).groups(optimizer)
    return not all(_is_tensor(next((group[key] for key in keys if key in group), None)) for group in groups)


def _follows_schedule(control: Control, training: Training) -> bool:
    """Return whether a schedule brings new numbers anyway, so that narrowing the control would save nothing."""
    if base_name(control.name) != LEARNING_RATE:
        return False
    # Torch's schedulers leave this key behind, also those that were not passed.
    return training.scheduler is not None or any("initial_lr" in group for group in unwrap(training.optimizer).param_groups)


def _is_tensor(held: Any) -> bool:
    if isinstance(held, (tuple, list)):
        return all(isinstance(one, Tensor) for one in cast("Sequence[object]", held))
    return isinstance(held, Tensor)


def _variants(regions: Sequence[nn.Module]) -> int:
    """Return how many different settings the compiled modules of one class have: they share its graphs."""
    settings: dict[type[nn.Module], set[tuple[float, ...]]] = {}
    for region in regions:
        settings.setdefault(type(region), set()).add(tuple(_probabilities(region)))
    return max((len(different) for different in settings.values()), default=1)


def _probabilities(region: nn.Module) -> list[float]:
    held = (getattr(module, key, None) for module in region.modules() for key in ("p", "dropout"))
    return [value for value in held if isinstance(value, float)]


def remarks(control: Control, training: Training, regions: Sequence[nn.Module]) -> list[str]:
    """Return what there is to know of a control that does not recompile, as far as compilation goes.

    ``regions`` are the `compiled_modules`.
    """
    if base_name(control.name) == BATCH_SIZE and regions:
        return ["a new size makes new shapes, which may recompile what is compiled: mostly once, then with dynamic shapes"]
    if _keys(control, training) is None:
        return []
    optimizer = unwrap(training.optimizer)
    is_plain = _is_plain_number(control, training)
    said: list[str] = []
    if base_name(control.name) == LEARNING_RATE and any(group.get("capturable") for group in optimizer.param_groups):
        said.append("a step replayed from a CUDA graph runs no hooks: a change has no effect there, and that is reported")
    if _is_compiled(optimizer.step) and is_plain:
        said.append("each new rate of the schedule recompiles the optimizer step anyway: give the optimizer a tensor as rate")
    elif is_plain and regions:
        said.append("if a compiled function calls optimizer.step(), each new value recompiles it: that cannot be seen here")
    return said
