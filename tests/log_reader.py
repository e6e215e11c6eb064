#!/usr/bin/env python3
"""A second reader of the certificate transparency log, written from the specifications alone.

Fetches everything that a static-ct-api log serves, computes the whole tree again, and finds certificates in it:

    log_reader.py [--require-crypto] URL PUBLIC_KEY.pem [--cert CHAIN.pem]...

URL is the log's prefix, such as http://127.0.0.1:5555/ct/main/. Signatures are checked where Python's `cryptography` is
installed, everything else with the standard library. Ends with one line of summary, and 0 if all of it holds.
"""

import argparse
import base64
import hashlib
import re
import struct
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import der

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    ec = None

# The only limit in time: what has not happened by then is taken to hang.
HANG_SECONDS = 30
TILE_WIDTH = 256
POISON = der.oid("1.3.6.1.4.1.11129.2.4.3")
SCT_LIST = der.oid("1.3.6.1.4.1.11129.2.4.2")


class Wrong(Exception):
    """Something that the log says does not hold."""


def holds(claim, what):
    if not claim:
        raise Wrong(what)


# Hashes (RFC 6962, section 2.1).


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(leaf):
    return sha256(b"\x00", leaf)


def root_of(leaves):
    """The definition, by recursion."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return sha256(b"\x01", root_of(leaves[:middle]), root_of(leaves[middle:]))


class Reader:
    """Cuts fields off octets; all numbers are big-endian."""

    def __init__(self, octets):
        self.octets, self.position = octets, 0

    def take(self, count):
        holds(self.position + count <= len(self.octets), "something is cut short")
        self.position += count
        return self.octets[self.position - count : self.position]

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def field(self, width):
        """A field after its length in `width` octets."""
        return self.take(self.number(width))

    @property
    def is_at_end(self):
        return self.position == len(self.octets)


# Signatures (RFC 6962, sections 2.1.4 and 3.2).


@dataclass(frozen=True)
class Key:
    """The log's public key."""

    spki: bytes

    @classmethod
    def of(cls, pem):
        return cls(pem_blocks(pem, "PUBLIC KEY")[0])

    @property
    def log_id(self):
        return sha256(self.spki)

    def check(self, signed, message, what):
        """Checks a `digitally-signed` struct."""
        reader = Reader(signed)
        holds(reader.take(2) == b"\x04\x03", f"{what}: not signed by ECDSA with SHA-256")
        signature = reader.field(2)
        holds(reader.is_at_end, f"{what}: octets after the signature")
        if ec is None:
            return
        try:
            public_key = serialization.load_der_public_key(self.spki)
            public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Wrong(f"{what}: the signature does not verify") from None


def pem_blocks(text, label):
    pattern = f"-----BEGIN {label}-----(.*?)-----END {label}-----"
    blocks = [base64.b64decode(body) for body in re.findall(pattern, text, re.DOTALL)]
    holds(blocks, f"no PEM block {label}")
    return blocks


# The log's files (C2SP static-ct-api).


class Log:
    """A log somewhere, read over HTTP."""

    def __init__(self, url):
        self.url = url.rstrip("/") + "/"
        # A log is read where it is, never through what a proxy remembers of it.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path, content_type):
        """The content of a file, or None where there is none."""
        try:
            with self.opener.open(self.url + path, timeout=HANG_SECONDS) as response:
                found = response.headers.get("Content-Type")
                holds(found == content_type, f"{path}: Content-Type {found}")
                return response.read()
        except urllib.error.HTTPError as error:
            holds(error.code == 404, f"{path}: status {error.code}")
            return None

    def checkpoint(self):
        note = self.get("checkpoint", "text/plain; charset=utf-8")
        holds(note is not None, "there is no checkpoint")
        return note.decode()

    def tile(self, level, index, width):
        path = tile_path(level, index, width)
        tile = self.get(path, "application/octet-stream")
        holds(tile is not None, f"{path} is missing")
        return tile

    def issuer(self, fingerprint):
        path = f"issuer/{fingerprint.hex()}"
        certificate = self.get(path, "application/pkix-cert")
        holds(certificate is not None, f"{path} is missing")
        holds(sha256(certificate) == fingerprint, f"{path} has another hash")
        return certificate


def tile_path(level, index, width):
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def tiles(size):
    """Index and width of every tile over `size` hashes or entries."""
    for start in range(0, size, TILE_WIDTH):
        yield start // TILE_WIDTH, min(TILE_WIDTH, size - start)


