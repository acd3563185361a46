"""What a worker imports, and what it does not: each in a process of its own, where nothing is imported yet."""

from __future__ import annotations

import functools
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import import_utils

from llmlaunch.worker.compute import lean_imports

BEGIN = "import sys\nfrom llmlaunch.worker.compute import lean_imports\nlean_imports.begin()\n"


def python(code: str, *arguments: str, begin: str = BEGIN) -> str:
    """What ``code`` prints, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", begin + code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(where)
    return where


def test_a_loaded_model_has_left_the_compiler_alone(folder: Path) -> None:
    code = (
        "from llmlaunch.worker.loading import generator\n"
        "model = generator.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "import torch\n"
        "model(torch.tensor([[1, 2, 3]]))\n"
        "print([name for name in ('torch._dynamo.eval_frame', 'torch.distributed.tensor') if name in sys.modules])"
    )
    assert python(code, str(folder)) == "[]\n"


def test_the_compiler_is_loaded_when_somebody_compiles() -> None:
    code = (
        "import torch\n"
        "import torch._dynamo\n"
        "@torch.compiler.disable\n"
        "def plain(x): return x + 1\n"
        "@torch.compiler.disable(recursive=False)\n"
        "def other(x): return x + 2\n"
        "@torch.compiler.allow_in_graph\n"
        "def kept(x): return x * 3\n"
        "@torch._dynamo.assume_constant_result\n"
        "def constant(): return 5\n"
        "assert plain(1) == 2 and other(1) == 3\n"
        "assert 'torch._dynamo.eval_frame' not in sys.modules\n"
        "f = torch.compile(lambda x: plain(other(kept(x))) + constant(), backend='eager')\n"
        "assert f(torch.ones(2)).tolist() == [11.0, 11.0]\n"
        "from torch._dynamo import trace_rules\n"
        "assert id(kept) in trace_rules._allowed_callable_ids()\n"
        "print(constant._dynamo_marked_constant, plain(1), type(torch._dynamo).__name__)"
    )
    assert python(code) == "True 2 module\n"


def test_several_threads_may_be_the_first_to_need_the_compiler() -> None:
    code = (
        "import torch, threading\n"
        "import torch._dynamo\n"
        "found = []\n"
        "gate = threading.Barrier(4)\n"
        "def ask(): gate.wait(); found.append(torch._dynamo.config.recompile_limit)\n"
        "threads = [threading.Thread(target=ask) for _ in range(4)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(len(found), len(set(found)))"
    )
    assert python(code) == "4 1\n"


def test_the_compiler_does_not_have_what_it_never_had() -> None:
    code = (
        "import torch\n"
        "import torch._dynamo\n"
        "print(hasattr(torch._dynamo, '__nothing__'), 'torch._dynamo.eval_frame' in sys.modules, "
        "hasattr(torch._dynamo, 'nothing'), 'torch._dynamo.eval_frame' in sys.modules)"
    )
    assert python(code) == "False False False True\n"


def test_transformers_lists_the_same_models() -> None:
    code = "import transformers\nprint(hasattr(transformers, 'LlamaForCausalLM'), sorted(dir(transformers)))"
    listed = python(code)
    assert listed.startswith("True ")
    assert listed == python(code, begin="")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1\n",
        '__all__ = ["A", "B"]\n',
        'import a\n\n__all__ = ["A"]\nx = 1\n',
        'import a\n__all__ = [\n    "A",\n    "B",\n]\nx = 1\n',
        '__all__ = ["A"]\n__all__ = ["B"]\n',
        'x = "__all__"\n',
        '    __all__ = ["A"]\n',
    ],
)
def test_the_names_of_a_source_are_found_as_before(source: str) -> None:
    assert lean_imports._from_last_all(import_utils.fetch__all__)(source) == import_utils.fetch__all__(source)


def test_a_folder_is_read_once_and_each_gets_a_copy(tmp_path: Path) -> None:
    reads: list[str] = []

    def structure(path: object) -> dict[str, dict[str, set[str]]]:
        reads.append(str(path))
        return {"a": {"b": {"C"}}}

    of = lean_imports._once(structure)
    inside = tmp_path / "__init__.py"
    first = of(tmp_path)
    first["a"].clear()
    assert of(inside) == of(str(tmp_path)) == {"a": {"b": {"C"}}}
    assert reads == [str(tmp_path)]


# --- versions


def test_the_installed_libraries_are_in_the_table() -> None:
    """Fails with new versions on purpose: when the rest of this file passes with them, add them to the table."""
    assert lean_imports.untested(metadata.version) == ""


TESTED = {name: "{}.{}".format(*max(versions)) for name, versions in lean_imports.TESTED.items()}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (name, f"{major}.{minor}")
        for name, versions in lean_imports.TESTED.items()
        for major, minor in versions
    ],
)
def test_every_release_of_a_tested_version_is_hurried(name: str, version: str) -> None:
    for release in (version, f"{version}.0", f"{version}.7", f"{version}.0+cpu", f"{version}.1+cu130"):
        assert lean_imports.untested((TESTED | {name: release}).__getitem__) == ""


@pytest.mark.parametrize("name", lean_imports.TESTED)
@pytest.mark.parametrize(
    "version", ["1.99.9", "99.0.0", "{}.0rc1", "{}.0.dev20260101", "{}.0a0+git1234", "?", ""]
)
def test_any_other_version_is_left_alone(name: str, version: str) -> None:
    version = version.format(TESTED[name])
    assert lean_imports.untested((TESTED | {name: version}).__getitem__) == f"{name} {version}"


def test_a_library_without_a_version_is_left_alone() -> None:
    def version_of(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert lean_imports.untested(version_of) == "torch"


def test_an_untested_version_is_imported_plainly_and_serves(folder: Path) -> None:
    begin = (
        "import sys, gc, logging\n"
        "from llmlaunch.worker.compute import lean_imports\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        "lean_imports.TESTED = lean_imports.TESTED | {'transformers': frozenset({(1, 0)})}\n"
        "finders = list(sys.meta_path)\n"
        "lean_imports.begin()\n"
        "assert sys.meta_path == finders and not gc.isenabled()\n"
    )
    code = (
        "logging.disable()\n"
        "from llmlaunch.worker.loading import generator\n"
        "import torch, torch._dynamo\n"
        "lean_imports.done()\n"
        "model = generator.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(model(torch.tensor([[1, 2, 3]])).logits.shape[-1], type(torch._dynamo).__name__, gc.isenabled())"
    )
    said = python(code, str(folder), begin=begin)
    assert said.startswith(f"transformers {metadata.version('transformers')} is not a version")
    assert said.endswith("\n32 module True\n")


def test_an_older_library_is_left_as_it_is() -> None:
    empty = functools.partial(object)  # takes attributes, and has none of those looked for
    before = dict(vars(empty))
    lean_imports.patch_import_utils(empty)
    assert vars(empty) == before
