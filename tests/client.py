"""A client that speaks to the CA over raw HTTP: its keys, the tokens it has, the requests it sends."""

import base64
import hashlib
import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

import der
from harness import holds, same

V1, V2 = "/api/v1/signingCert", "/api/v2/signingCert"
CHALLENGE, CSR = "challenge", "CSR"


@dataclass(frozen=True)
class Key:
    """A client's key pair, and the hash that goes with it."""

    name: str
    private: object
    hash: object = None

    @property
    def spki(self):
        return spki(self.private.public_key())

    @property
    def pem(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    def sign(self, text, algorithm=None):
        """Proves possession of the key by signing `text`, with the key's own hash unless told otherwise."""
        message, algorithm = text.encode(), algorithm or self.hash
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(message, padding.PKCS1v15(), algorithm)
        return self.private.sign(message, ec.ECDSA(algorithm))

    def csr(self, algorithm=None):
        """A certificate signing request with an empty subject, as sigstore-python makes it."""
        return self.sign_csr(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])), algorithm)

    def sign_csr(self, builder, algorithm=None):
        return builder.sign(self.private, algorithm or self.hash)


def spki(public_key):
    """The DER SubjectPublicKeyInfo of a public key."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def client_keys():
    """One key of each kind that a client may bring."""
    yield Key("P-256", ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    yield Key("P-384", ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())
    yield Key("P-521", ec.generate_private_key(ec.SECP521R1()), hashes.SHA512())
    for bits in (2048, 3072, 4096):
        yield Key(f"RSA {bits}", rsa.generate_private_key(65537, bits), hashes.SHA256())
    yield Key("Ed25519", ed25519.Ed25519PrivateKey.generate())


@dataclass(frozen=True)
class Identity:
    """A token, the text that a proof of possession signs for it, and what the certificate must say."""

    token: str
    proof_text: str
    san: bytes  # DER GeneralName
    san_text: str  # as OpenSSL prints it
    facts: tuple  # (last arc under 1.3.6.1.4.1.57264.1, text), in order


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def email_identity(server, address="dev@example.com"):
    token = server.token({"email": address})
    return Identity(token, address, der.encode(0x81, address.encode()), f"email:{address}", facts(claims_of(token)))


def uri_identity(server):
    token = server.token({"sub": f"{server.url}/workload/7"}, issuer="/uri")
    return uri_in_san(token, claims_of(token)["sub"], facts(claims_of(token)))


def github_identity(server):
    query = {"preset": "github", "claim.repository": "acme/widget", "claim.repository_owner": "acme"}
    token = server.token(query, issuer="/github")
    claims = claims_of(token)
    web = "https://github.com/"
    build = (
        (2, claims["event_name"]), (3, claims["sha"]), (4, claims["workflow"]), (5, claims["repository"]),
        (6, claims["ref"]), (9, web + claims["job_workflow_ref"]), (10, claims["job_workflow_sha"]),
        (11, claims["runner_environment"]), (12, web + claims["repository"]), (13, claims["sha"]),
        (14, claims["ref"]), (15, claims["repository_id"]), (16, web + claims["repository_owner"]),
        (17, claims["repository_owner_id"]), (18, web + claims["workflow_ref"]), (19, claims["workflow_sha"]),
        (20, claims["event_name"]),
        (21, f"{web}{claims['repository']}/actions/runs/{claims['run_id']}/attempts/{claims['run_attempt']}"),
        (22, claims["repository_visibility"]),
    )
    return uri_in_san(token, web + claims["job_workflow_ref"], facts(claims, build))


def spiffe_identity(server):
    subject = "spiffe://dev.example/ns/prod/sa/builder"
    token = server.token({"sub": subject}, issuer="/spiffe")
    return uri_in_san(token, subject, facts(claims_of(token)))


def username_identity(server):
    """An otherName whose value is a UTF8String (RFC 5280, section 4.2.1.6)."""
    token = server.token({"sub": "älice"}, issuer="/username")
    name = f"älice!{server.url.split('//')[1].split(':')[0]}"
    kind = "1.3.6.1.4.1.57264.1.7"
    value = der.encode(0xA0, der.encode(der.UTF8_STRING, name.encode()))
    san = der.encode(0xA0, der.oid(kind) + value)
    return Identity(token, "älice", san, f"othername: {kind}::{name}", facts(claims_of(token)))


def kubernetes_identity(server):
    token = server.token({"preset": "kubernetes"}, issuer="/kubernetes")
    details = claims_of(token)["kubernetes.io"]
    url = f"https://kubernetes.io/namespaces/{details['namespace']}/serviceaccounts/{details['serviceaccount']['name']}"
    return uri_in_san(token, url, facts(claims_of(token)))


def chainguard_identity(server):
    token = server.token({"preset": "chainguard"}, issuer="/chainguard")
    claims = claims_of(token)
    return uri_in_san(token, f"{claims['iss']}/{claims['sub']}", facts(claims))


def gitlab_identity(server):
    token = server.token({"preset": "gitlab"}, issuer="/gitlab")
    claims = claims_of(token)
    web, config = "https://gitlab.com/", f"https://{claims['ci_config_ref_uri']}"
    build = (
        (9, config), (10, claims["ci_config_sha"]), (11, claims["runner_environment"]),
        (12, web + claims["project_path"]), (13, claims["sha"]), (14, f"refs/heads/{claims['ref']}"),
        (15, claims["project_id"]), (16, web + claims["namespace_path"]), (17, claims["namespace_id"]),
        (18, config), (19, claims["ci_config_sha"]), (20, claims["pipeline_source"]),
        (21, f"{web}{claims['project_path']}/-/jobs/{claims['job_id']}"), (22, claims["project_visibility"]),
    )
    return uri_in_san(token, config, facts(claims, build))


def buildkite_identity(server):
    token = server.token({"preset": "buildkite"}, issuer="/buildkite")
    claims = claims_of(token)
    url = f"https://buildkite.com/{claims['organization_slug']}/{claims['pipeline_slug']}"
    return uri_in_san(token, url, facts(claims))


def codefresh_identity(server):
    token = server.token({"preset": "codefresh"}, issuer="/codefresh")
    claims = claims_of(token)
    web = "https://g.codefresh.io/"
    run = f"{web}build/{claims['workflow_id']}"
    build = (
        (9, run), (11, claims["runner_environment"]), (12, claims["scm_repo_url"]), (14, claims["scm_ref"]),
        (18, f"{web}api/pipelines/{claims['pipeline_id']}"), (21, run),
    )
    ids = f"{claims['account_id']}/{claims['pipeline_id']}"
    return uri_in_san(token, f"{web}{claims['account_name']}/{claims['pipeline_name']}:{ids}", facts(claims, build))


def identities(server):
    """One identity of each type but `email`, with what it is called."""
    yield "URI", uri_identity(server)
    yield "user name", username_identity(server)
    yield "SPIFFE ID", spiffe_identity(server)
    yield "service account", kubernetes_identity(server)
    yield "Chainguard identity", chainguard_identity(server)
    yield "GitHub workflow", github_identity(server)
    yield "GitLab pipeline", gitlab_identity(server)
    yield "Buildkite job", buildkite_identity(server)
    yield "Codefresh workflow", codefresh_identity(server)


def uri_in_san(token, uri, said):
    return Identity(token, claims_of(token)["sub"], der.encode(0x86, uri.encode()), f"URI:{uri}", said)


def facts(claims, build=()):
    """The extensions of a certificate, in the order of their numbers, with the issuer and the subject of every token."""
    return tuple(sorted([*build, (1, claims["iss"]), (8, claims["iss"]), (24, claims["sub"])]))


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def b64(octets):
    return base64.b64encode(octets).decode()


def pem_of(csr):
    return csr.public_bytes(serialization.Encoding.PEM)


def v2_challenge(content, proof, **more):
    """The body of a v2 request with a key and a proof; `more` are further members of `publicKey`."""
    return {"publicKeyRequest": {"publicKey": {"content": content, **more}, "proofOfPossession": proof}}


def v1_challenge(content, proof, **more):
    return {"publicKey": {"content": content, **more}, "signedEmailAddress": proof}


def ask(server, path, body, headers):
    return server.send("POST", path, json.dumps(body).encode(), headers)


def plain_request(server, path, proof, key, identity):
    """Asks as the usual clients do: by proof over the challenge or by CSR, with the token in the header."""
    if proof == CSR:
        body = {"certificateSigningRequest": b64(pem_of(key.csr()))}
    elif path == V2:
        body = v2_challenge(key.pem, b64(key.sign(identity.proof_text)), algorithm="ECDSA")
    else:
        body = v1_challenge(b64(key.spki), b64(key.sign(identity.proof_text)), algorithm="ecdsa")
    return ask(server, path, body, {"Content-Type": "application/json", **bearer(identity.token)})


def chain_of(response, path):
    """The certificates of a success, leaf first, once its form is checked to the octet."""
    if path == V2:
        same(response.status, 200, f"status ({response.text[:200]})")
        same(response.headers["content-type"], "application/json", "Content-Type")
        answer = json.loads(response.body)
        same(list(answer), ["signedCertificateEmbeddedSct"], "members of the answer")
        same(list(answer["signedCertificateEmbeddedSct"]), ["chain"], "members of signedCertificateEmbeddedSct")
        same(list(answer["signedCertificateEmbeddedSct"]["chain"]), ["certificates"], "members of chain")
        pems = answer["signedCertificateEmbeddedSct"]["chain"]["certificates"]
    else:
        same(response.status, 201, f"status ({response.text[:200]})")
        same(response.headers["content-type"], "application/pem-certificate-chain", "Content-Type")
        holds("sct" not in response.headers, "the header SCT belongs to detached SCTs only")
        end = "-----END CERTIFICATE-----"
        pems = [block + end for block in response.text.split(end + "\n")]
        pems[-1] = pems[-1].removesuffix(end)  # no newline at the end: the last block kept its own
    for pem in pems:
        same(pem, canonical_pem(pem), "a certificate's PEM, with no white space around it")
    return [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]


def canonical_pem(pem):
    return pem_certificate(x509.load_pem_x509_certificate(pem.encode())).strip()


def pem_certificate(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Trust:
    """What a client trusts: the trust files that `mayfly dev` wrote."""

    def __init__(self, folder):
        self.folder = folder
        self.chain = x509.load_pem_x509_certificates((folder / "fulcio.crt.pem").read_bytes())
        self.root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
        self.log_key = serialization.load_pem_public_key((folder / "ctfe.pub").read_bytes())
        self.log_id = hashlib.sha256(spki(self.log_key)).digest()
