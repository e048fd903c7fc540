"""The source tree keeps its rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.architecture import source_rules as rules
from tests.architecture.source_rules import Rule, Source, Violation

ROOT: Final = Path(__file__).parents[2]

# Modules whose name looks like a grab bag and is not: with the reason.
NAMED_MANAGER: Final = {
    "decision/manager.py": "the Manager protocol: a manager is a word of the domain",
    "decision/llm/manager.py": "the manager that asks a language model",
    "decision/rules/manager.py": "the manager that decides by rules",
}


def no_grab_bags(source: Source) -> Iterator[Violation]:
    return rules.no_grab_bags(source, allowed=NAMED_MANAGER)


@cache
def package() -> list[Source]:
    found = rules.sources(ROOT / "src" / "trimtab")
    assert {"errors.py", "verification/verdict.py"} <= {source.path for source in found}
    return found


@pytest.mark.parametrize(
    "rule",
    [
        rules.only_the_verifier_seals,
        rules.no_unsafe_serialization,
        rules.core_reads_no_environment,
        rules.controller_opens_nothing,
        rules.broad_excepts_give_a_reason,
        no_grab_bags,
        rules.at_most(600),
    ],
    ids=lambda rule: rule.__name__ if rule.__name__ != "rule" else "at_most_600_lines",
)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert rules.violations(rule, package()) == []


def test_no_test_file_is_longer_than_800_lines() -> None:
    assert rules.violations(rules.at_most(800), rules.sources(ROOT / "tests")) == []


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples"])
def test_whatever_silences_a_check_says_why(folder: str) -> None:
    found = rules.sources(ROOT / folder)
    assert found
    assert rules.violations(rules.suppressions_give_a_reason, found) == []


def test_the_verifier_is_the_one_that_seals() -> None:
    # Where `seal` is renamed or moved, the rule above would find nothing and still pass.
    text = {source.path: source.text for source in package()}
    assert "def seal(" in text["verification/verdict.py"]
    assert "import" in text["verification/verifier.py"]
    assert "seal(" in text["verification/verifier.py"]
