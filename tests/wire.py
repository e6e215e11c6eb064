#!/usr/bin/env python3
"""Requests as the Sigstore clients send them, and the answers to the octet.

Starts `mayfly dev` and asks it over raw HTTP: every shape that a client is known to send, every kind of refusal, and
what can be read without a token. MAYFLY_BIN names the binary.
"""

import base64
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

from client import (
    V1, V2, Key, Trust, ask, b64, bearer, chain_of, email_identity, pem_certificate, pem_of, v1_challenge, v2_challenge,
)
from harness import Checks, binary, dev, holds, same

BAD_TOKEN = "There was an error processing the identity token"
BAD_KEY = "The public key supplied in the request could not be parsed"
BAD_CSR = "The certificate signing request could not be parsed"
WEAK_KEY = "The public key supplied in the request is insecure"
BAD_PROOF = "The signature supplied in the request could not be verified"


def check_shapes(checks, server, key, identity):
    """What each client sends, and what the clients rely on without saying so."""
    proof = key.sign(identity.proof_text)
    challenge = v2_challenge(key.pem, b64(proof), algorithm="ECDSA")
    csr = {"certificateSigningRequest": b64(pem_of(key.csr()))}
    in_body = {"credentials": {"oidcIdentityToken": identity.token}}
    in_header = bearer(identity.token)
    json_type = {"Content-Type": "application/json"}
    one_line = key.pem.replace("\n", "").replace("KEY-----", "KEY-----\n", 1).replace("-----END", "\n-----END")

    def with_key(**changes):
        return {"publicKeyRequest": {**challenge["publicKeyRequest"], **changes}}

    def with_public_key(**changes):
        return with_key(publicKey={"algorithm": "ECDSA", "content": key.pem, **changes})

    def raw_pair(signature):
        r, s = utils.decode_dss_signature(signature)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    shapes = [
        # What each client sends.
        ("cosign and sigstore-go", V2, challenge,
         {**json_type, **in_header, "User-Agent": "sigstore-go/v1.2.2", "Accept-Encoding": "gzip"}),
        ("sigstore-python", V2, csr,
         {**json_type, **in_header, "Accept": "application/pem-certificate-chain", "Accept-Encoding": "gzip, deflate"}),
        ("sigstore-js", V2, {**in_body, **challenge}, {**json_type, "Accept": "*/*"}),
        ("gitsign", V1, {**v1_challenge(b64(key.spki), b64(proof), algorithm="ecdsa"), "certificateSigningRequest": None},
         {**json_type, **in_header, "User-Agent": "gitsign"}),
        ("sigstore-rs, v1", V1, v1_challenge(b64(key.spki), b64(proof), algorithm="ecdsa"),
         {"content-type": "application/json", "authorization": f"Bearer {identity.token}", "accept": "*/*"}),
        ("sigstore-rs, v2", V2, csr, {**json_type, **in_header, "accept": "application/pem-certificate-chain"}),
        # The token.
        ("token in body and header: the body's counts", V2, {**in_body, **challenge}, bearer("not a token")),
        ("scheme of the header in lower case", V2, challenge, {"Authorization": f"bearer {identity.token}"}),
        ("token without a scheme", V2, challenge, {"Authorization": identity.token}),
        ("e-mail verified, as a string", V2, challenge,
         bearer(server.token({"email": identity.proof_text, "claim.email_verified": "true"}))),
        # The key.
        ("PEM in one line, without a final newline", V2, with_public_key(content=one_line), in_header),
        ("PEM with CRLF", V2, with_public_key(content=key.pem.replace("\n", "\r\n")), in_header),
        ("PEM with text around it", V2, with_public_key(content=f"my key\n{key.pem}the end\n"), in_header),
        ("v1 key as base64 of PEM", V1, v1_challenge(b64(key.pem.encode()), b64(proof)), in_header),
        *((f"algorithm {algorithm!r}", V2, with_public_key(algorithm=algorithm), in_header)
          for algorithm in ("ecdsa", "BOGUS", 99, None)),
        ("no algorithm", V2, v2_challenge(key.pem, b64(proof)), in_header),
        # Base64 and JSON.
        ("URL-safe base64 without padding", V2,
         with_key(proofOfPossession=base64.urlsafe_b64encode(proof).decode().rstrip("=")), in_header),
        ("proof as raw halves (IEEE P1363)", V2, with_key(proofOfPossession=b64(raw_pair(proof))), in_header),
        ("unknown members", V2, {**challenge, "comment": {"a": [1, None]}}, in_header),
        ("names in snake case", V2,
         {"credentials": {"oidc_identity_token": identity.token},
          "public_key_request": {"public_key": {"content": key.pem}, "proof_of_possession": b64(proof)}}, {}),
        ("null for an absent member", V2, {**challenge, "credentials": None, "certificateSigningRequest": None}, in_header),
        ("another Content-Type", V2, challenge, {**in_header, "Content-Type": "text/plain"}),
        ("no Content-Type", V2, challenge, in_header),
        # CSRs.
        ("CSR with the old label", V2,
         {"certificateSigningRequest": b64(pem_of(key.csr()).replace(b" CERT", b" NEW CERT"))}, in_header),
        ("v1 CSR", V1, csr, in_header),
        # The path.
        ("base URL with a final slash", "/" + V2, challenge, in_header),
    ]
    for name, path, body, headers in shapes:
        with checks(f"request: {name}"):
            chain = chain_of(ask(server, path, body, headers), V1 if path == V1 else V2)
            same(chain[0].public_key(), key.private.public_key(), "public key")

    with checks("request: subject and extensions of a CSR are ignored"):
        builder = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")]))
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name("root@example.com")]), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        body = {"certificateSigningRequest": b64(pem_of(key.sign_csr(builder)))}
        leaf = chain_of(ask(server, V2, body, in_header), V2)[0]
        same(leaf.subject, x509.Name([]), "subject")
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same(list(names), [x509.RFC822Name(identity.proof_text)], "subject alternative name")
        holds(not [each for each in leaf.extensions if isinstance(each.value, x509.BasicConstraints)], "basic constraints")


