"""Opens segments of telemetry with pyhpke, which nobody here wrote, from the format's description alone.

argv: a JSON list of {"segment": FILE, "key": 64 hexadecimal digits, "detached": the same or ""}. Prints a JSON list: the
unpacked records of each frame in hexadecimal digits, or the name of the error.
"""

import hashlib
import json
import struct
import sys

import pyhpke
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SUITE = pyhpke.CipherSuite.new(
    pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, pyhpke.AEADId.AES256_GCM
)


def varint(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(message):
    """The fields of a protobuf message that has numbers and bytes only."""
    found, at = {}, 0
    while at < len(message):
        tag, at = varint(message, at)
        value, at = varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        found[tag >> 3] = value
    return found


def part(data, at):
    (length,) = struct.unpack_from("<H", data, at)
    return data[at + 2 : at + 2 + length], at + 2 + length


def open_segment(path, key, detached):
    data = open(path, "rb").read()
    if data[:8] != b"ORTLSEG\x01":
        raise ValueError("no segment")
    header, at = part(data, 8)
    encapsulated, at = part(data, at)
    check = hashlib.sha256(b"\0" * 8 + data[:at]).digest()[:8]
    if data[at : at + 8] != check:
        raise ValueError("check of the header")
    at += 8
    said = fields(header)
    device, number = said[2], said[3]
    private = SUITE.kem.deserialize_private_key(key)
    public = X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    if hashlib.sha256(public).digest() != said[5]:
        raise ValueError("another key")
    context = SUITE.create_recipient_context(
        encapsulated or detached, private, info=b"outrigger-telemetry-v1\0" + header
    )
    frames = []
    while at < len(data):
        length, _records = struct.unpack_from("<II", data, at)
        body = data[at + 16 : at + 16 + length]
        check = hashlib.sha256(check + data[at : at + 8] + body).digest()[:8]
        if data[at + 8 : at + 16] != check:
            raise ValueError("check of a frame")
        aad = device + b"\0" + struct.pack(">QQ", number, len(frames))
        plain = zstandard.ZstdDecompressor().decompress(context.open(body, aad), 4 << 20)
        frames.append(plain.hex())
        at += 16 + length
    return frames


def answer(asked):
    try:
        key, detached = bytes.fromhex(asked["key"]), bytes.fromhex(asked["detached"])
        return open_segment(asked["segment"], key, detached)
    except (ValueError, pyhpke.PyHPKEError) as error:
        return type(error).__name__


print(json.dumps([answer(asked) for asked in json.loads(sys.argv[1])]))
