"""What the tests share that break a server while it issues: an instance that is started again and again, clients that never
stop asking, and what must be true of every certificate that reached one of them.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import log_reader
from client import V2, Key, b64, bearer, claims_of, v2_challenge
from harness import HANG_SECONDS, Server, binary, holds, run, succeed

# Identity files, by the issuer that they trust.
IDENTITY = """\
oidc-issuers:
  {issuer}:
    issuer-url: {issuer}
    client-id: sigstore
    type: email
"""


def server_port():
    """A port that nobody listens on, below those that the system gives to clients: one of these, asking a server that is down,
    could be sitting on its port when it comes back."""
    for _ in range(1000):
        port = random.randrange(15000, 30000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Order:
    """A request for a certificate that can be sent any number of times, for the test issuer `issuer`."""

    def __init__(self, issuer):
        self.token = issuer.token({"email": "dev@example.com", "ttl": 86400})
        key = Key("P-256", ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        self.body = json.dumps(v2_challenge(key.pem, b64(key.sign("dev@example.com")), algorithm="ECDSA")).encode()
        self.headers = {"Content-Type": "application/json", **bearer(self.token)}

    @property
    def issuer_url(self):
        return claims_of(self.token)["iss"]


class Instance:
    """A data folder that outlives the processes which serve it, always at one address."""

    def __init__(self, folder, data, *command):
        self.data = data
        self.trust = folder / "trust"
        self.output = folder / "mayfly.log"
        self.port = server_port()
        address = f"127.0.0.1:{self.port}"
        self.server = Server(f"http://{address}", folder)
        listen = ("--listen", address, "--metrics-listen", "127.0.0.1:0")
        self.command = [binary(), *command, "--data-dir", data, *listen]

    @classmethod
    def initialised(cls, folder, issuer_url):
        """One that `mayfly init` made and `mayfly serve` serves, for the people of one issuer."""
        instance = cls(folder, folder / "data", "serve", "--log-format", "json")
        url = instance.server.url
        succeed(binary(), "init", "--data-dir", instance.data, "--public-url", url, "--no-password")
        (instance.data / "identity.yaml").write_text(IDENTITY.format(issuer=issuer_url))
        succeed(binary(), "trust", "export", "--data-dir", instance.data, instance.trust)
        return instance

    @contextlib.contextmanager
    def process(self, *wrapper):
        """Starts the server, below a program where one is given, and kills both at the end of the block."""
        with self.output.open("ab") as sink:
            command = [str(part) for part in (*wrapper, *self.command)]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            await_free(self.port)

    @contextlib.contextmanager
    def serving(self):
        """Starts the server, and waits until it is healthy."""
        with self.process() as process:
            await_healthy(self.server, process, self.output)
            yield process

    def memory(self):
        """A reader of the log. Make it while the server runs."""
        key = log_reader.Key.of((self.trust / "ctfe.pub").read_text())
        return log_reader.Memory(log_reader.Log(f"{self.server.url}/ct/main/"), key)


def await_free(port):
    """Waits for the end of a server that was not our own child: the system may still be at it."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return
        holds(time.monotonic() < deadline, f"port {port} is not free after {HANG_SECONDS} s")
        time.sleep(0.005)


def await_healthy(server, process, output):
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        ended = process.poll() is not None
        with contextlib.suppress(OSError, http.client.HTTPException):
            if not ended and server.send("GET", "/healthz").status == 200:
                return
        said = output.read_text(errors="replace")[-2000:]
        holds(not ended, f"the server ended with {process.returncode} at its start:\n{said}")
        holds(time.monotonic() < deadline, f"the server is not healthy after {HANG_SECONDS} s:\n{said}")
        time.sleep(0.01)