def check_refusals(checks, server, key, identity):
    """Each refusal has Fulcio's status, code and words, and a reason after them."""
    proof = b64(key.sign(identity.proof_text))
    challenge = v2_challenge(key.pem, proof)
    in_header = bearer(identity.token)
    p384 = Key("P-384", ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())
    rsa_key = Key("RSA", rsa.generate_private_key(65537, 2048), hashes.SHA256())
    small_rsa = Key("RSA 1024", rsa.generate_private_key(65537, 1024), hashes.SHA256())
    k256 = Key("secp256k1", ec.generate_private_key(ec.SECP256K1()), hashes.SHA256())
    pss = rsa_key.private.sign(identity.proof_text.encode(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    der_csr = key.csr().public_bytes(serialization.Encoding.DER)
    head, payload, signature = identity.token.split(".")
    forged = ".".join([head, payload, ("A" if signature[0] != "A" else "B") + signature[1:]])

    def by_challenge(other, text=identity.proof_text, algorithm=None):
        return v2_challenge(other.pem, b64(other.sign(text, algorithm)))

    refusals = [
        ("no token", V2, challenge, {}, BAD_TOKEN),
        ("no token, v1", V1, v1_challenge(b64(key.spki), proof), {}, BAD_TOKEN),
        ("a bad token in the body beside a good one in the header", V2,
         {"credentials": {"oidcIdentityToken": "not a token"}, **challenge}, in_header, BAD_TOKEN),
        ("changed signature of the token", V2, challenge, bearer(forged), BAD_TOKEN),
        ("token for another audience", V2, challenge,
         bearer(server.token({"email": "dev@example.com", "aud": "elsewhere"})), BAD_TOKEN),
        ("proof over another text", V2, by_challenge(key, "eve@example.com"), in_header, BAD_PROOF),
        ("P-384 proof with SHA-256", V2, by_challenge(p384, algorithm=hashes.SHA256()), in_header, BAD_PROOF),
        ("RSA-PSS proof", V2, v2_challenge(rsa_key.pem, b64(pss)), in_header, BAD_PROOF),
        ("proof by another key", V2, v2_challenge(p384.pem, proof), in_header, BAD_PROOF),
        ("RSA key of 1024 bits", V2, by_challenge(small_rsa), in_header, WEAK_KEY),
        ("key on secp256k1", V2, by_challenge(k256), in_header, BAD_KEY),
        ("v2 key as bare base64 of DER", V2, v2_challenge(b64(key.spki), proof), in_header, BAD_KEY),
        ("CSR as base64 of DER", V2, {"certificateSigningRequest": b64(der_csr)}, in_header, BAD_CSR),
    ]
    for name, path, body, headers, message in refusals:
        with checks(f"refusal: {name}"):
            refused(ask(server, path, body, headers), 400, 3, message)

    twice = b'{"credentials":{},"credentials":{}}'
    for name, body in [("not JSON", b"hello"), ("a list", b"[]"), ("the same member twice", twice)]:
        with checks(f"refusal: {name}"):
            response = server.send("POST", V2, body, in_header)
            same((response.status, json.loads(response.body)["code"]), (400, 3), "status and code")

    with checks("refusal: wrong method"):
        response = server.send("GET", V2)
        code = json.loads(response.body)["code"]
        same((response.status, response.headers.get("allow"), code), (405, "POST", 12), "status, Allow and code")
    with checks("refusal: unknown path"):
        response = server.send("GET", "/api/v3/signingCert")
        same((response.status, json.loads(response.body)["code"]), (404, 5), "status and code")
    with checks("refusal: body over the limit"):
        same(server.send("POST", V2, b" " * (128 * 1024 + 1), in_header).status, 413, "status")


def check_reads(checks, server, trust):
    with checks("GET /healthz"):
        response = server.send("GET", "/healthz")
        same((response.status, json.loads(response.body)), (200, {"status": "SERVING"}), "answer")
    with checks("GET /api/v2/trustBundle"):
        response = server.send("GET", "/api/v2/trustBundle")
        pems = [pem_certificate(each) for each in trust.chain]  # each with its final newline
        same((response.status, json.loads(response.body)), (200, {"chains": [{"certificates": pems}]}), "answer")
    with checks("GET /api/v1/rootCert"):
        response = server.send("GET", "/api/v1/rootCert")
        same(response.headers["content-type"], "application/pem-certificate-chain", "Content-Type")
        pems = "\n".join(pem_certificate(each) for each in trust.chain).strip()  # an empty line between the blocks
        same((response.status, response.text), (200, pems), "answer")
    with checks("GET /api/v2/configuration"):
        response = server.send("GET", "/api/v2/configuration")
        issuers = {each["issuerUrl"]: each for each in json.loads(response.body)["issuers"]}
        email = issuers[f"{server.url}/dev/oidc"]
        said = [email[member] for member in ("audience", "challengeClaim", "issuerType")]
        same(said, ["sigstore", "email", "email"], "the issuer of e-mail addresses")


def refused(response, status, code, message):
    """Checks a refusal: status, gRPC code, and a message that begins with Fulcio's text and then gives a reason."""
    same(response.status, status, f"status ({response.text[:200]})")
    same(response.headers["content-type"], "application/json", "Content-Type")
    answer = json.loads(response.body)
    same((answer["code"], answer["details"]), (code, []), "code and details")
    begins = answer["message"].startswith(f"{message}: ")
    holds(begins, f"message {answer['message']!r} does not begin with {message + ': '!r}")
    holds(response.headers.get("mayfly-reason"), "no Mayfly-Reason header")


def main():
    binary()
    checks = Checks()
    with dev() as server:
        identity = email_identity(server)
        key = Key("P-256", ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        check_shapes(checks, server, key, identity)
        check_refusals(checks, server, key, identity)
        check_reads(checks, server, Trust(server.folder))
    checks.exit()


if __name__ == "__main__":
    main()
