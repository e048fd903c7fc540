"""The README's code runs as it stands, early in the file, and leaves a run that the commands can read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_code_runs_and_the_record_verifies(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    assert text[: text.index("```python")].count("\n") < 30
    assert text.count("\n") < 150
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, check=True, timeout=100)
    managers = (README.parent / "docs" / "managers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1:]
    manager = re.search(r"```python\n(from trimtab.*?)```", managers, re.DOTALL)
    assert manager is not None
    for block in (*blocks, manager[1]):
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True, timeout=100)
    command = [sys.executable, "-c", "from trimtab.cli.app import main; main()"]
    for words in (["runs"], ["show", "runs/run-1"], ["verify", "runs/run-1"]):
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "run-1" in done.stdout
