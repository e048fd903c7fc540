"""The state store of a torch run: everything a step depends on, saved and restored exactly.

Rules:
- Saving changes nothing: no generator is drawn from, no tensor written.
- Restoring is all or nothing: the checkpoint is verified, decoded and compared with the live objects before the first
  of them is touched; if one then refuses, all are put back. RNG comes last, for loading may draw from it.
- Gradients are not state: they are dropped by a restore.
- Tensors lie in a safetensors file, the rest in JSON. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.optim import Optimizer

from trimtab.actuation.checkpoint_files import (
    EXTRA,
    Content,
    delete_checkpoint,
    list_checkpoints,
    open_checkpoint,
    read_manifest,
    write_checkpoint,
)
from trimtab.errors import ActuationError, CheckpointError, TrimtabError, UsageError
from trimtab.integrations.pytorch.bindings.groups import unwrap
from trimtab.integrations.pytorch.rng import capture_rng, check_rng, reseed_rng, restore_rng
from trimtab.integrations.pytorch.stateful import Stateful, check_module, check_optimizer, form, load_state, state_of
from trimtab.integrations.pytorch.tree import decode_tree, encode_tree
from trimtab.integrations.pytorch.untyped import largest_magnitude, listed

SCHEMA: Final = 1
STATE: Final = "state.json"
TENSORS: Final = "tensors.safetensors"
# The averages of Adam and its kin, with the place of each one's decay among the betas.
_AVERAGES: Final = {"exp_avg": 0, "exp_avg_sq": 1, "max_exp_avg_sq": 1, "exp_inf": 1}
_LEAST_BIAS: Final = 1e-12


class TorchStateStore:
    """Saves and restores a torch run.

    Args:
        root: Directory of the checkpoints.
        model: The model in training.
        optimizer: Its optimizer; wrappers that keep it as ``.optimizer`` are unwrapped.
        scheduler: Whatever steps the learning rate, if it has a state_dict.
        loader: Its position is saved if it has ``state_dict`` and ``load_state_dict``; it can be skipped if it has ``skip``.
        extra_state: Further objects by name (a GradScaler, an EMA, a second optimizer): with ``state_dict`` and
            ``load_state_dict``, or a `torch.Generator`.

    Raises:
        UsageError: An object has no state that could be saved; the message names it.
    """

    def __init__(
        self,
        root: Path,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: Stateful | None = None,
        loader: object | None = None,
        extra_state: Mapping[str, object] | None = None,
    ) -> None:
        self._root = root
        self._model = model
        self._optimizer = unwrap(optimizer)
        self._loader = loader
        self._further: dict[str, Stateful | torch.Generator] = {}
        if scheduler is not None:
            self._further["scheduler"] = _stateful("scheduler", scheduler)
        if isinstance(loader, Stateful):
            self._further["loader"] = loader
        for name, target in (extra_state or {}).items():
            self._further[f"extra_state/{name}"] = _stateful(name, target)
        # A mask of -inf is healthy: buffers that start out non-finite are not looked at.
        measured = ((name, _magnitude(buffer)) for name, buffer in model.named_buffers())
        self._unbounded = {name for name, largest in measured if largest is not None and not math.isfinite(float(largest))}

    @property
    def can_skip(self) -> bool:
        """Whether the loader has ``skip``."""
        return callable(getattr(self._loader, "skip", None))

    @property
    def has_position(self) -> bool:
        """Whether the data position is part of the state."""
        return "loader" in self._further

    def save(self, id: str, extra: dict[str, Any]) -> str:
        """Save the state under ``id`` and return its hash; visible only once complete.

        Raises:
            CheckpointError: Nothing is visible under ``id``; go on without this checkpoint.
        """
        with _reading():
            tree, tensors = encode_tree(self._capture(), "state")
            text = _json({"schema": SCHEMA, "state": tree})
            beside = _json({name: _without_tensors(value, f"state.extra.{name}") for name, value in extra.items()})
        files: dict[str, Content] = {STATE: text, EXTRA: beside, TENSORS: lambda path: _write_tensors(tensors, path)}
        write_checkpoint(self._root, id, files)
        written = read_manifest(self._root, id).files
        return hashlib.sha256(f"{written[STATE].sha256} {written[TENSORS].sha256}".encode()).hexdigest()

    def scales(self) -> dict[str, float]:
        """Return the largest magnitude of each part, not finite if anything of it is not; waits for each device once.

        The parts are ``weights``, ``buffers``, and ``optimizer/KEY`` for what the optimizer keeps of each weight under a key;
        averages that Adam and its kin start from 0 are taken without that bias. Counters are left out.
        """
        found = [("weights", parameter) for parameter in self._model.parameters()]
        found += [("buffers", buffer) for name, buffer in self._model.named_buffers() if name not in self._unbounded]
        measured = [(part, magnitude) for part, tensor in found if (magnitude := _magnitude(tensor)) is not None]
        for group in self._optimizer.param_groups:
            for weight in group["params"]:
                kept = self._optimizer.state.get(weight, {})
                for key, value in kept.items():
                    if isinstance(value, Tensor) and (magnitude := _magnitude(value)) is not None:
                        bias = _bias(key, kept, group) if value.dim() else None
                        measured.append((f"optimizer/{key}", magnitude if bias is None else magnitude / bias))
        return _largest(measured)

    def restore(self, id: str) -> dict[str, Any]:
        """Restore the state saved under ``id`` and return its ``extra``; all or nothing.

        Raises:
            CheckpointError: The state is as before; use another checkpoint.
        """
        saved = self._read(id)
        self._check(saved)
        self._replace(saved, id)
        return saved["extra"]

    def keep(self) -> object:
        """Return a copy of the present state, in the memory of the host.

        Raises:
            CheckpointError: The state cannot be read.
        """
        with _reading():
            return encode_tree(self._capture(), "fork")

    def bring_back(self, kept: object) -> None:
        """Restore a state that `keep` returned; all or nothing, and as often as wanted.

        Raises:
            CheckpointError: The state is as before.
        """
        tree, tensors = cast("tuple[Any, dict[str, Tensor]]", kept)
        with _reading():
            # Copies: an optimizer goes on with the very tensors that it is given.
            copied = decode_tree(tree, {name: tensor.clone() for name, tensor in tensors.items()})
        self._replace(copied, "a fork in memory")

    def _replace(self, saved: dict[str, Any], id: str) -> None:
        with _reading():
            before, tensors = encode_tree(self._capture(), "before")
        try:
            self._load(saved)
        except BaseException as error:  # also an interrupt must leave a whole state behind
            self._put_back(decode_tree(before, tensors), error)
            if not isinstance(error, Exception):
                raise
            raise CheckpointError(
                "the checkpoint could not be restored", received=f"{id}: {error!r}", next_step="the state was put back"
            ) from error
        self._model.zero_grad(set_to_none=True)
        self._optimizer.zero_grad(set_to_none=True)

    def hashes(self) -> dict[str, str]:
        """Return a SHA-256 of each part of the present state; waits for the device.

        Raises:
            CheckpointError: The state cannot be read; go on without hashes.
        """
        with _reading():
            captured = self._capture()
            further: dict[str, Any] = captured.pop("further")
            generators: dict[str, Any] = captured.pop("rng")
            parts = {**captured, **further, **{f"rng/{name}": state for name, state in generators.items()}}
            return {name: _hash(*encode_tree(part, name)) for name, part in parts.items()}

    def reseed(self, seed: int) -> None:
        """Let every generator go on from another seed, and whatever of the loader and the further objects has ``reseed``."""
        reseed_rng(seed)
        for place, target in enumerate(self._further.values(), start=1):
            if isinstance(target, torch.Generator):
                target.manual_seed(seed + place)
            elif callable(reseed := getattr(target, "reseed", None)):
                reseed(seed)
        reseed = getattr(self._loader, "reseed", None)
        if callable(reseed) and "loader" not in self._further:
            reseed(seed)

    def skip(self, count: int) -> None:
        """Pass over the loader's next ``count`` batches.

        Raises:
            ActuationError: The loader cannot skip.
        """
        skip = getattr(self._loader, "skip", None)
        if not callable(skip):
            raise ActuationError("the loader cannot skip batches", next_step="use a loader with skip(), as ResumableLoader")
        skip(count)

    def ids(self) -> tuple[str, ...]:
        """Return the names of all complete checkpoints; their files are not verified."""
        return list_checkpoints(self._root)

    def delete(self, id: str) -> None:
        """Remove a checkpoint that is no longer needed; without effect if there is none."""
        delete_checkpoint(self._root, id)

    def _capture(self) -> dict[str, Any]:
        model = dict(self._model.state_dict())
        return {
            "model": model,
            "buffers": self._buffers_beside(model),
            "optimizer": state_of(self._optimizer),
            "further": {name: state_of(target) for name, target in self._further.items()},
            "rng": capture_rng(),
        }

    def _buffers_beside(self, model: dict[str, Any]) -> dict[str, Tensor]:
        """Return the buffers that the model's state_dict leaves out."""
        named = self._model.named_buffers(remove_duplicate=False)
        return {name: buffer for name, buffer in named if name not in model}

    def _read(self, id: str) -> dict[str, Any]:
        directory = open_checkpoint(self._root, id)
        try:
            return _decode_files(directory)
        except CheckpointError:
            raise
        except Exception as error:  # json, safetensors and a missing key raise unlike types; each means a foreign file
            raise CheckpointError("not a checkpoint of a torch run", received=f"{id}: {error!r}") from error

    def _check(self, saved: dict[str, Any]) -> None:
        model = dict(self._model.state_dict())
        check_module(model, saved["model"], "weights")
        if differing := sorted(self._buffers_beside(model).keys() ^ saved["buffers"].keys()):
            raise CheckpointError("the checkpoint's buffers are not the model's", received=", ".join(differing))
        check_optimizer(self._optimizer, saved["optimizer"])
        if differing := sorted(self._further.keys() ^ saved["further"].keys()):
            raise CheckpointError(
                "the checkpoint is of a run with other objects",
                received=f"only in one of the two: {', '.join(differing)}",
                next_step="give the store the objects it was given when it was saved",
            )
        for name, target in self._further.items():
            if isinstance(target, nn.Module):
                check_module(dict(target.state_dict()), saved["further"][name], name)
            elif isinstance(target, Optimizer):
                check_optimizer(target, saved["further"][name])
        check_rng(saved["rng"])

    def _loads(self, saved: dict[str, Any]) -> dict[str, Callable[[], None]]:
        """Return what loads each part, in order."""
        further = saved["further"]
        return {
            "model": lambda: load_state(self._model, saved["model"]),
            "buffers": lambda: self._load_buffers(saved["buffers"]),
            "optimizer": lambda: load_state(self._optimizer, saved["optimizer"]),
            **{name: lambda name=name: load_state(self._further[name], further[name]) for name in self._further},
            "rng": lambda: restore_rng(saved["rng"]),
        }

    def _load(self, saved: dict[str, Any]) -> None:
        for load in self._loads(saved).values():
            load()

    def _load_buffers(self, saved: dict[str, Tensor]) -> None:
        live = dict(self._model.named_buffers(remove_duplicate=False))
        for name, value in saved.items():
            if form(live[name]) == form(value):
                with torch.no_grad():
                    live[name].copy_(value)
            else:  # a cache that has grown since
                owner, _, attribute = name.rpartition(".")
                setattr(self._model.get_submodule(owner), attribute, value.to(live[name].device))

    def _put_back(self, before: dict[str, Any], cause: BaseException) -> None:
        failed: list[str] = []
        for part, load in self._loads(before).items():
            try:
                load()
            except Exception as error:  # noqa: BLE001 - a user's load_state_dict may raise any type; the parts after it must be put back too, then all are raised
                failed.append(f"{part}: {error!r}")
        if failed:
            raise CheckpointError(
                "the checkpoint could not be restored, and the state before it not wholly put back",
                received="; ".join(failed),
                next_step="stop the run and start it again from its last checkpoint",
            ) from cause


