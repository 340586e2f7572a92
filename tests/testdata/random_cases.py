"""Random cases of single ops and of small graphs around them, for make_random.py and for the test
that runs fresh ones beside TensorFlow.

A generator draws a case of an op: with random shapes (of no elements, of one, scalars; shapes that
broadcast), values and attributes, and now and then what the op has to refuse. case_lib.py describes
what becomes of it.
"""

import numpy as np

from case_lib import (FLOATS, INTS, NAME_OF, NP_DTYPE, NUMBERS, SIGNED, TF_DTYPE, NoKernel, arr,
                      const_node, is_missing, session_config, status_name, tf, tf1)
from make_apply import initial, optimizers, sparse_optimizers

tf1.disable_control_flow_v2()

GENERATORS = {}  # Op -> function(draw, op, dtype): a Case, or None if it can't serve that dtype.


class Case:
    """The op with these inputs; or `build`, which makes a graph of them that ends in `op`."""

    def __init__(self, inputs, attrs=None, tol=0, rtol=0, build=None, outputs=None):
        self.inputs, self.attrs, self.tol, self.rtol = inputs, attrs or {}, tol, rtol
        self.build, self.outputs = build, outputs  # outputs: how many are compared; None: all.


def generator(ops):
    def register(function):
        for op in ops.split():
            assert op not in GENERATORS, op
            GENERATORS[op] = function
        return function
    return register


class Draw:
    """Random things."""

    def __init__(self, seed):
        self.r = np.random.RandomState(seed % 2**32)

    def int(self, lo, hi):
        """In [lo, hi]."""
        return int(self.r.randint(lo, hi + 1))

    def of(self, *choices):
        return choices[self.int(0, len(choices) - 1)]

    def chance(self, share):
        return self.r.random_sample() < share

    def size(self, empty=0.06):
        return 0 if self.chance(empty) else self.of(1, 1, 2, 2, 3, 4, 5)

    def shape(self, least=0, most=4, empty=0.06):
        """Of 30 elements at most."""
        shape = [self.size(empty) for _ in range(self.int(least, most))]
        while np.prod(shape) > 30:
            shape[self.int(0, len(shape) - 1)] = 1
        return shape

    def index(self):
        return self.of("int32", "int64")

    def values(self, shape, d, lo=-3.0, hi=3.0):
        n = int(np.prod(shape))
        v = self.r.uniform(lo, hi, size=n)
        if d == "bool":
            return (v > (lo + hi) / 2).reshape(shape)
        if d == "string":
            return np.array([b"s%d" % int(9 * x) for x in v] or [], dtype=object).reshape(shape)
        if d not in FLOATS:
            v = np.floor(np.abs(v) if d not in SIGNED else v)
        return arr(v, d).reshape(shape)

    def ints(self, shape, d, lo, hi):
        return np.array(self.r.randint(lo, hi + 1, size=int(np.prod(shape)))).astype(
            NP_DTYPE[d]).reshape(shape)

    def broadcast(self, n=2, most=4):
        """Shapes that broadcast, or now and then do not."""
        full, shapes = self.shape(0, most), []
        for _ in range(n):
            s = [1 if self.chance(0.3) else k for k in full]
            shapes.append(s[self.int(0, len(s)):] if self.chance(0.3) else s)
        if self.chance(0.06) and shapes[0]:
            shapes[0][-1] += 2
        return shapes

    def axis(self, rank):
        """In range, from the end too; now and then just outside."""
        return self.int(-rank, rank - 1) if rank and not self.chance(0.04) else rank

    def axes(self, rank, index=None):
        n = self.int(0, rank)
        chosen = self.r.permutation(rank)[:n]
        out = [int(a) - (rank if self.chance(0.3) else 0) for a in chosen]
        return arr(out, index or self.index())


# ---- Element by element ----


@generator("Neg Abs Sign Square Floor Ceil Rint Relu Relu6 LogicalNot Identity StopGradient "
           "ZerosLike OnesLike IsNan IsInf IsFinite Invert Shape Size Rank AsString "
           "ToBool StringLength StringStrip StringLower StringUpper Round IdentityN")
def plain(r, op, d):
    if op == "Round" and d in INTS:
        return None  # TensorFlow's kernel makes each 0; tf.round doesn't use it.
    if op == "ToBool" and d in ("half", "bfloat16", "uint16", "uint32", "uint64"):
        return None  # TensorFlow has a kernel, which refuses them.
    if op == "ToBool" or (op == "AsString" and d == "string"):
        shape = r.of([], [], [0], [2]) if op == "ToBool" else r.shape()
    else:
        shape = r.shape()
    attrs = {}
    if op in ("Shape", "Size"):
        attrs["out_type"] = TF_DTYPE[r.index()]
    if op == "AsString" and d in FLOATS and r.chance(0.5):
        attrs = r.of(dict(scientific=True), dict(shortest=True), dict(precision=3),
                     dict(width=9, fill=r.of("0", " ", "-", "+")))
    elif op == "AsString" and d in INTS and r.chance(0.5):
        attrs = dict(width=6, fill=r.of("0", " ", "-", "+"))
    if op == "StringLength":
        attrs["unit"] = r.of("BYTE", "UTF8_CHAR")
    if op == "IdentityN":
        return Case([r.values(shape, d), r.values([2], "float")])
    x = r.values(shape, d, -9, 9)
    if d == "string" and r.chance(0.5):
        x = np.array([r.of("  aB\t", "h\u00e9", "", "Zz ").encode() for _ in range(x.size)] or [],
                     dtype=object).reshape(shape)
    return Case([x], attrs)


DOMAINS = {  # Op: from, to, tolerance in units of the last place.
    "Exp": (-5, 5, 4), "Expm1": (-5, 5, 8), "Log": (0.1, 9, 8), "Log1p": (0.1, 9, 8),
    "Sin": (-5, 5, 8), "Cos": (-5, 5, 8), "Tan": (-1.4, 1.4, 8), "Sinh": (-4, 4, 8),
    "Cosh": (-4, 4, 8), "Asin": (-0.95, 0.95, 8), "Acos": (-0.95, 0.9, 8), "Atan": (-5, 5, 8),
    "Asinh": (-5, 5, 8), "Acosh": (1.1, 9, 16), "Atanh": (-0.9, 0.9, 8), "Tanh": (-4, 4, 8),
    "Sigmoid": (-9, 9, 8), "Erf": (-3, 3, 8), "Erfc": (-2, 2, 16), "Erfinv": (-0.9, 0.9, 32),
    "Ndtri": (0.05, 0.95, 32), "Lgamma": (0.2, 9, 32), "Digamma": (0.2, 9, 32),
    "Sqrt": (0, 9, 2), "Rsqrt": (0.1, 9, 4), "Reciprocal": (0.3, 5, 2), "Inv": (0.3, 5, 2),
    "Elu": (-4, 4, 8), "Selu": (-4, 4, 8), "Softplus": (-9, 9, 8), "Softsign": (-5, 5, 2)
}


@generator(" ".join(DOMAINS))
def function(r, op, d):
    lo, hi, tol = DOMAINS[op]
    if d not in FLOATS:
        return None
    # Near a zero of the function its own units are too small.
    return Case([r.values(r.shape(), d, lo, hi)], tol=tol)


@generator("LeakyRelu LeakyReluGrad ReluGrad Relu6Grad EluGrad SeluGrad SoftplusGrad SoftsignGrad "
           "SigmoidGrad TanhGrad SqrtGrad RsqrtGrad ReciprocalGrad InvGrad")
def activation(r, op, d):
    shape = r.shape()
    if d == "bool" or d == "string":
        return None
    lo, hi = (0.5, 4) if op in ("SqrtGrad", "RsqrtGrad", "ReciprocalGrad", "InvGrad") else (-1, 1)
    if op in ("ReluGrad", "Relu6Grad", "LeakyReluGrad"):
        lo, hi = -9, 9
    attrs = dict(alpha=round(r.r.uniform(0, 1), 2)) if "Leaky" in op else {}
    if op == "LeakyRelu":
        return Case([r.values(shape, d, -5, 5)], attrs, tol=1)
    first, second = r.values(shape, d, lo, hi), r.values(shape, d, -5, 5)
    if op in ("EluGrad", "SeluGrad", "SoftplusGrad", "SoftsignGrad", "ReluGrad", "Relu6Grad",
              "LeakyReluGrad"):
        first, second = second, first  # Those take the gradient first.
    return Case([first, second], attrs, tol=8)


@generator("Add AddV2 Sub Mul Maximum Minimum SquaredDifference RealDiv Div DivNoNan MulNoNan "
           "FloorDiv FloorMod Mod TruncateDiv TruncateMod Pow Equal NotEqual Less LessEqual "
           "Greater GreaterEqual LogicalAnd LogicalOr Atan2 Xdivy Xlogy Xlog1py BitwiseAnd BitwiseOr "
           "BitwiseXor LeftShift RightShift Polygamma Zeta")
def binary(r, op, d):
    a, b = r.broadcast()
    x, y = r.values(a, d, -9, 9), r.values(b, d, -9, 9)
    divides = op in ("FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod", "RealDiv", "Div")
    if divides and d in INTS:
        y = r.values(b, d, 1, 9)
        if r.chance(0.1) and y.size:
            y.flat[0] = 0
        if op == "RealDiv":
            return None
    elif divides and d in FLOATS:
        x, y = r.values(a, d, 0.5, 9), r.values(b, d, 2, 3)
    elif op == "Pow":
        x, y = r.values(a, d, 0.3, 3), r.values(b, d, 0, 4) if d in INTS else r.values(b, d)
    elif op in ("Xlogy", "Xlog1py", "Xdivy", "Polygamma", "Zeta"):
        if d not in FLOATS:
            return None
        x, y = r.values(a, d), r.values(b, d, 0.5, 5)
        if x.size:
            x.flat[0] = 0
        if op == "Polygamma":
            x = arr(r.ints(a, "int32", 0, 4), d)
        if op == "Zeta":
            x = r.values(a, d, 1.5, 5)
    tol = {"Pow": 16, "Xlogy": 16, "Xlog1py": 16, "Polygamma": 64, "Zeta": 64, "Atan2": 8,
           "FloorMod": 4, "Mod": 4, "TruncateMod": 4}.get(op, 2)
    return Case([x, y], tol=tol if d in FLOATS else 0)


