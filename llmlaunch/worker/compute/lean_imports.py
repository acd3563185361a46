"""Imports torch and transformers without the parts that a worker does not use.

Half of the import time goes into four things: the garbage collector, which scans objects that stay alive anyway;
``torch.distributed.tensor`` with sympy, for models spread over processes; ``torch._dynamo``, the compiler, for a few
decorators; and transformers' list of models, which it reads from their sources, twice. So the collector is off meanwhile,
transformers sees no distributed support, the compiler is loaded when something is compiled, and the list is built once.
Apart from the collector this modifies modules of both libraries, so it is only done for versions that it was tested with
(:data:`TESTED`); with any other version a worker starts a second or two later, with unmodified libraries.
"""

from __future__ import annotations

import functools
import gc
import logging
import re
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

log = logging.getLogger(__name__)

TESTED: dict[str, frozenset[tuple[int, int]]] = {
    "torch": frozenset({(2, 13)}),
    "transformers": frozenset({(5, 20), (5, 21), (5, 22), (5, 23), (5, 24)}),
}
"""Versions (major and minor) that tests/unit/worker/compute/test_lean_imports.py passed with. To add one: install it, run the file."""
COMPILER = "torch._dynamo"
TRACED = "torch._dynamo._trace_wrapped_higher_order_op"
"""The only module of the compiler that transformers itself imports; it does not need the rest."""
IMPORT_UTILS = "transformers.utils.import_utils"


def begin() -> None:
    """Call before torch or transformers are imported, and :func:`done` afterwards."""
    gc.disable()
    other = untested(metadata.version)
    if other:
        log.info("%s is not a version that quick imports were tested with: importing it plainly", other)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def done() -> None:
    """Turn the garbage collector on again, without the objects that exist now. Does nothing before :func:`begin`."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def untested(version_of: Callable[[str], str]) -> str:
    """The first library, with its version, that is not in :data:`TESTED`; "" when all are.

    ``version_of`` says which version of a library is installed. Pre-releases count as untested.
    """
    for name, tested in TESTED.items():
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:  # a copy on the path without metadata
            return name
        release = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)*(\+.*)?", version)  # with a local label: 2.13.0+cpu
        if release is None or (int(release[1]), int(release[2])) not in tested:
            return f"{name} {version}"
    return ""


class _Finder(MetaPathFinder):
    """Finds the modules that are modified, and no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith(COMPILER + ".") and name != TRACED:
            return _inside(name, path)
        if name not in (COMPILER, IMPORT_UTILS):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            changed = _LazyLoader if name == COMPILER else _PatchingLoader
            spec.loader = changed(spec.loader.name, spec.loader.path)
        return spec


# -- the compiler, later ---------------------------------------------------------------------------------------------


class _LazyLoader(SourceFileLoader):
    """Leaves a package empty until one of its attributes is used."""

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _LazyModule


class _ImportedLoader(Loader):
    """Loader of a module that is already imported."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None: ...


def _inside(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Finds a module of the package. The package is loaded first, because its modules depend on its import order."""
    package = sys.modules.get(COMPILER)
    if isinstance(package, _LazyModule) and not package._loading_here():
        package._load()
        if name in sys.modules:
            return ModuleSpec(name, _ImportedLoader())
    return None


class _LazyModule(ModuleType):
    """Stands for ``torch._dynamo`` until something is compiled: its decorators are recorded, and applied later."""

    _lock = threading.RLock()
    _loading = False
    _marked: list[tuple[str, Any]] = []  # noqa: RUF012 - of the only one there is

    def __getattribute__(self, name: str) -> Any:
        # Wait while another thread loads the module: it must not be seen half loaded.
        if _LazyModule._loading and not object.__getattribute__(self, "_loading_here")():
            with _LazyModule._lock:
                pass
        return ModuleType.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if type(self) is not _LazyModule:  # another thread has loaded it
            return getattr(self, name)
        if name.startswith("__") or self._loading_here():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in ("allow_in_graph", "assume_constant_result"):
            return functools.partial(self._mark, name)
        if name == "disable":
            return self._disable
        self._load()
        return getattr(self, name)

    def _loading_here(self) -> bool:
        return _LazyModule._loading and _LazyModule._lock._is_owned()  # type: ignore[attr-defined]

    def _mark(self, name: str, function: Any) -> Any:
        """Record a decorator that only concerns the compiler; it is applied when that is loaded."""
        self._marked.append((name, function))
        return function

    def _disable(self, fn: Any = None, recursive: bool = True, **others: Any) -> Any:
        """Like torch.compiler.disable: ``fn``, which the compiler does not trace."""
        if fn is None:
            return functools.partial(self._disable, recursive=recursive, **others)
        if not isinstance(fn, FunctionType):
            self._load()
            return self.disable(fn, recursive, **others)
        disabled: list[Any] = []

        @functools.wraps(fn)
        def either(*arguments: Any, **keywords: Any) -> Any:
            if type(self) is _LazyModule:  # nothing is being compiled
                return fn(*arguments, **keywords)
            if not disabled:
                disabled.append(self.disable(fn, recursive, **others))
            return disabled[0](*arguments, **keywords)

        return either

    def _load(self) -> None:
        """Turn this into the real module. Other threads wait."""
        with self._lock:
            spec = self.__spec__
            if type(self) is not _LazyModule or spec is None or not isinstance(spec.loader, _LazyLoader):
                return
            _LazyModule._loading = True
            try:
                SourceFileLoader(spec.loader.name, spec.loader.path).exec_module(self)
                module: ModuleType = self
                module.__class__ = ModuleType
            finally:
                _LazyModule._loading = False
            for name, function in _LazyModule._marked:
                getattr(module, name)(function)


# -- transformers' list of its models --------------------------------------------------------------------------------


class _PatchingLoader(SourceFileLoader):
    """Runs the module, then replaces its slow parts."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        patch_import_utils(module)


def patch_import_utils(module: Any) -> None:
    """Make ``transformers.utils.import_utils`` read the sources of a folder only once, and report no distributed support."""
    if hasattr(module, "is_torch_distributed_available"):  # as in a torch that is built without
        module.is_torch_distributed_available = lambda: False
    if hasattr(module, "create_import_structure_from_path"):
        module.create_import_structure_from_path = _once(module.create_import_structure_from_path)
    if hasattr(module, "fetch__all__"):
        module.fetch__all__ = _from_last_all(module.fetch__all__)


def _once(structure: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``structure``, which reads all sources in a folder (or next to a file), with a cache."""
    known: dict[Path, Any] = {}

    def of(path: Any) -> Any:
        given = Path(path)
        folder = given if given.is_dir() else given.parent
        if folder not in known:
            known[folder] = structure(path)
        return _copy(known[folder])

    return of


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _from_last_all(fetch: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """``fetch``, which scans a source for the last line that begins with ``__all__``, started at that line."""

    def names(source: str) -> list[str]:
        at = source.rfind("\n__all__")
        return fetch(source[at + 1 :] if at > 0 else source)

    return names
