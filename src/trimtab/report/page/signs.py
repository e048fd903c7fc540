"""Signs on the charts that tell without colour who acted, what was taken back, and how a trial ended."""

from __future__ import annotations

from typing import Final

from trimtab.report.page.markup import Markup, join, tag
from trimtab.report.scale import Mark, TrialKind

_ENDS: Final[dict[TrialKind, str]] = {
    "won": "M-4 0L-1 3L4-3.5",
    "lost": "M-3.2-3.2L3.2 3.2M3.2-3.2L-3.2 3.2",
    "abandoned": "M-4 0H4",
    "open": "M-4 0h.1M0 0h.1M4 0h.1",
}


def trial_sign(kind: TrialKind) -> Markup:
    """Return a tick, a cross, a dash or dots around the origin, on a disc that keeps the curves off."""
    return join(tag("circle", class_="disc", r="7.5"), tag("path", class_="sign", d=_ENDS[kind]))


def badge_shape(mark: Mark, across: str, down: float) -> Markup:
    """Return what a mark's number stands on: a square for the guard, else a disc; struck through if it was taken back."""
    if mark.kind == "guard":
        shape = tag("rect", x=across, y=down - 8.5, width="17", height="17", rx="3", transform="translate(-8.5)")
    else:
        shape = tag("circle", cx=across, cy=down, r="9")
    if not mark.is_taken_back:
        return shape
    strike = tag("path", class_="strike", d="M-10 10L10-10")
    return join(shape, tag("svg", strike, x=across, y=down, width="8", height="8", overflow="visible"))
