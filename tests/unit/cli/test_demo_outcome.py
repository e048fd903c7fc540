from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from trimtab.cli.arms import Result
from trimtab.cli.demo_outcome import Outcome, compare, direction, percent


def result(final: float, best: float, *, interventions: int = 3, stopped: str | None = None, run_dir: str = "r") -> Result:
    curve: list[tuple[int, float | None]] = [(0, 3.0), (50, best), (100, final)]
    return Result(
        event="result", final=final, best=best, best_step=50, seconds=2.0, interventions=interventions,
        run_dir=run_dir, curve=curve, marks=[(40, "<dropout>", "rollback"), (60, "x", "stop")], stopped=stopped,
    )  # fmt: skip


def outcome(managed: float, unmanaged: float, early: float, *, interventions: int = 3, stopped: str | None = None) -> Outcome:
    without = result(unmanaged, early, interventions=0)
    return Outcome(7, 100, "rules", without, result(managed, managed, interventions=interventions, stopped=stopped), 3.0)


@pytest.mark.parametrize(
    ("managed", "unmanaged", "early", "said"),
    [
        (1.5, 2.0, 1.8, ["25.0% lower than the unmanaged", "16.7% lower than what early stopping", "better than either"]),
        (1.9, 2.0, 1.8, ["5.0% lower than", "5.6% higher than what early", "stopping early would have been better"]),
        (1.8, 2.0, 1.8, ["10.0% lower than", "the same as what early", "as much as stopping early"]),
        (2.2, 2.0, 1.8, ["10.0% higher than", "22.2% higher than what early", "did harm"]),
        (2.0, 2.0, 1.8, ["the same as the unmanaged run's", "made no difference"]),
        (math.nan, 2.0, 1.8, ["managed run ended without a finite validation loss", "did harm"]),
        (1.9, math.inf, 1.8, ["unmanaged run ended without a finite", "ended at 1.9000", "5.6% higher than what early"]),
        (math.nan, math.nan, 1.8, ["Neither run ended with a finite"]),
    ],
)
def test_the_sentence_follows_from_the_figures(managed: float, unmanaged: float, early: float, said: list[str]) -> None:
    sentence = outcome(managed, unmanaged, early).sentence()
    assert all(part in sentence for part in said)
    assert sentence.endswith("This is one seed; another may differ.")
    if managed >= early or math.isnan(managed):
        assert "better than either" not in sentence


def test_a_manager_that_never_intervened_gets_no_credit() -> None:
    sentence = outcome(1.5, 2.0, 1.8, interventions=0).sentence()
    assert "never intervened" in sentence
    assert "better" not in sentence


def test_an_early_stop_is_said() -> None:
    assert "stopped early" in outcome(1.5, 2.0, 1.8, stopped="reflex: divergence").sentence()


def test_early_stopping_keeps_the_lowest_finite_loss() -> None:
    base = outcome(1.5, 2.0, 1.8)
    curve: list[tuple[int, float | None]] = [(0, math.nan), (1, None), (2, 1.7), (3, -math.inf)]
    assert replace(base, unmanaged=base.unmanaged.model_copy(update={"curve": curve, "best": math.nan})).early_stopping == 1.7
    assert base.early_stopping == 1.8


def test_the_json_has_the_keys_and_no_non_finite_number() -> None:
    tree = outcome(math.nan, 2.0, 1.8).as_json({"unmanaged": "a", "managed": "b"}, None)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert tree["seed"] == 7
    assert tree["managed"]["final"] == "NaN"
    assert tree["unmanaged"] == {"final": 2.0, "best": 1.8, "best_step": 50, "seconds": 2.0}
    assert tree["early_stopping"] == 1.8
    assert tree["managed_versus_unmanaged_percent"] is None
    assert tree["run_dirs"] == {"unmanaged": "a", "managed": "b"}


def test_the_picture_shows_both_curves_and_the_interventions() -> None:
    svg = outcome(1.5, 2.0, 1.8).drawn()
    assert all(part in svg for part in ("unmanaged", "managed", "&lt;dropout&gt;", "early stopping keeps 1.8", "seed 7"))


def test_losses_compare_by_size_and_sign() -> None:
    assert (direction(1.0, 2.0), direction(2.0, 1.0), direction(1.0, 1.0002)) == ("lower", "higher", "same")
    assert (direction(math.nan, 1.0), direction(1.0, math.inf), direction(math.nan, math.inf)) == ("higher", "lower", "same")
    assert (percent(1.5, 1.0), percent(1.0, 0.0), percent(math.nan, 1.0)) == (50.0, None, None)
    assert (compare(1.0, 0.0), compare(0.5, 1.0)) == ("higher than", "50.0% lower than")
