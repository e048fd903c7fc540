"""A run's tracker is told what is in the ledger, and whatever it does, the run does not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from tests.unit.report.sample_run import whole_run
from trimtab.controller.state import State
from trimtab.controller.transitions import fold
from trimtab.controls.recipe import Recipe
from trimtab.ledger.record import EvaluationRecorded, ProblemNoticed, Record, RunResumed
from trimtab.runtime.tracking import MOST_TEXT, Told, Tracking

RECIPE = Recipe.of({"dropout": 0.1})


class Kept:
    """Keeps what it is told, and by whom; may wait before it takes something."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.told: list[Told] = []
        self.threads: set[str] = set()
        self.is_flushed = False
        self._gate = gate

    def track(self, told: Told) -> None:
        if self._gate is not None:
            self._gate.wait(20.0)
        self.threads.add(threading.current_thread().name)
        self.told.append(told)

    def flush(self) -> None:
        self.is_flushed = True


class Broken(Kept):
    def __init__(self, error: BaseException, after: int = 0) -> None:
        super().__init__()
        self._error, self._after = error, after

    def track(self, told: Told) -> None:
        super().track(told)
        if len(self.told) > self._after:
            raise self._error


def note(step: int) -> Record:
    return ProblemNoticed(step, "a problem", "in detail")


def tell_all(tracking: Tracking, records: list[Record]) -> None:
    state: State | None = None
    for record in records:
        state = fold(state, record)
        tracking.tell(record, state.recipe)


@pytest.fixture
def told() -> list[Told]:
    tracker = Kept()
    tracking = Tracking([tracker])
    tell_all(tracking, whole_run())
    tracking.close()
    return tracker.told


def texts(told: list[Told], subject: str) -> list[str]:
    return [f"{one.step}: {one.text}" for one in told if one.subject == subject]


def test_what_was_found_judged_done_and_measured_is_told_in_order(told: list[Told]) -> None:
    assert [one.sequence for one in told] == list(range(1, len(told) + 1))
    assert texts(told, "run") == [
        "0: first: rules manages dropout, learning_rate, to minimize val/loss",
        "1000: ended: finished",
    ]
    assert texts(told, "symptom")[0] == "200: overfitting (warning) in val/loss: objective 2.1, best_objective 1.9"
    assert texts(told, "intervention")[0] == (
        "210: intervention 1: manager: rollback to step-00000100, dropout=0.1 (validation loss turned up)"
    )
    assert any("rejected: " in text for text in texts(told, "verdict"))
    assert any("gain +0.1, as expected" in text for text in texts(told, "outcome"))
    problems = texts(told, "problem")
    assert any("learning_rate is 0.003, not 0.0015" in text for text in problems)
    assert any("the binding broke" in text for text in problems)
    assert any("the manager failed: not a proposal" in text for text in problems)
    reflex = [one for one in told if one.subject == "intervention" and "reflex" in one.text]
    assert [one.is_warning for one in reflex] == [True]


def test_the_recipe_is_told_at_every_evaluation_and_on_both_sides_of_a_change(told: list[Told]) -> None:
    curve = [(one.step, one.values["trimtab/recipe/dropout"]) for one in told if "trimtab/recipe/dropout" in one.values]
    assert curve[:6] == [(0, 0.0), (50, 0.0), (100, 0.0), (200, 0.0), (209, 0.0), (210, 0.1)]
    assert curve[-1] == (1000, 0.1)
    assert all(one.values["trimtab/recipe/dropout"] in (0.0, 0.1) for one in told if one.subject == "recipe")


def test_a_run_that_goes_on_tells_the_recipe_it_goes_on_with() -> None:
    tracker = Kept()
    tracking = Tracking([tracker])
    tracking.tell(RunResumed(100, "step-00000100", 5, ()), RECIPE)
    tracking.close()
    (told,) = tracker.told
    assert (told.step, told.text, told.values) == (100, "resumed at step 100", {"trimtab/recipe/dropout": 0.1})


def test_counts_rise(told: list[Told]) -> None:
    for name, last in (("trimtab/interventions", 3.0), ("trimtab/rollbacks", 2.0), ("trimtab/failed", 1.0)):
        counts = [one.values[name] for one in told if name in one.values]
        assert counts == [float(n + 1) for n in range(len(counts))]
        assert counts[-1] == last


def test_no_value_is_non_finite_and_no_text_can_act_on_a_terminal() -> None:
    tracker = Kept()
    tracking = Tracking([tracker])
    tell_all(tracking, whole_run("\x1b[31m\n\u202e\ud800"))
    tracking.tell(ProblemNoticed(1000, "long", "x" * 10_000), RECIPE)
    tracking.close()
    for one in tracker.told:
        assert one.text.isprintable()
        assert len(one.text) <= MOST_TEXT
        assert all(abs(value) < 1e300 for value in one.values.values())


