"""What the tests share that run the real binary: starting it, talking to it, and saying what came of each check."""

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

# The only limit in time: what has not happened by then is taken to hang.
HANG_SECONDS = 30


class Checks:
    """Runs checks and prints one line for each: `ok NAME`, `FAIL NAME: reason` or `skip NAME: reason`."""

    def __init__(self):
        self.failed = 0

    @contextlib.contextmanager
    def __call__(self, name):
        """A `with` block that is one check: it passes unless it raises."""
        try:
            yield
        except Exception as error:  # A check that stops in any way has failed; the others still run.
            self.failed += 1
            reason = str(error) or type(error).__name__
            if not isinstance(error, AssertionError):
                reason = f"{type(error).__name__}: {reason}\n{traceback.format_exc()}"
            print(f"FAIL {name}: {reason}", flush=True)
        else:
            print(f"ok {name}", flush=True)

    def skip(self, name, part, reason):
        """Leaves a check out because `part` is not there, or fails it where `MAYFLY_REQUIRE` names the part."""
        if part in os.environ.get("MAYFLY_REQUIRE", "").split(","):
            self.failed += 1
            print(f"FAIL {name}: {reason} (MAYFLY_REQUIRE names {part})", flush=True)
        else:
            print(f"skip {name}: {reason}", flush=True)

    def exit(self):
        """Ends the program: 0 if every check passed, else 1."""
        sys.exit(1 if self.failed else 0)


def same(actual, wanted, what):
    """Fails the check unless the two are equal, and shows both."""
    if actual != wanted:
        raise AssertionError(f"{what}: got {show(actual)}, want {show(wanted)}")


def holds(claim, what):
    """Fails the check unless `claim` is true."""
    if not claim:
        raise AssertionError(what)


def show(value):
    return value.hex() if isinstance(value, bytes) else repr(value)


@dataclass
class Response:
    """An HTTP response, read whole. Header names are in lower case."""

    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()


@dataclass
class Server:
    """A running `mayfly`: where it listens, and what a client needs to trust it."""

    url: str
    folder: Path
    tls: Optional[ssl.SSLContext] = None

    def send(self, method, path, body=None, headers=None):
        """Sends exactly this request (no `Content-Type` or `Accept` of its own) and returns the response."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=HANG_SECONDS, context=self.tls)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=HANG_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, names, response.read())

    def token(self, query, issuer=""):
        """A token of the test issuer that `mayfly dev` has at `/dev/oidc` + `issuer`, made as `query` says."""
        path = f"/dev/oidc{issuer}/token?{urllib.parse.urlencode(query, doseq=True)}"
        response = self.send("GET", path)
        same(response.status, 200, f"GET {path}")
        return response.text.strip()


def binary():
    """The `mayfly` under test, from `MAYFLY_BIN`."""
    path = os.environ.get("MAYFLY_BIN")
    if not path:
        sys.exit("MAYFLY_BIN: not set; give the path of the mayfly binary, or run tests/run")
    # Servers that run at the same time would all want its one port; the API's port takes gRPC too.
    os.environ.setdefault("MAYFLY_GRPC_LISTEN", "off")
    return Path(path).resolve()


def free_port():
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def run(*command, env=None, cwd=None):
    """Runs a program to its end and returns it with its output (standard output and error together)."""
    return subprocess.run(
        [str(part) for part in command], env=env, cwd=cwd, timeout=10 * HANG_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False,
    )


def succeed(*command, env=None, cwd=None):
    """Runs a program that must exit with 0, and returns its output."""
    result = run(*command, env=env, cwd=cwd)
    if result.returncode != 0:
        raise AssertionError(f"{Path(command[0]).name} {command[1]} exited with {result.returncode}: {result.stdout}")
    return result.stdout


@contextlib.contextmanager
def serving(server, *arguments):
    """Runs `mayfly` with these arguments until the block ends; the block starts when `/healthz` answers 200."""
    with running(server, [binary(), *arguments, "--metrics-listen", "127.0.0.1:0"], "/healthz"):
        yield server


@contextlib.contextmanager
def running(server, command, health):
    """Runs a program that serves `server` until the block ends; the block starts when the path `health` answers 200."""
    name = Path(command[0]).name
    log = server.folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=server.folder,
            stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )
    try:
        await_health(server, health, process, name, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} did not stop when asked; its log:\n{log.read_text()}") from None


def await_health(server, health, process, name, log):
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{name} exited with {process.returncode} at its start:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            if server.send("GET", health).status == 200:
                return
        time.sleep(0.05)
    sys.exit(f"{name} is not healthy after {HANG_SECONDS} s:\n{log.read_text()}")


@contextlib.contextmanager
def dev():
    """Runs `mayfly dev` on a free port, with its trust files in `folder` of the server."""
    with tempfile.TemporaryDirectory(prefix="mayfly-test-") as folder:
        port = free_port()
        server = Server(f"http://127.0.0.1:{port}", Path(folder))
        with serving(server, "dev", "--listen", f"127.0.0.1:{port}", "--out", folder):
            yield server
