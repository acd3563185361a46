"""What the processes of one gateway tell each other of deaths."""

from __future__ import annotations

from llmlaunch.gateway.multiprocess.death_ledger import (
    ENTRIES,
    DeathLedger,
    DeathRecord,
    replica_name,
    replica_number,
)
from llmlaunch.gateway.routing.health.suspects import key_of


def entry(number: int, replica: str = "http://a:1") -> DeathRecord:
    return DeathRecord(key_of(b"%d" % number), number, replica_number(replica), number + 0.25, number + 0.5)


def test_what_one_process_writes_the_others_read_once() -> None:
    shared = DeathLedger(3)
    one, two, three = (shared.for_process(index) for index in range(3))
    for number in range(3):
        one.write(entry(number))
    assert list(one.read()) == []  # its own
    for other in (two, three):
        news = [other.has_new_entries]
        assert list(other.read()) == [entry(0), entry(1), entry(2)]
        news.append(other.has_new_entries)
        assert news == [True, False]
        assert list(other.read()) == []
    two.write(entry(3))
    assert list(one.read()) == list(three.read()) == [entry(3)]


def test_whoever_takes_the_place_of_one_that_died_reads_what_that_one_wrote() -> None:
    shared = DeathLedger(1)
    shared.for_process(0).write(entry(7))
    successor = shared.for_process(0)
    assert list(successor.read()) == [entry(7)]
    successor.write(entry(8))
    assert list(successor.read()) == []


def test_the_oldest_are_written_over() -> None:
    shared = DeathLedger(2)
    writer, reader = shared.for_process(0), shared.for_process(1)
    for number in range(ENTRIES + 5):
        writer.write(entry(number))
    assert list(reader.read()) == [entry(number) for number in range(5, ENTRIES + 5)]


def test_replicas_are_told_by_their_number() -> None:
    assert replica_name(replica_number("http://b:2"), ["http://a:1", "http://b:2"]) == "http://b:2"
    assert replica_name(replica_number("http://b:2"), []) == f"#{replica_number('http://b:2')}"
