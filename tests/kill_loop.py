#!/usr/bin/env python3
"""Kills a server at any moment, again and again: no certificate that reached a client is ever missing from the log.

ROUNDS says how often (20), LIFE for how many seconds a server lives at most (0.5), SEED repeats a run, MAYFLY_BIN names the
binary, CTCLIENT a client of RFC 6962 that reads the log in the end. Killing a process shows no missing sync, since the system
keeps what was written: tests/failing_calls.py and the tests of the store show those.
"""

import http.client
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import log_reader
from harness import Checks, binary, dev, holds, same, succeed
from outage import Crowd, Instance, Order, check_certificates, check_with_ctclient

# Of every other process counted from its launch, so that starts are cut short too; of the others, from its first answer.
LONGEST_LIFE_SECONDS = float(os.environ.get("LIFE", "0.5"))


class Watcher(threading.Thread):
    """Looks at the checkpoint all the time; what it saw is checked when the entries are read."""

    def __init__(self, memory):
        super().__init__()
        self.memory, self.stopping, self.wrong = memory, threading.Event(), None

    def run(self):
        while not self.wrong and not self.stopping.wait(0.01):
            try:
                self.memory.look()
            except log_reader.Wrong as wrong:
                self.wrong = wrong
            except (OSError, http.client.HTTPException):
                pass  # It is down again.

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()


def audit(instance, command, *arguments):
    """What `mayfly log` says of the data folder, as the last process left it or while one runs."""
    return succeed(binary(), "log", command, instance.data, "--key", instance.trust / "trusted_root.json", *arguments)


def one_round(instance, order, memory, life, is_from_launch):
    """Lets a server live for so many seconds, starts another, and returns how many certificates the first gave away."""
    with Watcher(memory) as watcher, Crowd(instance.server, order) as crowd:
        with instance.process() if is_from_launch else instance.serving():
            time.sleep(life)
    if watcher.wrong:
        raise watcher.wrong
    crowd.check_refusals({"shutting_down", "overloaded"})
    audit(instance, "follow", "--once", "--state", instance.server.folder / "checkpoint")
    found = crowd.certificates()
    with instance.serving():
        check_certificates(memory, found)
    return len(found)


def main():
    binary()
    rounds = int(os.environ.get("ROUNDS", "20"))
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"kill loop: ROUNDS={rounds} SEED={seed}", flush=True)
    chance = random.Random(seed)
    checks = Checks()
    with dev() as issuer, tempfile.TemporaryDirectory(prefix="mayfly-test-", dir=os.environ.get("MAYFLY_CACHE")) as folder:
        order = Order(issuer)
        instance = Instance.initialised(Path(folder), order.issuer_url)
        with instance.serving():
            memory = instance.memory()
        with checks(f"every certificate survives {rounds} kills, in every checkpoint after it"):
            received = fruitful = 0
            for number in range(rounds):
                life = chance.uniform(0, LONGEST_LIFE_SECONDS)
                try:
                    count = one_round(instance, order, memory, life, number % 2 == 0)
                except (AssertionError, log_reader.Wrong) as error:
                    raise AssertionError(f"round {number}, killed after {life:.3f} s: {error}") from error
                received, fruitful = received + count, fruitful + (count > 0)
            print(f"{received} certificates in {fruitful} of {rounds} lives; {len(memory.leaves)} entries", flush=True)
            holds(received, "no life was long enough to issue anything")
        with checks("a reader who sees the log for the first time finds the same tree"), instance.serving():
            again = log_reader.Audit(memory.log, memory.key)
            again.read()
            same(again.leaves[: len(memory.leaves)], memory.leaves, "entries")
            check_with_ctclient(instance, again.leaves, chance)
            audit(instance, "fsck")
        with checks("the folder that the last kill left is sound"):
            audit(instance, "fsck")
    checks.exit()


if __name__ == "__main__":
    main()
