"""Nested training state as JSON plus tensors, exactly and back.

JSON stands for itself: None, booleans, integers, finite floats, strings and lists. Everything else is an object
with one key, its kind:

    {"float": "nan"}                                   non-finite numbers
    {"dict": [[key, value], ...]}                      also "ordered_dict" and "counter": keys of any kind, in order
    {"tuple": [...]}, {"set": [...]}, {"frozenset": [...]}
    {"bytes": HEX}
    {"tensor": NAME}                                   also "complex": the tensor of that name, viewed as real
    {"channels_last": TREE}                            also "channels_last_3d": a tensor in that memory format
    {"numpy": [DTYPE, SHAPE, HEX]}                     an array; "numpy_scalar" for a scalar

Tensors are copied to the CPU, contiguous, each with storage of its own, so tied weights need no care. Which
device they belong on is for the consumer to know. Nothing else is encoded: code (functions, classes) is not state.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor

from trimtab.errors import CheckpointError

Json = Any

_CONTAINERS: Final[dict[str, type]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAPPINGS: Final[dict[str, type]] = {"dict": dict, "ordered_dict": OrderedDict, "counter": Counter}
_FORMATS: Final = {"channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d}


def encode_tree(value: object, where: str = "state") -> tuple[Json, dict[str, Tensor]]:
    """Encode a nested value.

    Args:
        value: Built from the types above.
        where: Its name, with which paths in errors and tensor names begin.

    Returns:
        A tree that `json.dumps` takes, and its tensors by name.

    Raises:
        CheckpointError: The value at the path named is of a type that cannot be encoded.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(value, where, tensors), tensors


def decode_tree(tree: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Decode what `encode_tree` returned; the tensors in the result are those given, not copies.

    Raises:
        CheckpointError: The tree is malformed, or names a tensor that is not there.
    """
    try:
        return _decode(tree, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            "the saved state is malformed", received=repr(error), next_step="use another checkpoint"
        ) from error


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Json:
    kind = cast("type[Any]", type(value))
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [_encode(item, f"{path}[{index}]", tensors) for index, item in enumerate(value)]
    for name, mapping in _MAPPINGS.items():
        if kind is mapping:
            return {
                name: [[_encode(key, f"{path} key", tensors), _encode(value[key], f"{path}.{key}", tensors)] for key in value]
            }
    for name, container in _CONTAINERS.items():
        if kind is container:
            items = [_encode(item, f"{path}[{index}]", tensors) for index, item in enumerate(value)]
            return {name: items if name == "tuple" else sorted(items, key=repr)}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is Tensor or kind is torch.nn.Parameter:
        return _encode_tensor(value, path, tensors)
    return _encode_numpy(value, path)


def _encode_tensor(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> Json:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise _unsupported(path, f"a {tensor.layout} tensor on {tensor.device}")
    name = path if path not in tensors else f"{path}#{len(tensors)}"
    plain = tensor.detach().resolve_conj().resolve_neg()
    kind = "tensor"
    if plain.is_complex():
        plain, kind = torch.view_as_real(plain), "complex"
    # copy=True first: .contiguous() alone would hand out the live storage.
    tensors[name] = plain.to("cpu", copy=True).contiguous()
    encoded: Json = {kind: name}
    if not tensor.is_contiguous():
        for format, value in _FORMATS.items():
            if tensor.ndim == (4 if format == "channels_last" else 5) and tensor.is_contiguous(memory_format=value):
                return {format: encoded}
    return encoded


def _encode_numpy(value: Any, path: str) -> Json:
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)) and value.dtype.kind not in "OV":
        scalar = isinstance(value, numpy.generic)
        if scalar or type(value) is numpy.ndarray:
            return {"numpy_scalar" if scalar else "numpy": [value.dtype.str, list(value.shape), value.tobytes().hex()]}
    raise _unsupported(path, f"{type(value).__module__}.{type(value).__qualname__}")


def _decode(tree: Json, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, tensors) for item in cast("list[Json]", tree)]
    if not isinstance(tree, dict):
        return tree
    ((kind, body),) = cast("dict[str, Any]", tree).items()
    if kind in _MAPPINGS:
        # Assigned one by one: Counter(pairs) would count the pairs.
        mapping: dict[Any, Any] = _MAPPINGS[kind]()
        for key, value in body:
            mapping[_decode(key, tensors)] = _decode(value, tensors)
        return mapping
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](_decode(item, tensors) for item in body)
    if kind in _FORMATS:
        return cast("Tensor", _decode(body, tensors)).contiguous(memory_format=_FORMATS[kind])
    return _LEAVES[kind](body, tensors)


def _decode_numpy(body: Any) -> Any:
    import numpy as np

    dtype, shape, content = body
    return np.frombuffer(bytes.fromhex(content), dtype=np.dtype(dtype)).reshape(shape).copy()


_LEAVES: Final[dict[str, Callable[[Any, Mapping[str, Tensor]], Any]]] = {
    "float": lambda body, _: float(body),
    "bytes": lambda body, _: bytes.fromhex(body),
    "tensor": lambda body, tensors: tensors[body],
    "complex": lambda body, tensors: torch.view_as_complex(tensors[body]),
    "numpy": lambda body, _: _decode_numpy(body),
    "numpy_scalar": lambda body, _: _decode_numpy(body)[()],
}


def _unsupported(path: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be saved",
        received=what,
        allowed="None, bool, int, float, str, bytes, list, tuple, set, dict, OrderedDict, Counter, tensors, numpy values",
        next_step="leave it out of the state, or give the object a state_dict of these types",
    )