@generator("Select")
def select(r, op, d):
    shape = r.shape(1)
    cond = r.of(shape, shape[:1], [])
    return Case([r.values(cond, "bool"), r.values(shape, d), r.values(shape, d)])


@generator("SelectV2")
def select_v2(r, op, d):
    c, a, b = r.broadcast(3)
    return Case([r.values(c, "bool"), r.values(a, d), r.values(b, d)])


@generator("ClipByValue")
def clip(r, op, d):
    shape = r.shape()
    if r.chance(0.5):
        return Case([r.values(shape, d, 0, 9), arr(2, d), arr(5, d)])
    return Case([r.values(shape, d, 0, 9), r.values(shape, d, 0, 4), r.values(shape, d, 4, 9)])


@generator("AddN AccumulateNV2")
def add_n(r, op, d):
    shape = r.shape()
    attrs = {} if op == "AddN" else dict(shape=tf.TensorShape(shape))
    return Case([r.values(shape, d) for _ in range(r.int(1, 6))], attrs, tol=4)


@generator("Cast")
def cast(r, op, d):
    to = r.of(*NUMBERS, "bool")
    if d == "string":
        return None
    return Case([r.values(r.shape(), d, 0, 99)], dict(DstT=TF_DTYPE[to], Truncate=r.chance(0.3)
                                                      and d in FLOATS and to in FLOATS))


@generator("Bitcast")
def bitcast(r, op, d):
    to = r.of(*NUMBERS)
    if d not in NUMBERS:
        return None
    ratio = TF_DTYPE[to].size // TF_DTYPE[d].size
    shape = r.shape()
    x = r.ints(shape + ([ratio] if ratio > 1 else []), "uint8", 0, 60)
    return Case([x.astype(NP_DTYPE[d])], dict(type=TF_DTYPE[to]))


# ---- Reductions, sorting, counting ----


@generator("Sum Mean Prod Max Min All Any")
def reduction(r, op, d):
    shape = r.shape()
    if op in ("All", "Any"):
        d = "bool"
    axes = r.axes(len(shape))
    if r.chance(0.04):
        axes = arr([len(shape)], "int32")
    return Case([r.values(shape, d), axes], dict(keep_dims=r.chance(0.4)),
                tol=0 if op in ("Max", "Min", "All", "Any") else 32)


@generator("ArgMax ArgMin")
def arg(r, op, d):
    shape, index = r.shape(1), r.index()  # TensorFlow reads an int16 dimension as four bytes.
    out = r.of("int32", "int64", "int16", "uint16") if op == "ArgMax" else r.index()
    return Case([r.values(shape, d), arr(r.axis(len(shape)), index)],
                dict(output_type=TF_DTYPE[out]))


@generator("L2Loss Softmax LogSoftmax")
def whole(r, op, d):
    return Case([r.values(r.shape(0 if op == "L2Loss" else 1), d)], tol=16)


@generator("SoftmaxCrossEntropyWithLogits")
def cross_entropy(r, op, d):
    rows, classes = r.size(), r.size(0)
    labels = np.abs(r.values([rows, classes], "double", 0.1, 1))
    labels = labels / labels.sum(1, keepdims=True) if labels.size else labels
    return Case([r.values([r.of(rows, rows, 1), classes], d), arr(labels, d)], tol=32)


@generator("SparseSoftmaxCrossEntropyWithLogits")
def sparse_cross_entropy(r, op, d):
    rows, classes = r.size(), r.size(0)
    top = classes if r.chance(0.1) else classes - 1
    return Case([r.values([rows, classes], d), r.ints([rows], r.index(), 0, top)], tol=32)


@generator("Cumsum Cumprod")
def scan(r, op, d):
    shape = r.shape(1)
    return Case([r.values(shape, d), arr(r.axis(len(shape)), r.index())],
                dict(exclusive=r.chance(0.4), reverse=r.chance(0.4)), tol=16)


@generator("TopK TopKV2")
def top_k(r, op, d):
    shape = r.shape(1)
    k = r.int(0, shape[-1] + (1 if r.chance(0.1) else 0))
    if op == "TopK":
        return Case([r.values(shape, d)], dict(k=k))
    return Case([r.values(shape, d), arr(k, r.of("int16", "int32", "int64"))],
                dict(index_type=TF_DTYPE[r.of("int16", "int32", "int64")]))


@generator("InTopK InTopKV2")
def in_top_k(r, op, d):
    rows, classes = r.size(), r.size(0)
    t = r.index()
    inputs = [r.values([rows, classes], "float"), r.ints([rows], t, 0, classes)]
    k = r.int(0, 3)
    return Case(inputs, dict(k=k)) if op == "InTopK" else Case(inputs + [arr(k, t)])


@generator("Unique UniqueWithCounts")
def unique(r, op, d):
    return Case([r.values([r.int(0, 9)], d)], dict(out_idx=TF_DTYPE[r.index()]))


@generator("UniqueV2 UniqueWithCountsV2")
def unique_v2(r, op, d):
    shape = r.shape(1, 3)
    axis = [] if len(shape) == 1 and r.chance(0.3) else [r.axis(len(shape))]
    return Case([r.values(shape, d, 0, 2), arr(axis, r.index())],
                dict(out_idx=TF_DTYPE[r.index()]))


@generator("ListDiff")
def list_diff(r, op, d):
    return Case([r.values([r.int(0, 8)], d), r.values([r.int(0, 4)], d)],
                dict(out_idx=TF_DTYPE[r.index()]))


@generator("Where")
def where(r, op, d):
    return Case([r.values(r.shape(), d, 0, 2)])


@generator("Bincount DenseBincount")
def bincount(r, op, d):
    t = "int32" if op == "Bincount" else r.index()
    shape = r.shape(1, 2)
    weights = r.values(shape if r.chance(0.6) else [0], d, 0, 4)
    least = -1 if r.chance(0.06) else 0
    attrs = dict(binary_output=r.chance(0.3)) if op == "DenseBincount" else {}
    return Case([r.ints(shape, t, least, 5), arr(r.int(0, 5), t), weights], attrs, tol=8)


# ---- Matrices ----


@generator("MatMul")
def matmul(r, op, d):
    m, k, n = r.size(), r.size(), r.size()
    ta, tb = r.chance(0.5), r.chance(0.5)
    a, b = [k, m] if ta else [m, k], [n, k] if tb else [k, n]
    if r.chance(0.05):
        b = [b[0] + 1, b[1] + 2]
    return Case([r.values(a, d), r.values(b, d)], dict(transpose_a=ta, transpose_b=tb), tol=16)


@generator("BatchMatMul BatchMatMulV2")
def batch_matmul(r, op, d):
    m, k, n = r.size(), r.size(), r.size()
    ta, tb = r.chance(0.5), r.chance(0.5)
    x, y = r.broadcast(2, 2) if op == "BatchMatMulV2" else [r.shape(0, 2)] * 2
    return Case([r.values(x + ([k, m] if ta else [m, k]), d),
                 r.values(y + ([n, k] if tb else [k, n]), d)], dict(adj_x=ta, adj_y=tb), tol=16)


@generator("MatrixBandPart")
def band_part(r, op, d):
    shape = r.shape(2)
    t = r.index()
    return Case([r.values(shape, d), arr(r.int(-1, 4), t), arr(r.int(-1, 4), t)])


def diagonals(r):
    if r.chance(0.5):
        k = r.int(-2, 2)
        return [k, k], arr(k, "int32") if r.chance(0.5) else arr([k], "int32")
    lower = r.int(-2, 1)
    upper = r.int(lower, 2) if not r.chance(0.04) else lower - 1
    return [lower, upper], arr([lower, upper], "int32")


def align(r, op):
    return dict(align=r.of("LEFT_RIGHT", "RIGHT_LEFT", "LEFT_LEFT", "RIGHT_RIGHT")
                ) if op.endswith("V3") else {}


@generator("MatrixDiag MatrixDiagV2 MatrixDiagV3")
def matrix_diag(r, op, d):
    if op == "MatrixDiag":
        return Case([r.values(r.shape(1), d)])
    (lower, upper), k = diagonals(r)
    longest = r.size(0.02)
    shape = r.shape(0, 2) + ([upper - lower + 1] if upper > lower else []) + [longest]
    rows, columns = longest - min(upper, 0), longest + max(lower, 0)
    sizes = r.of((-1, -1), (rows, -1), (-1, columns), (rows + 1, columns), (rows, columns + 2),
                 (rows, columns), (rows + 1, columns + 1), (rows - 1, -1))
    return Case([r.values(shape, d), k] + [arr(s, "int32") for s in sizes] +
                [r.values([], d)], align(r, op))


@generator("MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3")
def matrix_diag_part(r, op, d):
    shape = r.shape(2)
    if op == "MatrixDiagPart":
        return Case([r.values(shape, d)])
    _, k = diagonals(r)
    return Case([r.values(shape, d), k, r.values([], d)], align(r, op))


