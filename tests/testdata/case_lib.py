"""Builds files of op cases: GraphDefs that hold inputs, one op, and TensorFlow's results for it.

A file is a binary GraphDef. It holds many cases; the case K is made of these nodes:

  K/in0, K/in1, ...   Const: the inputs of the op, in the order of the NodeDef's inputs
  K/...               other nodes between the inputs and the op (control.pb, loops.pb and
                      functions.pb, which has the functions of all its cases in its library)
  K/op                the op under test, with the attributes that TensorFlow gives it
  K/expect0, ...      Const: TensorFlow's CPU result for K/op:0, K/op:1, ...
  K/tol, K/rtol       Const float scalars, absent where they are 0 (see below)
  K/error             Const string vector instead of expect*: the name of the status code
                      (INVALID_ARGUMENT, OUT_OF_RANGE, ...), then words that TensorFlow's message
                      holds, each of which must be a part of the message (letter case ignored)

Comparing: shape and dtype must be equal. A NaN equals any NaN, -0 equals 0, an infinity equals only
itself. Finite numbers may differ by tol * (largest finite magnitude expected in that output) or by
rtol * (magnitude expected of the element itself), whichever is more; without either they are exact.
A case has at most one of the two: rtol for what is computed element by element, tol for sums.

K holds no slash. Cases are in the order in which they were made.

Further forms, which other tests read:
  op_cases/gradients.pb   K/dyI the gradient coming in at K/op:I (absent: that output takes no
                          part), and K/gradI what tf.gradients gives for K/inI (absent: none)
  op_cases/apply.pb       K/init0.. initial values of the ref inputs, K/in0.. the other inputs in
                          order, K/apply string scalar: a serialised NodeDef (op and attrs; its
                          inputs are left out), K/expect0.. the variables afterwards; the op's own
                          output equals K/expect0
  philox/*.pb             K/op stateful; K/expectR is the output of the R-th Run (0, 1, 2) of it in
                          one session. Large outputs have instead K/headR, K/tailR (32 elements),
                          K/sampleR (every 997th element) and K/crcR (uint32 scalar: crc32c, not
                          masked, of the little-endian bytes; only to be compared where tol is 0)
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import rewriter_config_pb2  # noqa: E402
from tensorflow.python.framework import op_def_library  # noqa: E402
from tensorflow.python.framework import op_def_registry  # noqa: E402

tf1 = tf.compat.v1
tf1.disable_eager_execution()

HERE = os.path.dirname(os.path.abspath(__file__))

FLOATS = ["half", "bfloat16", "float", "double"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
INTS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTS
ALL = NUMBERS + ["bool", "string"]

TF_DTYPE = {
    "half": tf.float16,
    "bfloat16": tf.bfloat16,
    "float": tf.float32,
    "double": tf.float64,
    "int8": tf.int8,
    "int16": tf.int16,
    "int32": tf.int32,
    "int64": tf.int64,
    "uint8": tf.uint8,
    "uint16": tf.uint16,
    "uint32": tf.uint32,
    "uint64": tf.uint64,
    "bool": tf.bool,
    "string": tf.string,
}
NP_DTYPE = {k: v.as_numpy_dtype for k, v in TF_DTYPE.items()}
NAME_OF = {v: k for k, v in TF_DTYPE.items()}
# One unit in the last place, roughly; the tolerance of an op is a small multiple of it.
EPS = {"half": 1e-3, "bfloat16": 8e-3, "float": 1.2e-7, "double": 2.3e-16}


class NoKernel(Exception):
    """TensorFlow has no CPU kernel (or no such dtype) for the op."""


def session_config():
    config = tf1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    config.graph_options.optimizer_options.opt_level = tf1.OptimizerOptions.L0
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.rewrite_options.constant_folding = (rewriter_config_pb2.RewriterConfig.OFF)
    config.graph_options.place_pruned_graph = True
    return config


def arr(values, dtype, shape=None):
    """A numpy array of one of our dtype names. Values out of an integer's range wrap around."""
    if dtype == "string":
        a = np.array(values, dtype=object)
    else:
        a = np.asarray(values)
        if a.dtype == object or a.dtype.kind not in "biuf":
            a = np.array(values, dtype=np.float64)
        with np.errstate(all="ignore"):
            a = a.astype(NP_DTYPE[dtype])
    return a if shape is None else a.reshape(shape)


