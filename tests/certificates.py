#!/usr/bin/env python3
"""Certificates as others read them.

Starts `mayfly dev`, gets a certificate for every kind of key and of identity, and reads each octet by octet, with
OpenSSL and with Python's `cryptography`; then has another reader find all of them in the log. MAYFLY_BIN names the binary.
"""

import hashlib
import json
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

import der
from client import (
    CHALLENGE, CSR, V1, V2, Trust, chain_of, client_keys, email_identity, identities, pem_certificate, plain_request, spki,
)
from harness import Checks, binary, dev, holds, same, succeed


@dataclass(frozen=True)
class Leaf:
    """A certificate taken apart without a library."""

    tbs: bytes
    fields: list  # of the TBS, each encoded
    algorithm: bytes
    extensions: list  # (OID encoded, critical, value), in order

    @classmethod
    def of(cls, certificate):
        encoded = certificate.public_bytes(serialization.Encoding.DER)
        tbs, algorithm, _ = der.children(der.only(encoded, der.SEQUENCE))
        fields = der.children(der.only(tbs, der.SEQUENCE))
        extensions = der.children(der.only(der.only(fields[7], 0xA3), der.SEQUENCE))
        return cls(tbs, fields, algorithm, [extension(each) for each in extensions])

    def without_sct_list(self):
        """The TBS as it was logged (RFC 6962, section 3.2)."""
        kept = [
            der.encode(der.SEQUENCE, each)
            for each in (
                oid + (b"\x01\x01\xff" if critical else b"") + der.encode(der.OCTET_STRING, value)
                for oid, critical, value in self.extensions[:-1]
            )
        ]
        last = der.encode(0xA3, der.encode(der.SEQUENCE, b"".join(kept)))
        return der.encode(der.SEQUENCE, b"".join(self.fields[:7]) + last)


def extension(encoded):
    parts = der.children(der.only(encoded, der.SEQUENCE))
    if len(parts) == 3:
        # An explicit FALSE is not DER, and clients that encode the TBS anew would then miss the SCT's signature.
        same(parts[1], b"\x01\x01\xff", "critical")
    return parts[0], len(parts) == 3, der.only(parts[-1], der.OCTET_STRING)


def check_profile(chain, trust, key, identity, asked, answered):
    """Compares a certificate with the profile, field by field."""
    same([each.public_bytes(serialization.Encoding.DER) for each in chain[1:]],
         [each.public_bytes(serialization.Encoding.DER) for each in trust.chain], "chain after the leaf")
    certificate, authority = chain[0], chain[1]
    leaf = Leaf.of(certificate)
    version, serial, algorithm, issuer, validity, subject, public_key, _ = leaf.fields

    same(version, bytes.fromhex("a003020102"), "version")
    serial = der.only(serial, der.INTEGER)
    holds(8 < len(serial) <= 20 and serial[0] < 0x80, f"serial {serial.hex()}: positive, 9 to 20 octets")
    same(algorithm, der.encode(der.SEQUENCE, der.oid("1.2.840.10045.4.3.2")), "algorithm: ecdsa-with-SHA256")
    same(leaf.algorithm, algorithm, "algorithm outside the TBS")
    same(issuer, authority.subject.public_bytes(), "issuer: the authority's subject as it is")
    not_before, not_after = map(utc_time, der.children(der.only(validity, der.SEQUENCE)))
    same(not_after - not_before, timedelta(seconds=600), "validity")
    holds(asked.replace(microsecond=0) <= not_before <= answered, f"notBefore {not_before} is not the time of the request")
    same(subject, b"\x30\x00", "subject: empty")
    same(public_key, key.spki, "the client's key")

    key_bits = der.only(der.children(der.only(public_key, der.SEQUENCE))[1], der.BIT_STRING)[1:]
    authority_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    same(
        [(oid.hex(), critical, value.hex()) for oid, critical, value in leaf.extensions[:-1]],
        [
            (der.oid(oid).hex(), critical, value.hex())
            for oid, critical, value in [
                ("2.5.29.15", True, bytes.fromhex("03020780")),
                ("2.5.29.37", False, der.encode(der.SEQUENCE, der.oid("1.3.6.1.5.5.7.3.3"))),
                ("2.5.29.14", False, der.encode(der.OCTET_STRING, hashlib.sha1(key_bits).digest())),
                ("2.5.29.35", False, der.encode(der.SEQUENCE, der.encode(0x80, authority_id))),
                ("2.5.29.17", True, der.encode(der.SEQUENCE, identity.san)),
                *(sigstore_extension(arc, text) for arc, text in identity.facts),
            ]
        ],
        "extensions before the SCT list",
    )
    check_sct(leaf, trust, authority, asked, answered)


def sigstore_extension(arc, text):
    """The first six hold the bare text, the others a UTF8String."""
    value = text.encode() if arc <= 6 else der.encode(der.UTF8_STRING, text.encode())
    return f"1.3.6.1.4.1.57264.1.{arc}", False, value


