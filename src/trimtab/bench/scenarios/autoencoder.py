"""Compress the 8x8 digits to a few numbers and back; the loss has two terms, reconstruction and the size of the code."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.bench.scenarios.digits import load_digits, split
from trimtab.bench.scenarios.loop import Batch, Loop, Samples, Settings
from trimtab.integrations.pytorch.untyped import seed_torch

_CODE_SIZE = 12
CODE_WEIGHT = 1e-3


class Autoencoder(nn.Module):
    """Maps images ``[rows, 64]`` to images and to codes ``[rows, 12]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, _CODE_SIZE))
        self.decoder = nn.Sequential(nn.Linear(_CODE_SIZE, width), nn.Tanh(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the code."""
        code = self.encoder(images)
        return self.decoder(code), code


def build(settings: Settings, seed: int, num_steps: int) -> Loop:
    """Return a training that has not begun."""
    images, labels = load_digits()
    (train, _), (held, _) = split(images.flatten(1), labels, seed)
    samples = Samples(train, train, settings.batch_size, seed)
    seed_torch(seed)
    model = Autoencoder(settings.width)

    def terms(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        image, code = model(batch[0])
        return {"reconstruction": F.mse_loss(image, batch[1]), "code": code.square().mean()}

    def evaluate(model: nn.Module, held: Batch) -> dict[str, float]:
        return {"val/loss": float(F.mse_loss(model(held[0])[0], held[1]))}

    weights = {"reconstruction": 1.0, "code": CODE_WEIGHT}
    loop = Loop(model, samples, (held, held), terms, weights, evaluate, settings, num_steps)
    loop.parts = {"lower": list(model.encoder.parameters()), "upper": list(model.decoder.parameters())}
    return loop
