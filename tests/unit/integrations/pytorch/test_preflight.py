from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import trimtab
from trimtab.controls.envelope import Deliberation
from trimtab.errors import ControlError, OwnershipError, UsageError
from trimtab.integrations.pytorch.bindings.ownership import claim, release
from trimtab.integrations.pytorch.compilation import Room, shares
from trimtab.integrations.pytorch.hidden import has_compiled_wrapper, schedulers_not_passed
from trimtab.integrations.pytorch.preflight import Finding, Preflight, Survey, survey, table
from trimtab.integrations.pytorch.training import Training

RATE = trimtab.learning_rate(1e-6, 1.0)
DROPOUT = trimtab.dropout(0.0, 0.5)


def run(**options: Any) -> Training:
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.Linear(4, 1))
    return Training(model, torch.optim.AdamW(model.parameters(), lr=0.01), **options)


@given(st.integers(-3, 100), st.lists(st.none() | st.integers(1, 12), max_size=5))
def test_combinations_are_divided_so_that_their_product_fits_wherever_two_each_do(room: int, wanted: list[int | None]) -> None:
    given_ = shares(room, wanted)
    least = [2 if most is None else min(most, 2) for most in wanted]
    assert all(count >= floor for count, floor in zip(given_, least, strict=True))
    assert all(most is None or count <= most for count, most in zip(given_, wanted, strict=True))
    assert math.prod(given_) <= max(room, math.prod(least))
    more = [[*given_[:at], given_[at] + 1, *given_[at + 1 :]] for at in range(len(given_))]
    allowed = (each for at, each in enumerate(more) if wanted[at] is None or each[at] <= (wanted[at] or 0))
    assert all(math.prod(each) > room for each in allowed), "room was left over"


def test_one_control_gets_all_the_room_and_two_share_it() -> None:
    assert shares(7, [None]) == [7]
    assert shares(7, [None, None]) == [3, 2]
    assert shares(7, [2, None]) == [2, 3]
    assert shares(7, [1, None]) == [1, 7]
    assert shares(1, [None]) == [2]


def test_too_little_room_names_the_limit_that_would_do() -> None:
    room = Room("model", limit=8, graphs_per_combination=3, graphs_aside=3)
    assert room.combinations == 1
    assert room.reason(2, 2) == (
        "each new value recompiles the model: at most 2 in this run, the first included; 2 combinations of all controls "
        "there, 1 of them compiled: set torch._dynamo.config.recompile_limit=9"
    )
    assert Room("model", 9, 3, 3).reason(2, 2).endswith("the first included (torch._dynamo.config.recompile_limit=9)")


def test_the_table_is_aligned_and_has_one_line_per_control() -> None:
    findings = [
        Finding(RATE, "live", 0.01, ""),
        Finding(DROPOUT, "recompiles", 0.1, "each new value\nrecompiles", "encoder.drop.p"),
        Finding(trimtab.batch_size(1, 8), "impossible", None, "no loader"),
    ]
    assert table(findings).splitlines() == [
        "control        now   bounds      answer      reason",
        "learning_rate  0.01  1e-06 to 1  live",
        "dropout        0.1   0 to 0.5    recompiles  each new value recompiles; at encoder.drop.p",
        "batch_size     ?     1 to 8      impossible  no loader",
    ]


def test_notes_follow_the_table_and_what_is_limited_is_said_in_lines() -> None:
    free = Preflight((Finding(RATE, "live", 0.01, "", "somewhere"),), ())
    assert not free.is_limited
    assert free.remarks() == ()
    assert not Preflight((Finding(RATE, "boundary", 0.01, "as it was asked for"),), ()).is_limited
    assert Preflight((Finding(RATE, "recompiles", 0.01, "few values"),), ()).is_limited
    bound = Preflight((Finding(RATE, "boundary", 0.01, "changes after every 5 steps"),), ("no loader was given",))
    assert bound.is_limited
    assert str(bound).endswith("note: no loader was given")
    assert bound.remarks() == ("no loader was given", "learning_rate: boundary: changes after every 5 steps")


@pytest.mark.parametrize(
    ("every", "reason"), [(1, "changes after any step: boundary_every_steps is 1"), (7, "changes after every 7 steps")]
)
def test_a_control_of_boundaries_says_how_often_they_come(every: int, reason: str) -> None:
    found = survey(run(), [trimtab.dropout(0.0, 0.5, when="boundary"), RATE], every)
    found.close()
    first, second = found.preflight.findings
    assert (first.answer, first.value, first.reason, first.places) == ("boundary", 0.1, reason, "1.p")
    assert (second.answer, second.value, second.reason) == ("live", 0.01, "")
    assert found.bindings.keys() == {"dropout", "learning_rate"}


