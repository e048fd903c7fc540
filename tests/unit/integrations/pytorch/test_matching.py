from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

import trimtab
from trimtab.errors import UsageError
from trimtab.integrations.pytorch.matching import declared, gathered, refuse_mismatched
from trimtab.integrations.pytorch.training import Training

RATE = trimtab.learning_rate(1e-6, 1.0)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def sgd(*modules: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([parameter for module in modules for parameter in module.parameters()], lr=0.1)


class Wrapper:
    """As accelerate's: keeps the optimizer, and may step copies of the model's parameters."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups


def foreign(what: str) -> Training:
    """A run with one thing of another run."""
    model, other = net(), net()
    optimizer = sgd(model)
    match what:
        case "optimizer":
            return Training(model, sgd(other))
        case "scheduler":
            return Training(model, optimizer, schedules.StepLR(sgd(other), 3))
        case "scheduler in a list":
            return Training(model, optimizer, [schedules.StepLR(sgd(other), 3), schedules.StepLR(sgd(other), 4)])
        case "clip":
            return Training(model, optimizer, parts=(trimtab.GradientClip(other.parameters(), 1.0),))
        case _:
            return Training(optimizer, model)  # type: ignore[arg-type] - any object that has groups


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("optimizer", "the optimizer has no parameter of the model; received SGD over 4 tensors, none of the 4 of the model"),
        ("scheduler", "the scheduler is of another optimizer; received StepLR of another SGD"),
        ("scheduler in a list", "the scheduler is of another optimizer; received list of another SGD"),
        ("clip", "a GradientClip has no parameter of the model or the optimizer; received 4 tensors of another model"),
        ("order", "the model is no torch.nn.Module; received SGD; next: the model comes first, the optimizer second"),
    ],
)
def test_what_belongs_to_another_run_is_refused(what: str, says: str, tmp_path: Any) -> None:
    training = foreign(what)
    with pytest.raises(UsageError) as caught:
        refuse_mismatched(training)
    assert str(caught.value).startswith(says)
    with pytest.raises(UsageError) as attached:
        trimtab.supervise(
            training.model,
            training.optimizer,
            scheduler=training.scheduler,
            parts=list(training.parts),
            controls=[RATE],
            objective="minimize val/loss",
            run_dir=tmp_path / "run",
        )
    assert str(attached.value) == str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_shared_in_part_belongs_together() -> None:
    generator, critic = net(), net()
    both = nn.ModuleList([generator, critic])
    optimizer, other = sgd(generator), sgd(critic)
    clips = (trimtab.GradientClip(critic.parameters(), 1.0), trimtab.GradientClip(generator.parameters(), 1.0))
    refuse_mismatched(Training(both, optimizer, [schedules.StepLR(other, 3), schedules.StepLR(optimizer, 3)], parts=clips))
    chain = schedules.SequentialLR(optimizer, [schedules.ConstantLR(optimizer), schedules.StepLR(optimizer, 3)], [4])
    refuse_mismatched(Training(generator, sgd(generator[0]), chain.state_dict()))  # type: ignore[index] - a mapping without one
    refuse_mismatched(Training(generator, optimizer, chain))


def test_an_optimizer_of_a_part_of_copies_or_of_a_model_without_parameters_is_taken() -> None:
    model, loss = net(), nn.Linear(2, 2)
    refuse_mismatched(Training(model, sgd(loss), parts=(loss,)))
    copies: Any = Wrapper(torch.optim.SGD([parameter.detach().clone() for parameter in model.parameters()], lr=0.1))
    refuse_mismatched(Training(model, copies))
    masters = torch.optim.SGD([parameter.detach().double() for parameter in model.parameters()], lr=0.1)
    refuse_mismatched(Training(model, masters))
    refuse_mismatched(Training(nn.Identity(), sgd(loss)))


class Agent:
    ent = 0.1


OWN = trimtab.attribute(Agent(), "ent", 0.0, 0.5, name="entropy_coefficient")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            trimtab.LossWeights(task=1.0),
            "parts is not a list; received LossWeights; next: write parts=[...], also for one part",
        ),
        ("x", "parts is not a list; received str"),
        (["x", 3], "a part is nothing that a control acts on; received str: 'x'; allowed: loss modules"),
        ([nn.Identity(), 3], "a part is nothing that a control acts on; received int: 3"),
        ([Agent()], "a part is nothing that a control acts on; received Agent: "),
        ([OWN], "a control is among the parts; received entropy_coefficient; next: pass it in controls"),
    ],
    ids=["one part", "text", "texts", "a number", "an agent", "a control"],
)
def test_parts_that_no_control_acts_on_are_refused(parts: Any, says: str) -> None:
    for call in (lambda: gathered(parts, None), lambda: trimtab.preflight(net(), sgd(net()), controls=[RATE], parts=parts)):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("controls", "says"),
    [
        (RATE, "controls is not a list; received Control; next: write for example controls=[trimtab.learning_rate("),
        ({"learning_rate": (1e-6, 1e-2)}, "controls is not a list; received dict"),
        ("learning_rate", "controls is not a list; received str"),
        (["learning_rate"], "not a control; received 'learning_rate'; allowed: what trimtab.learning_rate(...),"),
        ([RATE, None], "not a control; received None; allowed: "),
    ],
)
def test_controls_that_are_none_are_refused(controls: Any, says: str, tmp_path: Any) -> None:
    model = net()
    calls: tuple[Any, ...] = (
        lambda: declared(controls),
        lambda: trimtab.preflight(model, sgd(model), controls=controls),
        lambda: trimtab.supervise(
            model, sgd(model), controls=controls, objective="minimize val/loss", run_dir=tmp_path / "run"
        ),
    )
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value).startswith(says)


def test_handles_come_with_their_controls() -> None:
    loss = nn.Identity()
    assert gathered([loss], [RATE, OWN]) == (loss, OWN.handle)
    assert declared((RATE, OWN)) == (RATE, OWN.control)
