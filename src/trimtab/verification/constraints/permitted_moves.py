"""permitted_moves: the value is reached by one of the control's moves."""

from __future__ import annotations

from trimtab.verification.case import Case


def permitted_moves(case: Case) -> list[str]:
    """Reject a manager's values that no permitted move reaches; nobody else is bound to moves."""
    if case.source != "manager":
        return []
    base = case.base_recipe()
    wrong: list[str] = []
    for control, change in case.known_changes():
        targets = control.moves.targets(base[control.name])
        if change.value not in targets:
            open_ = control.reachable(base[control.name], case.standing.initial[control.name])
            allowed = ", ".join(map(repr, open_)) or "none"
            wrong.append(
                f"{control.name}: {change.value!r} is not a permitted move from {base[control.name]!r}; permitted: {allowed}"
            )
    return wrong