@dataclass(frozen=True)
class Head:
    """What a checkpoint says."""

    origin: str
    size: int
    root: bytes
    timestamp: int


def read_checkpoint(note, key):
    """Reads a checkpoint and checks the log's signature on it."""
    match = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n\n((?:\u2014 [^ \n]+ [^ \n]+\n)+)", note)
    holds(match, f"not a checkpoint: {note!r}")
    origin, size, root = match[1], int(match[2]), base64.b64decode(match[3])
    key_id = sha256(origin.encode(), b"\n\x05", key.log_id)[:4]
    own = []
    for line in match[4].splitlines():
        _, name, blob = line.split(" ")
        blob = base64.b64decode(blob, validate=True)
        if name == origin and blob[:4] == key_id:
            own.append(blob[4:])
    holds(len(own) == 1, f"{len(own)} signatures of the log's key in the checkpoint")
    timestamp = int.from_bytes(own[0][:8], "big")
    signed = struct.pack(">BBQQ", 0, 1, timestamp, size) + root
    key.check(own[0][8:], signed, "checkpoint")
    return Head(origin, size, root, timestamp)


# Entries (RFC 6962, sections 3.2 and 3.4; static-ct-api, "Log Entries").


@dataclass(frozen=True)
class Entry:
    """One entry of a data tile, taken apart."""

    timestamp: int
    issuer_key_hash: bytes
    tbs: bytes
    extensions: bytes
    precertificate: bytes
    fingerprints: list

    @classmethod
    def read(cls, reader):
        timestamp = reader.number(8)
        holds(reader.number(2) == 1, "an entry that is no precertificate")
        key_hash, tbs, extensions = reader.take(32), reader.field(3), reader.field(2)
        precertificate, fingerprints = reader.field(3), Reader(reader.field(2))
        chain = []
        while not fingerprints.is_at_end:
            chain.append(fingerprints.take(32))
        return cls(timestamp, key_hash, tbs, extensions, precertificate, chain)

    @property
    def leaf(self):
        return merkle_tree_leaf(self.timestamp, self.issuer_key_hash, self.tbs, self.extensions)


def merkle_tree_leaf(timestamp, issuer_key_hash, tbs, extensions):
    """What is hashed into the tree, and what an SCT signs."""
    return b"".join(
        (
            b"\x00\x00",
            timestamp.to_bytes(8, "big"),
            b"\x00\x01",
            issuer_key_hash,
            len(tbs).to_bytes(3, "big"),
            tbs,
            len(extensions).to_bytes(2, "big"),
            extensions,
        )
    )


def leaf_index(extensions):
    """The leaf index among SCT extensions, or None."""
    reader, found = Reader(extensions), []
    while not reader.is_at_end:
        kind, data = reader.number(1), reader.field(2)
        if kind == 0:
            holds(len(data) == 5, "a leaf index that has not five octets")
            found.append(int.from_bytes(data, "big"))
    holds(len(found) <= 1, "two leaf indexes in one SCT")
    return found[0] if found else None


# Certificates (RFC 5280, section 4.1).


def fields_of(certificate):
    """The TBSCertificate, and its fields, each encoded."""
    tbs = der.children(der.only(certificate, der.SEQUENCE))[0]
    return tbs, der.children(der.only(tbs, der.SEQUENCE))


def spki_of(certificate):
    return fields_of(certificate)[1][6]


def without_extension(certificate, oid):
    """The TBSCertificate without an extension that it has once, and that extension's value."""
    _, fields = fields_of(certificate)
    extensions = der.children(der.only(der.only(fields[-1], 0xA3), der.SEQUENCE))
    removed = [each for each in extensions if der.children(der.only(each, der.SEQUENCE))[0] == oid]
    holds(len(removed) == 1, f"{len(removed)} extensions {oid.hex()} in a certificate")
    kept = b"".join(each for each in extensions if each != removed[0])
    rest = der.encode(0xA3, der.encode(der.SEQUENCE, kept)) if kept else b""
    tbs = der.encode(der.SEQUENCE, b"".join(fields[:-1]) + rest)
    value = der.only(der.children(der.only(removed[0], der.SEQUENCE))[-1], der.OCTET_STRING)
    return tbs, value


