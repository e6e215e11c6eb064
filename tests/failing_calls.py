#!/usr/bin/env python3
"""Makes the system calls of the log fail, one after the other, in a server that issues.

Whatever fails: no certificate reaches a client whose entry the next process does not find in the log; the server ends, or
goes on by itself where nothing is in doubt; and a restart is clean. STRACE and MAYFLY_BIN name the programs.
"""

import itertools
import os
import subprocess
import tempfile
import time
from pathlib import Path

import log_reader
from harness import HANG_SECONDS, Checks, binary, dev, holds, same
from outage import Crowd, Instance, Order, await_healthy, check_certificates

# What the server's own supervisor sees when the log cannot go on.
LOG_FAILED = 70
# Why a client may be refused meanwhile.
REASONS = {"store_unavailable", "overloaded", "shutting_down"}

# Thread, call, errors after which it goes on, errors that end it. What is in doubt after an error ends the process: a
# write or a sync of the journal, whatever the error, and everything else that is no lack of room or descriptors.
RUNNING = [
    ("sequencer", "pwrite64", [], ["EIO", "ENOSPC"]),
    ("sequencer", "fdatasync", [], ["EIO", "ENOSPC"]),
    ("publisher", "openat", ["ENOSPC", "EMFILE"], ["EIO"]),
    ("publisher", "write", ["ENOSPC"], ["EIO"]),
    ("publisher", "fsync", ["ENOSPC"], ["EIO"]),
    ("publisher", "rename", ["ENOSPC", "EDQUOT"], ["EIO"]),
]
# Calls of a start. A start that fails says so and ends; there are more of some calls than of others.
STARTING = ["pwrite64", "fsync", "fdatasync", "rename", "flock"]


def strace(*arguments):
    return [os.environ.get("STRACE", "strace"), "--quiet=all", *map(str, arguments)]


def injection(call, error, when):
    return ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")


def read(path):
    """A file of a process, which may be gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def await_true(what, is_it):
    deadline = time.monotonic() + HANG_SECONDS
    while not is_it():
        holds(time.monotonic() < deadline, f"waited in vain for {what}")
        time.sleep(0.005)


class Tracer:
    """Makes calls of one thread fail, from the moment at which the block begins."""

    def __init__(self, process, thread, call, error, when):
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        [self.task] = [task for task in tasks if read(task / "comm").strip() == thread]
        self.arguments = injection(call, error, when)
        self.report = tempfile.NamedTemporaryFile("r")

    def __enter__(self):
        command = strace("-o", self.report.name, "-p", self.task.name, *self.arguments)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        await_true("strace to attach", lambda: "TracerPid:\t0\n" not in read(self.task / "status"))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(HANG_SECONDS)
        self.report.close()

    def has_injected(self):
        return "(INJECTED)" in Path(self.report.name).read_text()


def may_attach():
    """Whether a process may be traced that is not strace's own child; some systems leave that to root."""
    sleeper = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        tracer = subprocess.Popen(strace("-o", "/dev/null", "-p", sleeper.pid), stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{sleeper.pid}/status")
        await_true("strace", lambda: "TracerPid:\t0\n" not in read(status) or tracer.poll() is not None)
        is_attached = tracer.poll() is None
        tracer.terminate()
        tracer.wait(HANG_SECONDS)
        return is_attached
    finally:
        sleeper.kill()
        sleeper.wait()


def fail_while_running(instance, order, memory, thread, call, error, when, ends):
    """Makes one call fail while clients ask, and returns what they received."""
    with instance.serving() as process, Crowd(instance.server, order) as crowd:
        crowd.await_answer("the first certificate", lambda status, _: status == 200, process)
        with Tracer(process, thread, call, error, when) as tracer:
            await_true(f"{call} to fail", lambda: tracer.has_injected() or process.poll() is not None)
            if ends:
                await_true("the end of the process", lambda: process.poll() is not None)
                same(process.returncode, LOG_FAILED, "exit code")
            else:
                crowd.await_answer("the next certificate", lambda status, _: status == 200, process)
                size = memory.head.size
                await_true("a checkpoint that is new", lambda: memory.look() or memory.head.size > size)
            holds(tracer.has_injected(), f"{call} did not fail")
    crowd.check_refusals(REASONS)
    found = crowd.certificates()
    with instance.serving():
        check_certificates(memory, found)
    return len(found)


def fail_at_start(instance, order, memory, call, when):
    """Makes one call of a start fail, and returns whether it was made."""
    found = []
    with tempfile.NamedTemporaryFile("r") as report:
        wrapper = strace("-f", "-o", report.name, *injection(call, "EIO", when))
        with instance.process(*wrapper) as process:
            try:
                await_healthy(instance.server, process, instance.output)
            except AssertionError:
                holds(process.poll() not in (None, 0), "it neither started nor said why not")
            else:
                with Crowd(instance.server, order) as crowd:
                    # It may end at any moment, since the spare journal file is made behind the start.
                    await_true("an answer", lambda: crowd.answers or process.poll() is not None)
                crowd.check_refusals(REASONS)
                found = crowd.certificates()
        was_made = "(INJECTED)" in Path(report.name).read_text()
    with instance.serving():
        check_certificates(memory, found)
    return was_made


def check_running(checks, instance, order, memory):
    for thread, call, passing, ending in RUNNING:
        for error in passing + ending:
            fate = "ends the server" if error in ending else "passes"
            with checks(f"{call} of the {thread}: {error} {fate}, and nothing is lost"):
                # The publisher also writes the mark outside the store, whose failure is an alarm and no more; where it has
                # to end, every call from one on fails.
                and_so_on = "+" if thread == "publisher" and error in ending else ""
                counts = [
                    fail_while_running(instance, order, memory, thread, call, error, f"{when}{and_so_on}", error in ending)
                    for when in (1, 4)
                ]
                holds(all(counts), f"certificates received: {counts}")


def check_starting(checks, instance, order, memory):
    for call in STARTING:
        with checks(f"{call} during the start: EIO costs a start, and nothing else"):
            for when in itertools.count(1):
                if not fail_at_start(instance, order, memory, call, when):
                    break
            holds(when > 1, f"a start makes no call {call}")


def main():
    binary()
    checks = Checks()
    if not may_attach():
        checks.skip("failing system calls", "strace", "strace may not attach to a running process here")
        checks.exit()
    with dev() as issuer, tempfile.TemporaryDirectory(prefix="mayfly-test-", dir=os.environ.get("MAYFLY_CACHE")) as folder:
        order = Order(issuer)
        instance = Instance.initialised(Path(folder), order.issuer_url)
        with instance.serving():
            memory = instance.memory()
        check_running(checks, instance, order, memory)
        check_starting(checks, instance, order, memory)
        with checks("a reader who sees the log for the first time finds the same tree"), instance.serving():
            again = log_reader.Audit(memory.log, memory.key)
            again.read()
            same(again.leaves[: len(memory.leaves)], memory.leaves, "entries")
    checks.exit()


if __name__ == "__main__":
    main()
