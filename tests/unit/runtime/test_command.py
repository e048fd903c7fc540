"""The command of a run: enough to start it again, nothing that nobody may see, and what has changed since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import RunDirectoryError
from trimtab.runtime.command import Command, read_command, this_command, write_command

SECRETS = {
    "OPENAI_API_KEY": "hidden-1",
    "ANTHROPIC_API_KEY": "hidden-2",
    "HF_TOKEN": "hidden-3",
    "WANDB_API_KEY": "hidden-4",
    "AWS_SECRET_ACCESS_KEY": "hidden-5",
    "TORCH_HUB_TOKEN": "hidden-6",
    "NCCL_DB_PASSWORD": "hidden-7",
    "HOME": "/home/ada",
    "PATH": "/secret/bin",
    "MY_OMP_THREADS": "eleven",
}
KEPT = {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}


def test_of_the_environment_only_what_bears_on_the_computation_is_kept(tmp_path: Path) -> None:
    command = Command.of(["python", "-c", "pass"], tmp_path, SECRETS | KEPT)
    assert command.environment == KEPT
    assert not any(secret in command.to_json() for secret in SECRETS.values())


@given(st.dictionaries(st.text("ABKEYTOKNSCR_", min_size=1, max_size=12), st.just("hidden"), max_size=6))
def test_a_variable_of_any_other_name_is_not_kept(environ: dict[str, str]) -> None:
    assert Command.of(["python", "x.py"], Path("/"), environ).environment == {}


def test_it_is_started_again_with_the_variables_of_then_and_all_others_of_now(tmp_path: Path) -> None:
    command = Command.of(["python", "x.py"], tmp_path, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"})
    now = {"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "3", "OPENAI_API_KEY": "sk", "PATH": "/bin"}
    assert command.environment_in(now) == {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "2",
        "OPENAI_API_KEY": "sk",
        "PATH": "/bin",
    }
    assert now["OMP_NUM_THREADS"] == "8"


def test_it_reads_back_whatever_its_arguments_are(tmp_path: Path) -> None:
    script = tmp_path / "trän.py"
    script.write_text("pass")
    words = ["python", "trän.py", "--name", "a b\n\u2028", "\udcff", ""]
    command = Command.of(words, tmp_path, KEPT)
    path = tmp_path / "command.json"
    write_command(path, command.to_json())
    assert read_command(path) == command
    assert command.script == str(script)
    assert command.arguments == tuple(words)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"schema":"trimtab/command/1"}'],
)
def test_a_damaged_or_missing_file_says_how_to_go_on_without_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "command.json"
    with pytest.raises(RunDirectoryError, match="not known"):
        read_command(path)
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="by hand") as refused:
        read_command(path)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("change", [{"more": 1}, {"schema": "trimtab/command/2"}, {"arguments": "python"}, {"script": None}])
def test_unknown_fields_and_other_forms_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    tree = json.loads(Command.of(["python"], tmp_path, {}).to_json())
    path = tmp_path / "command.json"
    path.write_text(json.dumps(tree | change))
    with pytest.raises(RunDirectoryError, match="not known"):
        read_command(path)


def test_a_script_that_changed_or_is_gone_is_named(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("one")
    command = Command.of(["python", "-u", "train.py", "config.py"], tmp_path, {})
    assert command.changes() == ()
    script.write_text("two")
    assert command.changes() == (f"{script} has changed since",)
    script.unlink()
    assert command.changes() == (f"{script} is gone",)


@pytest.mark.parametrize("words", [["python", "-c", "pass"], ["python", "-m", "pkg"], ["python", "missing.py"], ["a.py"], []])
def test_a_command_without_a_script_has_none_to_change(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "a.py").write_text("the program itself is no argument")
    command = Command.of(words, tmp_path, {})
    assert (command.script, command.script_hash, command.changes()) == ("", "", ())


CODE = "from trimtab.runtime.command import this_command\nfound = this_command()\nprint(found and found.to_json())\n"


def started(*words: str, code: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *words], input=code, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_knows_how_it_was_started(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(CODE)
    found = json.loads(started("-W", "error", str(script), "--steps", "3"))
    assert found["arguments"] == [sys.executable, "-W", "error", str(script), "--steps", "3"]
    assert found["script"] == str(script)
    assert found["directory"] == str(Path.cwd())
    assert json.loads(started("-c", CODE))["arguments"] == [sys.executable, "-c", CODE]


@pytest.mark.parametrize("words", [(), ("-",), ("-", "--steps"), ("-i",)])
def test_what_is_typed_or_piped_in_cannot_be_started_again(words: tuple[str, ...]) -> None:
    assert started(*words, code=CODE).splitlines()[-1] == "None"


def test_a_notebook_cannot_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_command() is not None
    monkeypatch.setitem(sys.modules, "ipykernel", os)
    assert this_command() is None


def test_a_secret_of_the_environment_is_not_kept_as_an_argument_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-a-long-secret-value")
    command = Command.of(["python", "train.py", "--key=sk-a-long-secret-value"], tmp_path, {})
    assert command.arguments[2] == "--key=sk-a-long-secret-value", "it is started as it was typed"
    path = tmp_path / "command.json"
    write_command(path, command.to_json())
    assert "sk-a-long" not in path.read_text()
    with pytest.raises(RunDirectoryError, match="the command holds a secret, which was not recorded"):
        read_command(path)
