"""Reads a local model into memory: from its directory alone, running no code of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final

from trimtab.decision.llm.local_files import ModelFiles
from trimtab.errors import UsageError

_GGUF_READING: Final = "transformers.modeling_gguf_pytorch_utils"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Args:
        model: The causal language model, of transformers.
        tokenizer: Its tokenizer, of transformers, with one of the library tokenizers behind it.
        context_tokens: Most tokens of prompt and reply together.
        end_tokens: The tokens that end a reply.
        num_scores: How many tokens it gives scores to.
    """

    model: Any
    tokenizer: Any
    context_tokens: int
    end_tokens: tuple[int, ...]
    num_scores: int


def load_model(files: ModelFiles, device: str) -> LoadedModel:
    """Load a model; this takes seconds.

    Raises:
        UsageError: Choose a model that transformers can read, or another device.
    """
    try:
        with _quietly():
            model, tokenizer, missing = _read(files, device)
    except Exception as error:  # transformers, safetensors and tokenizers share no base for their errors; the cause is kept
        raise UsageError(
            "the local model cannot be loaded",
            received=f"{files.name} on {device}: {type(error).__name__}: {error}"[:600],
            next_step="load it with transformers alone to see more, or choose another model or manager.device",
        ) from error
    # transformers fills what is missing with random numbers and goes on.
    if missing:
        raise UsageError("the local model lacks weights", received=", ".join(sorted(missing)[:5]), next_step="fetch it again")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UsageError(
            "the local model's tokenizer cannot be constrained",
            received=type(tokenizer).__name__,
            allowed="one of the library tokenizers",
            next_step="choose a model with a tokenizer.json",
        )
    # A model's files may ask for both; llguidance would take the padding for a part of its words.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    ends = _end_tokens(model, tokenizer)
    if not ends:
        raise UsageError("the local model has no token that ends a reply", received=files.name, next_step="choose another")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    return LoadedModel(model, tokenizer, int(context), ends, int(model.get_output_embeddings().weight.shape[0]))


def _read(files: ModelFiles, device: str) -> tuple[Any, Any, set[str]]:
    import torch
    import transformers

    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if files.gguf_file is not None:
        where["gguf_file"] = files.gguf_file
    directory = str(files.directory)
    # On a CPU, half precision takes longer than it saves.
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    auto_tokenizer: Any = transformers.AutoTokenizer
    auto_model: Any = transformers.AutoModelForCausalLM
    with _one_reading(files):
        tokenizer = auto_tokenizer.from_pretrained(directory, **where)
        model, about = auto_model.from_pretrained(
            directory, **where, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    return model.requires_grad_(requires_grad=False).eval().to(device), tokenizer, set(about["missing_keys"])


def _end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    ends: list[int] = []
    for named in (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id, tokenizer.eos_token_id):
        if named is not None:
            ends += named if isinstance(named, list) else [named]
    return tuple(sorted(set(ends)))


@contextmanager
def _quietly() -> Generator[None]:
    """Turn the progress bars and warnings of transformers off for a while."""
    from transformers.utils import logging

    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def _one_reading(files: ModelFiles) -> Generator[None]:
    """Have a GGUF file read once, and without a progress bar.

    transformers reads its head three times (2 s each for SmolLM2) and makes the map of tensor names once per module
    (8 s). It looks both functions up in gguf at every use; should it stop doing so, loading is slow again, not wrong.
    """
    if files.gguf_file is None:
        yield
        return
    gguf, reading = import_module("gguf"), import_module(_GGUF_READING)
    replaced: list[tuple[Any, str, Any]] = [
        (gguf, "GGUFReader", cache(gguf.GGUFReader)),
        (gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
        (reading, "tqdm", _without_bar),  # this one asks nobody whether bars are wanted
    ]
    originals = [(module, name, getattr(module, name, None)) for module, name, _ in replaced]
    for module, name, ours in replaced:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def _without_bar(items: Iterable[Any], **_: object) -> Iterable[Any]:
    return items
