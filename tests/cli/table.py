"""Reads and writes a checkpoint's index file well enough to make hostile ones: a sorted table as
LevelDB lays it out, whose values are protobuf messages. docs/checkpoint-format.md describes it.
"""

import struct

_MAGIC = bytes.fromhex("57fb808b247547db")


def _make_crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _make_crc_table()


def masked_crc(data):
    """The CRC-32C of `data`, rotated and offset as it is stored."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def parse_message(data):
    """The fields of a protobuf message, in order: (number, wire type, value)."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
        else:
            if kind == 2:
                size, at = _read_varint(data, at)
            else:
                size = {1: 8, 5: 4}[kind]
            value, at = data[at:at + size], at + size
        fields.append((number, kind, value))
    return fields


def message(*fields):
    """A message of (number, value): an int makes a varint, bytes a length-delimited field."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def header(num_shards=1, endianness=0, producer=1):
    return message((1, num_shards), (2, endianness), (3, message((1, producer))))


def entry(dtype=1, shape=(), shard=0, offset=0, size=0, crc=0, unknown_rank=False):
    dims = [(2, message((1, dim))) for dim in shape]
    if unknown_rank:
        dims.append((3, 1))
    return message((1, dtype), (2, message(*dims)), (3, shard), (4, offset), (5, size)) + \
        varint(6 << 3 | 5) + struct.pack("<I", crc)


def block(entries, restarts=None):
    """A block with a restart at every entry, unless `restarts` says otherwise."""
    out, at = b"", []
    for key, value in entries:
        at.append(len(out))
        out += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    at = restarts if restarts is not None else at or [0]
    return out + b"".join(struct.pack("<I", r) for r in at) + struct.pack("<I", len(at))


def table(data_block, footer=None):
    """The file around one data block; `footer` replaces the four numbers of the block handles."""
    out = b""

    def add(contents):
        nonlocal out
        at = len(out)
        out += contents + b"\0" + struct.pack("<I", masked_crc(contents + b"\0"))
        return at, len(contents)

    data = add(data_block)
    meta = add(block([]))
    index = add(block([(b"\xff" * 8, varint(data[0]) + varint(data[1]))]))
    handles = b"".join(map(varint, footer or meta + index))
    return out + handles.ljust(40, b"\0") + _MAGIC


def write_index(entries):
    return table(block(sorted(entries.items())))


def read_index(contents):
    """The entries of an index file that is sound, as key -> value."""
    assert contents[-8:] == _MAGIC
    at, numbers = len(contents) - 48, []
    for _ in range(4):
        number, at = _read_varint(contents, at)
        numbers.append(number)
    entries = {}
    for handle in _read_block(contents, *numbers[2:]).values():
        offset, at = _read_varint(handle, 0)
        size, at = _read_varint(handle, at)
        entries.update(_read_block(contents, offset, size))
    return entries


def _read_block(contents, offset, size):
    data = contents[offset:offset + size]
    (restarts,) = struct.unpack("<I", data[-4:])
    entries, key, at = {}, b"", 0
    while at < size - 4 - 4 * restarts:
        shared, at = _read_varint(data, at)
        unshared, at = _read_varint(data, at)
        value_size, at = _read_varint(data, at)
        key = key[:shared] + data[at:at + unshared]
        at += unshared
        entries[key] = data[at:at + value_size]
        at += value_size
    return entries
