"""A private Sigstore for real clients: Mayfly as in production and, beside it, the two services that most of them insist on,
a signature log (Rekor v2) and a timestamp authority.

MAYFLY_BIN names Mayfly's binary, SERVICES the folder with the binaries of the two others.
"""

import base64
import hashlib
import json
import os
import ssl
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from client import claims_of
from harness import Server, binary, free_port, holds, run, running, serving, succeed

EMAIL = "dev@example.com"


def workflow_of(token):
    """The identity that a workflow's token stands for."""
    return f"https://github.com/{claims_of(token)['job_workflow_ref']}"


@dataclass
class Client:
    """A client's command line, and the folder of the files it is given."""

    command: tuple
    work: Path
    environment: dict = field(default_factory=dict)

    def __call__(self, *arguments, **environment):
        """Runs it with nothing of the caller's environment, so that no ambient token counts."""
        home = {"PATH": os.environ["PATH"], "HOME": str(self.work), **self.environment, **environment}
        return run(*self.command, *arguments, env=home, cwd=self.work)

    def succeeds(self, *arguments, **environment):
        """Runs it, checks that it ends well, and returns its output."""
        result = self(*arguments, **environment)
        holds(result.returncode == 0, f"{self.shown(arguments)} exited with {result.returncode}: {result.stdout}")
        return result.stdout

    def refuses(self, words, *arguments, **environment):
        """Checks that it fails, and for the reason meant: its output holds `words`."""
        result = self(*arguments, **environment)
        output = " ".join(result.stdout.split())
        holds(result.returncode != 0, f"{self.shown(arguments)} passed: {output}")
        holds(words in output, f"{self.shown(arguments)} does not speak of {words!r}: {output}")

    def shown(self, arguments):
        return " ".join([Path(self.command[-1]).name, *map(str, arguments[:1])])

    def file(self, text=""):
        """A new file to sign, or to read from, with this text."""
        handle, path = tempfile.mkstemp(dir=self.work, suffix=".txt")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        return path


@dataclass
class PrivateSigstore:
    """A running Mayfly, and what clients must know to use it."""

    server: Server
    trust: Path  # the folder that `mayfly trust export` wrote
    issuer: str  # URL of the issuer of people's tokens; that of workflows' tokens is below it, at /github
    work: Path  # a folder for a client's files
    tls_root: Path = None  # PEM, when the server speaks TLS

    def trust_file(self, name):
        return str(self.trust / name)

    def service_url(self, member):
        """Where a service is that the signing config names, such as `tsaUrls`."""
        return json.loads(Path(self.trust_file("signing_config.json")).read_text())[member][0]["url"]

    def refusals(self, client):
        """What a verifier must refuse: its name, and what is different from a verification that passes."""
        yield "a changed file", {"file": client.file("changed")}
        yield "another identity", {"identity": "eve@example.com"}
        yield "another issuer", {"issuer": "https://elsewhere.example"}
        own, other = json.loads((self.trust / "trusted_root.json").read_text()), another_trusted_root()
        for what, member in (
            ("a CA it does not trust", "certificateAuthorities"),
            ("a certificate log it does not trust", "ctlogs"),
            ("a signature log it does not trust", "tlogs"),
            ("a timestamp authority it does not trust", "timestampAuthorities"),
        ):
            if own[member]:
                yield what, {"trusted_root": client.file(json.dumps({**own, member: other[member]}))}


@cache
def another_trusted_root():
    """What clients of another Mayfly trust: a CA and a log."""
    with tempfile.TemporaryDirectory(prefix="mayfly-clients-") as folder:
        data, trust = Path(folder) / "data", Path(folder) / "trust"
        succeed(binary(), "init", "--data-dir", data, "--public-url", "https://elsewhere.example", "--no-password")
        succeed(binary(), "trust", "export", "--data-dir", data, trust)
        return json.loads((trust / "trusted_root.json").read_text())


