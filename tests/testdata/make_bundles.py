"""Writes bundles/ and identical/: checkpoints made by TensorFlow, and what they hold.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_bundles.py

bundles/NAME.index, NAME.data-* is a checkpoint; bundles/NAME.txt says what a reader has to find,
one tensor a line, sorted by name, four fields separated by tabs:
    name   percent-encoded: every byte outside [A-Za-z0-9_./-] is %XX
    dtype  half, bfloat16, float, double, int8, ..., string, complex64, qint8, float8_e5m2, ...
    shape  [2,3]; a scalar is []
    value  numbers: the little-endian bytes of the elements in row-major order, in hex; above 256
           bytes @CRC/COUNT instead: their crc32c (not masked, 8 hex digits) and their number.
           strings: the elements, each in one of these two forms, separated by commas

The checkpoints:
    all_dtypes   every dtype that SaveV2 takes, with zeros, negative zeros, extremes, inf and nan
    strings      empty, 70,000 bytes, bytes that are no UTF-8, NULs, many, none, a scalar
    shapes       scalars, zero-sized shapes, up to rank 8
    names        odd names: spaces, slashes, non-ASCII bytes, a NUL, 2,000 characters
    many         6,000 float scalars, so that the index has several blocks
    sharded      a sharded Saver's, over three CPU devices; three data files
    partitioned  variables that are saved in slices
    v1           the old format: one file of SavedTensorSlices, no index

identical/: what a test can write again from scratch and compare byte for byte.
    first.{index,data-00000-of-00001} holds, saved by one SaveV2 in this order:
      a          float [5]      i * 0.5
      b/c        int32 [2,3]    i * 1000 - 2000
      b/d        string [3]     "", "ferry", 300 times "x"
      e          bool [4]       i % 3 == 1
      f          double []      -0.125
      g          int64 [0,2]
      h          half [3]       i + 0.5
      i          uint8 [7]      i * 36
      j/complex  complex64 [2]  i + 1 - 2j
      k          bfloat16 [2,2] i - 1
    blocks.index (its data file is left out; blocks.crc has that file's crc32c in hex and its size)
      holds 7,000 int32 scalars: NNNN is i in four digits, the name is
      vNNNN/wNNNN/xNNNN/yNNNN/zNNNN, the value is i
"""

import glob
import os
import shutil

from case_lib import HERE, crc32c, tf, tf1

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework import tensor_pb2

OUT = os.path.join(HERE, "bundles")
IDENTICAL = os.path.join(HERE, "identical")
LIMIT = 256
SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-")


def encode_name(name):
    return "".join(chr(c) if c in SAFE else "%%%02X" % c for c in name)


def encode_bytes(data):
    return data.hex() if len(data) <= LIMIT else "@%08x/%d" % (crc32c(data), len(data))


def line(name, dtype, shape, data):
    """data: bytes, or a list of bytes for strings."""
    value = (",".join(encode_bytes(e) for e in data) if dtype == "string" else encode_bytes(data))
    return "%s\t%s\t[%s]\t%s\n" % (encode_name(name), dtype, ",".join(map(str, shape)), value)


def write_manifest(name, tensors):
    with open(os.path.join(OUT, name + ".txt"), "w") as f:
        for t in sorted(tensors):
            f.write(line(*t))


def const(dtype, shape, data):
    """A Const of any dtype from its raw bytes (a list of bytes for strings)."""
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value("DT_" + dtype.upper()))
    for d in shape:
        proto.tensor_shape.dim.add().size = d
    if dtype == "string":
        proto.string_val.extend(data)
    else:
        proto.tensor_content = data
    g = tf1.get_default_graph()
    return g.create_op(
        "Const",
        [],
        [tf.as_dtype(proto.dtype)],
        attrs={
            "value": tf1.AttrValue(tensor=proto),
            "dtype": tf1.AttrValue(type=proto.dtype)
        },
    ).outputs[0]


def save(prefix, tensors, slices=None):
    """Saves (name, dtype, shape, data) by one SaveV2, in that order."""
    with tf.Graph().as_default():
        values = [const(*t[1:]) for t in tensors]
        op = tf.raw_ops.SaveV2(prefix=prefix,
                               tensor_names=tf.constant([t[0] for t in tensors]),
                               shape_and_slices=tf.constant(slices or [""] * len(tensors)),
                               tensors=values)
        with tf1.Session() as sess:
            sess.run(op)


