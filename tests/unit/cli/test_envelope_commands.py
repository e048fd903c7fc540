"""`init`, `envelope check` and `calibrate`, as a user calls them."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from trimtab.cli.app import main
from trimtab.controls.envelope_file import load_envelope
from trimtab.controls.preset import load_preset, preset_names

SETUP = """
import torch
from torch import nn
from trimtab.integrations.pytorch.calibration import CalibrationSetup

def make():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.randn(256, 8)
    y = (x[:, :2].sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr={rate}, momentum=0.9)
    def step(batch):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        return loss
    return CalibrationSetup(model, optimizer, step, [list(range(at, at + 32)) for at in range(0, 256, 32)])

def nothing():
    return None

def broken():
    return [1][torch.tensor(1)]

def breaks_later():
    setup = make()
    def step(batch):
        raise KeyError("no such batch")
    return CalibrationSetup(setup.model, setup.optimizer, step, setup.loader)
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", list(sys.path))


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def plain(text: str) -> str:
    """Return printed text as one line."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", preset_names())
def test_init_writes_the_preset_with_its_comments_and_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, err = call(capsys, "init", "--preset", name)
    assert (code, err) == (0, "")
    assert Path("trimtab.yaml").read_text(encoding="utf-8") == load_preset(name).text
    assert 'envelope="trimtab.yaml"' in out
    for control in load_preset(name).envelope().controls:
        if control.name in ("clip_range", "target_kl", "exploration_noise", "ema_decay"):
            assert f'trimtab.handle("{control.name}", OBJECT, "ATTRIBUTE"),' in out
    assert ("trimtab.GradientClip(" in out) == ("gradient_clip_norm" in load_preset(name).envelope())


def test_the_call_that_init_prints_is_python(capsys: pytest.CaptureFixture[str]) -> None:
    for name in preset_names():
        _, out, _ = call(capsys, "init", "--preset", name, "--force")
        lines = [line[4:] for line in out.splitlines() if line.startswith("    ")]
        compile("\n".join(lines), "printed", "exec")
        assert "supervisor = trimtab.supervise(" in lines


def test_init_replaces_nothing_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trimtab.yaml").write_text("mine", encoding="utf-8")
    code, _, err = call(capsys, "init")
    assert code == 2
    assert "--force" in err
    assert Path("trimtab.yaml").read_text(encoding="utf-8") == "mine"
    assert call(capsys, "init", "--force")[0] == 0
    assert load_envelope(Path("trimtab.yaml")) == load_preset("small_transformer").envelope()


def test_init_refuses_what_it_cannot_write(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "init", "--out", "missing/trimtab.yaml")
    assert code == 2
    assert "cannot be written" in err
    code, _, err = call(capsys, "init", "--preset", "vision_cn")
    assert code == 2
    assert "did you mean 'vision_cnn'?" in err
    assert list(Path().iterdir()) == []


def test_init_lists_each_preset_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "init", "--list")
    assert code == 0
    assert all(f"{name} {load_preset(name).summary}" in plain(out) for name in preset_names() if name != "off_policy")
    assert list(Path().iterdir()) == []


CHECKED = """\
schema: trimtab/envelope/1
objective: maximize val/accuracy
controls:
  learning_rate: {low: 1e-4, high: 1e-2, moves: {multiply: [0.5, 2]}, largest_change: 2}
  batch_size: {low: 16, high: 64, rate_scaling: sqrt, when: boundary}
  dropout/encoder: {low: 0, high: 0.2, modules: "encoder.*", max_values: 3, moves: {set: [0, 0.1, 0.2, 0.3]}}
