from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trimtab.controls.recipe import Recipe
from trimtab.decision.action import Adjust, Change
from trimtab.decision.schedule import Planned, Schedule, ScheduleEntry, relative
from trimtab.decision.schedule_file import MOST_REASON, SCHEMA, dump_schedule, load_schedule, parse_schedule
from trimtab.errors import UsageError

FINITE = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
POSITIVE = st.floats(1e-12, 1e12)
RECIPE = Recipe.of({"learning_rate": 3e-3, "dropout": 0.1})


def parse(*lines: str) -> Schedule:
    return parse_schedule("\n".join((f"schema: {SCHEMA}", *lines)), "plan.yaml")


def an_entry(step: int, value: float = 0.1) -> ScheduleEntry:
    return ScheduleEntry(step, (Planned("dropout", value),))


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    names = st.sampled_from(("learning_rate", "dropout", "loss_weight/aux", "temperature"))
    planned = st.builds(Planned, st.just(""), FINITE, st.one_of(st.none(), st.just(1.0), POSITIVE))
    changes = st.dictionaries(names, planned, min_size=1).map(
        lambda known: tuple(replace(one, control=name) for name, one in known.items())
    )
    steps = sorted(draw(st.lists(st.integers(0, 10**9), max_size=6)))
    entries = tuple(ScheduleEntry(step, draw(changes), draw(st.text(max_size=60))) for step in steps)
    return Schedule(entries, draw(st.one_of(st.none(), st.integers(1, 10**9))))


@given(schedules(), st.lists(st.text()), st.lists(st.text()), st.lists(st.text()))
def test_what_is_written_reads_back_whatever_the_comments_say(
    schedule: Schedule, head: list[str], about: list[str], foot: list[str]
) -> None:
    text = dump_schedule(schedule, head=head, about=about, foot=foot)
    assert parse_schedule(text, "plan.yaml") == schedule
    assert yaml.safe_load(text).keys() <= {"schema", "entries", "stop_after"}


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
def test_no_end_of_a_line_lets_a_comment_become_part_of_the_plan(end: str) -> None:
    hostile = f"because{end}  - {{step: 1, changes: {{dropout: 0.9}}}}{end}stop_after: 1"
    plan = Schedule((ScheduleEntry(5, (Planned("dropout", 0.1),), hostile),))
    text = dump_schedule(plan, head=[hostile], about=[hostile], foot=[hostile])
    assert parse_schedule(text, "plan.yaml") == plan


def test_a_value_may_be_itself_a_factor_or_go_with_a_start() -> None:
    plan = parse("entries:", "- {step: 3, changes: {a: 0.5, b: {factor: 0.5}, c: {value: 96, of: 64}}, reason: why}")
    assert plan.entries == (ScheduleEntry(3, (Planned("a", 0.5), Planned("b", 0.5, 1.0), Planned("c", 96.0, 64.0)), "why"),)
    (entry,) = plan.entries
    at_64 = entry.action(Recipe.of({"a": 9.0, "b": 4.0, "c": 64.0}), {}, {})
    assert at_64 == Adjust((Change("a", 0.5), Change("b", 2.0), Change("c", 96.0)))
    at_32 = entry.action(Recipe.of({"a": 9.0, "b": 4.0, "c": 32.0}), {}, {})
    assert at_32.changes[2] == Change("c", 48.0)


@given(POSITIVE, POSITIVE)
def test_a_relative_value_is_exact_where_the_run_starts_the_same(value: float, start: float) -> None:
    planned = relative("learning_rate", value, start)
    assert planned.value_in(Recipe.of({"learning_rate": start})) == value
    other = planned.value_in(Recipe.of({"learning_rate": start * 2}))
    assert math.isclose(other, value * 2, rel_tol=1e-12)


@pytest.mark.parametrize(("value", "start", "factor"), [(5e-3, 1e-2, 0.5), (0.1 * 0.75, 0.1, 0.75), (3e-4 * 0.75, 3e-4, 0.75)])
def test_a_relative_value_is_a_short_factor_where_one_is_exact(value: float, start: float, factor: float) -> None:
    assert relative("learning_rate", value, start) == Planned("learning_rate", factor, 1.0)


@given(st.lists(st.integers(0, 40)).map(sorted), st.integers(0, 40))
def test_exactly_the_entries_of_a_step_are_due_in_their_order(steps: list[int], step: int) -> None:
    entries = tuple(an_entry(at, float(place)) for place, at in enumerate(steps))
    assert Schedule(entries).due(step) == tuple(entry for entry in entries if entry.step == step)


@given(st.lists(st.integers(0, 10**6)).map(sorted), st.floats(0.01, 100), st.integers(-1000, 1000))
def test_moving_keeps_the_order_and_hits_the_scaled_step(steps: list[int], scale: float, shift: int) -> None:
    moved = Schedule(tuple(map(an_entry, steps)), 7).moved(scale, shift)
    found = [entry.step for entry in moved.entries]
    assert found == sorted(found)
    assert all(step == 0 or abs(step - shift - old * scale) <= 0.5 + 1e-6 for step, old in zip(found, steps, strict=True))
    assert all(step >= 0 for step in found)
    assert moved.stop_after is not None
    assert moved.stop_after >= 1


def test_a_plan_that_is_not_moved_stays_as_it_is() -> None:
    plan = Schedule((an_entry(10**14 + 1),), 3)
    assert plan.moved() == plan


def test_the_file_moves_its_own_steps() -> None:
    plan = parse("entries: [{step: 10, changes: {a: 1}}, {step: 3, changes: {a: 2}}]".replace("10", "1"), "scale: 2.5",
                 "shift: 100", "stop_after: 10")  # fmt: skip
    assert [entry.step for entry in plan.entries] == [103, 108]
    assert plan.stop_after == 125


