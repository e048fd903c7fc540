from __future__ import annotations

import io

import pytest
from rich.console import Console

from trimtab.cli.arms import Progress
from trimtab.cli.demo_view import ArmsView, LiveArmsView, duration, make_view


def progress(step: int, decision: str | None = None, val_loss: float | None = 1.5) -> Progress:
    return Progress(
        event="progress", step=step, steps=1000, loss=2.0, val_loss=val_loss, recipe={"dropout": 0.1}, decision=decision
    )


def console(height: int = 24, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(
        file=file, width=80, height=height, markup=False, highlight=False, force_terminal=terminal, color_system=None
    ), file


def test_lines_come_each_tenth_of_the_way_and_at_each_decision() -> None:
    shown, file = console()
    clock = iter(range(1000))
    with ArmsView(shown, ("unmanaged", "managed"), lambda: float(next(clock))) as view:
        for step in range(0, 1001, 10):
            view.progressed("managed", progress(step, "step 450: dropout=0.1\x1b[2J" if step >= 450 else None))
    lines = file.getvalue().splitlines()
    assert len(lines) == 10
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [100, 200, 300, 400, 450, 500, 600, 700, 800, 900]
    assert lines[4].endswith("step 450: dropout=0.1\\x1b[2J")
    assert "validation loss 1.5000" in lines[0]


def test_the_remaining_time_follows_from_the_pace() -> None:
    shown, file = console()
    times = iter([0.0, 30.0])
    ArmsView(shown, ("managed",), lambda: next(times)).progressed("managed", progress(250))
    assert "eta 1:30" in file.getvalue()


def test_noise_is_shown_a_few_times_and_harmless() -> None:
    shown, file = console()
    view = ArmsView(shown, ("managed",), lambda: 0.0)
    for _ in range(10):
        view.noticed("managed", "warning \x1b[31m[red]")
    assert file.getvalue().count("also printed: warning \\x1b[31m[red]") == 3
    assert "further lines are not shown" in file.getvalue()


@pytest.mark.parametrize(("height", "has_chart"), [(24, False), (40, True)])
def test_the_live_display_shows_both_arms(height: int, has_chart: bool) -> None:
    shown, _ = console(height, terminal=True)
    now = iter(range(1000))
    with LiveArmsView(shown, ("unmanaged", "managed"), lambda: float(next(now))) as view:
        view.progressed("managed", progress(0, val_loss=None))
        for step in (100, 200, 300):
            for arm in ("unmanaged", "managed"):
                view.progressed(arm, progress(step, "step 90: dropout=0.1", val_loss=3.0 - step / 1000))
        out = "\n".join("".join(segment.text for segment in line) for line in shown.render_lines(view.rendered()))
    assert all(part in out for part in ("unmanaged", "300/1000", "eta ", "dropout 0.1", "step 90: dropout=0.1"))
    assert any("\u2800" < c <= "\u28ff" for c in out) is has_chart
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_terminal_gets_the_live_display() -> None:
    assert isinstance(make_view(console(terminal=True)[0], ("managed",), lambda: 0.0), LiveArmsView)
    assert not isinstance(make_view(console()[0], ("managed",), lambda: 0.0), LiveArmsView)


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (0.0, 59.6, 61.0, 3661.0)] == ["0:00", "1:00", "1:01", "1:01:01"]