def test_every_impossible_control_is_named_with_its_reason() -> None:
    training = run()
    claim(training.optimizer, "weight_decay")
    found = survey(training, [trimtab.batch_size(1, 8), RATE, trimtab.weight_decay(0.0, 1.0), trimtab.dropout(0.3, 0.5)], 1)
    found.close()
    release(training.optimizer, "weight_decay")
    assert [finding.answer for finding in found.preflight.findings] == ["impossible", "live", "impossible", "impossible"]
    assert [finding.value for finding in found.preflight.findings] == [None, 0.01, None, 0.1]
    with pytest.raises(ControlError) as caught:
        found.refuse_impossible()
    first, *rest = str(caught.value).splitlines()
    assert first == "3 controls are impossible in this run:"
    assert [line.split(": ", 1)[0].strip() for line in rest] == ["batch_size", "weight_decay", "dropout"]
    assert "nothing that was passed has a batch size" in rest[0]
    assert "already supervised" in rest[1]
    assert "dropout starts outside its bounds; received 0.1; allowed: 0.3 to 0.5, both included" in rest[2]


def test_a_single_error_keeps_its_kind_and_owners_alone_are_an_ownership_error() -> None:
    owned = OwnershipError("taken")
    with pytest.raises(OwnershipError) as caught:
        Survey(Preflight((), ()), {}, ((RATE, owned),)).refuse_impossible()
    assert caught.value is owned
    with pytest.raises(OwnershipError, match="2 controls are impossible"):
        Survey(Preflight((), ()), {}, ((RATE, owned), (DROPOUT, owned))).refuse_impossible()
    Survey(Preflight((), ()), {}, ()).refuse_impossible()


def test_a_survey_that_breaks_gives_everything_back() -> None:
    answers = iter([1.0])
    own = trimtab.custom("temperature", lambda: next(answers), lambda _: None, 0.0, 2.0, moves=trimtab.SetTo((1.5,)))
    training = run(parts=(own.handle,))
    with pytest.raises(StopIteration):  # what a user's function raises is no reason to keep the others' controls
        survey(training, [RATE, DROPOUT, own.control], 1)
    found = survey(replace(training, parts=()), [RATE, DROPOUT], 1)
    found.close()
    assert found.errors == ()


def test_a_handle_without_a_control_is_refused_by_name() -> None:
    stray = trimtab.handle("droput", {"p": 0.1}, "p")
    with pytest.raises(ControlError, match="a handle has no control; received droput; next: did you mean 'dropout'"):
        survey(run(parts=(stray,)), [RATE, DROPOUT], 1)


def test_the_public_preflight_takes_controls_or_an_envelope() -> None:
    training = run()
    envelope = trimtab.Envelope(
        trimtab.Objective("val/loss", "minimize"), (RATE,), deliberation=Deliberation(boundary_every_steps=5)
    )
    alone = trimtab.preflight(training.model, training.optimizer, controls=[RATE])
    assert alone == trimtab.preflight(training.model, training.optimizer, envelope=envelope)
    wrong: tuple[dict[str, Any], ...] = ({}, {"controls": [RATE], "envelope": envelope})
    for options in wrong:
        with pytest.raises(UsageError, match=r"either controls=\[...\] or envelope=..."):
            trimtab.preflight(training.model, training.optimizer, **options)


@pytest.mark.parametrize("is_dict_made", [False, True])
def test_schedulers_that_were_not_passed_are_found_while_they_live(is_dict_made: bool) -> None:
    optimizer, other = run().optimizer, run().optimizer
    schedules = torch.optim.lr_scheduler
    assert schedulers_not_passed([optimizer], None) == []
    alive = schedules.StepLR(optimizer, 3)
    foreign = schedules.StepLR(other, 3)
    if is_dict_made:
        assert "optimizer" in alive.__dict__
    assert schedulers_not_passed([optimizer], None) == [alive]
    assert schedulers_not_passed([optimizer], foreign) == [alive]
    assert schedulers_not_passed([optimizer], alive) == []
    del alive
    assert schedulers_not_passed([optimizer], None) == []


