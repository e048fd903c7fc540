"""The rules that import-linter cannot see, as functions from a source file to its violations."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: its path inside the package, such as ``ledger/record.py``, and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Violation:
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Rule = Callable[[Source], Iterable[Violation]]

_SERIALIZERS: Final = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
_TENSOR_FILES: Final = {"torch.load", "torch.save", "torch.jit.load", "torch.package", "torch.serialization", "numpy.load"}
_ENVIRONMENT: Final = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.urandom", "os.getrandom", "os.times"}
_CORE: Final = {
    "controller", "ledger", "actuation", "verification", "decision", "diagnosis", "telemetry", "controls", "errors.py",
}  # fmt: skip
_GRAB_BAGS: Final = {"util", "utils", "utility", "helper", "helpers", "common", "misc", "manager", "managers", "shared"}

_SUPPRESSION: Final = re.compile(r"\b(noqa|(type|pyright): *ignore|pragma)\b")
_REASONED: Final = re.compile(r"(noqa: [A-Z]+\d+(, [A-Z]+\d+)*|(type|pyright): ignore\[[\w, -]+\]) - \S+( \S+)+")


def sources(root: Path) -> list[Source]:
    """Read every Python file under ``root``."""
    files = sorted(root.rglob("*.py"))
    return [Source(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in files]


def violations(rule: Rule, files: Iterable[Source]) -> list[str]:
    """Apply a rule to every file, ready to be shown."""
    return [str(violation) for file in files for violation in rule(file)]


def only_the_verifier_seals(source: Source) -> Iterator[Violation]:
    """Only verification/verifier.py may use `seal`, and nobody else the key behind it."""
    if source.path in ("verification/verdict.py", "verification/verifier.py"):
        return
    for node, name in _references(source):
        module, _, last = name.rpartition(".")
        if last in ("seal", "_KEY", "*") and module == "trimtab.verification.verdict":
            yield Violation(source.path, node.lineno, f"{name}: only the verifier makes a VerifiedAction")


def no_unsafe_serialization(source: Source) -> Iterator[Violation]:
    """State is kept as safetensors and JSON: reading it never runs code."""
    for node, name in _references(source):
        prefixes = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        if name.split(".")[0] in _SERIALIZERS or prefixes & _TENSOR_FILES:
            yield Violation(source.path, node.lineno, f"{name}: keep state as safetensors and JSON")
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield Violation(source.path, node.lineno, "allow_pickle: keep state as safetensors and JSON")


def core_reads_no_environment(source: Source) -> Iterator[Violation]:
    """From controller down nothing depends on the machine: not its environment, nor its hash seed."""
    if source.path.split("/")[0] not in _CORE:
        return
    for node, name in _references(source):
        if any(name == forbidden or name.startswith(forbidden + ".") for forbidden in _ENVIRONMENT):
            yield Violation(source.path, node.lineno, f"{name}: pass it in from the runtime")
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            yield Violation(source.path, node.lineno, "hash(): not the same in every process")


def controller_opens_nothing(source: Source) -> Iterator[Violation]:
    """The controller is a pure state machine: values in, values out."""
    if not source.path.startswith("controller/"):
        return
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield Violation(source.path, node.lineno, "open(): the controller has no files")
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            yield Violation(source.path, node.lineno, "global state: fold it from ledger records")


def broad_excepts_give_a_reason(source: Source) -> Iterator[Violation]:
    """Outside runtime, a broad except has its reason in a comment on its line."""
    if source.path.startswith("runtime/"):
        return
    comments = _comments(source)
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
            reason = re.sub(r"#|\b(noqa|pyright|type|pragma)\b:?\s*[\w\[\], ]*", "", comments.get(node.lineno, "")).strip()
            if len(reason.split()) < 3:
                yield Violation(source.path, node.lineno, "broad except: catch less, or give the reason on this line")


def suppressions_give_a_reason(source: Source) -> Iterator[Violation]:
    """What silences a check says on its line which rule it silences, and why: ``# noqa: S603 - our own words, no shell``."""
    for line, comment in _comments(source).items():
        for found in _SUPPRESSION.finditer(comment):
            if not _REASONED.match(comment, found.start()):
                yield Violation(
                    source.path, line, f"{found.group()}: give the rule in brackets or after noqa, then ` - ` and why"
                )


def no_grab_bags(source: Source, allowed: Iterable[str] = ()) -> Iterator[Violation]:
    """A module is named for its stage or its subject, not for being useful."""
    parts = PurePosixPath(source.path).with_suffix("").parts
    if source.path not in allowed and _GRAB_BAGS & {part.strip("_") for part in parts}:
        yield Violation(source.path, 1, "a grab-bag name: say what is in it")


def at_most(max_lines: int) -> Rule:
    """Return the rule that no file is longer than ``max_lines``."""

    def rule(source: Source) -> Iterator[Violation]:
        num_lines = len(source.text.splitlines())
        if num_lines > max_lines:
            yield Violation(source.path, num_lines, f"{num_lines} lines, at most {max_lines}: split it")

    return rule


def no_machine_paths(source: Source) -> Iterator[Violation]:
    """No file names a folder of the machine it was written on."""
    # Written so that this file does not hold such a path itself.
    pattern = re.compile(
        r"(?:file://|(?<![\w.~*\]})/-]))/(?:(?:work|root|workspace)/|(?:home|Users)/(?!USER|NAME|user\b|me\b)\w+/)"
    )
    for number, line in enumerate(source.text.splitlines(), start=1):
        if pattern.search(line):
            yield Violation(source.path, number, f"a path of one machine: {line.strip()[:80]}")


def _references(source: Source) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Yield every imported name and every attribute of one, dotted from its package."""
    tree = _tree(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
                root = alias.name.split(".")[0]
                bound[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, source.path)
            for alias in node.names:
                yield node, f"{module}.{alias.name}"
                bound[alias.asname or alias.name] = f"{module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
            root, _, rest = dotted.partition(".")
            if root in bound:
                yield node, f"{bound[root]}.{rest}"
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            yield node, name


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module or ""
    package = ("trimtab", *PurePosixPath(path).parts)[: -node.level]
    return ".".join((*package, *([node.module] if node.module else [])))


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return None


def _imported_by_call(node: ast.Call) -> str | None:
    function = (_dotted(node.func) or "").rpartition(".")[2]
    first = node.args[0] if node.args else None
    if function in ("import_module", "__import__") and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return None


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(one) for one in caught.elts)
    return caught is None or (_dotted(caught) or "").rpartition(".")[2] in ("Exception", "BaseException")


def _comments(source: Source) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


@cache
def _tree(source: Source) -> ast.Module:
    return ast.parse(source.text, filename=source.path)
