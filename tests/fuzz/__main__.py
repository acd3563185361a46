"""Fuzz the gateway: ``python -m tests.fuzz {requests,answers,machine} [--inputs N] [--seed N] [--seconds N]``.

Guided by coverage where atheris is installed (``pip install atheris``; it is no dependency of anything here), else, or
with ``--plain``, by chance alone. Ends with 0 and an account when every input was taken; an input that broke something
is written to ``--found DIR`` and named, and ends it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


class Account:
    """Counts inputs, and what memory they left behind."""

    def __init__(self, name: str, target: Callable[[bytes], None]) -> None:
        self.inputs = 0
        self._name = name
        self._target = target
        self._began = time.monotonic()
        self._slowest = 0.0
        self._warm = 0.0

    def __call__(self, data: bytes) -> None:
        began = time.process_time()
        self._target(data)
        self._slowest = max(self._slowest, time.process_time() - began)
        self.inputs += 1
        if self.inputs == 10_000:
            self._warm = resident_mib()

    def tell(self) -> None:
        seconds = time.monotonic() - self._began
        print(
            f"{self._name}: {self.inputs} inputs in {seconds:.0f} s, the slowest {self._slowest * 1000:.0f} ms; "
            f"resident {self._warm:.0f} MiB after 10,000, {resident_mib():.0f} MiB at the end",
            flush=True,
        )


def load(name: str) -> tuple[Callable[[bytes], None], list[bytes], int]:
    """The target, its seeds, and how many bytes in front of an input are its schedule."""
    from tests.fuzz import machine, parsers, seeds

    parsers.raise_on_log()
    if name == "machine":
        return machine.Target(), seeds.EXCHANGES, machine.SCHEDULE
    if name == "requests":
        return parsers.requests, seeds.REQUESTS, 1
    return parsers.answers, seeds.ANSWERS, 1


def plain(asked: argparse.Namespace) -> None:
    from tests.fuzz.mutate import mutations

    target, seeds, head = load(asked.target)
    account = Account(asked.target, target)
    for data in mutations(seeds, asked.inputs, asked.seed, head):
        try:
            account(data)
        except Exception:
            found = Path(asked.found) / f"{asked.target}-{asked.seed}-{account.inputs}"
            found.write_bytes(data)
            print(f"broken by {data!r}, written to {found}", file=sys.stderr)
            raise
        if asked.seconds and time.monotonic() - account._began > asked.seconds:
            break
    account.tell()


def guided(asked: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["llmlaunch.gateway"]):
        target, seeds, head = load(asked.target)
    from tests.fuzz.seeds import WORDS

    account = Account(asked.target, target)
    with tempfile.TemporaryDirectory() as name:
        corpus, words = Path(asked.corpus or f"{name}/corpus"), Path(name) / "words"
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(bytes(head) + seed)
        words.write_text(
            "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in dict.fromkeys(WORDS))
        )
        options = [
            f"-runs={asked.inputs}", f"-seed={asked.seed}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096",
            f"-dict={words}", f"-artifact_prefix={asked.found}/", "-print_final_stats=1",
        ]  # fmt: skip
        if asked.seconds:
            options.append(f"-max_total_time={asked.seconds}")
        atheris.Setup([sys.argv[0], *options, str(corpus)], _counted(account, asked.inputs))
        atheris.Fuzz()


def _counted(account: Account, most: int) -> Callable[[bytes], None]:
    """libFuzzer leaves without a word to Python: tell the account near its end."""

    def run(data: bytes) -> None:
        account(data)
        if account.inputs % 50_000 == 0 or account.inputs == most:
            account.tell()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["requests", "answers", "machine"])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=0, help="end after so many seconds")
    parser.add_argument(
        "--found", default=tempfile.gettempdir(), help="where an input that breaks something goes"
    )
    parser.add_argument("--corpus", default="", help="a folder of inputs to go on from, and to add to")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    asked = parser.parse_args()
    if not asked.plain:
        try:
            import atheris  # noqa: F401
        except ImportError:
            print("atheris is not installed: inputs are made by chance alone", file=sys.stderr)
            asked.plain = True
    (plain if asked.plain else guided)(asked)


if __name__ == "__main__":
    main()
