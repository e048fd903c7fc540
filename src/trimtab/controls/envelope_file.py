"""The envelope file: YAML, checked strictly, with every problem named by its line and column.

    schema: trimtab/envelope/1
    objective: minimize val/loss
    controls:
      learning_rate:                # or for one parameter group: learning_rate/GROUP
        low: 1e-5                   # required, inclusive, as is high
        high: 3e-3
        moves: {multiply: [0.5, 2]} # or {set: [...]}, or {add: [...]}
        largest_change: 4           # in one intervention
        cumulative_drift: 100       # from where the run started
        dwell_steps: 50             # before the next change
        effect_lag_steps: 10        # until a change can show in the objective
        when: live                  # or boundary
        max_values: 6               # distinct values in all; left out: any number
      batch_size: {low: 16, high: 256, rate_scaling: sqrt}
      dropout/encoder: {low: 0, high: 0.3, modules: "encoder.*"}
      temperature:                  # a control of the user's own needs moves and scale too
        {low: 0.5, high: 2, scale: ratio, moves: {multiply: [0.8, 1.25]}, unit: kelvin}
    signals: {entropy: rollout/ent} # where the run reports a role under another name than the usual ones
    authority: {interventions: 16}
    deliberation: {mode: async}
    reflex: {armed: true}
    manager: {guidance: "the data has noisy labels", usd: 5}
    guard: {tolerance: 0.05}
    canary: {mode: win}

The keys of `authority` and the sections below it, but for `signals`, are the fields of `Authority`, `Deliberation`, `Reflex`,
`ManagerSettings`, `Guard` and `Canary`. What is left out has the default of these classes, or of the control in the catalogue.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from trimtab.controls.catalogue import base_name, declare, own_control, part_name
from trimtab.controls.control import Control, RateScaling, Scale, When
from trimtab.controls.entries import ENTRIES
from trimtab.controls.envelope import Authority, Deliberation, Envelope, Objective
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.controls.moves import Add, Moves, Multiply, SetTo
from trimtab.controls.safeguards import Canary, Guard, Reflex
from trimtab.controls.yaml_tree import TreePath, YamlTree, is_number
from trimtab.errors import ControlError, EnvelopeError, UsageError, nearest

SCHEMA: Final = "trimtab/envelope/1"

_MOVES: Final[dict[str, type[Multiply | SetTo | Add]]] = {"multiply": Multiply, "set": SetTo, "add": Add}
_EXAMPLES: Final = {
    "schema": f"schema: {SCHEMA}",
    "objective": "objective: minimize val/loss",
    "controls": "controls: {learning_rate: {low: 1e-5, high: 3e-3}}",
}
_ALLOWED: Final = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}

_Section = TypeVar("_Section", Authority, Deliberation, Reflex, ManagerSettings, Guard, Canary)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _File(_Strict):
    schema_: Literal["trimtab/envelope/1"] = Field(alias="schema")
    objective: str
    controls: dict[str, Any]
    authority: dict[str, Any] = {}
    deliberation: dict[str, Any] = {}
    reflex: dict[str, Any] = {}
    signals: dict[str, str] = {}
    manager: dict[str, Any] = {}
    guard: dict[str, Any] = {}
    canary: dict[str, Any] = {}


class _Limits(_Strict):
    low: float
    high: float
    moves: dict[str, Any] = {}
    # What is given is passed on, what is not has the catalogue's default: these are never used.
    largest_change: float = 1.0
    cumulative_drift: float = 1.0
    dwell_steps: int = 0
    effect_lag_steps: int = 0
    when: When = "live"
    max_values: int | None = None
    rate_scaling: RateScaling = "none"


class _Control(_Limits):
    modules: str | None = None


class _OwnControl(_Limits):
    scale: Scale
    unit: str = ""
    is_whole: bool = False


class _Moves(_Strict):
    multiply: list[float] = []
    set_: list[float] = Field(default=[], alias="set")
    add: list[float] = []


def load_envelope(path: Path) -> Envelope:
    """Read an envelope file.

    Args:
        path: The file, UTF-8.

    Raises:
        EnvelopeError: Correct the file at the lines and columns that the message names.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EnvelopeError(
            "the envelope file cannot be read", received=f"{path}: {error.strerror}", next_step="check the path"
        ) from error
    try:
        return parse_envelope(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise EnvelopeError(
            f"{path}:{line}:{column}: the file is not UTF-8",
            received=repr(content[error.start : error.start + 1]),
            next_step="save it as UTF-8",
        ) from error


def parse_envelope(text: str, source: str) -> Envelope:
    """Read the text of an envelope file.

    Args:
        text: The text.
        source: Where it is from, for messages.

    Raises:
        EnvelopeError: Correct the text at the lines and columns that the message names.
    """
    document = YamlTree(text, source)
    if document.tree is not None:
        envelope = _Reader(document).envelope()
        document.raise_problems()
        if envelope is not None:
            return envelope
    document.raise_problems()
    raise EnvelopeError(f"{source}:1:1: not an envelope", next_step=f"begin with `{_EXAMPLES['schema']}`")


def dump_envelope(envelope: Envelope) -> str:
    """Return the text of an envelope file that reads back as ``envelope``.

    Nothing is left to defaults but an early look that never comes.

    Raises:
        EnvelopeError: The envelope has what no file can say, such as a control that is not in the catalogue.
    """
    canary = asdict(envelope.canary)
    if envelope.canary.look_steps >= envelope.canary.steps:
        del canary["look_steps"]  # the default, which an arm this short leaves out; in a file it would be asked for
    tree = {
        "schema": SCHEMA,
        "objective": str(envelope.objective),
        "controls": {control.name: _control_tree(control) for control in envelope.controls},
        "authority": asdict(envelope.authority),
        "deliberation": asdict(envelope.deliberation),
        "reflex": asdict(envelope.reflex),
        "signals": dict(envelope.signals),
        "manager": {key: value for key, value in asdict(envelope.manager).items() if value is not None},
        "guard": asdict(envelope.guard),
        "canary": canary,
    }
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    if parse_envelope(text, "the envelope as a file") != envelope:
        raise EnvelopeError("the envelope cannot be written as a file", received=repr(envelope)[:200])
    return text


class _Reader:
    """Builds an envelope from a document and reports what is wrong with it."""

    def __init__(self, document: YamlTree) -> None:
        self._document = document

    def envelope(self) -> Envelope | None:
        tree = self._document.tree
        self._validated(_File, (), tree)
        if not isinstance(tree, dict):
            return None
        sections = cast("dict[str, Any]", tree)
        objective = self._objective(sections.get("objective"))
        controls = self._controls(sections.get("controls"))
        authority = self._section("authority", sections, Authority)
        deliberation = self._section("deliberation", sections, Deliberation)
        reflex = self._section("reflex", sections, Reflex)
        signals = self._signals(sections.get("signals"))
        manager = self._section("manager", sections, ManagerSettings)
        guard = self._section("guard", sections, Guard)
        canary = self._section("canary", sections, Canary)
        if objective is None:
            return None
        try:
            return Envelope(objective, controls, authority, deliberation, reflex, signals, manager, guard, canary)
        except ControlError as error:
            self._pass_on(("controls",), error)
            return None

    def _signals(self, tree: object) -> tuple[tuple[str, str], ...]:
        pairs = cast("dict[object, object]", tree).items() if isinstance(tree, dict) else ()
        # What is no text was reported with the file.
        return tuple(sorted((role, name) for role, name in pairs if isinstance(role, str) and isinstance(name, str)))

    def _objective(self, text: object) -> Objective | None:
        try:
            return Objective.parse(text) if isinstance(text, str) else None
        except UsageError as error:
            self._pass_on(("objective",), error)
            return None

    def _controls(self, tree: object) -> tuple[Control, ...]:
        if not isinstance(tree, dict):
            return ()
        controls = (self._control(name, entry) for name, entry in cast("dict[str, Any]", tree).items())
        return tuple(control for control in controls if control is not None)

    def _control(self, name: str, tree: object) -> Control | None:
        path: TreePath = ("controls", name)
        is_own = base_name(name) not in ENTRIES
        # Both keys, which say that it is meant: a misspelt name of the catalogue has at most the first.
        if name.endswith("/") or (is_own and not (isinstance(tree, dict) and {"moves", "scale"} <= tree.keys())):
            hint = f"{nearest(base_name(name), ENTRIES)}; a control of your own needs moves and scale" if is_own else None
            allowed = "a control of the catalogue, CONTROL/PART where it has parts, or one of your own"
            self._document.report(path, "unknown control", received=_shown(name), allowed=allowed, next_step=hint, at_key=True)
            return None
        values = self._validated(_OwnControl if is_own else _Control, path, cast("object", tree))
        given = set(values)
        moves = self._moves((*path, "moves"), values.pop("moves")) if "moves" in values else None
        if not {"low", "high"} <= given:
            return None
        low, high = values.pop("low"), values.pop("high")
        try:
            if not is_own:
                return declare(base_name(name), low, high, part=part_name(name), moves=moves, **values)
            return None if moves is None else own_control(name, low, high, moves=moves, **values)
        except ControlError as error:
            # At the control's key that the message names, unless it names several or none.
            named = given & set(re.findall(r"[a-z_]+", f"{error.what} {error.received}"))
            self._pass_on((*path, *named) if len(named) == 1 else path, error)
            return None

    def _moves(self, path: TreePath, tree: dict[str, Any]) -> Moves | None:
        values = self._validated(_Moves, path, tree)
        if len(values) != 1:
            if values or not tree:
                received = ", ".join(values) or "none"
                self._document.report(path, "moves are of one kind", received=received, allowed="one of multiply, set, add")
            return None
        ((kind, numbers),) = values.items()
        try:
            return _MOVES[kind](tuple(numbers))
        except ControlError as error:
            self._pass_on((*path, kind), error)
            return None

    def _section(self, name: str, sections: dict[str, Any], cls: type[_Section]) -> _Section:
        tree: Any = sections.get(name)
        # Another type than a mapping was reported with the file.
        values = self._validated(_model_of(cls), (name,), cast("object", tree)) if isinstance(tree, dict) else {}
        while True:
            try:
                section = cls(**values)
                if isinstance(section, Canary) and "look_steps" in values:
                    section.require_look()  # whoever wrote it has asked for it, also with the default's own number
            except UsageError as error:
                # One field at a time: report it, leave it out, look for the next.
                field = error.what.partition(".")[2].partition(" ")[0]
                self._pass_on((name, field) if field in values else (name,), error)
                if values.pop(field, None) is None:
                    return cls()
            else:
                return section

    def _validated(self, model: type[BaseModel], path: TreePath, tree: object) -> dict[str, Any]:
        """Return the values of a mapping, without those that are wrong, which are reported."""
        try:
            return model.model_validate(tree).model_dump(exclude_unset=True, by_alias=True)
        except ValidationError as errors:
            good = dict(cast("dict[Any, Any]", tree)) if isinstance(tree, dict) else {}
            for error in errors.errors(include_url=False, include_context=False):
                self._report((*path, *error["loc"]), model, error)
                good.pop(error["loc"][0] if error["loc"] else None, None)
            return good

    def _report(self, path: TreePath, model: type[BaseModel], error: ErrorDetails) -> None:
        name = ".".join(str(part) for part in path) or "the file"
        key = str(path[-1]) if path else ""
        if error["type"] == "missing":
            example = _EXAMPLES.get(name, f"{key}: ...")
            self._document.report(path, f"{name} is missing", next_step=f"add `{example}`", at_key=True)
        elif error["type"] == "extra_forbidden":
            hint = nearest(key, (field.alias or known for known, field in model.model_fields.items()))
            self._document.report(path, "unknown key", received=_shown(key), next_step=hint, at_key=True)
        else:
            allowed = _ALLOWED.get(error["type"], error["msg"].removeprefix("Input should be "))
            quoted = allowed.endswith("number") and isinstance(error["input"], str) and is_number(error["input"])
            hint = "remove the quotes" if quoted else None
            received = self._document.boolean(path) or _shown(error["input"])
            self._document.report(path, f"{name} is wrong", received=received, allowed=allowed, next_step=hint)

    def _pass_on(self, path: TreePath, error: UsageError) -> None:
        received = None if error.received is None else _shown(str(error.received), quote=False)
        self._document.report(path, error.what, received=received, allowed=error.allowed, next_step=error.next_step)


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""


def _represent_list(dumper: yaml.SafeDumper, numbers: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", numbers, flow_style=True)


_Dumper.add_representer(list, _represent_list)


@cache
def _model_of(cls: type[Authority | Deliberation | Reflex | ManagerSettings | Guard | Canary]) -> type[BaseModel]:
    """Return the model with exactly the fields of a section's dataclass."""
    hints = get_type_hints(cls)
    model_fields: dict[str, Any] = {field.name: (hints[field.name], field.default) for field in fields(cls)}
    return create_model(cls.__name__, __base__=_Strict, **model_fields)


def _control_tree(control: Control) -> dict[str, Any]:
    """Return a control as the file has it: the limits always, the rest where it says something."""
    ((_, numbers),) = asdict(control.moves).items()
    kind = next(kind for kind, cls in _MOVES.items() if isinstance(control.moves, cls))
    tree: dict[str, Any] = {
        "low": control.bounds.low,
        "high": control.bounds.high,
        "moves": {kind: list(numbers)},
        "largest_change": control.largest_change,
        "cumulative_drift": control.cumulative_drift,
        "dwell_steps": control.dwell_steps,
        "effect_lag_steps": control.effect_lag_steps,
    }
    if base_name(control.name) not in ENTRIES:
        tree |= {"scale": control.scale, "unit": control.unit, "is_whole": control.is_whole}
    for key, silent in (("when", "live"), ("max_values", None), ("rate_scaling", "none"), ("modules", None)):
        if (value := getattr(control, key)) != silent:
            tree[key] = value
    return tree


def _shown(value: object, *, quote: bool = True) -> str:
    """Return a value in a few words on one line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return value[:100] if isinstance(value, str) and value.isprintable() and not quote else repr(value)[:100]