@contextmanager
def private_sigstore(issuer, tls=False, services=True, ed25519_log=False, settings=None, flags=()):
    """Runs `mayfly init`, `trust export` and `serve`, trusting the issuers of `issuer`, a `mayfly dev`. Yields a
    `PrivateSigstore`.

    `services` puts a signature log and a timestamp authority beside it; `ed25519_log` is about the log's key. `settings`
    are further members of mayfly.yaml, `flags` further arguments of `mayfly serve`.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-clients-")))
        ca, data, trust, work = (root / name for name in ("ca", "data", "trust", "work"))
        ca.mkdir()
        work.mkdir()

        port = free_port()
        server, tls_root, arguments = Server(f"http://127.0.0.1:{port}", ca), None, []
        if tls:
            tls_root, certificate, key = tls_files(ca)
            server = Server(f"https://localhost:{port}", ca, ssl.create_default_context(cafile=tls_root))
            arguments = ["--tls-cert", certificate, "--tls-key", key]

        succeed(binary(), "init", "--data-dir", data, "--public-url", server.url, "--no-password")
        people = f"{issuer.url}/dev/oidc"
        (data / "identity.yaml").write_text(json.dumps({"oidc-issuers": {
            url: {"issuer-url": url, "client-id": "sigstore", "type": kind}
            for url, kind in ((people, "email"), (f"{people}/github", "github-workflow"))
        }}))
        settings = dict(settings or {})
        if services:
            settings["trust"] = {"external": {
                "transparency-logs": [stack.enter_context(signature_log(root / "rekor", ed25519_log))],
                "timestamp-authorities": [stack.enter_context(timestamp_authority(root / "tsa"))],
            }}
        with (data / "mayfly.yaml").open("a") as config:
            config.writelines(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())
        succeed(binary(), "trust", "export", "--data-dir", data, trust)

        arguments += ["--data-dir", data, "--listen", f"127.0.0.1:{port}", *flags]
        stack.enter_context(serving(server, "serve", *arguments))
        yield PrivateSigstore(server, trust, people, work, tls_root)


@contextmanager
def signature_log(folder, ed25519_key=False):
    """Runs a Rekor v2. Yields its entry in `trust.external.transparency-logs`."""
    folder.mkdir()
    server, grpc, metrics = local_server(folder), free_port(), free_port()
    key = ed25519.Ed25519PrivateKey.generate() if ed25519_key else ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "rekor.pub"
    private.write_bytes(private_pem(key))
    public.write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ))
    command = [service("posix"), "serve", "--hostname", "127.0.0.1", "--storage-dir", folder / "log",
               "--signer-filepath", private, "--http-port", port_of(server), "--grpc-port", grpc,
               "--http-metrics-port", metrics, "--checkpoint-interval", "200ms", "--batch-max-age", "50ms"]
    with running(server, command, "/healthz"):
        write_first_entry(server)
        yield {"url": server.url, "public-key-file": str(public), "start": "2020-01-01T00:00:00Z"}


def write_first_entry(server):
    """Writes an entry into a new signature log. Some clients leave out members that are 0, as all numbers of entry 0 are,
    which others cannot read."""
    key, message = ec.generate_private_key(ec.SECP256R1()), b"first"
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    encoded = {name: base64.b64encode(octets).decode() for name, octets in (
        ("digest", hashlib.sha256(message).digest()), ("signature", key.sign(message, ec.ECDSA(hashes.SHA256()))),
        ("public", public),
    )}
    verifier = {"publicKey": {"rawBytes": encoded["public"]}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    entry = {"hashedRekordRequestV002": {
        "digest": encoded["digest"], "signature": {"content": encoded["signature"], "verifier": verifier},
    }}
    response = server.send("POST", "/api/v2/log/entries", json.dumps(entry), {"Content-Type": "application/json"})
    holds(response.status == 201, f"the signature log refuses its first entry: {response.text}")


@contextmanager
def timestamp_authority(folder):
    """Runs a timestamp authority (RFC 3161). Yields its entry in `trust.external.timestamp-authorities`.

    It listens on port 2112 of every address too, and cannot be told otherwise: tests/run gives the tests a network of
    their own.
    """
    folder.mkdir()
    server = local_server(folder)
    command = [service("timestamp-server"), "serve", "--host", "127.0.0.1", "--port", port_of(server),
               "--timestamp-signer", "memory", "--disable-ntp-monitoring"]
    with running(server, command, "/ping"):
        chain = folder / "chain.pem"
        chain.write_bytes(server.send("GET", "/api/v1/timestamp/certchain").body)
        yield {"url": f"{server.url}/api/v1/timestamp", "certificate-chain-file": str(chain)}


def service(name):
    """The binary of one of the services, from `SERVICES`."""
    folder = os.environ.get("SERVICES")
    if not folder:
        sys.exit("SERVICES: not set; give the folder of the services' binaries, or run tests/run")
    return Path(folder).resolve() / name


def local_server(folder):
    return Server(f"http://127.0.0.1:{free_port()}", folder)


def port_of(server):
    return server.url.rsplit(":", 1)[1]


def tls_files(folder):
    """A root, a certificate of it for `localhost`, and that one's key: three PEM files."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("TLS root", "localhost")
    )
    now = datetime.now(timezone.utc)

    def certificate(subject, public_key):
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(root_name).public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(days=1))
        )

    root = (
        certificate(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    leaf = (
        certificate(name, key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    paths = folder / "tls-root.crt", folder / "tls.crt", folder / "tls.key"
    for path, each in zip(paths, (root, leaf)):
        path.write_bytes(each.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[2].touch(mode=0o600)
    paths[2].write_bytes(private_pem(key))
    return paths


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