def test_a_cut_of_the_reflex_is_kept_but_leads_below_no_bound() -> None:
    entry = ScheduleEntry(1, (Planned("learning_rate", 0.5, 1.0), Planned("dropout", 0.3)))
    cut = entry.action(RECIPE, {"learning_rate": 0.25}, {"learning_rate": 1e-6})
    assert cut.changes == (Change("learning_rate", 3e-3 * 0.5 * 0.25), Change("dropout", 0.3))
    assert entry.action(RECIPE, {"learning_rate": 0.25}, {"learning_rate": 1e-3}).changes[0].value == 1e-3
    low = ScheduleEntry(1, (Planned("learning_rate", 1e-4),))  # a value that is too low by itself is not raised
    assert low.action(RECIPE, {"learning_rate": 0.25}, {"learning_rate": 1e-3}).changes[0].value == 1e-4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), r"plan.yaml:1:1: entries are not a list; received nothing"),
        (("entries: 3",), r"plan.yaml:2:10: entries are not a list; received 3"),
        (("entries: []", "entrys: []"), r"plan.yaml:3:1: unknown key; received 'entrys'; next: did you mean 'entries'"),
        (("entries: []", "stop_after: 0"), r"plan.yaml:3:13: stop_after is wrong; received 0; allowed: a whole number >= 1"),
        (("entries: []", "scale: 0"), r"plan.yaml:3:8: the scale of a schedule is out of range; received 0"),
        (("entries: []", "scale: yes"), r"plan.yaml:3:8: scale is wrong; received True"),
        (("entries: []", "shift: 1.5"), r"plan.yaml:3:8: shift is wrong; received 1.5"),
        (("entries: [3]",), r"plan.yaml:2:11: an entry is not a mapping"),
        (("entries: [{step: -1, changes: {a: 1}}]",), r"plan.yaml:2:18: step is wrong; received -1; allowed: a whole .* >= 0"),
        (("entries: [{step: true, changes: {a: 1}}]",), r"step is wrong; received True"),
        (("entries: [{step: 1.0, changes: {a: 1}}]",), r"step is wrong; received 1.0"),
        (("entries: [{changes: {a: 1}}]",), r"step is wrong; received nothing"),
        (("entries: [{step: 1}]",), r"changes are missing; received nothing"),
        (("entries: [{step: 1, changes: {}}]",), r"changes are missing"),
        (("entries: [{step: 1, changes: {a: 1}, why: x}]",), r"unknown key; received 'why'"),
        (("entries: [{step: 1, changes: {a: 1}, reason: 3}]",), r"the reason is wrong; received 3"),
        (("entries: [{step: 1, changes: {a: 1, a: 2}}]",), r"a key is given twice"),
        (("entries: [{step: 1, changes: {Dropout: 1}}]",), r"no control has such a name; received 'Dropout'"),
        (("entries: [{step: 1, changes: {a: .nan}}]",), r"not a plain number"),
        (("entries: [{step: 1, changes: {a: 1e400}}]",), r"not a plain number"),
        (("entries: [{step: 1, changes: {a: '0.1'}}]",), r"a is wrong; received '0.1'; allowed: a number, \{factor"),
        (("entries: [{step: 1, changes: {a: true}}]",), r"a is wrong; received True"),
        (("entries: [{step: 1, changes: {a: {factr: 1}}}]",), r"the value of a is wrong"),
        (("entries: [{step: 1, changes: {a: {value: 1, of: 0}}}]",), r"no factor leads from here; received 0"),
        (("entries:", "- {step: 5, changes: {a: 1}}", "- {step: 4, changes: {a: 1}}"), r"plan.yaml:4:10: the steps fall"),
        (("entries: [{step: 1, changes: {a: 1}}]", "shift: 999999999999999"), r"a step of the schedule would be too late"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named_by_line_and_column(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        parse(*lines)
    assert type(raised.value) is UsageError  # not one about an envelope


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "[]", "3", "schema: trimtab/envelope/1\nentries: []", "entries: []", "a: [", "&a [*a]"]
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"plan\.yaml:1"):
        parse_schedule(text, "plan.yaml")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_schedule(text, "plan.yaml"), Schedule)
    except UsageError as error:
        assert "plan.yaml:" in error.what


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the schedule cannot be read; received .*: No such file"):
        load_schedule(tmp_path / "not_there.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"schema: \xff")
    with pytest.raises(UsageError, match="the schedule is not UTF-8"):
        load_schedule(tmp_path / "binary.yaml")


def test_a_reason_has_a_length() -> None:
    assert parse(f"entries: [{{step: 1, changes: {{a: 1}}, reason: {'x' * MOST_REASON}}}]").entries[0].reason
    with pytest.raises(UsageError, match="the reason is wrong"):
        parse(f"entries: [{{step: 1, changes: {{a: 1}}, reason: {'x' * (MOST_REASON + 1)}}}]")


def test_the_example_of_the_page_reads() -> None:
    page = (Path(__file__).parents[3] / "docs" / "schedules.md").read_text(encoding="utf-8")
    plan = parse_schedule(page.partition("```yaml\n")[2].partition("```")[0], "the page")
    assert [entry.step for entry in plan.entries] == [0, 1000]
    assert plan.stop_after == 5000


def test_the_example_of_the_module_reads() -> None:
    import trimtab.decision.schedule_file as module

    assert module.__doc__ is not None
    indented = [line for line in module.__doc__.splitlines() if line.startswith("    ")]
    plan = parse_schedule("\n".join(line[4:] for line in indented), "the module")
    assert [entry.step for entry in plan.entries] == [100, 2100]