@dataclass(frozen=True)
class Sct:
    """The one SCT in a certificate."""

    log_id: bytes
    timestamp: int
    extensions: bytes
    signed: bytes

    @classmethod
    def read(cls, extension_value):
        scts = Reader(Reader(der.only(extension_value, der.OCTET_STRING)).field(2))
        reader = Reader(scts.field(2))
        holds(scts.is_at_end, "more than one SCT in a certificate")
        holds(reader.number(1) == 0, "an SCT of another version")
        sct = cls(reader.take(32), reader.number(8), reader.field(2), reader.octets[reader.position :])
        return sct


# The audit.


class Audit:
    """Everything that was read of one log, checked."""

    def __init__(self, log, key):
        self.log, self.key = log, key
        self.head = read_checkpoint(log.checkpoint(), key)
        self.leaves = []
        self.issuers = {}

    def wait_for(self, index):
        """Waits until the checkpoint covers an entry, as its SCT promises."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.head.size <= index:
            holds(time.monotonic() < deadline, f"entry {index} is not published after {HANG_SECONDS} s")
            time.sleep(0.05)
            head = read_checkpoint(self.log.checkpoint(), self.key)
            holds(head.size >= self.head.size, "the log shrank")
            holds(head.timestamp >= self.head.timestamp, "the checkpoint's time went back")
            self.head = head

    def read(self):
        """Reads every file that the checkpoint covers, and computes the tree from the entries."""
        self.read_entries()
        holds(root_of(self.leaves) == self.head.root, "the root in the checkpoint is not that of the entries")
        self.compare_hash_tiles()

    def read_entries(self):
        """Reads the entries that are not known yet; those that are end with a full tile."""
        last_timestamp = 0
        for index, width in list(tiles(self.head.size))[len(self.leaves) // TILE_WIDTH :]:
            reader = Reader(self.log.tile("data", index, width))
            for _ in range(width):
                entry = Entry.read(reader)
                position = len(self.leaves)
                holds(leaf_index(entry.extensions) in (position, None), f"entry {position} has another index")
                holds(entry.timestamp >= last_timestamp, f"entry {position} is older than the one before it")
                last_timestamp = entry.timestamp
                self.check_entry(entry, position)
                self.leaves.append(leaf_hash(entry.leaf))
            holds(reader.is_at_end, f"data tile {index} holds more than {width} entries")
        holds(last_timestamp <= self.head.timestamp, "the checkpoint is older than its newest entry")

    def check_entry(self, entry, position):
        """Checks that the entry is what its precertificate and its issuer make it."""
        tbs, poison = without_extension(entry.precertificate, POISON)
        holds(poison == b"\x05\x00", f"entry {position}: the poison is not NULL")
        holds(tbs == entry.tbs, f"entry {position}: its TBSCertificate is not that of its precertificate")
        holds(entry.fingerprints, f"entry {position} names no issuer")
        for fingerprint in entry.fingerprints:
            if fingerprint not in self.issuers:
                self.issuers[fingerprint] = self.log.issuer(fingerprint)
        issuer = self.issuers[entry.fingerprints[0]]
        holds(sha256(spki_of(issuer)) == entry.issuer_key_hash, f"entry {position} has another issuer's key")

    def compare_hash_tiles(self):
        hashes_of_level, level = self.leaves, 0
        while hashes_of_level:
            for index, width in tiles(len(hashes_of_level)):
                start = index * TILE_WIDTH
                computed = b"".join(hashes_of_level[start : start + width])
                tile = self.log.tile(level, index, width)
                holds(tile == computed, f"{tile_path(level, index, width)} does not hold the tree's hashes")
            beyond = tile_path(level, len(hashes_of_level) // TILE_WIDTH, TILE_WIDTH)
            holds(self.log.get(beyond, "application/octet-stream") is None, f"{beyond} is served and not full")
            full = len(hashes_of_level) // TILE_WIDTH
            spans = (hashes_of_level[index * TILE_WIDTH : (index + 1) * TILE_WIDTH] for index in range(full))
            hashes_of_level, level = [root_of(span) for span in spans], level + 1

    def find(self, found):
        """Checks a certificate's SCT, and that its entry is in the tree. The tree has to be large enough."""
        sct, leaf, name = found.sct, found.leaf, found.name
        holds(sct.log_id == self.key.log_id, f"{name}: its SCT is another log's")
        self.key.check(sct.signed, leaf, f"{name}: SCT")
        index = found.index
        if index is None:
            holds(leaf_hash(leaf) in self.leaves, f"{name}: no entry of the log is the certificate's")
        else:
            holds(index < len(self.leaves), f"{name}: entry {index} is not in the log, which has {len(self.leaves)}")
            holds(self.leaves[index] == leaf_hash(leaf), f"{name}: entry {index} is not the certificate's")