def test_of_a_chain_only_the_whole_is_found() -> None:
    optimizer = run().optimizer
    schedules = torch.optim.lr_scheduler
    chain = schedules.SequentialLR(optimizer, [schedules.ConstantLR(optimizer), schedules.StepLR(optimizer, 3)], [4])
    assert schedulers_not_passed([optimizer], None) == [chain]
    assert schedulers_not_passed([optimizer], [chain]) == []


def test_a_compiled_wrapper_is_found_while_it_lives() -> None:
    model = nn.Linear(2, 2)
    assert not has_compiled_wrapper(model)
    compiled: Any = torch.compile(model, backend="eager")
    assert has_compiled_wrapper(model)
    assert not has_compiled_wrapper(compiled)
    del compiled
    assert not has_compiled_wrapper(model)


def test_a_control_of_a_part_beside_the_same_of_all_is_refused_with_both_names() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.Linear(4, 1))
    groups = [{"params": model[0].parameters(), "name": "body"}, {"params": model[2].parameters(), "name": "head"}]
    training = Training(model, torch.optim.AdamW(groups, lr=0.01))
    pairs = [
        (RATE, trimtab.learning_rate(1e-6, 1.0, group="head"), "head"),
        (trimtab.learning_rate(1e-6, 1.0, group="head"), RATE, "head"),
        (DROPOUT, trimtab.dropout(0.0, 0.5, name="x", modules="1*"), "x"),
    ]
    for one, other, part in pairs:
        found = survey(training, [one, other], 1)
        found.close()
        base, named = sorted((one.name, other.name), key=len)
        with pytest.raises(ControlError) as caught:
            found.refuse_impossible()
        assert str(caught.value).startswith(f"{base} and {named} would both change {part}; allowed: ")
    both = survey(training, [trimtab.learning_rate(1e-6, 1.0, group=name) for name in ("body", "head")], 1)
    both.close()
    assert both.errors == ()


def test_a_part_whose_value_a_handle_names_stands_beside_the_control_of_all() -> None:
    critic = {"lr": 0.1}
    handle = trimtab.handle("learning_rate/critic", critic, "lr")
    found = survey(run(parts=(handle,)), [RATE, trimtab.learning_rate(1e-6, 1.0, group="critic")], 1)
    found.close()
    assert found.errors == ()


def test_a_control_of_the_catalogue_without_a_handle_is_not_asked_whether_it_is_itself() -> None:
    misspelt = trimtab.Control("entropy_coeficient", trimtab.Bounds(0.0, 1.0), trimtab.Add((0.1,)), "difference", 1.0, 1.0, 0)
    for control, says in (
        (trimtab.entropy_coefficient(0.0, 0.1), '[trimtab.handle("entropy_coefficient", object, "attribute")]'),
        (misspelt, "; in the catalogue, did you mean 'entropy_coefficient'?"),
    ):
        found = survey(run(), [control], 1)
        found.close()
        assert str(found.errors[0][1]).endswith(says)


def test_a_control_that_cannot_move_from_where_it_starts_is_a_warning_and_what_is_odd_a_hint() -> None:
    stuck = trimtab.dropout(0.0, 0.5, moves=trimtab.SetTo((0.1, 0.9)))
    found = survey(run(), [RATE, stuck], 1)
    found.close()
    end = "dropout: no move is possible from 0.1, where it starts"
    odd = "dropout: set 0.9 can never be reached: not within 0 to 0.5"
    assert end in found.preflight.notes
    assert found.preflight.hints == (odd,)
    assert f"note: {odd}" in str(found.preflight)
    assert odd not in found.preflight.remarks()
    assert Preflight(found.preflight.findings, (), (odd,)).is_limited is False


def test_a_long_list_of_places_is_a_count_and_the_first_two() -> None:
    model = nn.Sequential(*(nn.Dropout(0.1) for _ in range(30)), nn.Linear(2, 2))
    found = survey(Training(model, torch.optim.SGD(model.parameters(), lr=0.1)), [DROPOUT], 1)
    found.close()
    assert found.preflight.findings[0].places == "30 places: 0.p, 1.p and 28 more"


def test_a_batch_size_says_that_it_may_recompile_where_something_is_compiled() -> None:
    for is_compiled in (False, True):
        training = run(loader=trimtab.ResumableLoader(range(64), batch_size=8, seed=0))
        if is_compiled:
            training.model.compile(backend="eager")
        found = survey(training, [trimtab.batch_size(4, 16)], 1)
        found.close()
        (finding,) = found.preflight.findings
        assert finding.answer == "live"
        assert ("may recompile" in finding.reason) == is_compiled