@generator("MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3")
def matrix_set_diag(r, op, d):
    shape = r.shape(2)
    (lower, upper), k = diagonals(r) if op != "MatrixSetDiag" else ([0, 0], None)
    longest = min(shape[-2] + min(upper, 0), shape[-1] - max(lower, 0))
    diagonal = shape[:-2] + ([upper - lower + 1] if upper > lower else []) + [max(longest, 0)]
    if r.chance(0.04):
        diagonal[-1] += 1
    inputs = [r.values(shape, d), r.values(diagonal, d, 5, 9)]
    return Case(inputs + ([k] if k is not None else []), align(r, op))


@generator("Diag DiagPart")
def diag(r, op, d):
    shape = r.shape(1, 2)
    if op == "DiagPart":
        shape = shape + shape
        if r.chance(0.1):
            shape[0] += 1
    return Case([r.values(shape, d)])


# ---- Moving elements ----


@generator("Reshape")
def reshape(r, op, d):
    shape = r.shape()
    to = [shape[i] for i in r.r.permutation(len(shape))]
    if to and r.chance(0.5):
        to[r.int(0, len(to) - 1)] = -1
    if r.chance(0.05):
        to = to + [2]
    return Case([r.values(shape, d), arr(to, r.index())])


@generator("ShapeN")
def shape_n(r, op, d):
    return Case([r.values(r.shape(), d) for _ in range(r.int(1, 3))],
                dict(out_type=TF_DTYPE[r.index()]))


@generator("Fill")
def fill(r, op, d):
    return Case([arr(r.shape(), r.index()), r.values([], d)])


@generator("Pack")
def pack(r, op, d):
    shape = r.shape(0, 3)
    return Case([r.values(shape, d) for _ in range(r.int(1, 4))],
                dict(axis=r.axis(len(shape) + 1)))


@generator("Unpack")
def unpack(r, op, d):
    shape = r.shape(1, 4, 0.03)
    axis = r.int(-len(shape), len(shape) - 1)
    return Case([r.values(shape, d)], dict(axis=axis, num=shape[axis]))


@generator("ConcatV2 Concat")
def concat(r, op, d):
    shape = r.shape(1)
    axis = r.int(0, len(shape) - 1)
    parts = []
    for _ in range(r.int(2, 4)):
        s = list(shape)
        s[axis] = r.size(0.1)
        if r.chance(0.02):
            s[r.int(0, len(s) - 1)] += 1
        parts.append(r.values(s, d))
    axis -= len(shape) if r.chance(0.3) else 0
    if op == "Concat":
        return Case([arr(axis, "int32")] + parts)
    return Case(parts + [arr(axis, r.index())])


@generator("ConcatOffset")
def concat_offset(r, op, d):
    shape, axis, t = r.shape(1), 0, r.index()
    axis = r.int(0, len(shape) - 1)
    shapes = [shape[:axis] + [r.size()] + shape[axis + 1:] for _ in range(r.int(2, 3))]
    return Case([arr(axis, "int32")] + [arr(s, t) for s in shapes])


@generator("Slice")
def slice_(r, op, d):
    shape, t = r.shape(), r.index()
    begin = [r.int(0, n) for n in shape]
    size = [-1 if r.chance(0.2) else r.int(0, n - b) for n, b in zip(shape, begin)]
    if size and r.chance(0.05):
        size[-1] = 9
    return Case([r.values(shape, d), arr(begin, t), arr(size, t)])


def strided(r, shape):
    """Begin, end and strides (negative ones too), at most as many as dimensions, and masks."""
    n = r.int(0, len(shape))
    masks = {m: int(r.r.randint(0, 2**max(n, 1))) if r.chance(0.4) else 0
             for m in ("begin_mask", "end_mask", "shrink_axis_mask", "new_axis_mask")}
    if r.chance(0.7):
        masks["new_axis_mask"] = 0
    masks["ellipsis_mask"] = 1 << r.int(0, n - 1) if n and r.chance(0.25) else 0
    begin = [r.int(-6, 6) if r.chance(0.2) else r.int(-s, max(s - 1, 0)) for s in shape[:n]]
    end = [r.int(-6, 6) for _ in range(n)]
    strides = [r.of(1, 1, 1, 2, -1, -2, 3) for _ in range(n)]
    if n and r.chance(0.03):
        strides[0] = 0
    for i in range(n):
        if masks["shrink_axis_mask"] >> i & 1 and not r.chance(0.1):
            strides[i] = 1
    return [begin, end, strides], masks


@generator("StridedSlice StridedSliceGrad")
def strided_slice(r, op, d):
    shape = r.shape()
    spec, masks = strided(r, shape)
    t = r.of("int32", "int64", "int16") if op == "StridedSlice" else r.index()
    spec = [arr(s, t) for s in spec]
    x = r.values(shape, d)
    if op == "StridedSlice":
        return Case([x] + spec, masks)
    with tf.Graph().as_default() as g:
        try:
            part = tf.raw_ops.StridedSlice(input=tf.zeros(shape), begin=spec[0], end=spec[1],
                                           strides=spec[2], **masks)
        except (ValueError, tf.errors.OpError):
            return None
        with tf1.Session(graph=g) as session:
            try:
                dy = session.run(part).shape
            except tf.errors.OpError:
                return None
    return Case([arr(shape, t)] + spec + [r.values(list(dy), d)], masks)


@generator("Transpose")
def transpose(r, op, d):
    shape = r.shape(0, 5)
    perm = r.r.permutation(len(shape))
    if len(shape) and r.chance(0.04):
        perm[0] = len(shape)
    return Case([r.values(shape, d), arr(perm, r.index())])


@generator("InvertPermutation")
def invert_permutation(r, op, d):
    p = r.r.permutation(r.int(0, 6))
    if p.size and r.chance(0.06):
        p[0] = p[-1]
    return Case([arr(p, r.index())])


@generator("ReverseV2")
def reverse(r, op, d):
    shape = r.shape()
    return Case([r.values(shape, d), r.axes(len(shape))])


@generator("ExpandDims")
def expand_dims(r, op, d):
    shape = r.shape(0, 3)
    return Case([r.values(shape, d), arr(r.axis(len(shape) + 1), r.index())])


@generator("Squeeze")
def squeeze(r, op, d):
    shape = r.shape()
    ones = [i for i, n in enumerate(shape) if n == 1]
    dims = ones[:r.int(0, len(ones))]
    return Case([r.values(shape, d)], dict(squeeze_dims=dims))


@generator("Tile")
def tile(r, op, d):
    shape = r.shape(0, 3)
    return Case([r.values(shape, d), arr([r.size() for _ in shape], r.index())])


@generator("BroadcastTo")
def broadcast_to(r, op, d):
    shape = r.shape()
    own = [1 if r.chance(0.4) else n for n in shape]
    return Case([r.values(own[r.int(0, len(own)) if r.chance(0.3) else 0:], d),
                 arr(shape, r.index())])


@generator("BroadcastGradientArgs BroadcastArgs")
def broadcast_args(r, op, d):
    a, b = r.broadcast()
    t = r.index()
    return Case([arr(a, t), arr(b, t)])


@generator("Range")
def range_(r, op, d):
    if d not in FLOATS + ["int32", "int64"]:
        return None
    delta = r.of(1, 2, 3)
    a, b = r.int(0, 4), r.int(4, 12)
    if d != "string" and r.chance(0.3):
        a, b, delta = b, a, -delta
    return Case([arr(a, d), arr(b, d), arr(delta, d)], tol=4)


@generator("LinSpace")
def lin_space(r, op, d):
    return Case([r.values([], d), r.values([], d), arr(r.int(0 if r.chance(0.1) else 1, 6),
                                                       r.index())], tol=8)


@generator("Split")
def split(r, op, d):
    shape = r.shape(1, 4, 0.03)
    axis, n = r.int(-len(shape), len(shape) - 1), r.int(1, 3)
    shape[axis] *= n
    if r.chance(0.04):
        shape[axis] += 1
    return Case([arr(axis, "int32"), r.values(shape, d)], dict(num_split=n))


@generator("SplitV")
def split_v(r, op, d):
    shape = r.shape(1)
    axis = r.int(-len(shape), len(shape) - 1)
    sizes = [r.size(0.1) for _ in range(r.int(1, 3))]
    shape[axis] = sum(sizes)
    if r.chance(0.3):
        sizes[r.int(0, len(sizes) - 1)] = -1
    return Case([r.values(shape, d), arr(sizes, r.of("int8", "int32", "int64")),
                 arr(axis, "int32")], dict(num_split=len(sizes)))


@generator("Pad PadV2 MirrorPad MirrorPadGrad")
def pad(r, op, d):
    shape = r.shape(0, 4)
    t = r.index()
    if op in ("Pad", "PadV2"):
        pads = [[r.int(0, 2), r.int(0, 2)] for _ in shape]
        return Case([r.values(shape, d), arr(np.reshape(pads, [-1, 2]), t)] +
                    ([r.values([], d)] if op == "PadV2" else []))
    mode = r.of("REFLECT", "SYMMETRIC")
    less = 1 if mode == "REFLECT" and not r.chance(0.05) else 0
    pads = [[r.int(0, max(n - less, 0)), r.int(0, max(n - less, 0))] for n in shape]
    if op == "MirrorPadGrad":
        shape = [n + sum(p) for n, p in zip(shape, pads)]
    return Case([r.values(shape, d), arr(np.reshape(pads, [-1, 2]), t)], dict(mode=mode), tol=8)


@generator("Roll")
def roll(r, op, d):
    shape = r.shape(1)
    n = r.int(1, 3)
    axes = [r.axis(len(shape)) for _ in range(n)]
    shifts = [r.int(-7, 7) for _ in range(n)]
    if r.chance(0.4):
        axes, shifts = axes[0], shifts[0]
    return Case([r.values(shape, d), arr(shifts, r.index()), arr(axes, r.index())])