signals: {entropy: rollout/ent}
deliberation: {boundary_every_steps: 100}
"""


def test_check_explains_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text(CHECKED, encoding="utf-8")
    code, out, err = call(capsys, "envelope", "check", "my.yaml")
    assert (code, err) == (0, "")
    for told in (
        "my.yaml · maximize val/accuracy",
        "learning_rate 0.0001 to 0.01",
        "multiply by 0.5, 2",
        "a factor of 2 at once, 1000 from the start",
        "one move from 0.001 reaches 0.0005, 0.002; up to 0.008 in 3 moves, down to 0.000125 in 3 moves",
        "at boundaries only, stands for 50 steps, shows after 10",
        "whole numbers only; takes the learning rate along (sqrt)",
        "at most 3 distinct values in a run; acts on modules encoder.*; a new value recompiles",
        "16 interventions, of them 10 rollbacks; at most 3 controls at a time; may ask the run to stop",
        "training does not wait; the answer has 30 s, is applied 10 steps after the question, and is dropped after 200",
        "every 100 steps; answers wait for it",
        "goes back to the last good state",
        "entropy is rollout/ent",
        "warning: dropout/encoder: set 0.3 can never be reached: not within 0 to 0.2",
    ):
        assert told in plain(out), told
    assert "nothing odd" not in out


@pytest.mark.parametrize(("mode", "applies"), [("win", "is better"), ("veto", "is not worse")])
def test_check_says_what_guard_and_canary_would_do(capsys: pytest.CaptureFixture[str], mode: str, applies: str) -> None:
    call(capsys, "init")
    _, out, _ = call(capsys, "envelope", "check", "trimtab.yaml")
    assert "takes back what loses more than 2.00% of the objective or 3 times its noise, whichever is more" in plain(out)
    assert "canary off: proposals are applied without a trial" in plain(out)
    Path("trimtab.yaml").write_text(
        f"{load_preset('small_transformer').text}\ncanary: {{mode: {mode}}}\nguard: {{armed: false}}\n", encoding="utf-8"
    )
    _, out, _ = call(capsys, "envelope", "check", "trimtab.yaml")
    tries = f"tries a proposal for 30 steps and 10 of decay, with a look after 10, and applies what {applies}; at most 15%"
    assert f"canary {tries} of the steps" in plain(out)
    assert "trial costs up to 54 steps, so none begins before step 360" in plain(out)
    assert "guard disarmed: what does harm stays" in plain(out)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("columns", [60, 120])
def test_check_finds_nothing_odd_in_a_preset_and_keeps_to_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    Path("my.yaml").write_text(load_preset(name).text, encoding="utf-8")
    code, out, _ = call(capsys, "envelope", "check", "my.yaml")
    assert code == 0
    assert "nothing odd" in out
    assert max(map(len, out.splitlines())) <= columns


MANAGER = """\
manager: {guidance: Labels are noisy, stages: 2, output: text, briefing_tokens: 4000, temperature: 0.2, device: cuda,
  calls: 1, tokens: 5000, usd: 2.5, fallback: no_action, breaker_failures: 2, breaker_questions: 1, approval_default: approve}