class Crowd:
    """Clients that ask for certificates as fast as they are answered, over connections that they keep, until they are stopped.

    A server that is not there is asked again and again.
    """

    def __init__(self, server, order, clients=4):
        self.server, self.order = server, order
        self.answers = []  # (status, headers, body), in the order of their arrival
        self.stopping = threading.Event()
        self.clients = [threading.Thread(target=self.ask) for _ in range(clients)]

    def ask(self):
        host = self.server.url.removeprefix("http://")
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection(host, timeout=HANG_SECONDS)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                while not self.stopping.is_set():
                    connection.request("POST", V2, body=self.order.body, headers=self.order.headers)
                    response = connection.getresponse()
                    headers = {name.lower(): value for name, value in response.getheaders()}
                    # A certificate has arrived when all of it has.
                    self.answers.append((response.status, headers, response.read()))
            self.stopping.wait(0.002)

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for client in self.clients:
            client.join(HANG_SECONDS)

    def await_answer(self, what, is_it, process=None):
        """Waits for the first answer from now on of which `is_it(status, headers)` is true."""
        deadline, seen = time.monotonic() + HANG_SECONDS, len(self.answers)
        while True:
            for status, headers, _ in self.answers[seen:]:
                if is_it(status, headers):
                    return
                seen += 1
            holds(process is None or process.poll() is None, f"the server ended before {what}")
            holds(time.monotonic() < deadline, f"waited in vain for {what}")
            time.sleep(0.005)

    def count(self):
        """How many certificates arrived so far."""
        return sum(status == 200 for status, _, _ in self.answers)

    def certificates(self):
        """The chains that arrived, as the reader of the log wants them."""
        found = []
        for number, (status, _, body) in enumerate(self.answers):
            if status == 200:
                chain = json.loads(body)["signedCertificateEmbeddedSct"]["chain"]["certificates"]
                found.append(log_reader.Found(f"certificate {number}", "\n".join(chain)))
        return found

    def check_refusals(self, reasons):
        """Checks that whoever got no certificate was told to come back, for one of these reasons."""
        for status, headers, body in self.answers:
            if status != 200:
                reason = headers.get("mayfly-reason")
                holds(status == 503 and reason in reasons, f"status {status}, reason {reason}: {body[:300]}")
                holds("retry-after" in headers, f"no Retry-After with {reason}")


def check_certificates(memory, found):
    """Reads what is new in the log, and finds the certificates in it."""
    memory.catch_up()
    for certificate in found:
        memory.find(certificate)


def check_with_ctclient(instance, leaves, chance):
    """Has the client of RFC 6962 that auditors use find the same tree, where CTCLIENT names it."""
    if not (ctclient := os.environ.get("CTCLIENT")):
        return
    log = ("--log_uri", f"{instance.server.url}/ct/main", "--pub_key", instance.trust / "ctfe.pub")
    said = succeed(ctclient, "get-sth", *log)
    holds(f"(size={len(leaves)})" in said, f"{said!r} is not the head of {len(leaves)} entries")
    for index in (0, len(leaves) - 1, *chance.sample(range(len(leaves)), 3)):
        proof = (*log, "--leaf_hash", b64(leaves[index]))
        await_index(ctclient, "get-inclusion-proof", *proof)
        said = succeed(ctclient, "get-inclusion-proof", *proof)
        holds(f"for index {index} in tree of size {len(leaves)}" in said and "Verified that" in said, said)
    for earlier in chance.sample(range(1, len(leaves)), 3):
        sizes = ("--size", len(leaves), "--prev_size", earlier)
        roots = [b64(log_reader.root_of(leaves[:size])) for size in (len(leaves), earlier)]
        said = succeed(ctclient, "get-consistency-proof", *log, *sizes, "--tree_hash", roots[0], "--prev_hash", roots[1])
        holds("Verified that" in said, said)


def await_index(*command):
    """Waits until a server that has just started knows where leaves are by their hashes: until then it answers 503."""
    deadline = time.monotonic() + HANG_SECONDS
    while (result := run(*command)).returncode != 0 and "503" in result.stdout:
        holds(time.monotonic() < deadline, f"the index of hashes is not filled after {HANG_SECONDS} s")