@generator("OneHot")
def one_hot(r, op, d):
    shape = r.shape(0, 3)
    t = r.of("uint8", "int8", "int32", "int64")
    return Case([r.ints(shape, t, 0 if t == "uint8" else -1, 4), arr(r.int(0, 4), "int32"),
                 r.values([], d, 3, 9), r.values([], d)], dict(axis=r.int(-1, len(shape))))


@generator("EnsureShape")
def ensure_shape(r, op, d):
    shape = r.shape()
    known = [None if r.chance(0.3) else n for n in shape]
    if known and r.chance(0.1):
        known[0] = 9
    return Case([r.values(shape, d)],
                dict(shape=tf.TensorShape(None if r.chance(0.2) else known)))


@generator("CheckNumerics PreventGradient")
def check(r, op, d):
    x = r.values(r.shape(), d)
    if op == "CheckNumerics" and d in FLOATS and x.size and r.chance(0.3):
        x.flat[-1] = r.of(np.nan, np.inf)
    return Case([x], dict(message="checked"))


@generator("PlaceholderWithDefault")
def default(r, op, d):
    shape = r.shape()
    return Case([r.values(shape, d)], dict(shape=tf.TensorShape(shape)))


@generator("SpaceToDepth DepthToSpace")
def space_depth(r, op, d):
    n, h, w, c, b = r.size(), r.size(0), r.size(0), r.size(0), r.int(2, 3)
    shape = [n, h * b, w * b, c] if op == "SpaceToDepth" else [n, h, w, c * b * b]
    if r.chance(0.05):
        shape[-1 if op == "DepthToSpace" else 1] += 1
    return Case([r.values(shape, d)], dict(block_size=b))


@generator("SpaceToBatchND SpaceToBatch BatchToSpaceND BatchToSpace")
def space_batch(r, op, d):
    nd = op.endswith("ND")
    m = r.int(0, 3) if nd else 2
    block = [r.int(1, 3) for _ in range(m)] if nd else [r.int(2, 3)] * 2
    pads = [[r.int(0, 2), r.int(0, 2)] for _ in range(m)]
    batch, rest = r.int(0, 2), r.shape(0, 1) if nd else [r.int(1, 2)]
    inside = [r.int(1, 2) for _ in range(m)]
    if op.startswith("SpaceToBatch"):
        space = [n * b for n, b in zip(inside, block)]
        space = [n + (-(n + sum(p))) % b for n, p, b in zip(space, pads, block)]
        shape = [batch] + space + rest
    else:
        shape = [batch * int(np.prod(block))] + [n + 2 for n in inside] + rest
    pads = arr(np.reshape(pads, [-1, 2]), r.index())
    if not nd:
        return Case([r.values(shape, d), pads], dict(block_size=block[0]))
    return Case([r.values(shape, d), arr(block, r.index()), pads], dict(_shaped=[1]))


@generator("ReverseSequence")
def reverse_sequence(r, op, d):
    shape = r.shape(2)
    seq, batch = [int(i) for i in r.r.permutation(len(shape))[:2]]
    lengths = [r.int(0, shape[seq]) for _ in range(shape[batch])]
    if lengths and r.chance(0.05):
        lengths[0] = shape[seq] + 1
    return Case([r.values(shape, d), arr(lengths, r.index())], dict(seq_dim=seq, batch_dim=batch))


# ---- By index ----


@generator("Gather GatherV2")
def gather(r, op, d):
    shape = r.shape(1)
    if op == "Gather":
        top = shape[0] - (0 if r.chance(0.04) else 1)
        return Case([r.values(shape, d), r.ints(r.shape(0, 2) if shape[0] else [0], r.index(), 0,
                                                max(top, 0))])
    t = r.of("int16", "int32", "int64")
    batch = r.int(0, len(shape) - 1) if r.chance(0.4) else 0
    axis = r.int(batch, len(shape) - 1)
    top = shape[axis] - (0 if r.chance(0.04) else 1)
    own = shape[:batch] + (r.shape(0, 2) if shape[axis] else [0])
    return Case([r.values(shape, d), r.ints(own, t, 0, max(top, 0)),
                 arr(axis - (len(shape) if r.chance(0.3) else 0), r.index())],
                dict(batch_dims=batch))


def nd_indices(r, shape, t, least=0):
    """Indices of least or more of the dimensions, and the shape of what they name. Where `least`
    is 1, there are rows of them: what a vector means differs between TensorFlow's checks."""
    depth = r.int(least, len(shape))
    rows = r.shape(least, 2)
    if not all(shape[:depth]):
        rows = [0]
    columns = [r.ints(rows, t, 0, max(n - 1, 0)) for n in shape[:depth]]
    ix = np.stack(columns, -1) if columns else np.zeros(rows + [0], NP_DTYPE[t])
    if ix.size and r.chance(0.04):
        ix.flat[0] = 99
    return ix.astype(NP_DTYPE[t]), rows + shape[depth:]


@generator("GatherNd")
def gather_nd(r, op, d):
    shape = r.shape()
    ix, _ = nd_indices(r, shape, r.of("int16", "int32", "int64"))
    return Case([r.values(shape, d), ix])


@generator("ScatterNd")
def scatter_nd(r, op, d):
    shape, t = r.shape(1), r.of("int16", "int32", "int64")
    ix, updates = nd_indices(r, shape, t, least=1)
    if d == "string" and ix.size:  # Strings that are added up: one place each.
        ix, updates = ix.reshape([-1, ix.shape[-1]])[:1], [1] + shape[ix.shape[-1]:]
    return Case([ix, r.values(updates, d), arr(shape, t)], tol=8)


@generator("ScatterNdNonAliasingAdd TensorScatterAdd TensorScatterSub TensorScatterMax "
           "TensorScatterMin TensorScatterUpdate")
def tensor_scatter(r, op, d):
    shape = r.shape(1)
    t = r.of("int16", "int32", "int64", "uint16") if op == "TensorScatterUpdate" else r.index()
    ix, updates = nd_indices(r, shape, t, least=1)
    return Case([r.values(shape, d), ix, r.values(updates, d)], tol=8)


@generator("SparseToDense")
def sparse_to_dense(r, op, d):
    shape, t = r.shape(1, 3, 0), r.index()
    n = int(np.prod(shape))
    flat = np.sort(r.r.permutation(n)[:r.int(0, min(n, 4))])
    validate = r.chance(0.7)
    if flat.size > 1 and r.chance(0.15):
        flat[0] = flat[1]
    ix = np.stack(np.unravel_index(flat, shape), -1).astype(NP_DTYPE[t]).reshape(
        [-1, len(shape)])
    if len(shape) == 1 and r.chance(0.4):
        ix = ix[:, 0]
    values = r.values([] if r.chance(0.3) else [flat.size], d, 4, 9)
    return Case([ix, arr(shape, t), values, r.values([], d)], dict(validate_indices=validate))


@generator("DynamicStitch ParallelDynamicStitch")
def stitch(r, op, d):
    n = r.int(1, 6)
    order, rest = r.r.permutation(n), r.shape(0, 2)
    cut = r.int(0, n)
    parts = [order[:cut], order[cut:]]
    return Case([arr(p, "int32") for p in parts] + [r.values([len(p)] + rest, d) for p in parts])


@generator("DynamicPartition")
def partition(r, op, d):
    shape = r.shape(1, 3)
    own = shape[:r.int(1, len(shape))]
    return Case([r.values(shape, d), r.ints(own, "int32", 0, 3 if r.chance(0.05) else 2)],
                dict(num_partitions=3))


@generator("SegmentSum SegmentMean SegmentProd SegmentMax SegmentMin")
def segment(r, op, d):
    shape = r.shape(1, 3)
    ids = np.sort(r.ints([shape[0]], r.index(), 0, 4))
    if ids.size > 1 and r.chance(0.05):
        ids = ids[::-1]
    return Case([r.values(shape, d, 1, 4), ids], tol=16)


@generator("UnsortedSegmentSum UnsortedSegmentProd UnsortedSegmentMax UnsortedSegmentMin")
def unsorted_segment(r, op, d):
    shape = r.shape(1, 3)
    t = r.of("int16", "int32", "int64") if op == "UnsortedSegmentSum" else r.index()
    ids = r.ints(shape[:r.int(0, len(shape))], t, -1, 3)
    return Case([r.values(shape, d), ids, arr(r.int(3, 5), r.index())], tol=16)


@generator(" ".join("SparseSegment" + n + s for n in ("Sum", "Mean", "SqrtN")
                    for s in ("", "WithNumSegments", "Grad", "GradV2")))
def sparse_segment(r, op, d):
    # The gradient of no rows is memory that nobody has written to.
    shape, n = [r.size(0)] + r.shape(0, 2), r.int(1 if "Grad" in op else 0, 5)
    rows = r.ints([n], r.index(), 0, shape[0] - (0 if r.chance(0.04) else 1))
    ids = np.sort(r.ints([n], r.index(), 0, 3))
    if "Grad" in op:
        rows = np.minimum(rows, shape[0] - 1)
        return Case([r.values([4] + shape[1:], d), rows, ids, arr(shape[0], "int32")], tol=16)
    more = [arr(r.int(4, 6), r.index())] if "With" in op else []
    return Case([r.values(shape, d), rows, ids] + more, tol=16)


