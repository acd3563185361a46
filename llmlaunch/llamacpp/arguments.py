"""llama-server's command line, read by llama.cpp's own parser inside xllamacpp's library.

xllamacpp gives parameters as attributes, and knows no flags. But its library holds llama.cpp whole, with the function that reads
the command lines of all of llama.cpp's programs (``common_params_parse``, common/arg.h). It fills the ``common_params`` that is
part of a ``CommonParams`` object. So every flag and every ``LLAMA_ARG_*`` variable means what it means to llama-server, and
mistakes are told in llama.cpp's words.

Neither the function nor the object's layout is an interface that anybody promised. Both are checked before they are used, and a
version of xllamacpp that does not have them is refused instead of crashing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from llmlaunch.errors import LlmlaunchError, UsageError

PROGRAM = "llama-server"
_PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""``bool common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))``"""
_USUAL_PROGRAM = 12
"""LLAMA_EXAMPLE_SERVER in llama.cpp's builds of autumn 2026. The number changes when a program is added before it."""
_PROGRAMS = 48
_FIRST_FIELDS = ("n_predict", "n_ctx", "n_batch", "n_ubatch")
"""``common_params`` begins with these four 32-bit numbers."""


class UnknownLibraryError(LlmlaunchError):
    """This version of xllamacpp cannot be given a command line."""

    code = "xllamacpp_version"
    exit_code = 2


def parse(words: Sequence[str]) -> Any:
    """The ``xllamacpp.CommonParams`` that llama-server would have for these words behind its name.

    Raises UsageError if llama.cpp refuses them, after it has written to stderr why; UnknownLibraryError if this version of
    xllamacpp is too different. ``--help`` and ``--version`` end the process, as they do there.
    """
    parser = _Parser()
    params = parser.fresh()
    if not parser.fill(params, words, parser.server()):
        raise UsageError("llama.cpp does not accept these flags; its reason is above")
    return params


class _Parser:
    def __init__(self) -> None:
        import xllamacpp
        from xllamacpp import xllamacpp as extension

        self._module = xllamacpp
        try:
            self._parse = ctypes.CDLL(extension.__file__)[_PARSE]
        except AttributeError:
            raise _unknown(xllamacpp, "llama.cpp's parser of flags is not in its library") from None
        self._parse.restype = ctypes.c_bool
        self._parse.argtypes = [
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_void_p,
        ]
        self._offset = self._where_parameters_begin()

    def fresh(self) -> Any:
        return self._module.CommonParams()

    def fill(self, params: Any, words: Sequence[str], program: int) -> bool:
        given = [os.fsencode(word) for word in (PROGRAM, *words)]
        argv = (ctypes.c_char_p * (len(given) + 1))(*given, None)
        return bool(self._parse(len(given), argv, id(params) + self._offset, program, None))

    def server(self) -> int:
        """llama-server's number among llama.cpp's programs: the one whose command line knows ``--metrics``."""
        numbers: list[int] = [_USUAL_PROGRAM, *range(_PROGRAMS)]
        with _quiet():
            for number in numbers:
                params = self.fresh()
                words = ("--metrics", "--port", "4321", "--ctx-size", "1234")
                if self.fill(params, words, number) and params.endpoint_metrics:
                    if (params.port, params.n_ctx) == (4321, 1234):
                        return number
                    break
        raise _unknown(self._module, "its flags are not read as they should be")

    def _where_parameters_begin(self) -> int:
        """Bytes from the beginning of a ``CommonParams`` object to the ``common_params`` in it."""
        params = self.fresh()
        marks = (0x1A2B3C41, 0x1A2B3C42, 0x1A2B3C43, 0x1A2B3C44)
        for name, mark in zip(_FIRST_FIELDS, marks, strict=True):
            setattr(params, name, mark)
        content = ctypes.string_at(id(params), type(params).__basicsize__)
        pattern = struct.pack("=4i", *marks)
        # Behind the head of the Python object, and perhaps a pointer to its methods.
        offset = content.find(pattern)
        if offset not in (2 * struct.calcsize("P"), 3 * struct.calcsize("P")):
            raise _unknown(self._module, "its parameters are not where they should be")
        return int(offset)


def _unknown(module: Any, what: str) -> UnknownLibraryError:
    return UnknownLibraryError(
        f"xllamacpp {module.__version__} cannot be used: {what}",
        hint="install the version that llmlaunch was tested with (pip install 'xllamacpp==2026.10.11549'), or llama-server",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that C code writes to stderr meanwhile is seen."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
