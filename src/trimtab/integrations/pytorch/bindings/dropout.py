"""Dropout: the probability of every dropout module of a model, or of those whose name matches a pattern.

Besides dropout modules, models keep the probability of functional dropout as a plain number of a module
(``F.dropout(x, self.dropout)``, ``scaled_dot_product_attention(..., dropout_p=self.attention_dropout)``). Such an attribute
counts if its name speaks of dropout and the module's ``forward``, or a method that it calls, reads it: what is only stored,
for ``repr`` or for a config, does not. A probability written into the code, or kept in a config object, cannot be reached.
Under torch.compile each new probability recompiles once, so the control's moves should be a short list of fixed values.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import CodeType, FunctionType
from typing import Final, cast

from torch import nn
from torch.optim import Optimizer

from trimtab.controls.entries import DROPOUT
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.observed import Place, PlacesBinding, listed

_MODULES: Final = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

# What torch.compile, FSDP and checkpointing put into the names of modules; DDP puts "module" before them all.
_WRAPPERS: Final = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


class DropoutBinding(PlacesBinding):
    """Binds dropout to a model; the value is the largest probability, the others keep their ratio to it.

    Reached are the dropout modules of `torch.nn`, `nn.MultiheadAttention`, recurrent modules of more than one layer, and
    plain attributes as described in this file. Probabilities of 0 stay 0, unless all are.

    Args:
        model: The model in training.
        optimizer: Its optimizer; what is in effect is read when it steps.
        name: The control's name, such as ``dropout/encoder``.
        modules: Pattern of the names of the modules, as in `fnmatch`; None for all.

    Raises:
        ControlError: The model has no dropout that can be reached, or a probability outside ``[0, 1)``.
        OwnershipError: Another supervisor, or another dropout control, has one of the modules.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, name: str = DROPOUT, modules: str | None = None) -> None:
        super().__init__(name, optimizer, _places(model, name, modules), below=1.0)


def _places(model: nn.Module, name: str, pattern: str | None) -> list[Place]:
    """Return where the model keeps its probabilities, each place once."""
    read: dict[type, frozenset[str]] = {}
    found: dict[tuple[int, str], Place] = {}
    selected: dict[tuple[int, str], Place] = {}
    # Under every name of a shared module: the pattern may match any of them.
    named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False))
    for path, module in named:
        plain = _plain(path)
        for attribute in _attributes(module, read):
            place = Place(module, attribute, f"{plain}.{attribute}" if plain else attribute)
            found.setdefault((id(module), attribute), place)
            if pattern is None or fnmatchcase(path, pattern) or fnmatchcase(plain, pattern):
                selected.setdefault((id(module), attribute), place)
    if not found:
        raise ControlError(
            "the model has no dropout that can be reached",
            received=type(model).__name__,
            allowed="torch.nn dropout modules, MultiheadAttention, recurrent modules of more than one layer, or a float "
            "attribute such as self.dropout that forward reads",
            next_step="give the model nn.Dropout modules, other functional dropout cannot be reached; or leave dropout out",
        )
    if not selected:
        labels = [place.label.rpartition(".")[0] or "(the model itself)" for place in found.values()]
        raise ControlError(
            f"{name}: no module with dropout has a name like this",
            received=pattern,
            allowed=f"a pattern that matches some of: {listed(sorted(set(labels)))}",
            next_step='correct the pattern; "*" stands for any characters, dots included',
        )
    return list(selected.values())


def _attributes(module: nn.Module, read: dict[type, frozenset[str]]) -> list[str]:
    """Return the attributes in which a module keeps a dropout probability."""
    if isinstance(module, _MODULES):
        return ["p"]
    if isinstance(module, nn.MultiheadAttention):
        return ["dropout"]
    if isinstance(module, nn.RNNBase):
        return ["dropout"] if module.num_layers > 1 else []
    named = [name for name, value in vars(module).items() if _speaks_of_dropout(name) and _is_probability(value)]
    if not named:
        return []
    kind = type(module)
    if kind not in read:
        read[kind] = frozenset(_read_in_forward(kind))
    return [name for name in named if name in read[kind]]


def _speaks_of_dropout(name: str) -> bool:
    return ("dropout" in name or name.endswith("pdrop")) and "keep" not in name


def _is_probability(value: object) -> bool:
    return (type(value) is float and 0 <= value < 1) or (type(value) is int and value == 0)


def _read_in_forward(kind: type) -> Iterator[str]:
    """Yield the names of the attributes that ``forward`` of a module class reads, and the methods of the class it names."""
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        method = inspect.unwrap(getattr(kind, waiting.pop(), None) or _read_in_forward)
        if not isinstance(method, FunctionType) or method is _read_in_forward:
            continue
        for name in _loaded(method.__code__):
            yield name
            if name not in seen and name not in nn.Module.__dict__ and callable(getattr(kind, name, None)):
                seen.add(name)
                waiting.append(name)


def _loaded(code: CodeType) -> Iterator[str]:
    """Yield the names of the attributes that a function's code, and the functions in it, read."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant)


def _plain(path: str) -> str:
    """Return a module's name as it is without the wrappers around the model."""
    parts = [part for part in path.split(".") if part not in _WRAPPERS]
    return ".".join(parts[1:] if parts[:1] == ["module"] else parts)