def utc_time(encoded):
    return datetime.strptime(der.only(encoded, der.UTC_TIME).decode(), "%y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def check_sct(leaf, trust, authority, asked, answered):
    """Checks that the last extension is a list of exactly one SCT, and that the log signed it (RFC 6962, section 3.2)."""
    oid, critical, value = leaf.extensions[-1]
    same((oid, critical), (der.oid("1.3.6.1.4.1.11129.2.4.2"), False), "last extension: SCT list")
    scts = vector(der.only(value, der.OCTET_STRING))
    sct = vector(scts)

    same((sct[:1], sct[1:33]), (b"\x00", trust.log_id), "version and log ID")
    timestamp = datetime.fromtimestamp(int.from_bytes(sct[33:41], "big") / 1000, timezone.utc)
    holds(asked - timedelta(milliseconds=1) <= timestamp <= answered, f"SCT timestamp {timestamp} is not of the request")
    size = int.from_bytes(sct[41:43], "big")
    extensions, signed = sct[43 : 43 + size], sct[43 + size :]
    same((size, extensions[:3]), (8, bytes.fromhex("000005")), "SCT extensions: a leaf index of five octets")
    same(signed[:2], bytes.fromhex("0403"), "SCT signature: ECDSA with SHA-256")

    key_hash = hashlib.sha256(spki(authority.public_key())).digest()
    tbs = leaf.without_sct_list()
    entry = b"\x00\x00" + sct[33:41] + b"\x00\x01" + key_hash + len(tbs).to_bytes(3, "big") + tbs + sct[41 : 43 + size]
    trust.log_key.verify(vector(signed[2:]), entry, ec.ECDSA(hashes.SHA256()))


def vector(octets):
    """The content of a TLS vector with a length of two octets, which must be all there is."""
    same(int.from_bytes(octets[:2], "big"), len(octets) - 2, "length of a vector")
    return octets[2:]


def check_with_cryptography(chain, trust, key):
    """Reads the same certificate through `cryptography`'s eyes."""
    leaf = chain[0]
    for subject, authority in zip(chain, [*chain[1:], trust.root]):
        subject.verify_directly_issued_by(authority)
    same(leaf.public_key(), key.private.public_key(), "public key")
    extensions = leaf.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    holds(usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign, f"key usage {usage}")
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    same(list(purposes), [ExtendedKeyUsageOID.CODE_SIGNING], "extended key usage")
    same(len(extensions.get_extension_for_class(x509.SubjectAlternativeName).value), 1, "names")
    scts = extensions.get_extension_for_oid(ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS).value
    same([sct.log_id for sct in scts], [trust.log_id], "log IDs of the SCTs")
    same(leaf.tbs_precertificate_bytes, Leaf.of(leaf).without_sct_list(), "TBS of the precertificate")


def check_with_openssl(chain, trust, key, identity):
    """Reads the same certificate through OpenSSL's eyes."""
    leaf, issuing = trust.folder / "leaf.pem", trust.folder / "issuing.pem"
    leaf.write_text(pem_certificate(chain[0]))
    issuing.write_text("".join(map(pem_certificate, chain[1:-1])))
    succeed("openssl", "verify", "-x509_strict", "-purpose", "any",
            "-CAfile", trust.folder / "root.pem", "-untrusted", issuing, leaf)
    same(succeed("openssl", "x509", "-in", leaf, "-noout", "-pubkey"), key.pem, "public key")
    names = succeed("openssl", "x509", "-in", leaf, "-noout", "-ext", "subjectAltName")
    same(names.split("\n", 1)[1].strip(), identity.san_text, "subject alternative name")
    text = succeed("openssl", "x509", "-in", leaf, "-noout", "-text")
    for words in ("Code Signing", "CT Precertificate SCTs", "Signature : ecdsa-with-SHA256"):
        holds(words in text, f"no {words!r} in the text of the certificate")


def check_certificate(checks, server, trust, path, proof, key, identity, kind):
    with checks(f"certificate: {'v1' if path == V1 else 'v2'}, {proof}, {key.name}, {kind}"):
        asked = datetime.now(timezone.utc)
        response = plain_request(server, path, proof, key, identity)
        answered = datetime.now(timezone.utc)
        chain = chain_of(response, path)
        check_profile(chain, trust, key, identity, asked, answered)
        check_with_cryptography(chain, trust, key)
        if shutil.which("openssl"):
            check_with_openssl(chain, trust, key, identity)
        (trust.folder / f"issued-{time.time_ns()}.pem").write_text("".join(map(pem_certificate, chain)))


def check_log(checks, server, trust):
    """Has the independent reader rebuild the log and find every certificate that was issued."""
    trusted_root = json.loads((trust.folder / "trusted_root.json").read_text())
    url = trusted_root["ctlogs"][0]["baseUrl"]
    issued = sorted(trust.folder.glob("issued-*.pem"))
    with checks(f"log: another reader finds all {len(issued)} certificates in it"):
        holds(issued, "no certificate was issued")
        found = [argument for path in issued for argument in ("--cert", path)]
        reader = Path(__file__).with_name("log_reader.py")
        print(succeed(sys.executable, reader, "--require-crypto", url, trust.folder / "ctfe.pub", *found), end="")


def main():
    binary()
    checks = Checks()
    if not shutil.which("openssl"):
        checks.skip("certificates read by OpenSSL", "openssl", "the openssl program is not installed")
    with dev() as server:
        trust = Trust(server.folder)
        keys = list(client_keys())
        email = email_identity(server)
        for key in keys:
            for path in (V1, V2):
                for proof in (CHALLENGE, CSR):
                    check_certificate(checks, server, trust, path, proof, key, email, "email")
        for kind, identity in identities(server):
            for path in (V1, V2):
                check_certificate(checks, server, trust, path, CHALLENGE, keys[0], identity, kind)
        check_log(checks, server, trust)
    checks.exit()


if __name__ == "__main__":
    main()