def test_a_tracker_is_told_in_a_thread_of_its_own_and_flushed_at_the_end() -> None:
    tracker = Kept()
    tracking = Tracking([tracker])
    assert threading.active_count() == 1 or not any(t.name.startswith("trimtab-") for t in threading.enumerate())
    tracking.tell(note(1), RECIPE)
    tracking.close()
    assert tracker.threads == {"trimtab-Kept"}
    assert tracker.is_flushed
    assert not any(thread.name == "trimtab-Kept" for thread in threading.enumerate())


@pytest.mark.parametrize("error", [RuntimeError("no route"), SystemExit(3), KeyboardInterrupt()])
def test_a_tracker_that_raises_is_said_once_and_left_alone(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    broken, fine = Broken(error, after=2), Kept()
    tracking = Tracking([broken, fine])
    for step in range(10):
        tracking.tell(note(step), RECIPE)
    tracking.close()
    tracking.tell(note(11), RECIPE)
    assert len(broken.told) == 3
    assert len(fine.told) == 10, "one tracker's fault is no other's"
    assert [record.getMessage()[:32] for record in caplog.records] == [
        "Broken is told nothing more: " + type(error).__name__[:3]
    ]


def test_a_tracker_that_hangs_stops_nobody_and_what_it_misses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    tracker = Kept(gate)
    tracking = Tracking([tracker], most_waiting=5)
    begin = time.monotonic()
    for step in range(1000):
        tracking.tell(note(step), RECIPE)
    assert time.monotonic() - begin < 1.0
    tracking.close(within_seconds=0.2)
    assert time.monotonic() - begin < 3.0
    tracking.close()
    gate.set()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "slower than what it is told" in said[0]
    assert "did not take in everything within" in said[1]


def test_a_slow_tracker_gets_what_waits_before_the_run_is_over(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    tracker = Kept(gate)
    tracking = Tracking([tracker], most_waiting=3)
    for step in range(8):
        tracking.tell(note(step), RECIPE)
    threading.Timer(0.05, gate.set).start()
    tracking.close(within_seconds=10.0)
    assert [one.step for one in tracker.told] in ([0, 1, 2], [0, 1, 2, 3]), "the oldest, and as many as may wait"
    assert f"was not told of {8 - len(tracker.told)} records" in caplog.records[-1].getMessage()


def test_a_flush_that_hangs_or_raises_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    class Tracker(Kept):
        def flush(self) -> None:
            raise OSError("disk full")

    tracking = Tracking([Tracker()])
    tracking.tell(note(1), RECIPE)
    tracking.close()
    assert "disk full" in caplog.text


def test_no_thread_begins_where_there_is_no_tracker_or_nothing_to_tell() -> None:
    before = threading.active_count()
    Tracking().tell(note(1), RECIPE)
    tracking = Tracking([Kept()])
    tracking.close()
    assert threading.active_count() == before


def test_where_no_thread_can_begin_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    tracking = Tracking([Kept()])
    for step in range(3):
        tracking.tell(note(step), RECIPE)
    tracking.close()
    assert len(caplog.records) == 1


def test_a_forked_process_tells_nothing_and_never_waits() -> None:
    gate = threading.Event()
    tracking = Tracking([Kept(gate)], most_waiting=2)
    for step in range(5):
        tracking.tell(note(step), RECIPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of a fork beside threads: just that is tried
        child = os.fork()
    if child == 0:
        begin = time.monotonic()
        tracking.tell(note(9), RECIPE)
        tracking.close(within_seconds=5.0)
        os._exit(0 if time.monotonic() - begin < 1.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    tracking.close()


_SCRIPT = """
import signal, sys, time
from tests.unit.runtime.test_tracking import RECIPE, note
from trimtab.runtime.tracking import Tracking
class Tracker:
    def track(self, told):
        print("told", told.step, flush=True)
        time.sleep(1000) if sys.argv[1] == "hangs" else None
tracking = Tracking([Tracker()])
import atexit
atexit.register(tracking.close, 0.5)
if sys.argv[1] == "terminated":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for step in range(3):
    tracking.tell(note(step), RECIPE)
if sys.argv[1] == "terminated":
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("story", "printed"),
    [("ends", ["told 0", "told 1", "told 2"]), ("terminated", ["told 0", "told 1", "told 2"]), ("hangs", ["told 0"])],
)
def test_a_process_ends_in_time_whatever_its_tracker_does(story: str, printed: list[str]) -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, story],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert time.monotonic() - begin < 30.0
    assert (done.returncode, done.stdout.splitlines()) == (0, printed), done.stderr


def test_telling_costs_the_training_thread_little() -> None:
    tracking = Tracking([Kept()], most_waiting=100_000)
    record = EvaluationRecorded(1, 1.0, (), None)
    begin = time.thread_time()
    for _ in range(2000):
        tracking.tell(record, RECIPE)
    spent = (time.thread_time() - begin) / 2000
    tracking.close()
    assert spent < 200e-6, f"{spent * 1e6:.1f} us"
