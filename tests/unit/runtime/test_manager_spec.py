from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.runtime.workers import a_setup
from trimtab.controls.manager_settings import ManagerSettings
from trimtab.decision.no_action import NoActionManager
from trimtab.decision.random import RandomManager
from trimtab.decision.rules.manager import RulesManager
from trimtab.decision.scripted import ScriptedManager
from trimtab.errors import UsageError
from trimtab.runtime.manager_spec import ManagerSpec, build_manager


@pytest.mark.parametrize(
    ("text", "kind"),
    [("rules", RulesManager), ("no_action", NoActionManager), ("random", RandomManager), ("random:-7", RandomManager)],
)
def test_a_name_is_parsed_built_and_said_again(text: str, kind: type) -> None:
    spec = ManagerSpec.parse(text)
    assert str(spec) == text
    assert type(build_manager(spec, a_setup(Path()))) is kind


def test_a_script_is_named_by_its_path_with_any_colons(tmp_path: Path) -> None:
    path = tmp_path / "a:b.json"
    path.write_text(json.dumps([{"step": 1, "proposal": {"action": {"kind": "stop"}, "reason": "enough"}}]))
    spec = ManagerSpec.parse(f"scripted:{path}")
    assert isinstance(build_manager(spec, a_setup(Path())), ScriptedManager)
    assert str(spec) == f"scripted:{path}"


def test_a_class_is_imported_in_the_worker_only() -> None:
    assert ManagerSpec.parse("python:not_there:Nothing") == ManagerSpec("python", "not_there:Nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rulse", "there is no such manager; received rulse; allowed: rules, no_action, .* did you mean 'rules'?"),
        ("", "there is no such manager"),
        ("gpt", "known names: anthropic, external, google, .*, rules, schedule, scripted$"),
        ("rules:3", "the manager rules takes no argument; received rules:3"),
        ("no_action:x", "the manager no_action takes no argument"),
        ("random:seven", "the seed is not a whole number; received seven; allowed: random:7"),
        ("scripted", "the manager scripted needs an argument"),
        ("scripted:", "the manager scripted needs an argument"),
        ("python", "the manager python needs an argument"),
        ("python:not_there:Thing", "the manager.s module cannot be found; received not_there:Thing"),
        ("python:__main__:Thing", "a module that another process can import"),
        ("human:schedule:plan.yaml", "a person cannot approve this manager; received human:schedule:plan.yaml"),
        ("schedule", "the manager schedule needs an argument"),
        ("schedule:/not/there.yaml", "the schedule cannot be read; received /not/there.yaml"),
        ("human:external", "a person cannot approve this manager; received human:external"),
        ("human:rulse", "did you mean 'rules'?"),
        ("human", "the manager human needs an argument; received human; .* for example human:rules"),
        ("localhost:8000/v1", "did you mean 'http://localhost:8000/v1'"),
        ("localhost:8000", "did you mean 'http://localhost:8000/v1'"),
        ("10.0.0.7:8000/v1#qwen3:8b", "did you mean 'http://10.0.0.7:8000/v1#qwen3:8b'"),
        ("human:gpu-3:8000/v1", "did you mean 'http://gpu-3:8000/v1'"),
        ("randm:7", "did you mean 'random'"),
        ("gpt-4o-mini", "did you mean 'openai:gpt-4o-mini'"),
        ("o3-mini", "did you mean 'openai:o3-mini'"),
        ("claude-sonnet-4-5", "did you mean 'anthropic:claude-sonnet-4-5'"),
        ("gemini-2.5-pro", "did you mean 'google:gemini-2.5-pro'"),
        ("url:http://localhost/v1", "there is no such manager"),
        ("scripted:/not/there.json", "the script cannot be read; received /not/there.json"),
    ],
)
def test_a_wrong_name_is_refused_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ManagerSpec.parse(text).check(ManagerSettings())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("not_there:Thing", "No module named 'not_there'"),
        ("json:Nothing", "has no attribute 'Nothing'"),
        ("json", "the manager's class cannot be built"),
        ("fractions:Fraction", "the manager has no method propose"),
        ("trimtab.decision.random:RandomManager", None),
        ("pathlib:Path.cwd", "the manager's class cannot be built"),
        ("trimtab.decision.scripted:ScriptedManager", "a class that takes no arguments"),
    ],
)
def test_a_class_is_checked_when_it_is_built(argument: str, message: str | None) -> None:
    spec = ManagerSpec("python", argument)
    if message is None:
        assert isinstance(build_manager(spec, a_setup(Path())), RandomManager)
        return
    with pytest.raises(UsageError, match=message):
        build_manager(spec, a_setup(Path()))
