"""Show the demo's arms at work: a live display on a terminal, lines where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trimtab.cli.arms import ArmName, Progress, Result
from trimtab.cli.terminal import CURVE_STYLES, chart, clean, number
from trimtab.report.scale import Curve

Clock = Callable[[], float]

_REFRESH_SECONDS: Final = 0.1
_SHOWN_NOISE: Final = 3
_STYLES: Final = dict(zip(("unmanaged", "managed"), CURVE_STYLES, strict=False))


class ArmsView:
    """What is known of each arm; with it, one line per tenth of the way and per decision.

    Args:
        console: Where to show it.
        arms: Names in the order to show them.
        clock: Seconds that only rise.
    """

    def __init__(self, console: Console, arms: Sequence[ArmName], clock: Clock) -> None:
        self._console, self._arms, self._clock = console, arms, clock
        self._began = clock()
        self._newest: dict[ArmName, Progress] = {}
        self._losses: dict[ArmName, list[tuple[float, float]]] = {arm: [] for arm in arms}
        self._told: dict[ArmName, tuple[int, str | None]] = dict.fromkeys(arms, (0, None))
        self._noises: dict[ArmName, int] = dict.fromkeys(arms, 0)
        self._done: set[ArmName] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None

    def progressed(self, arm: ArmName, progress: Progress) -> None:
        """Take in a report."""
        losses = self._losses[arm]
        if progress.val_loss is not None and (not losses or losses[-1][1] != progress.val_loss):
            losses.append((progress.step, progress.val_loss))
        self._newest[arm] = progress
        self._show(arm)

    def finished(self, arm: ArmName, result: Result) -> None:
        """Take in that an arm is done."""
        self._done.add(arm)
        self._losses[arm] = result.points
        self._show(arm)

    def noticed(self, arm: ArmName, noise: str) -> None:
        """Show a line that is no message, the first few times."""
        self._noises[arm] += 1
        if self._noises[arm] <= _SHOWN_NOISE:
            more = " (further lines are not shown)" if self._noises[arm] == _SHOWN_NOISE else ""
            self._console.print(Text(f"{arm} also printed: {clean(noise, 200)}{more}", "yellow"))

    def waited(self) -> None:
        """Let time pass."""

    def _show(self, arm: ArmName) -> None:
        newest = self._newest.get(arm)
        if newest is None:
            return
        tenth, decision = min(10, 10 * newest.step // newest.steps), newest.decision
        is_news = (tenth != self._told[arm][0] and tenth < 10) or decision != self._told[arm][1]
        if not is_news and arm not in self._done:
            return
        ending = "done" if arm in self._done else f"eta {self._eta(newest)}"
        line = f"{arm:<9} {newest.step:>6}/{newest.steps}  {_losses_of(newest)}  {ending}"
        if decision != self._told[arm][1] and decision:
            line += f"  {clean(decision, 200)}"
        self._told[arm] = (tenth, decision)
        self._console.print(Text(line), soft_wrap=True)

    def _eta(self, newest: Progress) -> str:
        if newest.step == 0:
            return "-:--"
        left = (newest.steps - newest.step) * (self._clock() - self._began) / newest.step
        return duration(max(0.0, left))


class LiveArmsView(ArmsView):
    """A display that is drawn over as the arms go on, and gone at the end."""

    def __init__(self, console: Console, arms: Sequence[ArmName], clock: Clock) -> None:
        super().__init__(console, arms, clock)
        self._drawn_at = -_REFRESH_SECONDS
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self.waited()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._live.stop()

    def waited(self) -> None:
        """Draw anew."""
        self._drawn_at = self._clock()
        self._live.update(self.rendered(), refresh=True)

    def _show(self, arm: ArmName) -> None:
        if self._clock() - self._drawn_at >= _REFRESH_SECONDS:
            self.waited()

    def rendered(self) -> RenderableType:
        """Return the whole display."""
        parts: list[RenderableType] = [self._arm(arm) for arm in self._arms]
        if self._console.height >= 28 and all(len(losses) > 1 for losses in self._losses.values()):
            curves = [Curve(arm, self._losses[arm]) for arm in self._arms]
            parts += [Text("validation loss", "bright_black"), chart(curves, [], self._console.width, 10)]
        return Group(*parts)

    def _arm(self, arm: ArmName) -> RenderableType:
        newest = self._newest.get(arm)
        head = Table.grid(padding=(0, 2))
        name = Text(f"{arm:<9}", f"bold {_STYLES[arm]}")
        bar_width = max(10, self._console.width - 46)
        if newest is None:
            head.add_row(name, ProgressBar(width=bar_width, pulse=True), Text("starting", "bright_black"))
            return Group(head, Text(), Text(), Text())
        done = arm in self._done
        taken, style = min(newest.step, newest.steps), _STYLES[arm]
        bar = ProgressBar(newest.steps, taken, bar_width, complete_style=style, finished_style=style)
        eta = Text("done", "green") if done else Text(f"eta {self._eta(newest)}")
        head.add_row(name, bar, Text(f"{newest.step}/{newest.steps}"), eta)
        recipe = " · ".join(f"{clean(key, 60)} {number(value)}" for key, value in newest.recipe.items())
        return Group(
            head,
            _line(f"           {_losses_of(newest)}"),
            _line(f"           {recipe or 'fixed recipe'}", "bright_black"),
            _line(f"           {clean(newest.decision, 300) if newest.decision else ''}", "magenta"),
        )


def make_view(console: Console, arms: Sequence[ArmName], clock: Clock) -> ArmsView:
    """Return the view that suits the console."""
    return LiveArmsView(console, arms, clock) if console.is_terminal else ArmsView(console, arms, clock)


def duration(seconds: float) -> str:
    """Return seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    whole = round(min(seconds, 359_999.0))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _losses_of(progress: Progress) -> str:
    return f"loss {_loss(progress.loss)}  validation loss {_loss(progress.val_loss)}"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _line(words: str, style: str = "") -> Text:
    return Text(words, style, no_wrap=True, overflow="ellipsis")
