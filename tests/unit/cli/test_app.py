from __future__ import annotations

import subprocess
import sys

import pytest

import trimtab
from trimtab.cli.app import main


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("demo", "init", "envelope", "calibrate", "show", "runs", "verify", "--version"))


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trimtab {trimtab.__version__}\n"


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["shwo"])
    assert ended.value.code == 2
    assert "shwo" in capsys.readouterr().err


def test_the_help_imports_no_torch() -> None:
    script = (
        "import sys\nfrom trimtab.cli.app import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert {"trimtab", "typer"} <= loaded
    assert not loaded & {"torch", "numpy", "safetensors"}


@pytest.mark.parametrize("module", ["trimtab", "trimtab.cli.app"])
def test_python_runs_the_command_line_as_a_module(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"trimtab {trimtab.__version__}\n")
