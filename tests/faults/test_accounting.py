"""One fault after another in a whole deployment under load, and every request accounted for.

While one replica lives, no request may fail before its answer has begun; after that it is whole, or says that it is not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.integration.cli.support import Fake, tell, write
from tests.integration.gateway.test_kills import outcome
from tests.integration.supervision.world import QUICK
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.waiting import wait_until

CLIENTS = 8
STANDSTILL_S = 0.4


class Load:
    """Clients that ask one request after the other; ``outcomes`` has one entry for each that was sent."""

    def __init__(self, port: int) -> None:
        self.outcomes: list[str] = []
        self.sent = itertools.count()
        self._port = port
        self._end = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._end.is_set():
            number = next(self.sent)
            try:
                self.outcomes.append(outcome(self._port, stream=number % 2 == 1))
            except OSError as error:
                self.outcomes.append(f"before the first byte: {error!r}")

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for client in self._clients:
            client.join(40)

    def goes_on(self, requests: int = 2 * CLIENTS) -> None:
        """Until so many more were answered."""
        goal = len(self.outcomes) + requests
        wait_until(lambda: len(self.outcomes) >= goal, 20, "requests are answered")


class Lab:
    def __init__(self, cli: Cli, fake: Fake) -> None:
        self.cli = cli
        self.fake = fake

    def pid(self, name: str) -> int:
        return int(self.cli.component(name)["pid"])

    def engine(self, draw: random.Random) -> psutil.Process:
        return psutil.Process(self.pid(f"m-{draw.randint(1, self.fake.replicas)}"))

    def settled(self) -> None:
        wait_until(
            lambda: {c["phase"] for c in self.cli.status()["components"]} == {"ready"},
            20,
            "all is ready again",
        )


def stand_still(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(STANDSTILL_S)  # the fault itself
    finally:
        process.send_signal(signal.SIGCONT)


def kill_an_engine(lab: Lab, draw: random.Random) -> None:
    lab.engine(draw).kill()


def kill_a_shim(lab: Lab, draw: random.Random) -> None:
    parent = lab.engine(draw).parent()
    assert parent is not None
    parent.kill()


def crash_an_engine(lab: Lab, draw: random.Random) -> None:
    with contextlib.suppress(OSError):
        tell(f"http://127.0.0.1:{lab.fake.port + draw.randrange(lab.fake.replicas)}", "/crash")


def stop_an_engine_for_a_while(lab: Lab, draw: random.Random) -> None:
    stand_still(lab.engine(draw))


def restart_a_replica(lab: Lab, draw: random.Random) -> None:
    lab.cli.ok("restart", f"m-{draw.randint(1, lab.fake.replicas)}")


def kill_the_controller(lab: Lab, draw: random.Random) -> None:
    psutil.Process(lab.pid("controller")).kill()


def stop_the_controller_for_a_while(lab: Lab, draw: random.Random) -> None:
    stand_still(psutil.Process(lab.pid("controller")))


def stop_the_supervisor_for_a_while(lab: Lab, draw: random.Random) -> None:
    stand_still(psutil.Process(lab.cli.status()["supervisor"]["pid"]))


FAULTS: tuple[Callable[[Lab, random.Random], None], ...] = (
    kill_an_engine,
    kill_a_shim,
    crash_an_engine,
    stop_an_engine_for_a_while,
    restart_a_replica,
    kill_the_controller,
    stop_the_controller_for_a_while,
    stop_the_supervisor_for_a_while,
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with deployment.cli(LLMLAUNCH_SUPERVISION=json.dumps(QUICK)) as cli:
        fake = Fake("m", replicas=2, flags=["--first-delay", "0.02", "--chunk-delay", "0.01"])
        write(cli, fake)
        cli.ok("up", "-d")
        yield Lab(cli, fake)
        cli.ok("down")


@pytest.mark.parametrize(
    ("seed", "rounds"), [(1, 1), pytest.param(2, 10, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_no_request_fails_before_its_answer_began_while_a_replica_lives(
    lab: Lab, seed: int, rounds: int
) -> None:
    draw = random.Random(seed)
    port = int(lab.cli.status()["api"]["url"].split(":")[2].split("/")[0])
    faults = [fault for _ in range(rounds) for fault in draw.sample(FAULTS, len(FAULTS))]
    with Load(port) as load:
        load.goes_on()
        for fault in faults:
            before = Counter(load.outcomes)
            fault(lab, draw)
            load.goes_on()
            lab.settled()
            during = Counter(load.outcomes) - before
            assert during.keys() <= {"whole", "told"}, f"{fault.__name__}: {during}"
            assert during["told"] <= CLIENTS, f"{fault.__name__}: more than were under way"
    assert len(load.outcomes) == next(load.sent), "every request is accounted for"
    print(Counter(load.outcomes))
