"""The page as a whole: complete in itself, closed to hostile text, and with all there is to tell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.report.page_samples import HOSTILE, Seen, a_run, hash_of, page_of
from tests.unit.report.safeguarded_runs import TryingRun, guarded_run, lower, tried_run
from tests.unit.report.sample_run import Play, whole_run
from tests.unit.report.scored_run import TAKEN, ScoredRun
from trimtab.decision.proposal import hold
from trimtab.ledger.record import ManagerAsked, Origin, ProposalReceived, RunResumed
from trimtab.report.page.document import GENERATOR
from trimtab.report.page.subject import Subject

ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1", "h2", "h3", "h4", "p",
    "a", "ul", "li", "dl", "dt", "dd", "div", "span", "b", "i", "q", "bdi", "code", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "figcaption", "details", "summary", "svg", "g", "path", "line", "rect", "circle", "text", "script",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "title", "scope", "open", "tabindex", "role",
    "width", "height", "viewbox", "preserveaspectratio", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "overflow",
    "rx", "transform", "text-anchor", "aria-label", "aria-live", "aria-hidden", "data-x", "data-y", "data-log", "data-held",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return a_run(tmp_path_factory.mktemp("runs") / "run", rows=600, signals=("loss", "grad_norm", "lr"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    signals = ("loss", HOSTILE, f"{HOSTILE}{HOSTILE}" * 20)
    return a_run(tmp_path_factory.mktemp("runs") / "evil", whole_run(HOSTILE), rows=40, signals=signals)


def assert_closed(page: str) -> None:
    """Fail if the page holds anything that could load, run or leave."""
    seen = Seen(page)
    assert seen.tags() <= ELEMENTS
    assert {attribute for _, given in seen.elements for attribute in given} <= ATTRIBUTES
    assert all(address.startswith("#") for address in seen.values("href"))
    assert len(seen.scripts) == len(seen.styles) == 1
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", seen.styles[0] + seen.scripts[0])
    policy = next(given["content"] or "" for _, given in seen.elements if given.get("http-equiv") == "Content-Security-Policy")
    assert policy == (
        f"default-src 'none'; style-src '{hash_of(seen.styles[0])}'; script-src '{hash_of(seen.scripts[0])}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_loads_nothing_and_runs_only_its_own_script(whole: Subject) -> None:
    assert_closed(page_of(whole))
    assert_closed(page_of(whole, whole))


def test_hostile_texts_stay_text_wherever_they_stand(hostile: Subject) -> None:
    page = page_of(hostile, hostile)
    assert_closed(page)
    seen = Seen(page)
    assert "<script>document.title='executed'</script>" in seen.text
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", page)
    page.encode("utf-8")


def test_the_page_is_known_again_as_a_report(whole: Subject) -> None:
    assert f'content="{GENERATOR}"' in page_of(whole)[:4096]


def test_every_decision_is_there_once_and_linked_from_its_mark(whole: Subject) -> None:
    seen = Seen(page_of(whole))
    ids = seen.values("id")
    assert [one for one in ids if re.fullmatch(r"run1-d\d+", one)] == [f"run1-d{n}" for n in range(1, 11)]
    assert len(ids) == len(set(ids))
    assert {address.removeprefix("#") for address in seen.values("href")} <= set(ids)
    badges = [given for name, given in seen.elements if name == "a" and "badge" in (given.get("class") or "")]
    assert [badge["href"] for badge in badges] == ["#run1-d3", "#run1-d6", "#run1-d9"]


def test_the_whole_story_is_told(whole: Subject) -> None:
    text = Seen(page_of(whole)).text
    for told in (
        "ended: finished",
        "overfitting in val/loss objective 2.1 best_objective 1.9",
        "rollback to step-00000100, dropout=0.1",
        "validation loss turned up",
        "a gain of at least 0.05 within 2 evaluations; to watch: val/loss",
        "could choose from",
        "accepted after step 210",
        "dropout 0 → 0.1",
        "expected 0.1, in effect 0.1 holds",
        "objective 1.9 → 1.8 after 1 evaluation · gain +0.1 · as expected",
        "not a permitted",
        "the reflex, without asking anybody",
        "non_finite in train/loss value NaN",
        "answer dropped",
        "the binding broke",
        "expected 0.0015, in effect 0.003 does not hold",
        "0.25 s · no language model was called",
        "too early",
        "whole · 68 records, as the standalone verifier finds it",
        f"head {67}:{whole.verification.head[1] if whole.verification.head else ''}",
        "torch 2.13.0",
        "Problems (2)",
        "a checkpoint took 12 s",
        "multiply by 0.25, 0.5",
    ):
        assert " ".join(told.split()) in text, told


def test_tokens_money_and_an_unknown_price_are_told(tmp_path: Path) -> None:
    def answered(name: str, usd: float | None) -> Subject:
        run = ScoredRun()
        run.next(2.0)
        run.reply(hold("fine"), consultation=replace(TAKEN, usd=usd))
        return a_run(tmp_path / name, run.records)

    known, unknown = Seen(page_of(answered("a", 0.0123))).text, Seen(page_of(answered("b", None))).text
    assert "$0.0123" in known
    assert "price not known" not in known
    assert "price not known" in unknown
    assert TAKEN.model in unknown


def test_how_a_run_stands_is_said_with_the_time_of_its_newest_record(whole: Subject) -> None:
    running, cut = replace(whole, standing="running"), replace(whole, standing="cut off")
    assert "still going on as of 1970-01-12 13:47:47 UTC, step 1,000" in Seen(page_of(running)).text
    assert "cut off after step 1,000: its newest record is of 1970-01-12 13:47:47 UTC" in Seen(page_of(cut)).text


def test_a_run_that_only_began_has_a_page(tmp_path: Path) -> None:
    text = Seen(page_of(a_run(tmp_path / "run", Play().records))).text
    for told in ("not evaluated yet", "No decision yet.", "no finite value yet", "None was recorded."):
        assert told in text


def test_damage_and_what_the_verifier_says_are_said_first(whole: Subject) -> None:
    told = Seen(page_of(replace(whole, damage="line 21 is wrong"))).text
    assert told.index("The ledger is damaged, and nothing from there on is shown: line 21 is wrong") < told.index("Curves")
    found = replace(whole.verification, ok=False, problem="the line is out of order", line=3)
    assert "damaged at line 3: the line is out of order" in Seen(page_of(replace(whole, verification=found))).text


def test_a_resume_and_its_origin_are_told(whole: Subject) -> None:
    origin = Origin("branch", "the other", "f" * 64, 7, "no_action", 3)
    resume = RunResumed(400, "step-00000400", 31, (("torch", "2.13.0"),), origin)
    text = Seen(page_of(replace(whole, resumes=(resume,)))).text
    assert "at step 400, from step-00000400; records after 31 up to here belong to a course that was left" in text
    assert f"a branch of the other: question 7, no_action instead, seed 3; the head of that run's ledger is {'f' * 64}" in text


def test_several_runs_are_compared_and_the_best_is_marked(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "a", whole_run()), a_run(tmp_path / "b", whole_run()[:20])]
    page = page_of(*runs)
    seen = Seen(page)
    assert "2 runs compared" in seen.text
    assert re.findall(r"<b title=\"the best of these runs\">([^<]+)</b>", page) == ["1.7"]
    curves = [given["class"] for name, given in seen.elements if name == "path" and "c0" in (given.get("class") or "")]
    assert len(curves) == 3, "the objective and both controls of the first run"
    assert {"run1", "run2", "comparison"} <= set(seen.values("id"))
    assert str(tmp_path / "a") in seen.text, "runs of one name are told apart by their directories"


def test_runs_with_different_objectives_are_not_ranked(tmp_path: Path) -> None:
    one, other = Play(), Play(objective="maximize val/accuracy")
    one.evaluate(50, 1.0)
    runs = (a_run(tmp_path / "a", one.records), a_run(tmp_path / "b", other.records))
    page = page_of(*runs)
    assert "their values do not compare" in page
    assert "the best of these runs" not in page


def test_chosen_signals_stand_in_place_of_the_usual_ones(whole: Subject) -> None:
    def shown_at_once(page: str) -> list[str]:
        before = page.split('class="more signals"', maxsplit=1)[0]
        return re.findall(r"<h4><bdi>([^<]+)</bdi></h4>", before)

    assert shown_at_once(page_of(whole)) == ["val/loss", "loss", "grad_norm"]
    assert shown_at_once(page_of(whole, chosen=["lr"])) == ["val/loss", "lr"]


def test_the_size_is_bounded_by_columns_not_by_steps(tmp_path: Path) -> None:
    short = len(page_of(a_run(tmp_path / "short", rows=4000, signals=("loss", "a", "b"))))
    long = len(page_of(a_run(tmp_path / "long", rows=20_000, signals=("loss", "a", "b"))))
    assert long < 1.5 * short < 300_000


def test_thousands_of_questions_are_all_there_in_short(tmp_path: Path) -> None:
    play = Play()
    play.evaluate(50, 3.0)
    play.answer(50, hold("x" * 1900))
    asked = next(record for record in play.records if isinstance(record, ManagerAsked))
    answered = next(record for record in play.records if isinstance(record, ProposalReceived))
    at = play.records.index(asked)
    block = play.records[at:]
    records = list(play.records)
    for question in range(2, 1202):
        records += [replace(one, question=question) if hasattr(one, "question") else one for one in block]
    assert answered in play.records
    page = page_of(a_run(tmp_path / "run", records))
    assert len(re.findall(r'id="run1-d\d+"', page)) == 1201
    assert len(page) < 700_000


def test_what_the_guard_took_back_is_told_with_why_and_by_what(tmp_path: Path) -> None:
    page = page_of(a_run(tmp_path / "run", guarded_run().records))
    assert_closed(page)
    seen = Seen(page)
    for told in (
        "guard watched 3 interventions, took 3 back the recipe is held since step 801",
        "canary no trial off: proposals are not tried first",
        "applied at step 410, taken back at step 601",
        "harm val/loss of 2.5 at step 600 is worse than before it: gain -0.56 since intervention 1; expected without it: +0.01",
        "taken back by the guard at step 601, as intervention 3: rollback to step-00000400",
        "guard: rollback to step-00000400 · takes back interventions 1 and 2",
        "The guard: holds the recipe after 2 interventions in a row that it took back. The canary: off.",
    ):
        assert told in seen.text, told
    legend = seen.text[seen.text.index("Curves adjusted") :][:60]
    assert legend.startswith("Curves adjusted guard taken back")
    assert "badge guard" in seen.values("class")


def test_trials_are_told_by_outcome_with_what_was_compared_and_their_cost(tmp_path: Path) -> None:
    page = page_of(a_run(tmp_path / "run", tried_run().records))
    assert_closed(page)
    seen = Seen(page)
    for told in (
        "canary 4 trials, 1 won 47 steps spent, 9.4% of the run",
        "guard watched 1 intervention, took none back no harm was found",
        "trial won trial lost trial abandoned",
        "lost · val/loss 1.7 with it, 1.6 without · early look: 1.9 with it, 2 without · steps 210 to 240, 20 steps spent",
        "tried, worse by 0.1, and not applied",
        "its trial was abandoned",
        "only what wins its trial is applied; arms of 10 steps, trials may cost 100% of the run",
    ):
        assert told in seen.text, told
    assert seen.values("class").count("trial lost") == 5, "two spans, each with a sign, and the legend"


def test_a_trial_has_its_sign_though_nothing_was_ever_applied(tmp_path: Path) -> None:
    run = TryingRun()
    run.attempt(100, lower(5e-4), (2.0, 1.9, 1.7, 1.6))
    seen = Seen(page_of(a_run(tmp_path / "run", run.records)))
    assert [given for element, given in seen.elements if element == "svg" and given.get("class") == "trial lost"]


def test_what_the_guard_did_counts_in_a_comparison(tmp_path: Path) -> None:
    guarded, whole = a_run(tmp_path / "guarded", guarded_run().records), a_run(tmp_path / "whole")
    page = page_of(guarded, whole)
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', page)
    cells = [re.findall(r'<td class="num">(.*?)</td>', row)[4:6] for row in rows[:2]]
    assert cells == [["5", "2"], ["3", "1"]], "interventions, and of them those by reflex or guard"
