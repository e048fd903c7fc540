"""Put the report together: one HTML file that asks for nothing from outside and runs no script but its own.

Rules:
1. The content security policy allows one style and one script, each by its hash: text from a run, even if it stood in the
   page as an element, could not run or load anything.
2. Nothing in the page depends on the script.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from trimtab.report.page.charts import charts_of, compared, labels_of
from trimtab.report.page.decisions import decisions_of
from trimtab.report.page.figures import figure, legend
from trimtab.report.page.markup import Markup, join, name, tag
from trimtab.report.page.overview import comparison_table, heading, moment
from trimtab.report.page.provenance import envelope_of, problems_of, provenance_of
from trimtab.report.page.subject import Subject
from trimtab.report.words import clean, counted

GENERATOR: Final = "trimtab report"  # how a report is known again, so that nothing else is ever overwritten
_STYLES: Final = ("palette.css", "chart.css", "style.css")


def render(subjects: Sequence[Subject], *, made_seconds: float, version: str, chosen: Sequence[str] = ()) -> str:
    """Return the report of one or several runs as an HTML document.

    Args:
        subjects: The runs, at least one, in the order of the comparison.
        made_seconds: When the report is made, since 1970.
        version: Version of trimtab.
        chosen: Signals to show at once; by default loss and gradient norm.
    """
    anchors = [f"run{place}" for place in range(1, len(subjects) + 1)]
    runs = [
        _run(subject, anchor, chosen, is_alone=len(subjects) == 1) for subject, anchor in zip(subjects, anchors, strict=True)
    ]
    title = clean(subjects[0].timeline.summary.run, 100) if len(subjects) == 1 else f"{len(subjects)} runs compared"
    made = f"Report of {counted(len(subjects), 'run')}, made {moment(made_seconds)} by trimtab {clean(version, 40)}."
    skip = tag("a", "Skip to the content", class_="skip", href="#content")
    # One run's name is the title of the page; several stand below their comparison.
    top = heading(subjects[0], level="h1") if len(subjects) == 1 else tag("h1", title)
    header = tag("header", skip, top, tag("p", made, class_="quiet made"), _navigation(subjects, anchors))
    main = tag("main", _comparison(subjects, anchors), *runs, id="content")
    told = "This file is complete in itself: it loads nothing, and the ledgers it was made from are unchanged."
    footer = tag("footer", tag("p", told, class_="quiet"))
    body = tag("body", header, main, footer, Markup(f"<script>{_read('page.js')}</script>"))
    return f'<!doctype html>\n<html lang="en">{_head(title)}{body}</html>\n'


def _head(title: str) -> Markup:
    style, script = stylesheet(), _read("page.js")
    allowed = f"style-src '{_hash_of(style)}'; script-src '{_hash_of(script)}'"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name_="generator", content=GENERATOR),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", f"{title} - trimtab report"),
        Markup(f"<style>{style}</style>"),
    )


def _navigation(subjects: Sequence[Subject], anchors: Sequence[str]) -> Markup:
    if len(subjects) == 1:
        parts = ("curves", "recipe", "decisions", "envelope", "provenance", "problems")
        entries = [tag("a", part.capitalize(), href=f"#{anchors[0]}-{part}") for part in parts]
    else:
        named = zip(labels_of(subjects), anchors, strict=True)
        entries = [tag("a", "Comparison", href="#comparison")]
        entries += [tag("a", name(label, 60), href=f"#{anchor}") for label, anchor in named]
    return tag("nav", tag("ul", *(tag("li", entry) for entry in entries)), aria_label="Parts of the report")


def _comparison(subjects: Sequence[Subject], anchors: Sequence[str]) -> Markup:
    if len(subjects) == 1:
        return join()
    objectives, controls = compared(subjects)
    parts = [tag("h3", "Comparison"), comparison_table(subjects, anchors)]
    if len(objectives) > 1:
        parts.append(tag("p", "These runs have different objectives: their values do not compare.", class_="caution"))
    parts += [figure(panel) for panel in objectives]
    parts.append(tag("div", *(figure(panel, size="small") for panel in controls), class_="pair"))
    return tag("section", *parts, class_="compare", id="comparison")


def _run(subject: Subject, anchor: str, chosen: Sequence[str], *, is_alone: bool) -> Markup:
    charts = charts_of(subject, f"{anchor}-", chosen)
    others = join()
    if charts.others:
        small = tag("div", *(figure(panel, size="small") for panel in charts.others), class_="pair")
        summary = tag("summary", counted(len(charts.others), "other signal"))
        others = tag("details", summary, small, class_="more signals")
    no_controls = tag("p", "No controls.", class_="quiet")
    controls = tag("div", *(figure(panel, size="small") for panel in charts.controls), class_="pair")
    problems = len(subject.timeline.summary.problems)
    return tag(
        "section",
        join() if is_alone else heading(subject, level="h2"),
        _part("Curves", anchor),
        legend([charts.objective, *charts.controls]),
        figure(charts.objective),
        *(figure(panel) for panel in charts.main),
        others,
        _part("Recipe", anchor),
        controls if charts.controls else no_controls,
        _part("Decisions", anchor),
        decisions_of(subject, f"{anchor}-"),
        _part("Envelope", anchor),
        envelope_of(subject),
        _part("Provenance", anchor),
        provenance_of(subject),
        tag("h3", f"Problems ({problems})" if problems else "Problems", id=f"{anchor}-problems"),
        problems_of(subject),
        class_="run",
        id=anchor,
    )


def _part(title: str, anchor: str) -> Markup:
    return tag("h3", title, id=f"{anchor}-{title.lower()}")


def stylesheet() -> str:
    """Return the style of the page."""
    return "".join(_read(file) for file in _STYLES)


def _hash_of(content: str) -> str:
    return "sha256-" + b64encode(sha256(content.encode()).digest()).decode()


@cache
def _read(file: str) -> str:
    return files("trimtab.report.page").joinpath(file).read_text(encoding="utf-8")