def of(array):
    """(dtype, shape, data) of a numpy array."""
    a = np.asarray(array)
    name = types_pb2.DataType.Name(tf.as_dtype(a.dtype).as_datatype_enum)[3:].lower()
    return name, list(a.shape), a.tobytes()


def all_dtypes():
    special = [0.0, -0.0, 1.0, -1.0, 0.1, -2.5, np.inf, -np.inf, np.nan]
    tensors = []
    for name in ["half", "bfloat16", "float", "double"]:
        t = tf.as_dtype(types_pb2.DataType.Value("DT_" + name.upper())).as_numpy_dtype
        info = tf.experimental.numpy.finfo(t) if name != "bfloat16" else None
        a = np.array(special, dtype=t)
        if info is not None:
            a = np.concatenate([a, np.array([info.max, info.min, info.tiny], dtype=t)])
        # A denormal, the largest number and a nan with a payload, as bits.
        bits = {2: "<u2", 4: "<u4", 8: "<u8"}[a.itemsize]
        nan = {
            "half": 0xFE01,
            "bfloat16": 0xFF83,
            "float": 0xFFC00001,
            "double": 0xFFF8000000000001
        }[name]
        a = np.concatenate([a.view(bits), np.array([1, nan], dtype=bits)])
        tensors.append((name, [a.size], a.tobytes()))
    for t in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]:
        i = np.iinfo(t)
        tensors.append(of(np.array([[0, 1, 2], [i.max, i.min, i.max // 3]], dtype=t)))
    tensors.append(of(np.array([[True, False], [False, True]])))
    tensors.append(of(np.array([0, -1.5 + 2j, complex(np.inf, np.nan)], dtype=np.complex64)))
    tensors.append(of(np.array([0, -1.5 + 2j, complex(-0.0, 1e300)], dtype=np.complex128)))
    tensors.append(("string", [3], [b"", b"bytes \xff\x00", b"text"]))
    every_byte = bytes(range(256))
    for t, width in [("qint8", 1), ("quint8", 1), ("qint16", 2), ("quint16", 2), ("qint32", 4)]:
        tensors.append((t, [3, 2], every_byte[120:120 + 6 * width]))
    for t in [
            "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz",
            "float8_e5m2fnuz"
    ]:
        tensors.append((t, [256], every_byte))
    tensors.append(("int4", [16], bytes([(i - 8) & 0xFF for i in range(16)])))
    tensors.append(("uint4", [16], bytes(range(16))))
    tensors.append(("int2", [4], bytes([0, 1, 0xFE, 0xFF])))
    tensors.append(("uint2", [4], bytes([0, 1, 2, 3])))
    taken = []
    for t in tensors:
        named = (("t/" + t[0]).encode(),) + t
        try:
            save("/tmp/ferry_probe", [named])
            taken.append(named)
        except Exception as e:  # The dtype is no part of this TensorFlow's SaveV2.
            print("SaveV2 does not take %s: %s" % (t[0], str(e).splitlines()[0][:150]))
    for f in glob.glob("/tmp/ferry_probe*"):
        os.remove(f)
    save(os.path.join(OUT, "all_dtypes"), taken)
    write_manifest("all_dtypes", taken)


def strings():
    big = bytes((i * 7 + i // 251) & 0xFF for i in range(70000))
    tensors = [
        (b"empty_element", "string", [1], [b""]),
        (b"scalar", "string", [], [b"one scalar"]),
        (b"scalar_empty", "string", [], [b""]),
        (b"none", "string", [0], []),
        (b"none_2d", "string", [3, 0], []),
        (b"big", "string", [3], [b"before", big, b"after"]),
        (b"bytes", "string", [2, 2], [b"\xff\xfe", b"\x00", b"a\x00b\x00", b"\xc3\x28"]),
        (b"many", "string", [1000], [b"%d" % (i * i) for i in range(1000)]),
        (b"utf8", "string", [1], ["Fähre \u26f4 \U0001F6A2".encode()]),
        # Lengths on both sides of the steps of a varint.
        (b"lengths", "string", [6], [b"l" * n for n in (1, 127, 128, 129, 16383, 16384)]),
    ]
    save(os.path.join(OUT, "strings"), tensors)
    write_manifest("strings", tensors)


def shapes():
    tensors = []
    for s in [[], [0], [1], [5], [0, 3], [3, 0], [2, 0, 4], [1, 1, 1], [2, 3], [2, 1, 3, 2],
              [1, 2, 1, 2, 1, 2], [2, 1, 1, 1, 2, 1, 1, 2], [0, 0, 0], [300, 2]]:
        n = int(np.prod(s))
        for t in ["float", "int64"]:
            a = np.arange(n, dtype={"float": "<f4", "int64": "<i8"}[t]).reshape(s)
            name = ("%s/%s" % (t, "x".join(map(str, s)) or "scalar")).encode()
            tensors.append((name,) + of(a))
    save(os.path.join(OUT, "shapes"), tensors)
    write_manifest("shapes", tensors)


def names():
    odd = [
        b"a", b"a/b", b"a/b/c", b"ab", b"a b", b" leading", b"trailing ", b"tab\there",
        b"line\nbreak", b"percent%20", b"a:0", b"^a", b"//", b"/", b".", b"..", b"../up", b"~",
        "gr\u00f6\u00dfe".encode(), "\u8239".encode(), b"\xff", b"\xff\xff", b"\xfe\xff", b"\x01",
        b"nul\x00inside", b"nul", b"quote\"'", b"back\\slash", b"n" * 2000, b"Z", b"_", b"w/Adam",
        b"w/Adam_1", b"0", b"checkpoint", b"-00000-of-00001"
    ]
    tensors = [(n,) + of(np.array([i], dtype=np.int32)) for i, n in enumerate(odd)]
    save(os.path.join(OUT, "names"), tensors)
    write_manifest("names", tensors)


def many():
    tensors = []
    for i in range(6000):
        tail = "%08x%08x%08x" % tuple((i * k + k) % 2**32 for k in (2654435761, 40503, 2246822519))
        tensors.append((("v%s/%04d" % (tail, i)).encode(),) + of(np.float32(i / 4)))
    save(os.path.join(OUT, "many"), tensors)
    write_manifest("many", tensors)


def sharded():
    with tf.Graph().as_default():
        variables = []
        for i in range(8):
            with tf1.device("/cpu:%d" % (i % 3)):
                a = np.arange(3 * (i + 1), dtype=np.float32).reshape(3, i + 1) + 100 * i
                variables.append(tf1.get_variable("s%d" % i, initializer=a, use_resource=False))
        with tf1.device("/cpu:1"):
            variables.append(tf1.get_variable("step", initializer=np.int64(12), use_resource=False))
        saver = tf1.train.Saver(variables, sharded=True)
        with tf1.Session(config=tf1.ConfigProto(device_count={"CPU": 3})) as sess:
            sess.run(tf1.global_variables_initializer())
            saver.save(sess,
                       os.path.join(OUT, "sharded"),
                       write_meta_graph=False,
                       write_state=False)
            tensors = [(v.op.name.encode(),) + of(sess.run(v)) for v in variables]
    write_manifest("sharded", tensors)


def partitioned():
    with tf.Graph().as_default():
        rows = tf1.get_variable("rows",
                                initializer=tf.constant(
                                    np.arange(21, dtype=np.float32).reshape(7, 3)),
                                use_resource=False,
                                partitioner=tf1.fixed_size_partitioner(3, axis=0))
        cols = tf1.get_variable("cols",
                                initializer=tf.constant(
                                    np.arange(40, dtype=np.float64).reshape(4, 10)),
                                use_resource=False,
                                partitioner=tf1.fixed_size_partitioner(4, axis=1))
        vec = tf1.get_variable("vec",
                               initializer=tf.constant(np.arange(11, dtype=np.int64)),
                               use_resource=False,
                               partitioner=tf1.fixed_size_partitioner(2))
        deep = tf1.get_variable("deep",
                                initializer=tf.constant(
                                    np.arange(48, dtype=np.float32).reshape(2, 4, 2, 3)),
                                use_resource=False,
                                partitioner=tf1.fixed_size_partitioner(2, axis=1))
        whole = tf1.get_variable("whole", initializer=np.float32([1, 2]), use_resource=False)
        saver = tf1.train.Saver()
        with tf1.Session() as sess:
            sess.run(tf1.global_variables_initializer())
            saver.save(sess,
                       os.path.join(OUT, "partitioned_1d"),
                       write_meta_graph=False,
                       write_state=False)
            tensors = [(n,) + of(sess.run(tf.convert_to_tensor(v)))
                       for n, v in [(b"rows", rows), (b"cols",
                                                      cols), (b"vec", vec), (b"deep",
                                                                             deep), (b"whole",
                                                                                     whole)]]
    write_manifest("partitioned_1d", tensors)
    # Tiles in two dimensions, which Python's partitioned variables don't make; uneven, and one
    # tensor whose slices leave a dimension whole.
    tile = np.arange(4 * 6, dtype=np.float32).reshape(4, 6)
    cube = np.arange(2 * 3 * 4, dtype=np.int32).reshape(2, 3, 4)
    parts = [(b"tiles", tile, "4 6 %d,%d:%d,%d" % (r, rn, c, cn), tile[r:r + rn, c:c + cn])
             for r, rn in [(0, 1), (1, 3)]
             for c, cn in [(0, 2), (2, 2), (4, 2)]]
    parts += [
        (b"cube", cube, "2 3 4 -:%d,%d:-" % (r, n), cube[:, r:r + n]) for r, n in [(0, 2), (2, 1)]
    ]
    parts += [(b"plain", np.float32([7]), "", np.float32([7]))]
    save(os.path.join(OUT, "partitioned_2d"), [(p[0],) + of(p[3]) for p in parts],
         [p[2] for p in parts])
    write_manifest("partitioned_2d", [(b"tiles",) + of(tile), (b"cube",) + of(cube),
                                      (b"plain",) + of(np.float32([7]))])


def v1():
    with tf.Graph().as_default():
        values = {
            "f": np.arange(6, dtype=np.float32).reshape(2, 3),
            "d": np.array([0.5, -1e300]),
            "i": np.array([1, -2, 3], np.int32),
            "l": np.array(2**40, np.int64),
            "b": np.array([True, False]),
            "s": np.array([b"", b"x\xff", b"long" * 30], object),
            "u": np.array([0, 255], np.uint8),
            "h": np.array([0.5, -2], np.float16),
            "e": np.zeros([0, 2], np.float32),
            "c": np.array([1 - 2j], np.complex64),
            "q": np.array([-128, 127], np.int8),
            "w": np.array([-32768, 5], np.int16),
        }
        variables = [
            tf1.get_variable(k, initializer=tf.constant(v), use_resource=False)
            for k, v in values.items()
        ]
        variables.append(
            tf1.get_variable("p",
                             initializer=tf.constant(np.arange(10, dtype=np.float32).reshape(5, 2)),
                             use_resource=False,
                             partitioner=tf1.fixed_size_partitioner(2)))
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
        with tf1.Session() as sess:
            sess.run(tf1.global_variables_initializer())
            saver.save(sess, os.path.join(OUT, "v1"), write_meta_graph=False, write_state=False)
    tensors = []
    for k, v in values.items():
        if v.dtype == object:
            tensors.append((k.encode(), "string", list(v.shape), v.tolist()))
        else:
            tensors.append((k.encode(),) + of(v))
    tensors.append((b"p",) + of(np.arange(10, dtype=np.float32).reshape(5, 2)))
    write_manifest("v1", tensors)


def identical():
    bf16 = tf.bfloat16.as_numpy_dtype
    save(os.path.join(IDENTICAL, "first"), [
        (b"a",) + of(np.arange(5, dtype=np.float32) * np.float32(0.5)),
        (b"b/c",) + of((np.arange(6, dtype=np.int32) * 1000 - 2000).reshape(2, 3)),
        (b"b/d", "string", [3], [b"", b"ferry", b"x" * 300]),
        (b"e",) + of(np.arange(4) % 3 == 1),
        (b"f",) + of(np.float64(-0.125)),
        (b"g",) + of(np.zeros([0, 2], np.int64)),
        (b"h",) + of((np.arange(3) + 0.5).astype(np.float16)),
        (b"i",) + of((np.arange(7) * 36).astype(np.uint8)),
        (b"j/complex",) + of((np.arange(2) + 1 - 2j).astype(np.complex64)),
        (b"k",) + of((np.arange(4) - 1).astype(bf16).reshape(2, 2)),
    ])
    prefix = os.path.join(IDENTICAL, "blocks")
    save(prefix,
         [("v%04d/w%04d/x%04d/y%04d/z%04d" % ((i,) * 5),) + of(np.int32(i)) for i in range(7000)])
    data = prefix + ".data-00000-of-00001"
    with open(data, "rb") as f:
        b = f.read()
    os.remove(data)
    with open(prefix + ".crc", "w") as f:
        f.write("%08x %d\n" % (crc32c(b), len(b)))


def main():
    for d in [OUT, IDENTICAL]:
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
    for make in [all_dtypes, strings, shapes, names, many, sharded, partitioned, v1, identical]:
        make()
    for d in [OUT, IDENTICAL]:
        for f in sorted(os.listdir(d)):
            print("%8d %s" % (os.path.getsize(os.path.join(d, f)), f))


if __name__ == "__main__":
    main()