@contextmanager
def _reading() -> Generator[None]:
    """Raise what goes wrong while a state is read as a `CheckpointError`: the caller goes on without that state."""
    try:
        yield
    except TrimtabError:
        raise
    except Exception as error:  # a user's state_dict may raise any type, and a full device its own; the type and text are kept
        raise CheckpointError("the state could not be read", received=repr(error), next_step="go on without it") from error


def _stateful(name: str, target: object) -> Stateful | torch.Generator:
    if isinstance(target, (Stateful, torch.Generator)):
        return unwrap(target) if isinstance(target, Optimizer) else target
    raise UsageError(
        f"{name} has no state that could be saved",
        received=type(target).__name__,
        allowed="an object with state_dict and load_state_dict, or a torch.Generator",
    )


def _magnitude(tensor: Tensor) -> Tensor | None:
    """Return the largest absolute value; None if the tensor is empty or of whole numbers."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    # Of 8-bit floats torch has no norms. The largest magnitude, unlike a 2-norm, cannot overflow.
    plain = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()
    return largest_magnitude(plain).float()


def _bias(key: str, kept: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor | None:
    """Return what an average that began at 0 has to be divided by; None where that is not known."""
    place, step, betas = _AVERAGES.get(key), kept.get("step"), group.get("betas")
    if place is None or step is None or not isinstance(betas, (tuple, list)) or place >= len(cast("list[Any]", betas)):
        return None
    steps = step.detach() if isinstance(step, Tensor) else torch.tensor(float(step))
    return (1.0 - cast("list[Any]", betas)[place] ** steps).clamp(min=_LEAST_BIAS)


def _largest(measured: list[tuple[str, Tensor]]) -> dict[str, float]:
    """Return the largest value of each part, not finite if one of them is not."""
    by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for part, magnitude in measured:
        by_device.setdefault(magnitude.device, []).append((part, magnitude))
    largest: dict[str, float] = {}
    for found in by_device.values():
        for (part, _), value in zip(found, listed(torch.stack([magnitude for _, magnitude in found])), strict=True):
            before = largest.get(part, 0.0)
            largest[part] = before if math.isnan(before) or value <= before else value
    return largest


def _json(tree: object) -> bytes:
    return json.dumps(tree, allow_nan=False).encode()


def _without_tensors(value: object, where: str) -> object:
    tree, tensors = encode_tree(value, where)
    if tensors:
        raise CheckpointError("a tensor is no JSON-ready value", received=next(iter(tensors)))
    return tree


def _hash(tree: object, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_json(tree))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {form(tensor)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _decode_files(directory: Path) -> dict[str, Any]:
    text = json.loads((directory / STATE).read_bytes())
    if text["schema"] != SCHEMA:
        raise CheckpointError("the state was saved by another version", received=text["schema"], allowed=f"schema {SCHEMA}")
    extra = json.loads((directory / EXTRA).read_bytes())
    state = decode_tree(text["state"], _read_tensors(directory / TENSORS))
    return {**state, "extra": {name: decode_tree(value, {}) for name, value in extra.items()}}


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    cast("Any", safetensors).save_file(tensors, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    return cast("dict[str, Tensor]", cast("Any", safetensors).load_file(path))
