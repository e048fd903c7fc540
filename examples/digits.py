"""A training script as its user writes it: small images, a network that overfits, and a supervisor.

    trimtab run --run-dir runs/digits -- python examples/digits.py

It can be killed at any moment and resumed, replayed and forked (docs/record.md). Needs scikit-learn for its images.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits  # pyright: ignore[reportUnknownVariableType] - scikit-learn has no types
from torch import nn

import trimtab

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--manager", default="rules")
parser.add_argument("--every", type=int, default=50)
options = parser.parse_args()

torch.manual_seed(options.seed)
images, labels = load_digits(return_X_y=True)
inputs = torch.tensor(images, dtype=torch.float32) / 16
targets = torch.tensor(labels)
wrong = torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.3  # labels that can only be learnt by heart
targets[:400][wrong] = torch.randint(10, (int(wrong.sum()),), generator=torch.Generator().manual_seed(2))
train = torch.utils.data.TensorDataset(inputs[:400], targets[:400])
held_out = inputs[1000:], targets[1000:]

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.0), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
loader = trimtab.ResumableLoader(train, batch_size=32, seed=options.seed)


def evaluate() -> dict[str, float]:
    """Return the loss on images that are not trained on."""
    model.eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(held_out[0]), held_out[1])
    model.train()
    return {"val/loss": float(loss)}


supervisor = trimtab.supervise(
    model,
    optimizer,
    loader=loader,
    controls=[trimtab.learning_rate(1e-5, 4e-3), trimtab.weight_decay(0.0, 0.3), trimtab.dropout(0.0, 0.6)],
    objective="minimize val/loss",
    manager=options.manager,
    mode="boundary",
    total_steps=options.steps,
    evaluate_every_steps=options.every,
)
if supervisor.evaluation_due:  # a resumed run may owe one
    supervisor.evaluated(evaluate())
while supervisor.num_steps < options.steps and not supervisor.should_stop:
    for batch, labels_of_batch in loader:
        loss = nn.functional.cross_entropy(model(batch), labels_of_batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        supervisor.step(loss=loss)
        if supervisor.evaluation_due:
            supervisor.evaluated(evaluate())
        if supervisor.num_steps == options.steps or supervisor.should_stop:
            break
supervisor.close()
