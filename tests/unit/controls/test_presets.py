from __future__ import annotations

import re
from itertools import pairwise

import pytest

from trimtab.controls.control import Control
from trimtab.controls.envelope_file import dump_envelope, parse_envelope
from trimtab.controls.moves import SetTo
from trimtab.controls.oddities import oddities
from trimtab.controls.preset import load_preset, preset_names
from trimtab.controls.reach import reach_of
from trimtab.errors import UsageError
from trimtab.telemetry.roles import Roles

NAMES = (
    "diffusion",
    "fine_tuning_full",
    "fine_tuning_lora",
    "off_policy",
    "ppo",
    "recurrent",
    "small_transformer",
    "transformer_pretraining",
    "vision_cnn",
    "vision_vit",
)
each = pytest.mark.parametrize("name", NAMES)


def test_there_is_one_for_each_architecture_and_task() -> None:
    assert preset_names() == NAMES


def test_an_unknown_one_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean 'vision_vit'"):
        load_preset("vision_vti")


@each
def test_it_is_an_envelope_without_oddities(name: str) -> None:
    envelope = load_preset(name).envelope()
    assert parse_envelope(dump_envelope(envelope), "my.yaml") == envelope
    assert oddities(envelope) == ()
    Roles(envelope.signals)


@each
def test_from_the_middle_its_moves_come_near_both_ends(name: str) -> None:
    for control in load_preset(name).envelope().controls:
        reach = reach_of(control)
        for journey, end in ((reach.up, control.bounds.high), (reach.down, control.bounds.low)):
            assert 1 <= journey.num_moves <= 12, control.name
            assert near(control, journey.value, end), (control.name, journey)


def near(control: Control, value: float, end: float) -> bool:
    """Whether a value is at an end of the range, or at most two small factors or a fifth of the range away."""
    low, high = control.bounds.low, control.bounds.high
    if control.scale == "ratio":
        return control.distance(value, end) <= 2.0
    permitted = control.moves.values if isinstance(control.moves, SetTo) else ()
    return value in (min(permitted, default=end), max(permitted, default=end)) or abs(value - end) <= 0.25 * (high - low)


@each
def test_it_says_what_it_is_for_what_to_provide_and_where_its_numbers_are_from(name: str) -> None:
    preset = load_preset(name)
    lines = preset.text.splitlines()
    assert lines[0] == f"# {name}: {preset.summary}"
    assert 20 <= len(preset.summary) <= 100
    assert any(line.startswith("# You provide: ") for line in lines[:6])
    assert max(map(len, lines)) <= 110
    listed = set(re.findall(r"^# \[(\d+)\]", preset.text, re.M))
    body = preset.text[: preset.text.rindex("\n\n# [1]")]
    cited = {number for group in re.findall(r"\[(\d+(?:, \d+)*)\](?!\})", body) for number in group.split(", ")}
    cited &= {str(number) for number in range(1, 10)}
    assert listed == {str(number) for number in range(1, len(listed) + 1)}
    assert listed <= cited


@each
def test_a_comment_stands_above_every_control_and_section(name: str) -> None:
    lines = load_preset(name).text.splitlines()
    for above, line in pairwise(lines):
        if re.match(r"(  )?[a-z_/0-9]+:$", line) and not line.startswith("controls"):
            assert above.lstrip().startswith("#"), line


@pytest.mark.parametrize("name", ["ppo", "off_policy"])
def test_those_for_reinforcement_learning_wait_at_evaluations_and_name_their_signals(name: str) -> None:
    envelope = load_preset(name).envelope()
    assert envelope.deliberation.mode == "boundary"
    assert str(envelope.objective) == "maximize eval/return"
    assert envelope.signals
    assert envelope.reflex.skip_batches == 0


def test_the_one_for_small_transformers_has_its_bounds() -> None:
    limits = {
        control.name: (control.bounds.low, control.bounds.high)
        for control in load_preset("small_transformer").envelope().controls
    }
    assert limits == {"learning_rate": (1e-5, 3e-3), "weight_decay": (0.0, 1.0), "dropout": (0.0, 0.5)}
