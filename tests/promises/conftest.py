"""The checks of the promises: each gets a tally, and has to count what it tried.

Without ``--full`` a portion with fixed seeds is tried, as in every test run.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest

from tests.promises.counting import PROPERTY, Tally, promise_of

_FULL_SECONDS: Final = 7200


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="try all cases of every promise, which takes long")


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--full", default=False))  # without it where the whole suite is collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_full(config):
        for item in items:
            if promise_of(item.path) is not None:
                item.add_marker(pytest.mark.timeout(_FULL_SECONDS))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """What this check tries; it has to count something."""
    promise = promise_of(request.path)
    assert promise is not None, f"{request.path.name} is not named for a promise"
    return Tally(promise, is_full(request.config))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    tally: object = pyfuncitem.funcargs.get("tally")
    try:
        result = yield
    finally:
        if isinstance(tally, Tally):
            pyfuncitem.user_properties.append((PROPERTY, tally.as_tree()))
    if isinstance(tally, Tally) and (shortfall := tally.shortfall()):
        pytest.fail(shortfall, pytrace=False)
    return result
