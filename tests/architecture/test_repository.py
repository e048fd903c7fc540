"""What is committed names no machine and says the same thing everywhere."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.architecture import source_rules as rules
from tests.architecture.source_rules import Source

ROOT: Final = Path(__file__).parents[2]
_NOT_OURS: Final = {".git", ".venv", ".hypothesis", ".pytest_cache", ".ruff_cache", "__pycache__", "build", "dist", "runs"}


def committed_files(root: Path) -> list[Path]:
    """Return what git would commit; where there is no git, what does not look made by a tool."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    if listed:
        return [file for name in listed.split("\0") if name and (file := root / name).is_file()]
    found = (file for file in root.rglob("*") if not _NOT_OURS & set(file.relative_to(root).parts))
    return [file for file in found if file.is_file()]


def texts(root: Path, files: Iterable[Path]) -> list[Source]:
    """Read the files that are text."""
    read: list[Source] = []
    for file in files:
        try:
            read.append(Source(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return read


def unpinned(project: dict[str, Any], constraints: str) -> list[str]:
    """Return the direct dependencies that constraints.txt does not pin to one version."""
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==\S+$", constraints, flags=re.MULTILINE)}
    direct = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = [re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower() for requirement in direct]
    return sorted({name for name in names if name not in pinned})


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_no_committed_file_names_a_machine() -> None:
    files = texts(ROOT, committed_files(ROOT))
    assert {"pyproject.toml", "Makefile", "src/trimtab/errors.py"} <= {file.path for file in files}
    assert rules.violations(rules.no_machine_paths, files) == []


def test_a_planted_machine_path_is_found_without_git(tmp_path: Path) -> None:
    place = f"see {tmp_path.root}root{tmp_path.root}x"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "own.txt").write_text(place)
    (tmp_path / "notes.md").write_text(f"first\n{place}")
    (tmp_path / "picture.bin").write_bytes(b"\xff\xfe\x00")
    found = rules.violations(rules.no_machine_paths, texts(tmp_path, committed_files(tmp_path)))
    assert [line.rpartition(": ")[0] for line in found] == ["notes.md:2: a path of one machine"]


def test_every_direct_dependency_is_pinned() -> None:
    assert unpinned(pyproject()["project"], (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def test_a_dependency_without_a_pin_is_found() -> None:
    project = {"dependencies": ["pydantic>=2", "rich"], "optional-dependencies": {"dev": ["pyright[nodejs]>=1"]}}
    assert unpinned(project, "# rich==1\npydantic==2.0\nrich>=13") == ["pyright", "rich"]


def test_constraints_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if line and not re.fullmatch(r"#.*|[a-z0-9-]+==[0-9.]+", line)]
    assert wrong == []


def core_packages(contracts: list[dict[str, Any]]) -> list[str]:
    """Return the layers from controller down, as the layers contract has them."""
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    return [f"trimtab.{layer}" for layer in layers[layers.index("controller") :]]


def test_the_core_contract_covers_every_layer_from_controller_down() -> None:
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    core = next(contract for contract in contracts if contract["id"] == "core")
    assert core["source_modules"] == core_packages(contracts)
    assert len(core["source_modules"]) >= 9