@generator("Einsum")
def einsum(r, op, d):
    if d not in FLOATS + ["int32", "int64"]:
        return None
    equation = r.of("ij->ji", "ij->i", "ij->", "ii->i", "ii->", "i->ii", "ijk->kji", "...ij->...ji",
                    "ij,jk->ik", "ij,kj->ik", "ji,jk->ki", "bij,bjk->bik", "bfnd,btnd->bnft",
                    "bnft,btnd->bfnd", "i,i->", "i,j->ij", "ij,ij->ij", "ij,j->i", "abc,cd->abd",
                    "abc,adc->bd", "...ij,...jk->...ik", "...i,ij->...j", "ij,...j->...i",
                    "i...,i->...", "iij,j->i", "abc,bd->a", ",i->i", "aab,bc->acc", "ij,jk->kij",
                    "...ab,b...->a...")
    sizes = {}
    def shape(labels):
        dims = []
        for part in labels.replace("...", ".").strip():
            if part == ".":
                dims += [r.of(1, 2) for _ in range(r.int(0, 2))]
            else:
                dims.append(sizes.setdefault(part, r.size(0.03)))
        return dims
    shapes = [shape(labels) for labels in equation.split("->")[0].split(",")]
    if r.chance(0.04) and shapes[0]:
        shapes[0][-1] += 1
    return Case([r.values(s, d) for s in shapes], dict(equation=equation), tol=32)


@generator("Cholesky MatrixInverse MatrixDeterminant LogMatrixDeterminant MatrixSolve "
           "MatrixTriangularSolve")
def linear_algebra(r, op, d):
    if d not in ("float", "double") and (op, d) != ("MatrixInverse", "half"):
        return None
    n = r.size(0.03)
    outer = r.shape(0, 2)
    a = r.values(outer + [n, n], "double", -1, 1)
    a = a @ np.swapaxes(a, -1, -2) + np.eye(n) if op == "Cholesky" else a + 2 * n * np.eye(n)
    if op == "Cholesky" and n == 1 and r.chance(0.2):
        a = -a  # No roots: NaNs, above the diagonal of larger ones anything.
    if n and op in ("MatrixInverse", "MatrixSolve") and r.chance(0.06):
        a[..., 0, :] = 0
    if op.endswith("Determinant") and r.chance(0.5):
        a = -a
    a = arr(a, d)
    if "Solve" not in op:
        return Case([a], dict(adjoint=r.chance(0.5)) if op == "MatrixInverse" else {}, tol=64)
    attrs = dict(adjoint=r.chance(0.5))
    if op == "MatrixTriangularSolve":
        attrs["lower"] = r.chance(0.5)
        if r.chance(0.3):
            outer = [1 if r.chance(0.5) else k for k in outer][r.int(0, len(outer)):]
    return Case([a, r.values(outer + [n + (1 if r.chance(0.04) else 0), r.size(0.03)], d)], attrs,
                tol=64)


@generator("HistogramFixedWidth")
def histogram_fixed_width(r, op, d):
    if d not in ("int32", "int64", "float", "double"):
        return None
    low = r.int(-2, 1)
    return Case([r.values(r.shape(), d), arr([low, low + r.of(1, 2, 3, 3, 0)], d),
                 arr(r.of(1, 2, 3, 5, 5, 0), "int32")], dict(dtype=TF_DTYPE[r.index()]))


@generator("FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel")
def fake_quant(r, op, d):
    return fake_quant_case(r, op, False)


@generator("FakeQuantWithMinMaxArgsGradient FakeQuantWithMinMaxVarsGradient "
           "FakeQuantWithMinMaxVarsPerChannelGradient")
def fake_quant_gradient(r, op, d):
    return fake_quant_case(r, op, True)


def fake_quant_case(r, op, gradient):
    shape = r.shape(1 if "PerChannel" in op else 0)
    attrs = dict(num_bits=r.of(8, 8, 4, 2, 16), narrow_range=r.chance(0.4))
    x = [r.values(shape, "float") for _ in range(2 if gradient else 1)]
    if gradient and r.chance(0.04):
        x[0] = x[0][..., np.newaxis]
    if "Args" in op:
        low = r.int(-3, 1)
        return Case(x, dict(attrs, min=float(low), max=low + r.of(0.5, 1.0, 2.7)), tol=16)
    ends = [shape[-1]] if "PerChannel" in op else []
    low = -r.values(ends, "float", 0.1, 2)
    return Case(x + [low, np.float32(low + r.values(ends, "float", 0.3, 4))], attrs, tol=16)


# ---- Sparse tensors ----


def sparse_positions(r, shape, ordered=True):
    """Of some elements."""
    n = int(np.prod(shape))
    flat = r.r.permutation(n)[:r.int(0, min(n, 6))]
    if ordered:
        flat = np.sort(flat)
    return np.stack(np.unravel_index(flat, shape), 1).astype(np.int64).reshape(-1, len(shape))


@generator("SparseTensorDenseMatMul")
def sparse_mat_mul(r, op, d):
    if d not in FLOATS + ["int32"]:
        return None
    m, k, n = r.int(1, 5), r.int(1, 5), r.of(0, 1, 2, 3, 40)
    adjoint = [r.chance(0.4), r.chance(0.4)]
    a, b = ([k, m] if adjoint[0] else [m, k]), ([n, k] if adjoint[1] else [k, n])
    at = sparse_positions(r, a, ordered=r.chance(0.7)).astype(NP_DTYPE[r.index()])
    if len(at) and n and d in ("float", "double", "int32") and r.chance(0.05):
        at[0, 0] = 7  # Others aren't looked at.
    return Case([at, r.values([len(at)], d), arr(a, "int64"), r.values(b, d)],
                dict(adjoint_a=adjoint[0], adjoint_b=adjoint[1]), tol=16)


@generator("SparseFillEmptyRows")
def sparse_fill_empty_rows(r, op, d):
    shape = [r.int(1, 5) for _ in range(r.int(1, 3))]
    at = sparse_positions(r, shape, ordered=r.chance(0.6))
    if len(at) and r.chance(0.05):
        at[0, 0] = 7
    return Case([at, r.values([len(at)], d), arr(shape, "int64"), r.values([], d)])


@generator("SparseFillEmptyRowsGrad")
def sparse_fill_empty_rows_grad(r, op, d):
    if d not in NUMBERS:
        return None
    n = r.int(0, 6)
    at = r.r.permutation(n)[:r.int(0, n)].astype(np.int64)
    if len(at) and r.chance(0.05):
        at[0] = 9
    return Case([at, r.values([n], d)], tol=4)


@generator("SparseReorder")
def sparse_reorder(r, op, d):
    shape = [r.int(1, 5) for _ in range(r.int(1, 3))]
    at = sparse_positions(r, shape, ordered=False)
    if len(at) and r.chance(0.05):
        at[0, 0] = 7
    return Case([at, r.values([len(at)], d), arr(shape, "int64")])


@generator("SparseReshape")
def sparse_reshape(r, op, d):
    shape, new = r.of(([4], [2, 2]), ([2, 6], [3, -1]), ([3, 4], [2, 3, 2]), ([2, 3, 2], [12]),
                      ([2, 3], [-1]), ([2, 3], [4, 2]), ([2, 3], [-1, -1]), ([5], [1, 5, -1]))
    return Case([sparse_positions(r, shape), arr(shape, "int64"), arr(new, "int64")])


# ---- Images ----


def window(r, op):
    padding = r.of("SAME", "VALID")
    k = [r.int(1, 3), r.int(1, 3)]
    s = [r.int(1, 3), r.int(1, 3)]
    return padding, k, s


