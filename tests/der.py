"""As much DER as the tests need to look at a certificate octet by octet, on purpose without a library."""

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID, UTF8_STRING = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C
SEQUENCE, UTC_TIME = 0x30, 0x17


def encode(tag, content):
    """One value: tag, definite length in its shortest form, content."""
    size = len(content)
    if size < 0x80:
        length = bytes([size])
    else:
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + length + content


def decode(der):
    """The first value of `der` and what follows it: (tag, content, rest). Refuses any but the shortest length."""
    tag, first = der[0], der[1]
    header = 2
    size = first
    if first >= 0x80:
        header += first & 0x7F
        size = int.from_bytes(der[2:header], "big")
    content = der[header : header + size]
    if encode(tag, content) != der[: header + size]:
        raise AssertionError(f"not DER: {der[:16].hex()}…")
    return tag, content, der[header + size :]


def only(der, tag):
    """The content of the one value that `der` is, which has this tag."""
    found, content, rest = decode(der)
    if found != tag or rest:
        raise AssertionError(f"want one value with tag {tag:#04x}, got tag {found:#04x} and {len(rest)} octets after it")
    return content


def children(content):
    """The values in a row, each as its whole encoding."""
    values = []
    while content:
        _, _, rest = decode(content)
        values.append(content[: len(content) - len(rest)])
        content = rest
    return values


def oid(dotted):
    """The encoding of an object identifier given in dotted form."""
    first, second, *arcs = map(int, dotted.split("."))
    octets = bytearray()
    for arc in [40 * first + second, *arcs]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        octets += bytes(reversed(groups))
    return encode(OID, bytes(octets))
