"""Reflex, guard and canary as the user sets them: what makes no sense is refused, with what is allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trimtab.controls.envelope import Authority, Envelope, Objective
from trimtab.controls.envelope_file import SCHEMA, dump_envelope, parse_envelope
from trimtab.controls.safeguards import Canary, Guard, Reflex
from trimtab.errors import EnvelopeError, UsageError

FILE = f"schema: {SCHEMA}\nobjective: minimize val/loss\ncontrols: {{}}\n"


def canary_of(section: str) -> Canary:
    return parse_envelope(f"{FILE}canary: {section}\n", "my.yaml").canary


def problem(section: str) -> str:
    with pytest.raises(EnvelopeError) as raised:
        parse_envelope(f"{FILE}{section}\n", "my.yaml")
    return str(raised.value)


@pytest.mark.parametrize(
    ("cls", "name", "value", "told"),
    [
        (Reflex, "armed", "no", "reflex.armed is wrong; received 'no'; allowed: true or false"),
        (Guard, "armed", 1, "guard.armed is wrong; received 1; allowed: true or false"),
        (Authority, "may_stop", "off", "authority.may_stop is wrong; received 'off'; allowed: true or false"),
        (Authority, "shadow", None, "authority.shadow is wrong; received None; allowed: true or false"),
        (Canary, "mode", True, "canary.mode is unknown; received True; allowed: none, veto or win"),
        (Canary, "mode", "off", "canary.mode is unknown; received off; allowed: none, veto or win"),
        (Canary, "steps", 10.5, "canary.steps is not a whole number; received 10.5"),
        (Canary, "steps", "60", "canary.steps is not a whole number; received '60'"),
        (Canary, "look_steps", -1, "canary.look_steps is out of range; received -1"),
        (Canary, "budget", 0, "canary.budget is out of range; received 0; allowed: > 0, at most 1"),
        (Canary, "budget", True, "canary.budget is not a number; received True"),
        (Canary, "margin", math.nan, "canary.margin is out of range; received nan; allowed: 0 to 1"),
        (Reflex, "learning_rate_cut", True, "reflex.learning_rate_cut is not a number; received True"),
        (Guard, "tolerance", 1.5, "guard.tolerance is out of range; received 1.5; allowed: 0 to 1"),
        (Guard, "noise_factor", math.inf, "guard.noise_factor is out of range; received inf"),
        (Guard, "noise_factor", 10**400, "guard.noise_factor is out of range"),
        (Guard, "baseline_evaluations", 0, "guard.baseline_evaluations is out of range; received 0"),
        (Guard, "failures", True, "guard.failures is not a whole number; received True"),
        (Guard, "hold_evaluations", -1, "guard.hold_evaluations is out of range; received -1"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_allowed(cls: Any, name: str, value: Any, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        cls(**{name: value})
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(("steps", "look_steps"), [(12, 12), (12, 15), (1, 1), (60, 60)])
def test_an_early_look_that_never_comes_is_refused(steps: int, look_steps: int) -> None:
    told = (
        f"canary.look_steps is not within an arm of {steps} steps; received {look_steps}; "
        f"allowed: less than canary.steps, which is {steps}; next: 0 turns the early look off"
    )
    with pytest.raises(UsageError) as raised:
        Canary(steps=steps, look_steps=look_steps)
    assert str(raised.value) == told
    assert problem(f"canary: {{steps: {steps}, look_steps: {look_steps}}}") == f"my.yaml:4:{31 + len(str(steps))}: {told}"


def test_the_default_look_is_refused_only_where_it_was_asked_for() -> None:
    assert canary_of("{steps: 10}") == Canary(steps=10)
    assert canary_of("{steps: 11, look_steps: 10}") == Canary(steps=11)
    assert "canary.look_steps is not within an arm of 10 steps" in problem("canary: {steps: 10, look_steps: 10}")
    assert canary_of("{steps: 10, look_steps: 0}").look_steps == 0


@pytest.mark.parametrize("steps", [1, 10, 11, 60])
def test_an_arm_of_any_length_reads_back_from_a_file(steps: int) -> None:
    envelope = Envelope(Objective("val/loss", "minimize"), (), canary=Canary("win", steps=steps), guard=Guard(tolerance=0.1))
    assert parse_envelope(dump_envelope(envelope), "my.yaml") == envelope


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            "canary: {mode: yes}",
            "4:16: canary.mode is wrong; received yes, which is true in YAML; allowed: 'none', 'veto' or 'win'",
        ),
        (
            "canary: {mode: Off}",
            "4:16: canary.mode is wrong; received Off, which is false in YAML; allowed: 'none', 'veto' or 'win'",
        ),
        ("canary: {mode: true}", "4:16: canary.mode is wrong; received true; allowed: 'none', 'veto' or 'win'"),
        ("canary: on", "4:9: canary is wrong; received on, which is true in YAML; allowed: a mapping"),
        (
            "deliberation: {mode: no}",
            "4:22: deliberation.mode is wrong; received no, which is false in YAML; allowed: 'async' or",
        ),
        ("manager: {output: no}", "4:19: manager.output is wrong; received no, which is false in YAML; allowed: 'native',"),
        ("guard: {armed: 1}", "4:16: guard.armed is wrong; received 1; allowed: true or false"),
        ('reflex: {armed: "no"}', "4:17: reflex.armed is wrong; received 'no'; allowed: true or false"),
    ],
)
def test_a_word_that_is_none_of_those_allowed_is_shown_as_it_was_written(section: str, told: str) -> None:
    assert problem(section).startswith(f"my.yaml:{told}")


def test_a_switch_may_be_written_in_any_of_the_words_of_yaml() -> None:
    for word, armed in (("yes", True), ("On", True), ("true", True), ("no", False), ("OFF", False), ("False", False)):
        assert parse_envelope(f"{FILE}guard: {{armed: {word}}}\n", "my.yaml").guard.armed is armed