def ramp(shape, dtype, start=0.0, step=1.0):
    """start, start+step, ... in row-major order."""
    n = int(np.prod(shape))
    if dtype == "string":
        return np.array([b"s%d" % int(start + step * i) for i in range(n)] or [],
                        dtype=object).reshape(shape)
    if dtype == "bool":
        return (np.arange(n) % 3 == 1).reshape(shape)
    return arr(start + step * np.arange(n, dtype=np.float64), dtype).reshape(shape)


def rand(shape, dtype, lo=-2.0, hi=2.0, seed=1):
    """Deterministic values in [lo, hi); integers are spread over the same interval."""
    n = int(np.prod(shape))
    r = np.random.RandomState(seed).uniform(lo, hi, size=n)
    if dtype == "bool":
        return (r > (lo + hi) / 2).reshape(shape)
    if dtype == "string":
        return np.array([b"r%d" % int(1000 * v) for v in r] or [], dtype=object).reshape(shape)
    if dtype in UNSIGNED:
        r = np.abs(r)
    return arr(np.floor(r) if dtype in INTS else r, dtype).reshape(shape)


def dtype_name(a):
    a = np.asarray(a)
    if a.dtype == object or a.dtype.kind in "SU":
        return "string"
    return NAME_OF[tf.as_dtype(a.dtype)]


def tensor_proto(a):
    a = np.asarray(a)
    if dtype_name(a) == "string":
        return tf.make_tensor_proto(a.tolist() if a.ndim else a.item(), tf.string, a.shape)
    return tf.make_tensor_proto(a, tf.as_dtype(a.dtype), a.shape)


def const_node(graph_def, name, a):
    node = graph_def.node.add(name=name, op="Const")
    a = np.asarray(a)
    node.attr["dtype"].type = tf.as_dtype(TF_DTYPE[dtype_name(a)]).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tensor_proto(a))


