from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UsageError
from trimtab.runtime.launch import COMMAND, HASH_EVERY, NAMES, OFFLINE, RESUME, RUN_DIR, TRACE, Launch

PATHS = st.text("abc/ :=\u00e9", min_size=1, max_size=12).map(lambda text: Path("/" + text))


@given(
    st.builds(
        Launch,
        resume=st.none() | PATHS,
        run_dir=st.none() | PATHS,
        hash_every_steps=st.none() | st.integers(0, 10**9),
        command=st.none() | st.text('{}"a\n', min_size=1),
        is_offline=st.booleans(),
        trace=st.none() | st.tuples(st.integers(1, 10**9), PATHS),
    )
)
def test_a_process_takes_what_it_was_told_once_and_leaves_the_rest(launch: Launch) -> None:
    environ = {"PATH": "/bin"} | launch.environment()
    assert Launch.take(environ) == launch
    assert environ == {"PATH": "/bin"}
    assert Launch.take(environ) == Launch()


def test_paths_hold_in_another_directory() -> None:
    told = Launch(resume=Path("a"), run_dir=Path("b"), trace=(3, Path("c"))).environment()
    assert told == {RESUME: str(Path.cwd() / "a"), RUN_DIR: str(Path.cwd() / "b"), TRACE: f"3:{Path.cwd() / 'c'}"}


def test_hashes_can_be_switched_off_and_left_to_the_script() -> None:
    assert Launch(hash_every_steps=0).environment() == {HASH_EVERY: "0"}
    assert Launch().environment() == {}
    assert Launch.take({HASH_EVERY: "", RESUME: "", TRACE: "", OFFLINE: "", COMMAND: ""}) == Launch()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (HASH_EVERY, "-1"),
        (HASH_EVERY, "1.5"),
        (HASH_EVERY, "\u0663"),
        (TRACE, "x:/trace"),
        (TRACE, ":/trace"),
        (TRACE, "/trace"),
        (TRACE, "5"),
        (TRACE, "5:"),
        (TRACE, "0:/trace"),
    ],
)
def test_what_it_cannot_be_is_refused_by_name_and_taken_all_the_same(name: str, value: str) -> None:
    environ = {name: value}
    with pytest.raises(UsageError, match=name):
        Launch.take(environ)
    assert environ == {}


def test_every_variable_is_trimtabs_own() -> None:
    assert all(name.startswith("TRIMTAB_") for name in NAMES)
    assert len(set(NAMES)) == 6
