"""What a worker imports, and what it does not: each in a process of its own, where nothing is imported yet."""

from __future__ import annotations

import functools
import subprocess
import sys
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
    assert lean_imports._from_the_last(import_utils.fetch__all__)(source) == import_utils.fetch__all__(source)


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


def test_an_older_library_is_left_as_it_is() -> None:
    empty = functools.partial(object)  # takes attributes, and has none of those looked for
    before = dict(vars(empty))
    lean_imports.shorten(empty)
    assert vars(empty) == before
