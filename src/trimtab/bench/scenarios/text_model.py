"""A character-level GPT on English prose that ships with every CPython.

The training slice is kept so small that a fixed recipe overfits badly: validation loss falls, turns
and climbs for the rest of the run. That makes it a rescue worth watching, and one where stopping
early is the baseline to beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from trimtab.errors import UsageError


@dataclass(frozen=True, slots=True)
class TextTask:
    """Sizes of the task; the defaults are those of the demo.

    Args:
        num_train_characters: Length of the slice trained on.
        num_validation_characters: Length of the slice held out, from the last tenth of the text.
        context: Characters a model sees at once.
        width: Residual width of the transformer.
        num_layers: Transformer blocks.
        num_heads: Attention heads; must divide ``width``.
        batch_size: Windows per step.
        learning_rate: Rate of AdamW in the fixed recipe.
    """

    num_train_characters: int = 20_000
    num_validation_characters: int = 20_000
    context: int = 64
    width: int = 64
    num_layers: int = 2
    num_heads: int = 4
    batch_size: int = 16
    learning_rate: float = 3e-3


def standard_library_prose() -> str:
    """Return the text of Python's own help topics, about 465,000 characters of English prose."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def read_prose(path: Path | None, task: TextTask) -> str:
    """Return the text to train on, checked to be long enough for ``task``.

    Raises:
        UsageError: Name a readable UTF-8 text file with more characters, or shrink the task.
    """
    if path is None:
        return standard_library_prose()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the text could not be read",
            received=f"{path}: {error}",
            allowed="a UTF-8 text file",
            next_step="name another file with --text",
        ) from error
    needed = task.num_train_characters + task.num_validation_characters
    if len(text) < needed:
        raise UsageError(
            "the text is too short for the task",
            received=f"{path}: {len(text):,} characters",
            allowed=f"at least {needed:,} characters",
            next_step="name a longer file with --text",
        )
    return text


class CharacterWindows(Dataset[tuple[Tensor, Tensor]]):
    """Every window of ``context`` characters of a text, with the same window shifted by one.

    Item ``i`` is a pair of int64 tensors of shape ``[context]``.
    """

    def __init__(self, codes: Tensor, context: int) -> None:
        self._codes = codes
        self._context = context

    def __len__(self) -> int:
        return len(self._codes) - self._context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        window = self._codes[index : index + self._context + 1]
        return window[:-1], window[1:]


@dataclass(frozen=True, slots=True)
class TextData:
    """The two slices of a text, coded; ``validation`` has shape ``[num_windows, context + 1]``."""

    train: CharacterWindows
    validation: Tensor
    num_characters: int


def prepare(text: str, task: TextTask) -> TextData:
    """Cut the training slice from the start of ``text``, the held-out one from its last tenth, and code both."""
    begin = min(len(text) * 9 // 10, len(text) - task.num_validation_characters)
    train, held_out = text[: task.num_train_characters], text[begin : begin + task.num_validation_characters]
    alphabet = {character: code for code, character in enumerate(sorted(set(train + held_out)))}
    length = task.context + 1
    windows = _coded(held_out, alphabet)[: len(held_out) // length * length].view(-1, length)
    return TextData(CharacterWindows(_coded(train, alphabet), task.context), windows, len(alphabet))


def _coded(text: str, alphabet: dict[str, int]) -> Tensor:
    return torch.tensor([alphabet[character] for character in text], dtype=torch.int64)


class Block(nn.Module):
    """One pre-norm transformer block with dropout on attention, residual and feed-forward."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_dropout = nn.Dropout(0.0)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.residual_dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, time, width]`` to the same shape."""
        batch, time, width = x.shape
        shape = (batch, time, self.num_heads, width // self.num_heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.norm_attention(x)).split(width, 2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.attention_dropout(self.attention_out(attended))
        return x + self.residual_dropout(self.feed_forward(self.norm_feed_forward(x)))


class CharacterGPT(nn.Module):
    """A decoder-only transformer over characters."""

    def __init__(self, num_characters: int, task: TextTask) -> None:
        super().__init__()
        self.token = nn.Embedding(num_characters, task.width)
        self.position = nn.Embedding(task.context, task.width)
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.Sequential(*(Block(task.width, task.num_heads) for _ in range(task.num_layers)))
        self.norm = nn.LayerNorm(task.width)
        self.head = nn.Linear(task.width, num_characters)

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes ``[batch, time]`` to logits ``[batch, time, num_characters]``."""
        positions = torch.arange(codes.shape[1], device=codes.device)
        x = self.dropout(self.token(codes) + self.position(positions))
        return self.head(self.norm(self.blocks(x)))


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats per character."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def validation_loss(model: nn.Module, windows: Tensor) -> float:
    """Return the mean cross-entropy over all held-out windows; leaves the training mode as it was."""
    was_training = model.training
    model.eval()
    loss = loss_of(model, windows[:, :-1], windows[:, 1:])
    model.train(was_training)
    return float(loss)