def _op_inputs(op_type, inputs, attrs):
    """Spreads flat inputs over the op's named arguments; lists take attrs['_n'] or the rest."""
    op_def = op_def_registry.get(op_type)
    kwargs = {k: v for k, v in attrs.items() if not k.startswith("_")}
    args = list(op_def.input_arg)
    lists = dict(attrs.get("_lists", {}))
    fixed = sum(1 for a in args if not (a.number_attr or a.type_list_attr))
    n_lists = len(args) - fixed
    pos = 0
    for a in args:
        if a.number_attr or a.type_list_attr:
            n = lists.get(a.name, (len(inputs) - fixed) // max(1, n_lists))
            kwargs[a.name] = inputs[pos:pos + n]
            pos += n
        else:
            kwargs[a.name] = inputs[pos]
            pos += 1
    assert pos == len(inputs), (op_type, pos, len(inputs))
    inferred = {x for a in args for x in (a.type_attr, a.number_attr, a.type_list_attr)}
    for attr in op_def.attr:
        if attr.name not in kwargs and attr.name not in inferred and attr.HasField("default_value"):
            kwargs[attr.name] = _plain(attr.default_value)
    return kwargs


def _plain(value):
    """The Python form of an AttrValue."""
    kind = value.WhichOneof("value")
    v = getattr(value, kind)
    if kind == "type":
        return tf.as_dtype(v)
    if kind == "list":
        return list(v.s or v.i or v.f or v.b or [tf.as_dtype(t) for t in v.type])
    return v


def make_op(op_type, inputs, attrs):
    """Adds the op `op` to the current graph, which has none of that name."""
    op_def_library.apply_op(op_type, name="op", **_op_inputs(op_type, inputs, attrs))
    # Not from what apply_op gives: an op may have no outputs.
    return tf1.get_default_graph().get_operation_by_name("op")


_MISSING = ("No OpKernel was registered", "not in list of allowed values",
            "not in the list of allowed values", "Could not satisfy", "No registered",
            "is not supported for", "Unsupported data type", "Unhandled data type",
            "unsupported type", "Unsupported type", "input data type is not supported",
            "No WhereOp available")


def is_missing(message):
    return any(m in message for m in _MISSING)


class CaseFile:
    """Collects cases and writes them to one file."""

    def __init__(self, path):
        self.path = os.path.join(HERE, path)
        self.graph_def = tf1.GraphDef()
        self.names = set()
        self.skipped = []
        self.complaints = 0

    def complain(self, name, words):
        """A case does not do what the script expects of TensorFlow; write() then fails."""
        self.complaints += 1
        print("%s: %s" % (name, words))

    def unique(self, name):
        assert "/" not in name, name
        k, i = name, 1
        while k in self.names:
            i += 1
            k = "%s_%d" % (name, i)
        self.names.add(k)
        return k

    def run_op(self, op_type, inputs, attrs):
        """Runs the op once; gives its NodeDef and outputs, or the error."""
        with tf.Graph().as_default() as g:
            g.seed = None
            phs = []
            for i, a in enumerate(inputs):
                a = np.asarray(a)
                # Some ops' definitions need a shape: attrs["_shaped"] lists the inputs.
                shape = a.shape if i in attrs.get("_shaped", []) else None
                phs.append(tf1.placeholder(TF_DTYPE[dtype_name(a)], shape, name="in%d" % i))
            try:
                op = make_op(op_type, phs, attrs)
            except (TypeError, ValueError) as e:
                if isinstance(e, TypeError) or is_missing(str(e)):
                    raise NoKernel(str(e))
                raise
            node = op.node_def
            try:
                with tf1.Session(graph=g, config=session_config()) as sess:
                    out = sess.run(list(op.outputs), dict(zip(phs, inputs)))
            except tf.errors.OpError as e:
                if is_missing(e.message):
                    raise NoKernel(e.message)
                return node, None, e
            return node, out, None

    def case(self, name, op_type, inputs, tol=0.0, error=None, run_with=None, rtol=0.0, **attrs):
        """Adds a case. tol and rtol are in units of the last place of the coarsest floating output.

        run_with: inputs of the same meaning that TensorFlow can handle, where it refuses `inputs`.
        """
        node, out, err = self.run_op(op_type, run_with or inputs, attrs)
        if (err is not None) != (error is not None):
            self.complain(name, "expected error %s, found %s" % (error, err and bare(err)))
            return out
        k = self.unique(name)
        for i, a in enumerate(inputs):
            const_node(self.graph_def, "%s/in%d" % (k, i), a)
        n = self.graph_def.node.add()
        n.CopyFrom(node)
        n.name = k + "/op"
        del n.input[:]
        n.input.extend("%s/in%d" % (k, i) for i in range(len(inputs)))
        self.finish(k, out, tol, err, error, rtol)
        return out

    def finish(self, k, out, tol, err=None, error=None, rtol=0.0):
        if err is not None:
            words = [w.encode() for w in error]
            for w in error:
                if w.lower() not in bare(err).lower():
                    self.complain(k, "%r is not in %r" % (w, bare(err)))
            const_node(self.graph_def, k + "/error",
                       np.array([status_name(err).encode()] + words, dtype=object))
            return
        scale = 0.0
        for i, a in enumerate(out):
            a = np.asarray(a)
            if dtype_name(a) in EPS:
                scale = max(scale, EPS[dtype_name(a)])
            const_node(self.graph_def, "%s/expect%d" % (k, i), a)
        if tol and scale:
            const_node(self.graph_def, k + "/tol", np.array(tol * scale, np.float32))
        if rtol and scale:
            const_node(self.graph_def, k + "/rtol", np.array(rtol * scale, np.float32))

    def per_dtype(self, op_type, make_inputs, dtypes=None, tol=0.0, rtol=0.0, tag="", **attrs):
        """One case a dtype that has a kernel. make_inputs(dtype) gives the inputs."""
        done = []
        for d in dtypes or ALL:
            try:
                inputs = make_inputs(d)
                if inputs is None:
                    continue
                a = {k: (v(d) if callable(v) else v) for k, v in attrs.items()}
                self.case("%s_%s%s" % (op_type, d, "_" + tag if tag else ""),
                          op_type,
                          inputs,
                          tol=tol,
                          rtol=rtol,
                          **a)
                done.append(d)
            except NoKernel:
                self.skipped.append((op_type, d))
        assert done, op_type
        return done

    def write(self):
        if self.complaints:
            raise SystemExit("%s: not written" % self.path)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        data = self.graph_def.SerializeToString(deterministic=True)
        with open(self.path, "wb") as f:
            f.write(data)
        print("%-40s %4d cases %7d bytes" %
              (os.path.relpath(self.path, HERE), len(self.names), len(data)))


def bare(err):
    """The message of an error without the places that Python and the session add."""
    m = err.message.split("\n\t [[")[0]
    return m.split("Node: 'op'\n")[-1]


def status_name(err):
    names = [
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
        "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"
    ]
    return names[err.error_code]


_CRC_TABLE = None


def crc32c(data):
    """crc32c of the bytes, not masked."""
    global _CRC_TABLE
    if _CRC_TABLE is None:
        table = []
        for i in range(256):
            c = i
            for _ in range(8):
                c = (c >> 1) ^ (0x82F63B78 if c & 1 else 0)
            table.append(c)
        _CRC_TABLE = table
    table, crc = _CRC_TABLE, 0xFFFFFFFF
    for b in bytes(data):
        crc = table[(crc ^ b) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
