"""Which panels show a run, and several runs side by side: objective, signals, recipe within its envelope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from trimtab.controls.control import Control
from trimtab.report.decimate import Points
from trimtab.report.marks import marks_of, trials_of
from trimtab.report.page.plot import Line, Panel
from trimtab.report.page.subject import Subject
from trimtab.report.scale import LARGEST, Axis, drawable, step_axis, value_axis
from trimtab.telemetry.signal import GRAD_NORM, LOSS

_MAIN: Final = (LOSS, GRAD_NORM)
_ONE_RUN: Final = 1  # the colour of the only curve of a panel
_WIDE_RATIO: Final = 20  # bounds this many times apart are drawn on a logarithmic axis, where the control is a ratio
_MARGIN: Final = 0.09  # of the axis, outside the bounds
_SMALL_COLUMNS: Final = 320


@dataclass(frozen=True, slots=True)
class Charts:
    """The panels of one run.

    Args:
        objective: The objective.
        main: Signals that are shown at once.
        others: The other signals.
        controls: The recipe, a panel for each control.
    """

    objective: Panel
    main: tuple[Panel, ...]
    others: tuple[Panel, ...]
    controls: tuple[Panel, ...]


def charts_of(subject: Subject, anchor: str, chosen: Sequence[str] = ()) -> Charts:
    """Return the panels of a run.

    Args:
        subject: The run.
        anchor: What the ids of its decisions begin with.
        chosen: Signals to show at once; by default loss and gradient norm.
    """
    x = _steps([subject])
    objective = subject.started.envelope.objective.signal
    wanted = [name for name in dict.fromkeys(chosen or _MAIN) if name in subject.signals and name != objective]
    rest = [name for name in subject.signals if name not in wanted and name != objective]
    return Charts(
        objective=_marked(subject, _objective([subject], x, height=250), anchor),
        main=tuple(_marked(subject, _signal(subject, name, x, 150, 900)) for name in wanted),
        others=tuple(_marked(subject, _signal(subject, name, x, 110, _SMALL_COLUMNS)) for name in rest),
        controls=tuple(
            replace(_marked(subject, _control([subject], control, x)), undone=(), trials=())
            for control in subject.started.envelope.controls
        ),
    )


def compared(subjects: Sequence[Subject]) -> tuple[tuple[Panel, ...], tuple[Panel, ...]]:
    """Return the panels that lay runs over each other: of each objective there is, and of the controls that several have."""
    x = _steps(subjects)
    objectives: list[Panel] = []
    for objective in dict.fromkeys(subject.timeline.summary.objective for subject in subjects):
        alike = [subject if subject.timeline.summary.objective == objective else None for subject in subjects]
        objectives.append(_objective(alike, x, height=300))
    panels: list[Panel] = []
    controls = {control.name: control for subject in subjects for control in subject.started.envelope.controls}
    for name, control in controls.items():
        having = [subject if name in subject.started.envelope else None for subject in subjects]
        if sum(subject is not None for subject in having) > 1:
            panels.append(_control(having, control, x))
    return tuple(objectives), tuple(panels)


def labels_of(subjects: Sequence[Subject | None]) -> list[str]:
    """Return what to call each run beside the others: its name, or its directory where names are not distinct."""
    names = [subject.timeline.summary.run if subject else "" for subject in subjects]
    known = [name for name in names if name]
    if len(set(known)) == len(known):
        return names
    return [subject.path if subject else "" for subject in subjects]


def _steps(subjects: Sequence[Subject]) -> Axis:
    last = [subject.timeline.summary.steps for subject in subjects]
    ends = [step for subject in subjects for points in subject.signals.values() for step, _ in (*points[:1], *points[-1:])]
    return step_axis([0, *last, *ends])


def _objective(subjects: Sequence[Subject | None], x: Axis, *, height: int) -> Panel:
    known = [subject for subject in subjects if subject is not None]
    is_alone, labels = len(subjects) == 1, labels_of(subjects)
    lines = tuple(
        Line(
            subject.started.envelope.objective.signal if is_alone else labels[place],
            [(point.step, point.value) for point in subject.timeline.evaluations],
            _ONE_RUN if is_alone else place,
        )
        for place, subject in enumerate(subjects)
        if subject is not None
    )
    objective = known[0].started.envelope.objective
    note = "lower is better" if objective.direction == "minimize" else "higher is better"
    return Panel(objective.signal, lines, x, value_axis(_values(line.points for line in lines)), height=height, note=note)


def _signal(subject: Subject, name: str, x: Axis, height: int, columns: int) -> Panel:
    points = subject.signals[name]
    return Panel(name, (Line(name, points, _ONE_RUN),), x, value_axis(_values([points])), height=height, columns=columns)


def _control(subjects: Sequence[Subject | None], control: Control, x: Axis) -> Panel:
    is_alone, labels = len(subjects) == 1, labels_of(subjects)
    lines = tuple(
        Line(
            control.name if is_alone else labels[place],
            [(step, recipe[control.name]) for step, recipe in subject.recipes if control.name in recipe],
            _ONE_RUN if is_alone else place,
            is_held=True,
        )
        for place, subject in enumerate(subjects)
        if subject is not None
    )
    envelopes = [subject.started.envelope.control(control.name).bounds for subject in subjects if subject is not None]
    # Where runs were allowed different things, no one envelope is theirs.
    same = all(bounds == envelopes[0] for bounds in envelopes)
    limits = (envelopes[0].low, envelopes[0].high) if same else None
    values = [*_values(line.points for line in lines), *(limits or ())]
    return Panel(control.name, lines, x, _axis_of(values, control), bounds=limits, height=130, note=control.unit)


def _axis_of(values: Sequence[float], control: Control) -> Axis:
    """Return an axis that holds values and bounds, with room beyond them."""
    known = [value for value in values if drawable(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if control.scale == "ratio" and low > 0 and _WIDE_RATIO < high / low <= LARGEST:
        room = (high / low) ** _MARGIN
        return Axis(low / room, high * room, is_log=True)
    room = max((high - low) * _MARGIN, abs(high) * 1e-6, 1e-12)
    return Axis(low - room, high + room)


def _marked(subject: Subject, panel: Panel, anchor: str = "") -> Panel:
    decisions = subject.timeline.decisions
    links = [(one.intervention, f"#{anchor}d{one.number}") for one in decisions if one.intervention is not None]
    return replace(
        panel,
        marks=marks_of(decisions),
        undone=subject.undone,
        trials=trials_of(decisions, subject.timeline.summary.steps, anchor),
        resumes=tuple(resume.step for resume in subject.resumes),
        links=tuple(links) if anchor else (),
    )


def _values(curves: Iterable[Points]) -> list[float]:
    return [value for points in curves for _, value in points]
