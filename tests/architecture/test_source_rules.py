"""Each rule finds a planted violation and lets through what is close to one."""

from __future__ import annotations

import pytest

from tests.architecture import source_rules as rules
from tests.architecture.source_rules import Rule, Source


def under(*parts: str) -> str:
    # Joined, so that this file does not hold a path of a machine itself.
    return "/" + "/".join(parts)


# Texts for the rules to judge, which nobody runs.
CAUGHT_ALL = "try:\n    f()\nexcept Exception:{}\n    pass"  # no handler: a text, with room for a comment
SILENCED = "f(1)  # type: ignore"  # nothing is silenced: a text without the reason that the rule demands

PLANTED: list[tuple[Rule, str, str]] = [
    (rules.only_the_verifier_seals, "runtime/x.py", "from trimtab.verification.verdict import seal"),
    (rules.only_the_verifier_seals, "runtime/x.py", "from trimtab.verification.verdict import seal as stamp"),
    (rules.only_the_verifier_seals, "runtime/x.py", "from trimtab.verification import verdict\nverdict.seal(a, b, c, 1)"),
    (rules.only_the_verifier_seals, "runtime/x.py", "import trimtab.verification.verdict\ntrimtab.verification.verdict._KEY"),
    (rules.only_the_verifier_seals, "verification/case.py", "from .verdict import seal"),
    (rules.only_the_verifier_seals, "verification/constraints/x.py", "from ..verdict import _KEY"),
    (rules.only_the_verifier_seals, "runtime/x.py", "from trimtab.verification.verdict import *"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import pickle"),
    (rules.no_unsafe_serialization, "runtime/x.py", "def f():\n    from marshal import loads"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import torch\ntorch.load('x')"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import torch as t\nt.save({}, 'x')"),
    (rules.no_unsafe_serialization, "runtime/x.py", "from torch import load"),
    (rules.no_unsafe_serialization, "runtime/x.py", "from torch.serialization import load"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import importlib\nimportlib.import_module('dill')"),
    (rules.no_unsafe_serialization, "runtime/x.py", "__import__('shelve')"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import numpy as np\nnp.fromfile('x', allow_pickle=True)"),
    (rules.core_reads_no_environment, "ledger/x.py", "import os\nos.environ['HOME']"),
    (rules.core_reads_no_environment, "ledger/x.py", "import os\nos.environ.get('HOME')"),
    (rules.core_reads_no_environment, "ledger/x.py", "from os import getenv"),
    (rules.core_reads_no_environment, "decision/x.py", "def f(name):\n    return hash(name) % 3"),
    (rules.core_reads_no_environment, "errors.py", "import os\nos.urandom(8)"),
    (rules.controller_opens_nothing, "controller/x.py", "with open('x') as file:\n    pass"),
    (rules.controller_opens_nothing, "controller/x.py", "def f():\n    global count\n    count = 1"),
    (rules.broad_excepts_give_a_reason, "ledger/x.py", CAUGHT_ALL.format("")),
    (rules.broad_excepts_give_a_reason, "ledger/x.py", "try:\n    f()\nexcept:\n    pass"),
    (rules.broad_excepts_give_a_reason, "ledger/x.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
    (rules.broad_excepts_give_a_reason, "ledger/x.py", CAUGHT_ALL.format("  # noqa: BLE001, S110")),
    (rules.suppressions_give_a_reason, "ledger/x.py", "import os  # noqa"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "import os  # noqa: F401"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "import os  # noqa: F401  # why not"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "import os  # noqa: F401 - untyped"),
    (rules.suppressions_give_a_reason, "ledger/x.py", SILENCED),
    (rules.suppressions_give_a_reason, "ledger/x.py", f"{SILENCED} - it is a Sequential"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "f(1)  # pyright: ignore[reportPrivateUsage]"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "if f():  # pragma: no cover"),
    (rules.no_grab_bags, "ledger/utils.py", ""),
    (rules.no_grab_bags, "_common/x.py", ""),
    (rules.no_grab_bags, "runtime/manager.py", ""),
    (rules.at_most(3), "ledger/x.py", "a = 1\n" * 4),
    (rules.no_machine_paths, "README.md", f"see {under('work', 'main', 'file.py')}"),
    (rules.no_machine_paths, "README.md", f"file://{under('home', 'ada', 'runs')}"),
]

CLEAN: list[tuple[Rule, str, str]] = [
    (rules.only_the_verifier_seals, "verification/verifier.py", "from trimtab.verification.verdict import seal"),
    (rules.only_the_verifier_seals, "ledger/x.py", "from trimtab.verification.verdict import Accepted\nbook.seal()"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import torch\nmodel.load_state_dict(torch.zeros(1))\ncodec.load('x')"),
    (rules.no_unsafe_serialization, "runtime/x.py", "import json\njson.load(file)  # never pickle"),
    (rules.core_reads_no_environment, "runtime/x.py", "import os\nos.environ['HOME']"),
    (rules.core_reads_no_environment, "ledger/x.py", "import os\nos.fsync(3)"),
    (rules.controller_opens_nothing, "ledger/x.py", "open('x')"),
    (rules.broad_excepts_give_a_reason, "runtime/x.py", CAUGHT_ALL.format("")),
    (rules.broad_excepts_give_a_reason, "ledger/x.py", "try:\n    f()\nexcept OSError:\n    pass"),
    (
        rules.broad_excepts_give_a_reason,
        "ledger/x.py",
        "try:\n    f()\nexcept Exception:  # a user's object may fail\n    pass",
    ),
    (
        rules.broad_excepts_give_a_reason,
        "ledger/x.py",
        "try:\n    f()\nexcept Exception:  # noqa: BLE001 - a disk may fail\n    pass",
    ),
    (rules.suppressions_give_a_reason, "ledger/x.py", "import os  # noqa: F401, PLC0415 - it is there for the tests"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "f(1)  # type: ignore[index] - it is a Sequential"),
    (rules.suppressions_give_a_reason, "ledger/x.py", "a = '# noqa'  # a text"),
    (rules.no_grab_bags, "runtime/manager_process.py", ""),
    (rules.at_most(3), "ledger/x.py", "a = 1\n" * 3),
    (rules.no_machine_paths, "README.md", "runs/root/first, https://example.org/root/first and {folder}/root/"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), CLEAN)
def test_clean_code_passes(rule: Rule, path: str, text: str) -> None:
    assert rules.violations(rule, [Source(path, text)]) == []


def test_a_violation_says_where_it_is() -> None:
    [shown] = rules.violations(rules.no_unsafe_serialization, [Source("ledger/x.py", "a = 1\nimport pickle")])
    assert shown == "ledger/x.py:2: pickle: keep state as safetensors and JSON"