class Memory(Audit):
    """A reader who comes back again and again, and forgets nothing: the log may only ever grow."""

    def __init__(self, log, key):
        super().__init__(log, key)
        self.heads = []
        self.subtrees = []

    def look(self):
        """Reads the checkpoint alone; its root is checked as soon as the entries under it are read."""
        head = read_checkpoint(self.log.checkpoint(), self.key)
        holds(head.size >= self.head.size, f"the log shrank from {self.head.size} entries to {head.size}")
        holds(head.timestamp >= self.head.timestamp, "the checkpoint's time went back")
        if head not in self.heads[-1:]:
            self.heads.append(head)
        self.head = head

    def catch_up(self):
        """Reads what is new, with the tile in which that begins, and checks every checkpoint seen since the last time."""
        self.look()
        known = self.leaves
        self.leaves = known[: len(known) // TILE_WIDTH * TILE_WIDTH]
        kept = len(self.leaves)
        self.read_entries()
        holds(self.leaves[kept : len(known)] == known[kept:], "entries that were published have changed")
        waiting = sorted(self.heads, key=lambda head: head.size)
        holds(not waiting or waiting[0].size >= len(known), "the log shrank")
        for head in waiting:
            while sum(size for size, _ in self.subtrees) < head.size:
                self.grow(self.leaves[sum(size for size, _ in self.subtrees)])
            holds(self.root() == head.root, f"the root over {head.size} entries is not that of a checkpoint seen before")
        self.heads = []

    def grow(self, leaf):
        """Adds a leaf to the perfect subtrees, largest first, of which two of one size become one."""
        size = 1
        while self.subtrees and self.subtrees[-1][0] == size:
            leaf = sha256(b"\x01", self.subtrees.pop()[1], leaf)
            size *= 2
        self.subtrees.append((size, leaf))

    def root(self):
        roots = [root for _, root in self.subtrees] or [sha256()]
        root = roots.pop()
        while roots:
            root = sha256(b"\x01", roots.pop(), root)
        return root


class Found:
    """A certificate that has to be in the log."""

    def __init__(self, name, chain):
        """Takes a chain in PEM, leaf first."""
        self.name = name
        leaf, issuer, *_ = pem_blocks(chain, "CERTIFICATE")
        tbs, value = without_extension(leaf, SCT_LIST)
        self.sct = Sct.read(value)
        self.index = leaf_index(self.sct.extensions)
        key_hash = sha256(spki_of(issuer))
        self.leaf = merkle_tree_leaf(self.sct.timestamp, key_hash, tbs, self.sct.extensions)


def audit(arguments):
    key = Key.of(arguments.key.read_text())
    certificates = [Found(path.name, path.read_text()) for path in arguments.cert]
    result = Audit(Log(arguments.url), key)
    indexes = [found.index for found in certificates if found.index is not None]
    if indexes:
        result.wait_for(max(indexes))
    result.read()
    for found in certificates:
        result.find(found)
    return result


def main():
    parser = argparse.ArgumentParser(description="Reads a static-ct-api log, computes it again, and finds certificates.")
    parser.add_argument("--require-crypto", action="store_true", help="fail where signatures cannot be checked")
    parser.add_argument("--cert", action="append", default=[], type=Path, help="a chain whose first certificate is logged")
    parser.add_argument("url", help="the log's prefix")
    parser.add_argument("key", type=Path, help="the log's public key, PEM")
    arguments = parser.parse_args()
    if ec is None and arguments.require_crypto:
        sys.exit("FAIL the log: Python's cryptography is not installed, so no signature can be checked")
    try:
        result = audit(arguments)
    except (Wrong, AssertionError, ValueError, IndexError, OSError) as error:
        sys.exit(f"FAIL the log: {error or type(error).__name__}")
    signatures = "signatures verified" if ec else "signatures NOT checked"
    print(
        f"ok the log {result.head.origin}: {result.head.size} entries, {len(result.issuers)} issuers, "
        f"{len(arguments.cert)} certificates found, {signatures}"
    )


if __name__ == "__main__":
    main()
