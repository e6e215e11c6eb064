#!/usr/bin/env python3
"""Fills the disk of the log: issuing stops and says why, reading goes on, and both go on when there is room again, with and
without a restart in between.

The disk is a small file system in memory, which root alone can mount; `mayfly dev` may keep its log there. MAYFLY_BIN names
the binary.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import Checks, binary, holds, same
from outage import Crowd, Instance, Order, check_certificates

# Some files of the journal, each with its spare one, and the tiles of these tests.
DISK_BYTES = 128 << 20
REASONS = {"store_unavailable", "overloaded"}


@contextlib.contextmanager
def small_disk(folder):
    """Mounts the disk; raises OSError where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "mayfly-test", str(disk)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(result.stderr.strip())
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextlib.contextmanager
def no_room(disk):
    """Takes all the room that is left, to the last octet."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as sink:
        for step in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while sink.write(bytes(step)) == step:
                    pass
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def no_names(disk):
    """Lets no further file be made, although there is room."""
    limits = os.statvfs(disk)

    def allow(files):
        subprocess.run(["mount", "-o", f"remount,nr_inodes={files}", str(disk)], check=True)

    allow(limits.f_files - limits.f_ffree)
    try:
        yield
    finally:
        allow(limits.f_files)


def is_issued(status, _):
    return status == 200


def is_full(status, headers):
    return status == 503 and headers.get("mayfly-reason") == "store_unavailable"


def check_reading(memory):
    """Reads all that is published, with what was read before, while nothing can be written."""
    memory.catch_up()
    holds(memory.leaves, "nothing is published")
    for fingerprint in memory.issuers:
        memory.log.issuer(fingerprint)


def fill_while_running(instance, disk, full):
    """Fills the disk under clients that ask, and makes room again."""
    with instance.serving() as process:
        memory, order = instance.memory(), Order(instance.server)
        with Crowd(instance.server, order, clients=1) as crowd:
            memory.wait_for(0)
            with full(disk):
                crowd.await_answer("a refusal", is_full, process)
                check_reading(memory)
            crowd.await_answer("a certificate when there is room again", is_issued, process)
        crowd.check_refusals(REASONS)
        check_certificates(memory, crowd.certificates())
        same(instance.server.send("GET", "/healthz").status, 200, "health of the same process")


def start_when_full(instance, disk, full):
    """Kills a server while it issues, starts the next one on a full disk, and makes room again."""
    with instance.serving() as process:
        memory, order = instance.memory(), Order(instance.server)
        with Crowd(instance.server, order, clients=1) as first:
            first.await_answer("a certificate", is_issued, process)
            process.kill()
    with contextlib.ExitStack() as filled:
        filled.enter_context(full(disk))
        with instance.serving() as process:
            check_reading(memory)
            with Crowd(instance.server, Order(instance.server), clients=1) as second:
                second.await_answer("a refusal", is_full, process)
                check_reading(memory)
                filled.close()
                second.await_answer("a certificate when there is room again", is_issued, process)
            second.check_refusals(REASONS)
            check_certificates(memory, first.certificates() + second.certificates())


def main():
    binary()
    checks = Checks()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-test-")))
        try:
            disk = stack.enter_context(small_disk(folder))
        except OSError as error:
            checks.skip("a full disk", "root", f"no file system can be mounted here: {error}")
            checks.exit()
        for what, full in [("room", no_room), ("file names", no_names)]:
            data = disk / full.__name__
            instance = Instance(folder, data, "dev", "--out", folder / "trust")
            with checks(f"no {what} left: issuing stops, reading does not, and both go on without a restart"):
                fill_while_running(instance, disk, full)
            with checks(f"no {what} left at a start: reading goes on, and issuing as soon as there is"):
                start_when_full(instance, disk, full)
            shutil.rmtree(data)
    checks.exit()


if __name__ == "__main__":
    main()