"""


def test_check_says_what_is_set_of_the_manager(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text(CHECKED + MANAGER, encoding="utf-8")
    code, out, err = call(capsys, "envelope", "check", "my.yaml")
    assert (code, err) == (0, "")
    for told in (
        "guidance Labels are noisy",
        "model two calls a question: one reasons in prose, one transcribes it; the schema is asked for in the text alone;",
        "a prompt has at most 4000 tokens; temperature 0.2; a local one runs on cuda",
        "caps in the whole run at most 1 call, 5000 tokens, 2.5 USD; the model's price must be known, or given here",
        "fallback when the manager fails, nobody answers: no action",
        "breaker after 2 failures in a row it is not asked 1 question, and then tried again",
        "approval what no person approves or rejects is approved; a person has 200 steps and 30 seconds, whichever ends first",
        "warning: manager.approval_default is approve",
    ):
        assert told in plain(out), told
    assert "prices" not in out
    tree = json.loads(call(capsys, "envelope", "check", "my.yaml", "--json")[1])
    assert (tree["manager"]["usd"], "reply_tokens" in tree["manager"]) == (2.5, False)


def test_check_is_silent_about_a_manager_as_it_is_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text(CHECKED + "manager: {stages: 1, fallback: by_kind}\n", encoding="utf-8")
    out = call(capsys, "envelope", "check", "my.yaml")[1]
    assert not any(label in out for label in ("guidance", "model ", "caps", "fallback", "breaker", "approval"))
    assert json.loads(call(capsys, "envelope", "check", "my.yaml", "--json")[1])["manager"] == {}


def test_check_with_both_prices_says_them_and_asks_for_none(capsys: pytest.CaptureFixture[str]) -> None:
    said = "manager: {usd: 2, input_usd_per_million: 0.5, output_usd_per_million: 1.5, breaker_failures: 0}\n"
    Path("my.yaml").write_text(CHECKED + said, encoding="utf-8")
    out = plain(call(capsys, "envelope", "check", "my.yaml")[1])
    assert "prices 0.5 USD for a million tokens read, 1.5 USD for a million written" in out
    assert "caps in the whole run at most 2 USD breaker" in out.replace(
        "prices 0.5 USD for a million tokens read, 1.5 USD for a million written ", ""
    )
    assert "breaker off: the manager is asked however often it fails" in out


def test_check_as_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text(CHECKED, encoding="utf-8")
    tree = json.loads(call(capsys, "envelope", "check", "my.yaml", "--json")[1])
    assert tree["objective"] == "maximize val/accuracy"
    assert tree["controls"]["learning_rate"]["up"] == {"num_moves": 3, "value": pytest.approx(0.008)}
    assert len(tree["warnings"]) == 1


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("low: 1e-4", "low: 1", "my.yaml:4:18: the bounds are reversed"),
        ("objective", "objectiv", "my.yaml:2:1: unknown key"),
        ("{entropy:", "{entropie:", "my.yaml:7:11: there is no such role for a signal"),
    ],
)
def test_check_names_line_and_column_of_a_slip(
    capsys: pytest.CaptureFixture[str], written: str, instead: str, says: str
) -> None:
    Path("my.yaml").write_text(CHECKED.replace(written, instead), encoding="utf-8")
    code, out, err = call(capsys, "envelope", "check", "my.yaml")
    assert (code, out) == (2, "")
    assert says in plain(err)


def setup(name: str, rate: float = 0.01) -> str:
    Path(f"{name}.py").write_text(SETUP.replace("{rate}", str(rate)), encoding="utf-8")
    return f"{name}:make"


def test_calibrate_prints_what_it_found_and_writes_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    where, path = setup("calibrated_once"), Path("trimtab.yaml")
    call(capsys, "init", "--preset", "vision_cnn")
    text = path.read_text(encoding="utf-8").replace("high: 0.4", "high: 40.0 # by me")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o640)
    code, out, _ = call(capsys, "calibrate", where)
    assert code == 0
    assert "found: the loss falls from" in plain(out)
    assert "narrowed high 40 ->" in plain(out)
    assert "Nothing was written" in out
    assert path.read_text(encoding="utf-8") == text
    code, out, _ = call(capsys, "calibrate", where, "--write")
    assert code == 0
    assert "wrote trimtab.yaml" in out
    before, after = text.splitlines(), path.read_text(encoding="utf-8").splitlines()
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert 1 <= len(changed) <= 2
    assert changed[-1][1].endswith(" # by me")
    assert load_envelope(path).control("learning_rate").bounds.high < 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(entry.suffix for entry in Path().iterdir() if entry.is_file()) == [".py", ".yaml"]


def test_calibrate_with_nothing_to_narrow_leaves_the_file_alone(capsys: pytest.CaptureFixture[str]) -> None:
    where = setup("calibrated_narrow")
    text = "schema: trimtab/envelope/1\nobjective: minimize a\ncontrols: {learning_rate: {low: 0.009, high: 0.011}}\n"
    Path("trimtab.yaml").write_text(text, encoding="utf-8")
    code, out, _ = call(capsys, "calibrate", where, "--write", "--steps", "40")
    assert code == 0
    assert "stays as it is" in out
    assert Path("trimtab.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no_such_module:make",), "there is no such function"),
        (("calibrated_wrong:mak",), "there is no such function"),
        (("calibrated_wrong",), "there is no such function"),
        (("",), "there is no such function"),
        (("calibrated_wrong:nothing",), "the function returns no setup"),
        (("calibrated_wrong:make", "--steps", "5"), "num_steps is out of range"),
        (("calibrated_wrong:make", "--envelope", "other.yaml"), "cannot be read"),
    ],
)
def test_calibrate_refuses_what_it_cannot_use(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    setup("calibrated_wrong")
    call(capsys, "init")
    code, _, err = call(capsys, "calibrate", *arguments)
    assert code == 2
    assert says in plain(err)


@pytest.mark.parametrize(
    ("function", "raised", "line"),
    [
        ("broken", "IndexError: list index out of range", "in broken: return [1][torch.tensor(1)]"),
        ("breaks_later", "KeyError: 'no such batch'", 'in step: raise KeyError("no such batch")'),
    ],
)
def test_what_the_users_own_code_raises_is_told_with_its_own_lines_alone(
    capsys: pytest.CaptureFixture[str], function: str, raised: str, line: str
) -> None:
    setup(f"calibrated_{function}")
    call(capsys, "init")
    code, _, err = call(capsys, "calibrate", f"calibrated_{function}:{function}")
    assert code == 2
    first, second, third, last = (told.strip() for told in err.strip().splitlines())
    assert (first.endswith("raised an error"), second, last) == (True, raised, "next:  correct it, and call again")
    assert f"calibrated_{function}.py:" in third
    assert third.endswith(line)


def test_a_module_that_cannot_be_imported_is_told_as_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "init")
    for name, text, raised in (
        ("calibrated_torn", "def make(:\n", "SyntaxError: invalid syntax (calibrated_torn.py, line 1)"),
        ("calibrated_missing", "import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        (
            "calibrated_value",
            "x = 1\nraise ValueError('mine')\n",
            "calibrated_value.py:2 in <module>: raise ValueError('mine')",
        ),
    ):
        Path(f"{name}.py").write_text(text, encoding="utf-8")
        code, _, err = call(capsys, "calibrate", f"{name}:make")
        assert code == 2
        assert err.startswith(f"error: {name} raised an error\n")
        assert raised in err


def test_a_rate_to_start_with_is_one_that_the_envelope_allows(capsys: pytest.CaptureFixture[str]) -> None:
    where = setup("calibrated_start")
    text = "schema: trimtab/envelope/1\nobjective: minimize a\ncontrols:\n  learning_rate: {low: 1e-3, high: 0.02}\n"
    Path("trimtab.yaml").write_text(text, encoding="utf-8")
    code, out, _ = call(capsys, "calibrate", where, "--steps", "40")
    assert code == 0
    assert "a rate to start with: 0.02, the highest that the envelope allows; " in plain(out)


def test_values_that_differ_are_shown_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = "schema: trimtab/envelope/1\nobjective: minimize a\ncontrols:\n"
    ema = "  ema_decay: {low: 0.99, high: 0.999999, moves: {set: [0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999]}}\n"
    Path("my.yaml").write_text(text + ema, encoding="utf-8")
    out = plain(call(capsys, "envelope", "check", "my.yaml")[1])
    assert "ema_decay 0.99 to 0.999999" in out
    assert "set to 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999" in out
    assert "one move from 0.9995 reaches 0.99, 0.995, 0.999, 0.9999, 0.99999; up to 0.99999 in 1 move" in out


def test_calibrate_asks_for_the_learning_rate_before_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    text = "schema: trimtab/envelope/1\nobjective: minimize a\ncontrols: {}\n"
    Path("trimtab.yaml").write_text(text, encoding="utf-8")
    code, _, err = call(capsys, "calibrate", "no_such_module:make")
    assert code == 2
    assert "no such control" in err