@generator("Conv2D Conv2DBackpropInput Conv2DBackpropFilter")
def conv(r, op, d):
    if d not in FLOATS + ["int32"]:
        return None
    padding, k, s = window(r, op)
    n, h, w = r.size(0.03), r.int(3, 6), r.int(3, 6)
    c, o = r.int(1, 3), r.int(1, 3)
    attrs = dict(strides=[1] + s + [1], padding=padding)
    x, f = [n, h, w, c], k + [c, o]
    out = [n] + [-(-a // b) if padding == "SAME" else (a - q) // b + 1
                 for a, b, q in zip([h, w], s, k)] + [o]
    if op == "Conv2D":
        return Case([r.values(x, d), r.values(f, d)], attrs, tol=32)
    if op == "Conv2DBackpropInput":
        return Case([arr(x, "int32"), r.values(f, d), r.values(out, d)], attrs, tol=32)
    return Case([r.values(x, d), arr(f, "int32"), r.values(out, d)], attrs, tol=32)


@generator("DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput "
           "DepthwiseConv2dNativeBackpropFilter")
def depthwise(r, op, d):
    if d not in FLOATS:
        return None
    padding, k, s = window(r, op)
    s = [s[0], s[0]]  # TensorFlow has others with some builds only.
    # A filter's gradient of no images is memory that nobody has written to.
    n, h, w = r.size(0 if op.endswith("Filter") else 0.03), r.int(3, 6), r.of(3, 4, 5, 6, 15)
    c, m = r.of(1, 2, 3, 13, 30), r.of(1, 1, 2, 3)
    # Long rows and many channels are for loops that take several at once: one of them at a time.
    if w == 15:
        n, h, c = min(n, 1), 3, min(c, 13)
    elif c == 30:
        n, h, m = min(n, 1), 3, 1
    x, f = [n, h, w, c], k + [c + (1 if r.chance(0.03) else 0), m]
    attrs = dict(strides=[1] + s + [1], padding=padding)
    pads = [[0, 0], [0, 0]]
    if padding == "VALID" and r.chance(0.3):
        pads = [[r.int(0, j), r.int(0, j)] for j in (k[0] - 1, k[1] - 1)]
        attrs.update(padding="EXPLICIT", explicit_paddings=[0, 0] + pads[0] + pads[1] + [0, 0])
    out = [n] + [-(-a // b) if padding == "SAME" else (a + sum(p) - q) // b + 1
                 for a, b, q, p in zip([h, w], s, k, pads)] + [c * m]
    if op == "DepthwiseConv2dNative":
        return Case([r.values(x, d), r.values(f, d)], attrs, tol=32)
    if op.endswith("Input"):
        return Case([arr(x, "int32"), r.values(f, d), r.values(out, d)], attrs, tol=32)
    return Case([r.values(x, d), arr(f, "int32"), r.values(out, d)], attrs, tol=32)


def pooled(r, shape, op):
    padding, k, s = window(r, op)
    out = [shape[0]] + [-(-a // b) if padding == "SAME" else (a - q) // b + 1
                        for a, b, q in zip(shape[1:3], s, k)] + [shape[3]]
    return padding, [1] + k + [1], [1] + s + [1], out


@generator("MaxPool AvgPool MaxPoolV2 AvgPoolGrad")
def pool(r, op, d):
    shape = [r.size(0.03), r.int(3, 6), r.int(3, 6), r.int(1, 3)]
    padding, k, s, out = pooled(r, shape, op)
    if op == "MaxPoolV2":
        return Case([r.values(shape, d), arr(k, "int32"), arr(s, "int32")], dict(padding=padding))
    attrs = dict(padding=padding, ksize=k, strides=s)
    if op == "AvgPoolGrad":
        return Case([arr(shape, "int32"), r.values(out, d)], attrs, tol=8)
    return Case([r.values(shape, d)], attrs, tol=8)


@generator("MaxPoolWithArgmax MaxPoolGradWithArgmax")
def max_pool_with_argmax(r, op, d):
    if d not in NUMBERS:
        return None
    shape = [r.int(1, 2), r.int(3, 6), r.int(3, 6), r.int(1, 3)]
    padding, k, s, out = pooled(r, shape, op)
    everywhere = r.chance(0.5)
    attrs = dict(padding=padding, ksize=k, strides=s, include_batch_in_index=everywhere)
    if op == "MaxPoolWithArgmax":
        return Case([r.values(shape, d)], dict(attrs, Targmax=TF_DTYPE[r.index()]))
    places = int(np.prod(shape if everywhere else shape[1:]))
    at = r.ints(out, "int64", 0, places - 1)  # Others end TensorFlow's process.
    return Case([r.values(shape, d), r.values(out, d, 0, 5), at], attrs, tol=8)


@generator("MaxPoolGrad MaxPoolGradV2 MaxPoolGradGrad")
def max_pool_grad(r, op, d):
    shape = [r.int(1, 2), r.int(3, 6), r.int(3, 6), r.int(1, 3)]
    padding, k, s, out = pooled(r, shape, op)
    # No two elements are equal, so that it is clear which was the greatest.
    x = arr(r.r.permutation(int(np.prod(shape))) % 120, d).reshape(shape)
    x = arr(np.arange(x.size)[r.r.permutation(x.size)] if x.size <= 120 else x, d).reshape(shape)
    with tf.Graph().as_default() as g:
        y = tf.raw_ops.MaxPool(input=tf.constant(x.astype(np.float32)), ksize=k, strides=s,
                               padding=padding)
        with tf1.Session(graph=g) as session:
            top = session.run(y).astype(NP_DTYPE[d])
    if x.size > 120:
        return None
    dy = r.values(shape if op == "MaxPoolGradGrad" else out, d, 0, 5)
    if op == "MaxPoolGradV2":
        return Case([x, top, dy, arr(k, "int32"), arr(s, "int32")], dict(padding=padding), tol=8)
    return Case([x, top, dy], dict(padding=padding, ksize=k, strides=s), tol=8)


@generator("FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3")
def batch_norm(r, op, d):
    shape, training = [r.int(1, 3), r.int(2, 4), r.int(2, 4), r.int(1, 3)], r.chance(0.5)
    if (d != "float" and op == "FusedBatchNorm") or d == "double":
        return None
    c = shape[-1:]
    mean, variance = ([], []) if training else (r.values(c, "float"), r.values(c, "float", 1, 2))
    return Case([r.values(shape, d), r.values(c, "float"), r.values(c, "float"),
                 arr(mean, "float"), arr(variance, "float")], dict(is_training=training), tol=64,
                outputs=None if training else 3)


@generator("FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3")
def batch_norm_grad(r, op, d):
    shape, training = [r.int(1, 3), r.int(2, 4), r.int(2, 4), r.int(1, 3)], r.chance(0.5)
    if d == "double":
        return None
    c = shape[-1:]
    inputs = [r.values(shape, d), r.values(shape, d), r.values(c, "float"),
              r.values(c, "float"), r.values(c, "float", 0.5, 1)]
    if op == "FusedBatchNormGradV3":
        inputs.append(r.values(c, "float"))
    return Case(inputs, dict(is_training=training), tol=256)


@generator("LRN LRNGrad")
def lrn(r, op, d):
    shape = [r.int(1, 2), r.int(1, 3), r.int(1, 3), r.int(1, 6)]
    attrs = dict(depth_radius=r.int(1, 3), bias=1.5, alpha=0.5, beta=0.75)
    x = r.values(shape, d)
    return Case([x] if op == "LRN" else [r.values(shape, d), x, r.values(shape, d)], attrs, tol=64)


@generator("BiasAdd BiasAddV1 BiasAddGrad")
def bias(r, op, d):
    shape = r.shape(2, 4)
    fmt = {} if op == "BiasAddV1" else dict(data_format=r.of("NHWC", "NCHW"))
    c = shape[1] if fmt.get("data_format") == "NCHW" else shape[-1]
    x = r.values(shape, d)
    return Case([x] if op == "BiasAddGrad" else [x, r.values([c], d)], fmt, tol=16)


@generator("ResizeBilinear ResizeNearestNeighbor")
def resize(r, op, d):
    shape = [r.size(), r.size(0.02), r.size(0.02), r.size(0.02)]
    size = [r.int(1, 7), r.int(0 if r.chance(0.05) else 1, 7)]
    corners = r.chance(0.3)
    return Case([r.values(shape, d, 0, 50), arr(size, "int32")],
                dict(align_corners=corners, half_pixel_centers=not corners and r.chance(0.5)),
                tol=8)


@generator("ResizeBilinearGrad ResizeNearestNeighborGrad")
def resize_grad(r, op, d):
    n, c = r.size(), r.size(0)
    small, large = [r.int(1, 4), r.int(1, 4)], [r.int(1, 6), r.int(1, 6)]
    corners = r.chance(0.3)
    attrs = dict(align_corners=corners, half_pixel_centers=not corners and r.chance(0.5))
    if op == "ResizeBilinearGrad":
        # The shares are floats even where the sums are doubles.
        return Case([r.values([n] + large + [c], "float"), r.values([n] + small + [c], d)], attrs,
                    tol=16 * 2**29 if d == "double" else 16)
    return Case([r.values([n] + large + [c], d), arr(small, "int32")], attrs, tol=16)


# ---- Strings ----


@generator("StringJoin")
def string_join(r, op, d):
    shape = r.shape()
    return Case([r.values(shape if r.chance(0.7) else [], "string") for _ in range(r.int(1, 3))],
                dict(separator=r.of("", "-")))


@generator("StringToNumber")
def string_to_number(r, op, d):
    if d not in ("float", "double", "int32", "int64", "uint32", "uint64"):
        return None
    words = ["1", " 7 ", "12", "+3"] + (["2.5", "1e3", "-inf", "nan", ".5"] if d in FLOATS else [])
    if d in SIGNED:
        words.append("-8")
    if r.chance(0.1):
        words.append(r.of("x", "", "1x", "99999999999999999999x"))
    return Case([np.array([r.of(*words).encode() for _ in range(r.int(0, 5))] or [], dtype=object)],
                dict(out_type=TF_DTYPE[d]))


@generator("Substr")
def substr(r, op, d):
    a, b = r.broadcast(2, 2)
    t = r.index()
    x = np.array([r.of("hello", "h\u00e9llo", "abcdefg").encode() for _ in range(int(np.prod(a)))]
                 or [], dtype=object).reshape(a)
    return Case([x, r.ints(b, t, -4, 6 if r.chance(0.1) else 4), r.ints(b, t, 0, 4)],
                dict(unit=r.of("BYTE", "UTF8_CHAR")))


@generator("ReduceJoin")
def reduce_join(r, op, d):
    shape = r.shape()
    axes = r.axes(len(shape), "int32")
    return Case([r.values(shape, "string"), axes],
                dict(separator=r.of("", "-"), keep_dims=r.chance(0.4)))


@generator("RegexFullMatch StaticRegexFullMatch")
def regex(r, op, d):
    x = r.values(r.shape(), "string")
    pattern = r.of("s.*", "s[0-9]+", "", "s1?-?2")
    if op == "StaticRegexFullMatch":
        return Case([x], dict(pattern=pattern))
    return Case([x, arr(pattern.encode(), "string")])


@generator("ShardedFilename ShardedFilespec")
def sharded(r, op, d):
    n = arr(r.int(1, 99), "int32")
    base = arr(b"/tmp/x", "string")
    return Case([base, arr(r.int(0, 9), "int32"), n] if op == "ShardedFilename" else [base, n])


# ---- Random numbers: what the first run gives ----


@generator("RandomShuffle")
def shuffle(r, op, d):
    return Case([r.values(r.shape(1), d)], dict(seed=r.int(1, 99), seed2=r.int(0, 9)))


@generator("UniformCandidateSampler LogUniformCandidateSampler FixedUnigramCandidateSampler "
           "AllCandidateSampler")
def candidate_sampler(r, op, d):
    n, most = r.int(1, 8), r.of(8, 9, 11, 1000)
    attrs = dict(num_true=r.int(1, 3), num_sampled=n, unique=r.chance(0.5), seed=r.int(1, 99),
                 seed2=r.int(0, 99))
    if op.startswith("Fixed"):
        most = r.int(1, 12)
        reserved = r.int(0, 1)
        attrs.update(unigrams=[float(v) for v in r.r.randint(1, 20, size=most)],
                     distortion=r.of(1.0, 0.75), num_reserved_ids=reserved)
        attrs["num_sampled"] = min(n, most)
        most += reserved
    if op.startswith("All"):
        most = n
    else:
        attrs["range_max"] = most
    truth = [r.int(1, 4), attrs["num_true"] + (1 if r.chance(0.04) else 0)]
    return Case([r.ints(truth, "int64", 0, most - 1)], attrs, rtol=16)


@generator("ComputeAccidentalHits")
def accidental_hits(r, op, d):
    truth = r.ints([r.int(0, 4), r.int(1, 3)], "int64", 0, 6)
    return Case([truth, r.ints([r.int(0, 6)], "int64", 0, 6)],
                dict(num_true=truth.shape[1] + (1 if r.chance(0.04) else 0)))


@generator("Multinomial")
def multinomial(r, op, d):
    return Case([r.values([r.size(), r.size(0)], d), arr(r.int(0, 5), "int32")],
                dict(seed=r.int(1, 99), seed2=r.int(0, 9), output_dtype=TF_DTYPE[r.index()]))


@generator("RandomUniformInt")
def uniform_int(r, op, d):
    if d not in ("int32", "int64"):
        return None
    return Case([arr(r.shape(0, 3), r.index()), arr(r.int(-5, 0), d), arr(r.int(1, 9), d)],
                dict(seed=r.int(1, 99), seed2=r.int(0, 9)))


@generator("RandomUniform RandomStandardNormal TruncatedNormal")
def random(r, op, d):
    if d not in FLOATS:
        return None
    return Case([arr(r.shape(0, 3), r.index())],
                dict(dtype=TF_DTYPE[d], seed=r.int(1, 99), seed2=r.int(0, 9)),
                tol=0 if op == "RandomUniform" else 16)


# ---- Small graphs: variables ----

raw = tf.raw_ops


def results(*values):
    """What a case compares."""
    tf.identity_n(list(values), name="op")


def reference(value):
    """A ref variable that holds the tensor."""
    v = raw.VariableV2(shape=value.shape, dtype=value.dtype)
    return raw.Assign(ref=v, value=value)


def handle(value):
    """A resource variable's handle, and the op that gives it the value."""
    h = raw.VarHandleOp(dtype=value.dtype, shape=value.shape,
                        shared_name=value.op.name.split("/")[-1])
    return h, raw.AssignVariableOp(resource=h, value=value)


def after(ops, function):
    with tf.control_dependencies(ops):
        return function()


def read(h, dtype, *ops):
    return after(ops, lambda: raw.ReadVariableOp(resource=h, dtype=dtype))


@generator("VariableV2 Variable Assign IsVariableInitialized RefIdentity")
def ref_variable(r, op, d):
    x = r.values(r.shape(empty=0), d)  # One without elements always counts as initialized.

    def build(i):
        make = raw.Variable if op == "Variable" else raw.VariableV2
        v = make(shape=i[0].shape, dtype=i[0].dtype)
        if op == "IsVariableInitialized":
            before = raw.IsVariableInitialized(ref=v)
            set_ = after([before], lambda: raw.Assign(ref=v, value=i[0]))
            results(before, after([set_], lambda: raw.IsVariableInitialized(ref=v)))
            return
        v = raw.Assign(ref=v, value=i[0])
        results(raw.RefIdentity(input=v) if op == "RefIdentity" else v)

    return Case([x], build=build)


@generator("RefSwitch RefMerge")
def ref_switch(r, op, d):
    def build(i):
        off, on = raw.RefSwitch(data=reference(i[0]), pred=i[1])
        results(*raw.RefMerge(inputs=[off, on]))

    return Case([r.values(r.shape(), d), arr(r.chance(0.5), "bool")], build=build)


@generator("AssignAdd AssignSub AssignAddVariableOp AssignSubVariableOp AssignVariableOp "
           "ReadVariableOp VarHandleOp VarIsInitializedOp VariableShape")
def assign(r, op, d):
    shape = r.shape()

    def build(i):
        if not op.endswith("Op") and op != "VariableShape":
            results(getattr(raw, op)(ref=reference(i[0]), value=i[1]))
            return
        h, set_ = handle(i[0])
        if op == "VarIsInitializedOp":
            before = raw.VarIsInitializedOp(resource=raw.VarHandleOp(dtype=i[0].dtype, shape=[],
                                                                      shared_name="other"))
            results(before, after([set_], lambda: raw.VarIsInitializedOp(resource=h)))
        elif op == "VariableShape":
            t = TF_DTYPE[r.index()]
            results(after([set_], lambda: raw.VariableShape(input=h, out_type=t)))
        elif op.startswith("Assign") and op != "AssignVariableOp":
            add = after([set_], lambda: getattr(raw, op)(resource=h, value=i[1]))
            results(read(h, i[0].dtype, add))
        else:
            results(read(h, i[0].dtype, set_))

    return Case([r.values(shape, d), r.values(shape, d)], build=build, tol=2)


@generator(" ".join(p + "Scatter" + n for p in ("", "Resource")
                    for n in ("Update", "Add", "Sub", "Mul", "Div", "Max", "Min")))
def scatter(r, op, d):
    shape = [r.int(1, 4)] + r.shape(0, 2)
    own = r.shape(0, 2)
    x, ix = r.values(shape, d, 1, 9), r.ints(own, r.index(), 0, shape[0] - 1)
    updates = r.values([] if r.chance(0.2) else own + shape[1:], d, 1, 9)

    def build(i):
        if op.startswith("Resource"):
            h, set_ = handle(i[0])
            done = after([set_], lambda: getattr(raw, op)(resource=h, indices=i[1], updates=i[2]))
            results(read(h, i[0].dtype, done))
        else:
            results(getattr(raw, op)(ref=reference(i[0]), indices=i[1], updates=i[2]))

    return Case([x, ix, updates], build=build, tol=16)


@generator(" ".join(p + "ScatterNd" + n for p in ("", "Resource")
                    for n in ("Update", "Add", "Sub", "Max", "Min")))
def scatter_nd_variable(r, op, d):
    shape, t = r.shape(1, 3, 0), r.index()
    ix, updates = nd_indices(r, shape, t, least=1)
    ix[ix == 99] = 0

    def build(i):
        if op.startswith("Resource"):
            h, set_ = handle(i[0])
            done = after([set_], lambda: getattr(raw, op)(ref=h, indices=i[1], updates=i[2]))
            results(read(h, i[0].dtype, done))
        else:
            results(getattr(raw, op)(ref=reference(i[0]), indices=i[1], updates=i[2]))

    return Case([r.values(shape, d), ix, r.values(updates, d)], build=build, tol=16)


@generator("ResourceGather ResourceGatherNd")
def resource_gather(r, op, d):
    shape, t = r.shape(1, 3, 0), r.index()
    ix, _ = nd_indices(r, shape, t)
    if op == "ResourceGather":
        ix = r.ints(r.shape(0, 2), t, 0, shape[0] - 1)
    ix[ix == 99] = 0

    def build(i):
        h, set_ = handle(i[0])
        results(after([set_], lambda: getattr(raw, op)(resource=h, indices=i[1],
                                                       dtype=i[0].dtype)))

    return Case([r.values(shape, d), ix], build=build)


@generator("StridedSliceAssign ResourceStridedSliceAssign")
def slice_assign(r, op, d):
    shape, t = [r.int(1, 4)] + r.shape(0, 2), r.index()
    begin, end = [0], [r.int(1, shape[0])]
    value = r.values([end[0]] + shape[1:], d)

    def build(i):
        args = dict(begin=i[1], end=i[2], strides=i[3], value=i[4])
        if op.startswith("Resource"):
            h, set_ = handle(i[0])
            done = after([set_], lambda: raw.ResourceStridedSliceAssign(ref=h, **args))
            results(read(h, i[0].dtype, done))
        else:
            results(raw.StridedSliceAssign(ref=reference(i[0]), **args))

    return Case([r.values(shape, d)] + [arr(v, t) for v in (begin, end, [1])] + [value],
                build=build)


def optimizer_ops():
    """Op -> its variables' and inputs' names, whether it is sparse."""
    ops = {}
    for sparse, table in ((False, optimizers()), (True, sparse_optimizers())):
        for op, refs, inputs in table:
            for name in {op, op if op.startswith("Resource") else "Resource" + op}:
                ops[name] = refs, inputs, sparse
    return ops


OPTIMIZERS = optimizer_ops()


@generator(" ".join(OPTIMIZERS))
def optimizer(r, op, d):
    if d not in FLOATS:
        return None
    refs, inputs, sparse = OPTIMIZERS[op]
    shape = [r.int(1, 4)] + r.shape(0, 2, 0) if sparse else r.shape()
    rows = r.r.permutation(shape[0])[:r.int(0, shape[0])] if sparse else []
    names, values = list(refs), [v for _, v in initial(refs, shape, d)]
    for name, value in inputs:
        names.append(name)
        if value is not None:
            values.append(arr(value, "int64" if name == "global_step" else d))
            continue
        values.append(r.values([len(rows)] + shape[1:] if sparse else shape, d, -2, 2))
        if sparse:
            names.append("indices")
            values.append(arr(rows, r.index()))

    def build(i):
        given = dict(zip(names, i))
        variables = [given[n] for n in refs]
        if op.startswith("Resource"):
            made = [handle(v) for v in variables]
            given.update(zip(refs, [h for h, _ in made]))
            done = after([s for _, s in made], lambda: getattr(raw, op)(**given))
            results(*[read(h, variables[0].dtype, done) for h, _ in made])
        else:
            made = [reference(v) for v in variables]
            given.update(zip(refs, made))
            done = after(made, lambda: getattr(raw, op)(**given))
            results(*[after([done], lambda v=v: tf.identity(v)) for v in made])

    return Case(values, build=build, tol=128 if "Ftrl" in op else 32)


# ---- Small graphs: control flow, stacks, arrays and lists of tensors ----


@generator("Enter Exit NextIteration Switch Merge LoopCond")
def loop(r, op, d):
    def build(i):
        results(*tf1.while_loop(lambda k, a, b: k < i[0], lambda k, a, b: (k + 1, b, a),
                                [tf.constant(0), i[1], i[2]]))

    shape = r.shape()
    return Case([arr(r.int(0, 4), "int32"), r.values(shape, d), r.values(shape, d)], build=build)


@generator("Assert")
def assert_(r, op, d):
    def build(i):
        held = raw.Assert(condition=i[0], data=[i[1]])
        results(after([held], lambda: tf.identity(i[1])))

    return Case([arr(True, "bool"), r.values(r.shape(), d)], build=build)


@generator("StackV2 StackPushV2 StackPopV2")
def stack(r, op, d):
    def build(i):
        s = raw.StackV2(max_size=tf.constant(4), elem_type=i[0].dtype)
        first = raw.StackPushV2(handle=s, elem=i[0])
        second = after([first], lambda: raw.StackPushV2(handle=s, elem=i[1]))
        a = after([second], lambda: raw.StackPopV2(handle=s, elem_type=i[0].dtype))
        b = after([a], lambda: raw.StackPopV2(handle=s, elem_type=i[0].dtype))
        results(a, b)

    return Case([r.values(r.shape(), d), r.values(r.shape(), d)], build=build)


@generator("TensorArrayV3 TensorArrayWriteV3 TensorArrayReadV3 TensorArraySizeV3 "
           "TensorArrayGatherV3 TensorArrayScatterV3 TensorArrayConcatV3 TensorArraySplitV3")
def tensor_array(r, op, d):
    n, shape = r.int(1, 3), [r.int(1, 2)] + r.shape(0, 1, 0)

    def build(i):
        t, flat = i[0].dtype, [n * shape[0]] + shape[1:]
        numbers, lengths = tf.range(n), tf.fill([n], tf.constant(shape[0], tf.int64))

        def array(fill):
            h, flow = raw.TensorArrayV3(size=n, dtype=t, clear_after_read=False)
            return h, fill(h, flow)

        def write(h, flow):
            for k in range(n):
                flow = raw.TensorArrayWriteV3(handle=h, index=k, value=i[0][k], flow_in=flow)
            return flow

        a, flow = array(write)
        b, flow_b = array(lambda h, flow: raw.TensorArraySplitV3(
            handle=h, value=tf.reshape(i[0], flat), lengths=lengths, flow_in=flow))
        c, flow_c = array(lambda h, flow: raw.TensorArrayScatterV3(
            handle=h, indices=numbers, value=i[0], flow_in=flow))
        joined = raw.TensorArrayConcatV3(handle=b, flow_in=flow_b, dtype=t)
        results(raw.TensorArrayReadV3(handle=a, index=n - 1, flow_in=flow, dtype=t),
                raw.TensorArraySizeV3(handle=a, flow_in=flow), joined.value, joined.lengths,
                raw.TensorArrayGatherV3(handle=c, indices=numbers[::-1], flow_in=flow_c, dtype=t))

    return Case([r.values([n] + shape, d)], build=build)


@generator("EmptyTensorList TensorListPushBack TensorListPopBack TensorListReserve "
           "TensorListSetItem TensorListGetItem TensorListStack TensorListFromTensor "
           "TensorListGather TensorListScatter TensorListScatterV2 TensorListConcatV2 "
           "TensorListSplit TensorListLength TensorListElementShape TensorListResize")
def tensor_list(r, op, d):
    n, shape, index = r.int(1, 3), [r.int(1, 2)] + r.shape(0, 1, 0), r.index()

    def build(i):
        t, s = i[0].dtype, tf.constant(shape, TF_DTYPE[index])
        part = tf.constant([-1] + shape[1:], s.dtype)
        s32, numbers = tf.constant(shape, tf.int32), tf.range(n)

        def stacked(x):
            return raw.TensorListStack(input_handle=x, element_shape=s32, element_dtype=t)

        reserved = raw.TensorListReserve(element_shape=s, num_elements=n, element_dtype=t)
        pushed = raw.EmptyTensorList(element_shape=s, max_num_elements=n, element_dtype=t)
        for k in range(n):
            reserved = raw.TensorListSetItem(input_handle=reserved, index=k, item=i[0][k])
            pushed = raw.TensorListPushBack(input_handle=pushed, tensor=i[0][k])
        pushed, last = raw.TensorListPopBack(input_handle=pushed, element_shape=s32,
                                             element_dtype=t)
        whole = raw.TensorListFromTensor(tensor=i[0], element_shape=s)
        scattered = raw.TensorListScatter(tensor=i[0], indices=numbers, element_shape=s)
        longer = raw.TensorListScatterV2(tensor=i[0], indices=numbers, element_shape=s,
                                         num_elements=n + 1)
        cut = raw.TensorListSplit(tensor=tf.reshape(i[0], [n * shape[0]] + shape[1:]),
                                  element_shape=part,
                                  lengths=tf.fill([n], tf.constant(shape[0], tf.int64)))
        joined = raw.TensorListConcatV2(input_handle=whole, element_shape=part,
                                        leading_dims=tf.zeros([0], tf.int64), element_dtype=t)
        results(
            stacked(reserved), raw.TensorListLength(input_handle=pushed), last, stacked(scattered),
            stacked(raw.TensorListResize(input_handle=longer, size=n)), stacked(cut), *joined,
            raw.TensorListGetItem(input_handle=whole, index=n - 1, element_shape=s,
                                  element_dtype=t),
            raw.TensorListGather(input_handle=whole, indices=numbers[::-1], element_shape=s32,
                                 element_dtype=t),
            raw.TensorListElementShape(input_handle=whole, shape_type=s.dtype))

    return Case([r.values([n] + shape, d)], build=build)


@generator("OptionalFromValue OptionalGetValue OptionalHasValue OptionalNone")
def optional(r, op, d):
    def build(i):
        some = raw.OptionalFromValue(components=[i[0]])
        value, = raw.OptionalGetValue(optional=some, output_types=[i[0].dtype],
                                      output_shapes=[i[0].shape])
        results(value, raw.OptionalHasValue(optional=some),
                raw.OptionalHasValue(optional=raw.OptionalNone()))

    return Case([r.values(r.shape(), d)], build=build)


# ---- Making a case ----


def types_of(node):
    """(attribute, dtype) pairs of a NodeDef, of the dtypes that cases can hold."""
    for name, value in node.attr.items():
        for t in [value.type] if value.WhichOneof("value") == "type" else value.list.type:
            if tf.as_dtype(t) in NAME_OF:
                yield name, NAME_OF[tf.as_dtype(t)]


def _add_op_case(f, op, d, case, keep):
    try:
        node, out, err = f.run_op(op, case.inputs, case.attrs)
    except ValueError:  # The op isn't even defined for that.
        return None
    except NotImplementedError as e:  # TensorFlow makes no graphs with it any more.
        raise NoKernel(str(e))
    if err is not None and status_name(err) in ("INTERNAL", "UNIMPLEMENTED", "UNKNOWN"):
        return None
    if not keep([node]):
        return None
    k = f.unique("%s_%s" % (op, d))
    for i, a in enumerate(case.inputs):
        const_node(f.graph_def, "%s/in%d" % (k, i), a)
    n = f.graph_def.node.add()
    n.CopyFrom(node)
    n.name = k + "/op"
    del n.input[:]
    n.input.extend("%s/in%d" % (k, i) for i in range(len(case.inputs)))
    f.finish(k, out and out[:case.outputs], case.tol, err, [] if err is not None else None,
             case.rtol)
    return [node]


def _add_graph_case(f, op, d, case, keep):
    k = f.unique("%s_%s" % (op, d))
    f.names.remove(k)  # Until it is clear that there will be a case.
    with tf.Graph().as_default() as g:
        try:
            with tf1.name_scope(k):
                case.build([tf.constant(a, name="in%d" % i) for i, a in enumerate(case.inputs)])
            with tf1.Session(graph=g, config=session_config()) as session:
                out = session.run(list(g.get_operation_by_name(k + "/op").outputs))
        except (TypeError, ValueError) as e:
            raise NoKernel(str(e))
        except tf.errors.OpError as e:
            if is_missing(e.message):
                raise NoKernel(e.message)
            raise RuntimeError("%s of %s: %s" % (op, d, e.message))
        nodes = g.as_graph_def().node
    if not keep(nodes):
        return None
    f.names.add(k)
    f.graph_def.node.extend(nodes)
    f.finish(k, out, case.tol, rtol=case.rtol)
    return nodes


def add_case(f, draw, op, d, keep=lambda nodes: True):
    """Draws a case and adds it if keep(its nodes): their (attribute, dtype) pairs by op, or None.
    NoKernel if TensorFlow has none for the dtype."""
    case = GENERATORS[op](draw, op, d)
    if case is None:
        return None
    add = _add_graph_case if case.build else _add_op_case
    nodes = add(f, op, d, case, keep)
    if nodes is None:
        return None
    pairs = {}
    for node in nodes:
        pairs.setdefault(node.op, set()).update(types_of(node))
    return pairs
