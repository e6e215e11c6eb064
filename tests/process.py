#!/usr/bin/env python3
"""The program as operators meet it: how it starts, stops and refuses. MAYFLY_BIN names the binary."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from harness import HANG_SECONDS, Checks, binary, free_port, holds, run, same


def refuses(code, words, *arguments):
    """Checks that a command exits with this code, and says these words."""
    result = run(binary(), *arguments)
    same(result.returncode, code, f"exit code ({result.stdout.strip()})")
    holds(words in result.stdout, f"{result.stdout.strip()!r} does not speak of {words!r}")


@contextmanager
def starting(folder):
    """Starts `mayfly dev` and yields the process at once, with `folder` for its temporary files."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    arguments = ("dev", "--listen", f"127.0.0.1:{free_port()}", "--metrics-listen", "127.0.0.1:0", "--out", "out")
    process = subprocess.Popen(
        [binary(), *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def await_file(folder, pattern):
    """Waits until a file or folder of this name is there."""
    deadline = time.monotonic() + HANG_SECONDS
    while not any(folder.glob(pattern)):
        holds(time.monotonic() < deadline, f"no {pattern} after {HANG_SECONDS} s")
        time.sleep(0.005)


def check_refusals(checks):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with checks("a port in use: exit code 4, and the setting to change"):
            refuses(4, f"{address}: Address already in use", "dev", "--listen", address)
            refuses(4, "--metrics-listen", "dev", "--listen", "127.0.0.1:0", "--metrics-listen", address)
    with checks("an address that others reach: `dev` refuses it"):
        refuses(3, "--dangerously-listen-anywhere", "dev", "--listen", "0.0.0.0:0")
    with checks("a folder that holds something: `init` leaves it alone"), tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        kept.touch()
        refuses(1, "is not empty", "init", "--data-dir", folder, "--public-url", "https://a.example", "--no-password")
        same(list(Path(folder).iterdir()), [kept], "what is in the folder")
    with checks("a fresh instance: `serve` asks for an issuer"), tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        made = run(binary(), "init", "--data-dir", data, "--public-url", "https://a.example", "--no-password")
        same(made.returncode, 0, f"exit code of init ({made.stdout.strip()})")
        listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        refuses(3, "identity.yaml:1:1: [MF123] the configuration has no issuer", "serve", "--data-dir", data, *listen)
    with checks("healthcheck: exit code 1 while nobody serves, and why"):
        refuses(1, "Connection refused", "healthcheck", "--url", f"http://127.0.0.1:{free_port()}/healthz")


def check_stops(checks):
    for name, signals in [
        ("SIGTERM during the start", [signal.SIGTERM]),
        ("SIGINT during the start", [signal.SIGINT]),
        ("SIGTERM twice at once, as some supervisors send it", [signal.SIGTERM, signal.SIGTERM]),
    ]:
        with checks(f"{name}: stops in order"), tempfile.TemporaryDirectory() as folder:
            with starting(Path(folder)) as process:
                await_file(Path(folder), "mayfly-dev-*")
                for number in signals:
                    process.send_signal(number)
                    time.sleep(0.05)
                _, log = process.communicate(timeout=HANG_SECONDS)
            same(process.returncode, 0, f"exit code (log: {log})")
            same([each.name for each in Path(folder).glob("mayfly-dev-*")], [], "temporary folders left")


def check_kept_instance(checks):
    with checks("dev with a kept data folder: the same CA and address again"), tempfile.TemporaryDirectory() as folder:
        trust = []
        for _ in range(2):
            result = run(binary(), "dev", "--self-test", "--data-dir", folder)
            same(result.returncode, 0, f"exit code ({result.stdout})")
            trust.append((Path(folder) / "state.json").read_bytes())
            trust.append((Path(folder) / "ca/current/chain.pem").read_bytes())
        same(trust[2:], trust[:2], "state and chain")
        holds("2 entries" in result.stdout, f"the log does not go on: {result.stdout}")


def main():
    binary()
    checks = Checks()
    check_refusals(checks)
    check_stops(checks)
    check_kept_instance(checks)
    checks.exit()


if __name__ == "__main__":
    main()
