from __future__ import annotations

import torch
from torch import nn

from trimtab.testing.live_values import LiveValues


def test_what_a_step_used_is_read_inside_it_and_not_what_stands_there_afterwards() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    seen = LiveValues(model, optimizer, batch_size=lambda: 16)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.2
    used = {"learning_rate": 0.1, "weight_decay": 0.01, "momentum": 0.9, "batch_size": 16.0}
    assert seen.read() == used
    optimizer.step()
    assert seen.read() == used | {"learning_rate": 0.2}
    seen.close()
    optimizer.param_groups[0]["lr"] = 0.3
    optimizer.step()
    assert seen.read() == used | {"learning_rate": 0.2}


def test_the_largest_of_groups_and_modules_counts() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Linear(2, 1), nn.Dropout(0.3))
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.02}]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95), weight_decay=0.1)
    seen = LiveValues(model, optimizer)
    optimizer.step()
    assert seen.read() == {"learning_rate": 0.02, "weight_decay": 0.1, "momentum": 0.8, "beta2": 0.95, "dropout": 0.3}
