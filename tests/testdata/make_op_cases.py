"""Writes op_cases/*.pb: TensorFlow's CPU results, op by op. The form is described in case_lib.py.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21:
    python make_op_cases.py [FAMILY ...]
Without arguments every family is written. Every input is fixed, so the files come out the same.
"""

import sys

import numpy as np

from case_lib import (ALL, FLOATS, INTS, NUMBERS, SIGNED, UNSIGNED, CaseFile, NoKernel, TF_DTYPE,
                      arr, bare, ramp, rand, session_config, tf, tf1)
from tensorflow.core.framework.tensor_pb2 import TensorProto

INF, NAN = float("inf"), float("nan")
SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.25, -3.25, 6.0, 6.5, 7.0, 0.1, -0.1, 1e-3, -1e-3,
    20.0, -20.0, 80.0, -80.0, 1000.0, -1000.0, INF, -INF, NAN
]
INT_RANGE = {
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "int32": (-2**31, 2**31 - 1),
    "int64": (-2**63, 2**63 - 1),
    "uint8": (0, 255),
    "uint16": (0, 65535),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1)
}


def extremes(d):
    """Values worth trying in a unary op."""
    if d == "string":
        return arr([b"", b"a", b"\xff\x00z", b"long " * 9], d)
    if d == "bool":
        return arr([True, False, True], d)
    if d in INTS:
        lo, hi = INT_RANGE[d]
        v = [0, 1, 2, 3, 5, 7, 100, hi, hi - 1, lo, lo + 1]
        if d in SIGNED:
            v += [-1, -2, -3, -100]
        return np.array(v, dtype=arr([0], d).dtype)
    return arr(SPECIAL, d)


def positive(d):
    if d in INTS:
        return arr([0, 1, 2, 4, 9, 16, 100], d)
    if d in FLOATS:
        return arr([0.0, 1e-3, 0.25, 0.5, 1.0, 2.0, 3.0, 10.0, 1000.0, INF, NAN], d)
    return extremes(d)


def unary():
    f = CaseFile("op_cases/unary.pb")
    tols = {
        "Exp": 4,
        "Log": 4,
        "Log1p": 4,
        "Sigmoid": 8,
        "Tanh": 8,
        "Sqrt": 1,
        "Rsqrt": 4,
        "Reciprocal": 2,
        "Inv": 2,
        "Elu": 8,
        "Softplus": 8,
        "Expm1": 8,
        "Sin": 4,
        "Cos": 4,
        "Erf": 8,
        "Softsign": 2,
        "Selu": 8,
        "LeakyRelu": 1
    }
    for op in [
            "Neg", "Abs", "Sign", "Square", "Exp", "Expm1", "Floor", "Ceil", "Rint", "Round",
            "Sigmoid", "Tanh", "Reciprocal", "Inv", "Relu", "Relu6", "Elu", "Selu", "Softplus",
            "Softsign", "LeakyRelu", "LogicalNot", "Identity", "StopGradient", "ZerosLike",
            "OnesLike", "Erf", "IsNan", "IsInf", "IsFinite", "PreventGradient", "Snapshot"
    ]:
        # TensorFlow's kernel makes every integer 0 in Round; tf.round goes round it.
        dtypes = [d for d in ALL if not (op in ("Reciprocal", "Inv", "Round") and d in INTS)]

        def values(d):
            v = extremes(d)
            # Each function's fast paths disagree with one another on results that overflow.
            if op == "Square" and d in FLOATS:
                v = v[np.abs(np.where(np.isnan(v), 0, v).astype(np.float64)) != 1000]
            if op in ("Exp", "Expm1", "Softplus") and d in FLOATS:
                v = arr([x for x in SPECIAL if not abs(x) == 80.0], d)
            # exp(x) - 1, as TensorFlow computes it, loses most digits near 0.
            if op in ("Elu", "Selu"):
                v = arr([x for x in SPECIAL if x != -1e-3], d)
            # TensorFlow finds NaN for erf of an infinite double.
            if op == "Erf":
                v = arr([x for x in SPECIAL if not np.isinf(x)], d)
            return [v]

        attrs = {"message": b"no gradient"} if op == "PreventGradient" else {}
        # A sigmoid far out on the left is next to nothing, and differs from one formula to another.
        f.per_dtype(op, values, dtypes, **{"tol" if op == "Sigmoid" else "rtol": tols.get(op, 0)},
                    **attrs)
    for op in ["Sqrt", "Rsqrt", "Log", "Log1p"]:
        f.per_dtype(op,
                    lambda d: [positive(d)] if d not in ("bool", "string") else None,
                    rtol=tols[op])
        f.per_dtype(op, lambda d: [arr([-1.0, -INF, -0.0], d)], FLOATS, rtol=tols[op], tag="neg")
    for op in ["Sin", "Cos"]:
        f.per_dtype(op,
                    lambda d: [arr([0, -0.0, 0.5, -0.5, 1, 2, 3, 10, -10], d)],
                    FLOATS,
                    rtol=tols[op])
    # Sizes that are not a multiple of any vector width, ranks, scalars, empty tensors.
    for op in ["Neg", "Exp", "Tanh", "Relu", "Sigmoid", "Identity", "ZerosLike"]:
        for tag, shape in [("scalar", []), ("empty", [0]), ("empty3", [2, 0, 3]), ("n1", [1]),
                           ("n67", [67]), ("r5", [1, 2, 1, 3, 2]), ("r6", [2, 1, 2, 1, 2, 2])]:
            f.case("%s_float_%s" % (op, tag),
                   op, [rand(shape, "float", -3, 3)],
                   rtol=tols.get(op, 0))
    f.case("LeakyRelu_alpha", "LeakyRelu", [arr(SPECIAL, "float")], rtol=1, alpha=0.5)
    f.write()


def pair(d, op):
    """Two arrays, all combinations of values worth trying in a binary op."""
    if d == "string":
        a = [b"", b"a", b"b", b"aa", b"\xff", b"\x00"]
    elif d == "bool":
        a = [True, False]
    elif d in FLOATS:
        a = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.5, 7.25, INF, -INF, NAN]
        if op in ("FloorDiv", "FloorMod", "Mod", "TruncateMod", "TruncateDiv"):
            a = [1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.5, 7.25, -7.25]
    else:
        lo, hi = INT_RANGE[d]
        a = [0, 1, 2, 3, 7, 100] + ([-1, -2, -3, -7, -100] if d in SIGNED else [])
        if op in ("FloorDiv", "FloorMod", "RealDiv", "Div", "TruncateDiv", "Mod", "TruncateMod"):
            a = a[1:]
        elif op == "Pow":
            a = [0, 1, 2, 3, 4]
        else:
            a += [lo, hi]
        a = np.array(a, dtype=arr([0], d).dtype).tolist()
    n = len(a)
    x = [a[i // n] for i in range(n * n)]
    y = [a[i % n] for i in range(n * n)]
    if op == "Pow" and d in SIGNED:
        x = [-v if i % 2 else v for i, v in enumerate(x)]
    kind = arr([0], d).dtype if d in INTS else None
    x, y = [np.array(v, dtype=kind) if kind else arr(v, d) for v in (x, y)]
    if op != "Pow" and d not in ("float", "int32"):  # The same pairs in less space.
        x, y = x.reshape(n, n)[:, :1], y.reshape(n, n)[:1]
    return [x, y]


BROADCASTS = [([], []), ([], [3]), ([3], []), ([1], [5]), ([2, 3], [3]), ([2, 1], [1, 3]),
              ([2, 3], [2, 1]), ([4, 1, 3], [2, 1]), ([2, 3, 4], [2, 3, 4]), ([2, 3, 4], [1, 3, 1]),
              ([1, 3, 1], [2, 1, 4]), ([2, 1, 3, 1], [1, 4, 1, 2]),
              ([2, 1, 2, 1, 3], [1, 2, 1, 2, 1]), ([2, 3, 2, 3, 2], [2]),
              ([1, 2, 1, 2, 1, 2], [2, 1, 2, 1, 2, 1]),
              ([2, 1, 2, 1, 2, 1, 2], [1, 2, 1, 2, 1, 2, 1]), ([0], [1]), ([0], []), ([2,
                                                                                       0], [1, 1]),
              ([0, 1], [1, 3]), ([1, 1, 1], [1]), ([19], [19])]


def binary():
    f = CaseFile("op_cases/binary.pb")
    tols = {
        "Pow": 8,
        "SquaredDifference": 1,
        "RealDiv": 1,
        "Div": 1,
        "DivNoNan": 1,
        "Xdivy": 1,
        "Xlogy": 4,
        "Atan2": 4
    }
    ops = [
        "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "TruncateDiv", "FloorDiv", "FloorMod",
        "Mod", "Pow", "Maximum", "Minimum", "SquaredDifference", "DivNoNan", "MulNoNan", "Equal",
        "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr"
    ]
    for op in ops:
        f.per_dtype(op, lambda d: pair(d, op), rtol=tols.get(op, 0))
    f.write()


def broadcast():
    f = CaseFile("op_cases/broadcast.pb")
    for op in ["AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Less"]:
        for i, (a, b) in enumerate(BROADCASTS):
            x, y = rand(a, "float", 1, 4, 3), rand(b, "float", 1, 4, 4)
            # TensorFlow's own broadcasting ends where more than five alternating groups remain.
            full = list(np.broadcast_arrays(x, y)) if len(a) > 5 else None
            f.case("%s_float_b%d" % (op, i),
                   op, [x, y],
                   rtol=1 if op == "RealDiv" else 0,
                   run_with=full)
    for d in ["half", "double", "int32", "int64", "string", "bfloat16"]:
        for i, (a, b) in enumerate(BROADCASTS):
            if i % 3 == 2 and len(a) < 6:
                f.case("AddV2_%s_b%d" % (d, i), "AddV2" if d != "string" else "Add",
                       [rand(a, d, 1, 9, 3), rand(b, d, 1, 9, 4)])
    for i, (a, b) in enumerate(BROADCASTS):
        if i % 4 == 1 and len(a) < 6:
            f.case("LogicalAnd_b%d" % i, "LogicalAnd",
                   [rand(a, "bool", seed=5), rand(b, "bool", seed=6)])
            f.case("Equal_string_b%d" % i, "Equal", [ramp(a, "string"), ramp(b, "string")])
            f.case("FloorMod_int32_b%d" % i, "FloorMod",
                   [rand(a, "int32", -20, 20), rand(b, "int32", 1, 5)])
    for op in ["AddV2", "Mul", "Less", "Maximum", "SquaredDifference"]:
        f.case(op + "_incompatible",
               op, [ramp([2, 3], "float"), ramp([2, 2], "float")],
               error=["Incompatible shapes", "[2,3] vs. [2,2]"])
    f.case("Equal_strict_shape",
           "Equal", [ramp([2, 3], "float"), ramp([2, 2], "float")],
           incompatible_shape_error=False)
    f.case("NotEqual_strict_shape",
           "NotEqual", [ramp([2, 3], "float"), ramp([2, 2], "float")],
           incompatible_shape_error=False)
    f.case("Equal_incompatible",
           "Equal", [ramp([2, 3], "float"), ramp([2, 2], "float")],
           error=["Incompatible shapes"])
    for d in SIGNED + UNSIGNED:
        for op, words in [("FloorDiv", ["division by zero"]), ("FloorMod", ["division by zero"]),
                          ("Div", ["division by zero"])]:
            if op == "Div" and d not in ("int32", "uint8"):
                continue
            f.case("%s_%s_zero" % (op, d), op, [arr([4, 5, 6], d), arr([1, 0, 2], d)], error=words)
        if d in ("int32", "int64", "int8", "int16"):
            f.case("FloorDiv_%s_zero_scalar" % d,
                   "FloorDiv", [arr([4, 5], d), arr(0, d)],
                   error=["division by zero"])
            try:
                f.case("Pow_%s_negative" % d,
                       "Pow", [arr([4, 5, 6], d), arr([1, -1, 2], d)],
                       error=["negative integer powers"])
            except NoKernel:
                pass
    # AddN, AccumulateNV2, Select, SelectV2, ClipByValue.
    for n in [1, 2, 3, 9, 12]:
        f.case("AddN_float_%d" % n,
               "AddN", [rand([3, 2], "float", seed=i) for i in range(n)],
               tol=2)
    f.per_dtype("AddN", lambda d: [ramp([4], d, i) for i in range(3)], NUMBERS, tol=2)
    f.case("AddN_empty", "AddN", [ramp([0, 2], "float")] * 2)
    f.case("AddN_shapes",
           "AddN", [ramp([2], "float"), ramp([3], "float")],
           error=["Inputs to operation", "must have the same size and shape"])
    cond = arr([True, False, False, True], "bool")
    f.per_dtype("Select", lambda d: [cond, ramp([4], d), ramp([4], d, 10)])
    f.case("Select_scalar", "Select",
           [arr(False, "bool"), ramp([2, 2], "float"),
            ramp([2, 2], "float", 9)])
    f.case("Select_rows", "Select",
           [arr([True, False], "bool"),
            ramp([2, 3], "float"),
            ramp([2, 3], "float", 9)])
    f.case("Select_rows3", "Select",
           [arr([True, False], "bool"),
            ramp([2, 3, 2], "int32"),
            ramp([2, 3, 2], "int32", 99)])
    f.case("Select_empty", "Select", [arr([], "bool"), ramp([0], "float"), ramp([0], "float")])
    f.case("Select_bad",
           "Select", [arr([True] * 3, "bool"),
                      ramp([2, 3], "float"),
                      ramp([2, 3], "float")],
           error=[])
    f.case("Select_bad2", "Select", [cond, ramp([4], "float"), ramp([3], "float")], error=[])
    f.per_dtype("SelectV2", lambda d: [cond, ramp([4], d), ramp([4], d, 10)])
    for i, (c, a, b) in enumerate([([], [3], [3]), ([2, 1], [1, 3], []),
                                   ([2, 1, 2], [3, 1], [2, 3, 2]), ([1], [1], [4]), ([0], [1], [1]),
                                   ([2], [2, 2], [2, 2]), ([2, 1, 2, 1], [1, 2, 1, 2], [1]),
                                   ([1, 2, 1, 1, 2], [2], [2, 1, 3, 1, 1])]):
        f.case("SelectV2_b%d" % i, "SelectV2",
               [rand(c, "bool", seed=i),
                ramp(a, "float"), ramp(b, "float", 50)])
    f.case("SelectV2_bad",
           "SelectV2",
           [arr([True] * 3, "bool"),
            ramp([2], "float"), ramp([3], "float")],
           error=[])
    f.per_dtype("ClipByValue",
                lambda d: [arr([1, 2, 3, 4, 5, 6], d),
                           arr(2, d), arr(4, d)], NUMBERS)
    f.case("ClipByValue_same", "ClipByValue",
           [ramp([2, 2], "float"),
            ramp([2, 2], "float", 1),
            ramp([2, 2], "float", 2)])
    f.write()


def reductions():
    f = CaseFile("op_cases/reductions.pb")
    x = [2, 3, 4]
    for op in ["Sum", "Mean", "Max", "Min", "Prod", "All", "Any"]:
        dtypes = ["bool"] if op in ("All", "Any") else NUMBERS
        base = dtypes[0] if len(dtypes) == 1 else "float"
        tol = 8 if op in ("Sum", "Mean", "Prod") else 0
        f.per_dtype(op, lambda d: [rand([3, 5], d, -3, 3), arr([1], "int32")], dtypes, tol=tol)
        f.per_dtype(op,
                    lambda d: [rand([3, 5], d, -3, 3), arr([0], "int64")],
                    dtypes,
                    tol=tol,
                    tag="a0")
        for axes in [[], [0], [1], [2], [-1], [-3], [0, 1], [1, 2], [0, 2], [2, 0], [0, 1, 2],
                     [-1, 0]]:
            for keep in [False, True]:
                f.case("%s_ax%s_%d" % (op, "".join(str(a).replace("-", "m") for a in axes), keep),
                       op, [rand(x, base, -2, 2, 7), arr(axes, "int32")],
                       tol=tol,
                       keep_dims=keep)
        f.case(op + "_scalar_axis", op, [rand(x, base, -2, 2, 7), arr(1, "int32")], tol=tol)
        f.case(op + "_of_scalar", op, [rand([], base), arr([], "int32")], tol=tol)
        f.case(op + "_empty_all", op, [rand([0], base), arr([0], "int32")], tol=tol)
        f.case(op + "_empty_0x3", op, [rand([0, 3], base), arr([0], "int32")], tol=tol)
        f.case(op + "_empty_2x0", op, [rand([2, 0], base), arr([1], "int32")], tol=tol)
        f.case(op + "_empty_keep",
               op, [rand([2, 0], base), arr([0], "int32")],
               tol=tol,
               keep_dims=True)
        f.case(op + "_r6",
               op, [rand([2, 1, 3, 2, 1, 2], base, -2, 2, 8),
                    arr([0, 2, 5], "int32")],
               tol=tol)
        f.case(op + "_r6b",
               op, [rand([2, 1, 3, 2, 1, 2], base, -2, 2, 8),
                    arr([1, 3], "int32")],
               tol=tol,
               keep_dims=True)
        f.case(op + "_long", op, [rand([301], base, 0.9, 1.1, 9), arr([0], "int32")], tol=64)
        f.case(op + "_cols", op, [rand([33, 5], base, 0.9, 1.1, 9), arr([0], "int32")], tol=64)
        f.case(op + "_bad_axis",
               op, [rand(x, base), arr([3], "int32")],
               error=["Invalid reduction dimension"])
        f.case(op + "_bad_axis2",
               op, [rand(x, base), arr([-4], "int32")],
               error=["Invalid reduction dimension"])
        f.case(op + "_dup_axis", op, [rand(x, base), arr([1, 1], "int32")], error=[])
    for op in ["Max", "Min", "Sum", "Mean", "Prod"]:
        f.per_dtype(
            op,
            lambda d:
            [arr([[1, NAN, 3], [INF, 1, 2], [-INF, 0, 1], [NAN, INF, -INF]], d),
             arr([1], "int32")],
            FLOATS,
            tag="nan",
            tol=4)
    for d in INTS:
        lo, hi = INT_RANGE[d]
        for op in ["Max", "Min", "Sum"]:
            a = np.array([[lo, hi], [hi, hi], [0, lo]], dtype=arr([0], d).dtype)
            try:
                f.case("%s_%s_extreme" % (op, d), op, [a, arr([1], "int32")])
            except NoKernel:
                pass
    for op in ["ArgMax", "ArgMin"]:
        f.per_dtype(op, lambda d: [rand([3, 5], d, -3, 3), arr(1, "int32")], NUMBERS + ["bool"])
        for ax in [0, 1, 2, -1, -3]:
            for out in ["int32", "int64"]:
                f.case("%s_ax%d_%s" % (op, ax if ax >= 0 else 10 - ax, out),
                       op, [rand(x, "float", seed=11), arr(ax, "int32")],
                       output_type=TF_DTYPE[out])
        for out in ["int16", "uint16"]:
            try:
                f.case("%s_%s" % (op, out),
                       op, [rand(x, "float", seed=11), arr(0, "int64")],
                       output_type=TF_DTYPE[out])
            except NoKernel:
                pass
        f.case(op + "_ties", op, [arr([[1, 1, 0], [0, 2, 2], [5, 5, 5]], "float"), arr(1, "int32")])
        f.case(op + "_one", op, [arr([7], "float"), arr(0, "int32")])
        f.case(op + "_empty_out", op, [rand([0, 3], "float"), arr(1, "int32")])
        f.case(op + "_empty_in",
               op, [rand([3, 0], "float"), arr(1, "int32")],
               error=["Reduction axis 1 is empty"])
        f.case(op + "_bad_axis",
               op, [rand([3], "float"), arr(1, "int32")],
               error=["Expected dimension in the range"])
        f.case(op + "_r5", op, [rand([2, 2, 3, 2, 2], "float", seed=3), arr(2, "int32")])
    f.per_dtype("L2Loss", lambda d: [rand([3, 7], d, -2, 2)], FLOATS, tol=4)
    f.case("L2Loss_scalar", "L2Loss", [arr(3, "float")])
    f.case("L2Loss_empty", "L2Loss", [arr([], "float")])
    f.write()


def matmul():
    f = CaseFile("op_cases/matmul.pb")
    for d in ALL:
        for ta in [False, True]:
            for tb in [False, True]:
                a, b = rand([3, 4], d, -2, 3, 1), rand([4, 2], d, -2, 3, 2)
                try:
                    f.case("MatMul_%s_%d%d" % (d, ta, tb),
                           "MatMul", [a.T if ta else a, b.T if tb else b],
                           tol=8,
                           transpose_a=ta,
                           transpose_b=tb)
                except NoKernel:
                    pass
    for m, k, n in [(1, 1, 1), (1, 5, 1), (1, 4, 3), (3, 4, 1), (0, 3, 2), (2, 0, 3), (2, 3, 0),
                    (0, 0, 0), (17, 33, 9), (5, 64, 3), (32, 64, 10)]:
        for ta, tb in [(False, False), (True, False), (False, True), (True, True)]:
            if m * k * n > 4000 and (ta or tb):
                continue
            a, b = rand([m, k], "float", -1, 1, 3), rand([k, n], "float", -1, 1, 4)
            f.case("MatMul_%dx%dx%d_%d%d" % (m, k, n, ta, tb),
                   "MatMul", [a.T if ta else a, b.T if tb else b],
                   tol=16,
                   transpose_a=ta,
                   transpose_b=tb)
    f.case("MatMul_inner",
           "MatMul", [ramp([2, 3], "float"), ramp([2, 3], "float")],
           error=["Matrix size-incompatible", "In[0]: [2,3], In[1]: [2,3]"])
    f.case("MatMul_inner_t",
           "MatMul", [ramp([2, 3], "float"), ramp([2, 3], "float")],
           transpose_a=True,
           transpose_b=True,
           error=["Matrix size-incompatible"])
    f.case("MatMul_rank",
           "MatMul", [ramp([2, 3, 1], "float"), ramp([3, 3], "float")],
           error=["In[0]"])
    f.case("MatMul_rank1", "MatMul", [ramp([2, 3], "float"), ramp([3], "float")], error=[])
    for op in ["BatchMatMul", "BatchMatMulV2"]:
        for d in NUMBERS:
            for ax, ay in [(False, False), (True, True)]:
                a, b = rand([2, 3, 4], d, -2, 3, 1), rand([2, 4, 2], d, -2, 3, 2)
                try:
                    f.case("%s_%s_%d" % (op, d, ax),
                           op,
                           [a.transpose(0, 2, 1) if ax else a,
                            b.transpose(0, 2, 1) if ay else b],
                           tol=8,
                           adj_x=ax,
                           adj_y=ay)
                except NoKernel:
                    pass
        f.case(op + "_2d", op, [rand([3, 4], "float"), rand([4, 2], "float")], tol=8)
        f.case(op + "_4d", op, [rand([2, 1, 3, 4], "float"), rand([2, 1, 4, 2], "float")], tol=8)
        f.case(op + "_empty", op, [rand([0, 3, 4], "float"), rand([0, 4, 2], "float")], tol=8)
        f.case(op + "_k0", op, [rand([2, 3, 0], "float"), rand([2, 0, 2], "float")], tol=8)
        f.case(op + "_inner", op, [rand([2, 3, 4], "float"), rand([2, 3, 2], "float")], error=[])
        f.case(op + "_xt",
               op, [rand([2, 4, 3], "float"), rand([2, 4, 2], "float")],
               tol=8,
               adj_x=True)
        f.case(op + "_yt",
               op, [rand([2, 3, 4], "float"), rand([2, 2, 4], "float")],
               tol=8,
               adj_y=True)
    for a, b in [([1, 3, 4], [5, 4, 2]), ([2, 1, 3, 4], [3, 4, 2]), ([3, 4], [2, 4, 2]),
                 ([2, 3, 3, 4], [4, 1])]:
        f.case("BatchMatMulV2_bc",
               "BatchMatMulV2", [rand(a, "float"), rand(b, "float", seed=2)],
               tol=8)
    f.case("BatchMatMulV2_bad",
           "BatchMatMulV2",
           [rand([2, 3, 4], "float"), rand([3, 4, 2], "float")],
           error=[])
    f.write()


def nn():
    f = CaseFile("op_cases/nn.pb")
    # BiasAdd
    f.per_dtype("BiasAdd", lambda d: [ramp([2, 3], d), ramp([3], d, 10)], NUMBERS)
    for tag, shape, c, fmt in [("nhwc3", [2, 2, 3], 3, "NHWC"), ("nhwc4", [2, 2, 1, 3], 3, "NHWC"),
                               ("nhwc5", [1, 2, 2, 1, 3], 3, "NHWC"), ("nchw3", [2, 3,
                                                                                 4], 3, "NCHW"),
                               ("nchw4", [2, 3, 2, 2], 3, "NCHW"), ("empty", [0, 3], 3, "NHWC"),
                               ("nchw5", [2, 3, 2, 1, 2], 3, "NCHW")]:
        f.case("BiasAdd_" + tag,
               "BiasAdd", [rand(shape, "float"), rand([c], "float", seed=2)],
               data_format=fmt)
        f.case("BiasAddGrad_" + tag, "BiasAddGrad", [rand(shape, "float")], data_format=fmt, tol=8)
    f.case("BiasAdd_size",
           "BiasAdd", [ramp([2, 3], "float"), ramp([2], "float")],
           error=["Must provide as many biases as the last dimension"])
    f.case("BiasAdd_rank",
           "BiasAdd", [ramp([2, 3], "float"), ramp([1, 3], "float")],
           error=["Biases must be 1D"])
    f.case("BiasAdd_rank1",
           "BiasAdd", [ramp([3], "float"), ramp([3], "float")],
           error=["Input tensor must be at least 2D"])
    f.per_dtype("BiasAddGrad", lambda d: [ramp([4, 3], d)], NUMBERS, tol=8)
    # Gradients of the activations; the second input is what TensorFlow hands them.
    for op in ["ReluGrad", "Relu6Grad", "LeakyReluGrad"]:
        f.per_dtype(
            op, lambda d: [
                arr([5, 6, 7, 8, 9, 10, 11], d),
                arr([0, 1, 2, 6, 7, 3, 5] if d in UNSIGNED else [0, -1, 2, 6, 7, -3, 5], d)
            ], NUMBERS)
        f.case(op + "_nan", op, [arr([1, 2, NAN, 4], "float"), arr([NAN, INF, 1, -INF], "float")])
        f.case(op + "_shape", op, [ramp([2], "float"), ramp([3], "float")], error=[])
        f.case(op + "_empty", op, [ramp([0], "float"), ramp([0], "float")])
    for op in ["EluGrad", "SeluGrad", "SoftplusGrad", "SoftsignGrad"]:
        f.per_dtype(
            op,
            lambda d: [arr([1, 2, 3, -4, 5, 6, 0.5], d),
                       arr([0, -0.5, 2, -0.9, 1, -0.1, 9], d)],
            FLOATS,
            rtol=8)
    for op in ["SigmoidGrad", "TanhGrad"]:
        f.per_dtype(op,
                    lambda d: [arr([0, 0.5, 0.25, 0.9, 1], d),
                               arr([1, 2, 3, -4, 5], d)],
                    FLOATS,
                    rtol=4)
    for op in ["SqrtGrad", "RsqrtGrad", "ReciprocalGrad", "InvGrad"]:
        f.per_dtype(op,
                    lambda d: [arr([0.5, 1, 2, 4, 7], d),
                               arr([1, 2, 3, -4, 5], d)],
                    FLOATS,
                    rtol=4)
    # Softmax
    for op in ["Softmax", "LogSoftmax"]:
        f.per_dtype(op, lambda d: [rand([3, 5], d, -4, 4)], FLOATS, tol=8)
        f.case(op + "_r1", op, [rand([5], "float", -4, 4)], tol=8)
        f.case(op + "_r3", op, [rand([2, 2, 3], "float", -4, 4)], tol=8)
        f.case(op + "_n1", op, [rand([3, 1], "float", -4, 4)], tol=8)
        f.case(op + "_empty", op, [rand([0, 4], "float")], tol=8)
        f.case(op + "_empty2", op, [rand([4, 0], "float")], tol=8)
        f.case(op + "_big",
               op, [arr([[1000, 999, 0], [-1000, -1000, -1000], [0, -1e30, 50]], "float")],
               tol=8)
        f.case(op + "_nan", op, [arr([[1, NAN, 0], [1, 2, 3]], "float")], tol=8)
        f.case(op + "_scalar", op, [arr(1, "float")], error=["logits must have >= 1 dimension"])
    op = "SoftmaxCrossEntropyWithLogits"
    onehot = [[1, 0, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]]
    f.per_dtype(op, lambda d: [rand([3, 4], d, -4, 4), arr(onehot, d)], FLOATS, tol=16)
    f.case(op + "_bc_logits", op, [rand([1, 4], "float"), arr(onehot, "float")], tol=16)
    f.case(op + "_bc_labels", op, [rand([3, 4], "float"), arr([[0, 1, 0, 0]], "float")], tol=16)
    f.case(op + "_zero_labels", op, [rand([2, 3], "float"), arr(np.zeros([2, 3]), "float")], tol=16)
    f.case(op + "_big",
           op,
           [arr([[1000, -1000, 0], [0, 1, -500]], "float"),
            arr([[1, 0, 0], [0, 0, 1]], "float")],
           tol=16)
    f.case(op + "_empty", op, [rand([0, 3], "float"), rand([0, 3], "float")], tol=16)
    f.case(op + "_shape",
           op, [rand([2, 3], "float"), rand([2, 4], "float")],
           error=["logits and labels must be broadcastable"])
    f.case(op + "_rank", op, [rand([2, 3, 2], "float"), rand([2, 3, 2], "float")], error=[])
    op = "SparseSoftmaxCrossEntropyWithLogits"
    for lt in ["int32", "int64"]:
        f.per_dtype(op,
                    lambda d: [rand([3, 4], d, -4, 4), arr([2, 0, 3], lt)],
                    FLOATS,
                    tol=16,
                    tag=lt)
    f.case(op + "_big",
           op, [arr([[1000, -1000, 0], [0, 1, -500]], "float"),
                arr([1, 2], "int64")],
           tol=16)
    f.case(op + "_empty", op, [rand([0, 3], "float"), arr([], "int64")], tol=16)
    f.case(op + "_n10",
           op, [rand([8, 10], "float", -9, 9),
                arr([0, 1, 2, 3, 9, 8, 7, 6], "int64")],
           tol=16)
    f.case(op + "_range",
           op, [rand([2, 3], "float"), arr([0, 3], "int64")],
           error=["Received a label value of 3 which is outside the valid range of [0, 3)"])
    f.case(op + "_negative",
           op, [rand([2, 3], "float"), arr([0, -1], "int32")],
           error=["Received a label value of -1", "outside the valid range"])
    f.case(op + "_shape",
           op, [rand([2, 3], "float"), arr([0, 1, 2], "int64")],
           error=["logits and labels must have the same first dimension"])
    f.case(op + "_rank",
           op, [rand([2, 3, 1], "float"), arr([0, 1], "int64")],
           error=["logits must be 2-D"])
    f.case(op + "_rank_labels",
           op, [rand([2, 3], "float"), arr([[0, 1]], "int64")],
           error=["labels must be 1-D"])
    f.case(op + "_classes",
           op, [rand([2, 0], "float"), arr([0, 1], "int64")],
           error=["Must have at least one class"])
    f.write()


def shapes():
    f = CaseFile("op_cases/shapes.pb")
    e = lambda *words: list(words)  # noqa: E731
    # Reshape
    f.per_dtype("Reshape", lambda d: [ramp([2, 3], d), arr([3, -1], "int32")])
    for i, (s, t) in enumerate([([6], [2, 3]), ([2, 3], [6]), ([1], []), ([], [1, 1]), ([0], [0,
                                                                                              3]),
                                ([0, 2], [-1]), ([4], [-1]), ([2, 3, 4], [4, -1, 2]),
                                ([0, 5], [0, -1, 5])]):
        for it in (["int32"] if i % 2 else ["int64"]):
            f.case("Reshape_%d" % i, "Reshape", [ramp(s, "float"), arr(t, it)])
    f.case("Reshape_zero_unknown", "Reshape", [ramp([0], "float"), arr([0, -1], "int32")])
    f.case("Reshape_count",
           "Reshape", [ramp([6], "float"), arr([4], "int32")],
           error=e("Input to reshape is a tensor with 6 values, but the requested shape has 4"))
    f.case(
        "Reshape_mult",
        "Reshape", [ramp([6], "float"), arr([4, -1], "int32")],
        error=e("Input to reshape is a tensor with 6 values",
                "the requested shape requires a multiple of 4"))
    f.case("Reshape_two",
           "Reshape", [ramp([6], "float"), arr([-1, -1], "int32")],
           error=e("Only one input size may be -1"))
    f.case("Reshape_neg",
           "Reshape", [ramp([6], "float"), arr([-2, 3], "int32")],
           error=e("must be non-negative"))
    f.case("Reshape_rank", "Reshape", [ramp([6], "float"), arr([[2, 3]], "int32")], error=e())
    # Shape, ShapeN, Size, Rank
    for op in ["Shape", "Size"]:
        for out in ["int32", "int64"]:
            for s in [[], [0], [2, 3], [1, 2, 3, 4, 5]]:
                f.case("%s_%s_r%d" % (op, out, len(s)),
                       op, [ramp(s, "float")],
                       out_type=TF_DTYPE[out])
        f.per_dtype(op, lambda d: [ramp([2], d)])
    f.case("ShapeN_2", "ShapeN", [ramp([2, 3], "float"), ramp([], "float"), ramp([0, 1], "float")])
    f.case("ShapeN_64",
           "ShapeN", [ramp([2, 3], "int32"), ramp([4], "int32")],
           out_type=TF_DTYPE["int64"])
    for s in [[], [2], [1, 1, 1]]:
        f.case("Rank_%d" % len(s), "Rank", [ramp(s, "float")])
    f.per_dtype("Rank", lambda d: [ramp([1, 2], d)])
    # Fill
    f.per_dtype("Fill", lambda d: [arr([2, 3], "int32"), ramp([1], d, 7).reshape([])])
    f.case("Fill_scalar", "Fill", [arr([], "int32"), arr(4, "float")])
    f.case("Fill_empty", "Fill", [arr([0, 2], "int64"), arr(4, "float")])
    f.case("Fill_neg", "Fill", [arr([-1], "int32"), arr(4, "float")], error=e())
    f.case("Fill_value", "Fill", [arr([2], "int32"), arr([4, 5], "float")], error=e("scalar"))
    f.case("Fill_dims2", "Fill", [arr([[2]], "int32"), arr(4, "float")], error=e("dims must"))
    # Pack, Unpack
    f.per_dtype("Pack", lambda d: [ramp([2], d), ramp([2], d, 9)])
    for ax in [0, 1, 2, -1, -3]:
        f.case("Pack_ax%d" % (ax % 10),
               "Pack", [ramp([2, 3], "float"),
                        ramp([2, 3], "float", 9),
                        ramp([2, 3], "float", 20)],
               axis=ax)
    f.case("Pack_one", "Pack", [ramp([2], "float")])
    f.case("Pack_scalars", "Pack", [arr(1, "int32"), arr(2, "int32")])
    f.case("Pack_empty", "Pack", [ramp([0], "float"), ramp([0], "float")], axis=1)
    f.case("Pack_shapes",
           "Pack", [ramp([2], "float"), ramp([3], "float")],
           error=e("Shapes of all inputs must match",
                   "values[0].shape = [2] != values[1].shape = [3]"))
    f.case("Pack_axis",
           "Pack", [ramp([2], "float"), ramp([2], "float")],
           axis=2,
           error=e("= 2 not in [-2, 2)"))
    f.per_dtype("Unpack", lambda d: [ramp([2, 3], d)], num=2)
    for ax, n in [(0, 2), (1, 3), (2, 4), (-1, 4), (-3, 2)]:
        f.case("Unpack_ax%d" % (ax % 10), "Unpack", [ramp([2, 3, 4], "float")], num=n, axis=ax)
    f.case("Unpack_vec", "Unpack", [ramp([3], "int64")], num=3)
    f.case("Unpack_empty", "Unpack", [ramp([2, 0], "float")], num=2)
    f.case("Unpack_num",
           "Unpack", [ramp([3], "float")],
           num=2,
           error=e("Input shape axis 0 must equal 2, got shape [3]"))
    # ConcatV2, Concat, ConcatOffset
    f.per_dtype("ConcatV2", lambda d: [ramp([2, 1], d), ramp([2, 2], d, 9), arr(1, "int32")])
    for ax in [0, 1, 2, -1, -2, -3]:
        f.case("ConcatV2_ax%d" % (ax % 10), "ConcatV2", [
            ramp([2, 3, 2], "float"),
            ramp([2, 3, 2], "float", 30),
            arr(ax, "int64" if ax % 2 else "int32")
        ])
    f.case(
        "ConcatV2_uneven", "ConcatV2",
        [ramp([1, 3], "float"),
         ramp([0, 3], "float"),
         ramp([2, 3], "float", 7),
         arr(0, "int32")])
    f.case("ConcatV2_many", "ConcatV2",
           [ramp([i % 3], "float", i) for i in range(12)] + [arr(0, "int32")])
    f.case("ConcatV2_empty", "ConcatV2", [ramp([0], "float"), ramp([0], "float"), arr(0, "int32")])
    f.case("ConcatV2_shape",
           "ConcatV2",
           [ramp([2, 3], "float"), ramp([3, 3], "float"),
            arr(1, "int32")],
           error=e("Dimension 0 in both shapes must be equal"))
    f.case("ConcatV2_rank",
           "ConcatV2",
           [ramp([2, 3], "float"), ramp([3], "float"),
            arr(0, "int32")],
           error=e("Ranks of all input tensors should match"))
    f.case("ConcatV2_axis",
           "ConcatV2", [ramp([2], "float"), ramp([3], "float"),
                        arr(1, "int32")],
           error=e("Expected concatenating dimensions in the range"))
    f.case("ConcatV2_scalars",
           "ConcatV2",
           [arr(1, "float"), arr(2, "float"), arr(0, "int32")],
           error=e())
    f.case("Concat_old", "Concat",
           [arr(1, "int32"), ramp([2, 1], "float"),
            ramp([2, 2], "float", 9)])
    f.case("ConcatOffset_0", "ConcatOffset",
           [arr(1, "int32"),
            arr([2, 3], "int32"),
            arr([2, 4], "int32"),
            arr([2, 0], "int32")])
    f.case("ConcatOffset_neg", "ConcatOffset",
           [arr(-1, "int32"), arr([2, 3, 7], "int32"),
            arr([2, 3, 5], "int32")])
    f.case(
        "ConcatOffset_one", "ConcatOffset",
        [arr(0, "int32"), arr([2], "int32"), arr([4], "int32")])
    f.case("ConcatOffset_bad",
           "ConcatOffset",
           [arr(0, "int32"), arr([2, 3], "int32"),
            arr([4, 5], "int32")],
           error=e("All dimensions except 0 must match", "[4 5]", "[2 3]"))
    # Slice
    f.per_dtype("Slice", lambda d: [ramp([3, 4], d), arr([1, 0], "int32"), arr([2, 3], "int32")])
    for i, (s, b, z) in enumerate([([5], [1], [-1]), ([5], [5], [0]), ([5], [0], [5]),
                                   ([3, 4], [0, 2], [-1, -1]), ([2, 3, 4], [1, 1, 1], [1, 2, 3]),
                                   ([2, 3, 4], [0, 1, 0], [2, 2, 4]),
                                   ([2, 1, 3, 2, 2], [0, 0, 1, 0, 1], [2, 1, -1, 1, 1]),
                                   ([], [], []), ([0, 2], [0, 1], [0, 1]),
                                   ([2, 2, 2, 2, 2, 3], [1, 0, 1, 0, 1, 0], [1, 2, 1, 1, 1, 2])]):
        it = "int64" if i % 2 else "int32"
        f.case("Slice_%d" % i, "Slice", [ramp(s, "float"), arr(b, it), arr(z, it)])
    f.case("Slice_begin",
           "Slice", [ramp([3], "float"), arr([4], "int32"),
                     arr([0], "int32")],
           error=e("Expected begin[0] in [0, 3], but got 4"))
    f.case("Slice_size",
           "Slice", [ramp([3], "float"), arr([1], "int32"),
                     arr([3], "int32")],
           error=e("Expected size[0] in [0, 2], but got 3"))
    f.case("Slice_neg",
           "Slice", [ramp([3], "float"), arr([-1], "int32"),
                     arr([1], "int32")],
           error=e("Expected begin[0]"))
    f.case("Slice_count",
           "Slice", [ramp([3, 2], "float"),
                     arr([1], "int32"), arr([1], "int32")],
           error=e("Expected begin and size arguments to be 1-D tensors of size 2"))
    # StridedSlice and its gradient: x[spec] in Python's words, by masks.
    cases = [
        ([5], [1], [4], [1], {}),
        ([5], [0], [5], [2], {}),
        ([5], [4], [0], [-1], {}),
        ([5], [-1], [-6], [-2], {}),
        ([5], [-3], [-1], [1], {}),
        ([5], [3], [1], [1], {}),
        ([5], [-100], [100], [1], {}),
        ([5], [100], [-100], [-3], {}),
        ([5], [1], [4], [1], {
            "begin_mask": 1
        }),
        ([5], [1], [4], [1], {
            "end_mask": 1
        }),
        ([5], [1], [4], [-1], {
            "begin_mask": 1,
            "end_mask": 1
        }),
        ([5], [2], [3], [1], {
            "shrink_axis_mask": 1
        }),
        ([5], [-2], [0], [1], {
            "shrink_axis_mask": 1
        }),
        ([3, 4], [1], [2], [1], {
            "shrink_axis_mask": 1
        }),
        ([3, 4], [0, 1], [3, 3], [1, 1], {}),
        ([3, 4], [0, 1], [0, 2], [1, 1], {
            "begin_mask": 1,
            "end_mask": 1,
            "shrink_axis_mask": 2
        }),
        ([3, 4], [0, 0], [0, 0], [1, 1], {
            "new_axis_mask": 1,
            "begin_mask": 2,
            "end_mask": 2
        }),
        ([3, 4], [0, 0, 1], [0, 3, 2], [1, 1, 1], {
            "new_axis_mask": 1,
            "shrink_axis_mask": 4
        }),
        ([2, 3, 4], [0, 1], [0, 3], [1, 1], {
            "ellipsis_mask": 1
        }),
        ([2, 3, 4], [1, 0], [2, 0], [1, 1], {
            "ellipsis_mask": 2
        }),
        ([2, 3, 4], [1, 0, 3], [2, 0, 0], [1, 1, -2], {
            "ellipsis_mask": 2,
            "shrink_axis_mask": 1
        }),
        ([2, 3, 4], [0, 0, 1], [0, 0, 2], [1, 1, 1], {
            "ellipsis_mask": 1,
            "new_axis_mask": 2,
            "shrink_axis_mask": 4
        }),
        ([2, 3, 4], [0, 0, 0], [0, 0, 0], [1, 1, 1], {
            "ellipsis_mask": 2,
            "new_axis_mask": 5
        }),
        ([2, 3, 4], [1, 2, -1], [0, -10, 0], [-1, -1, -2], {}),
        ([2, 3, 4], [0, 0, 0], [2, 3, 4], [1, 2, 3], {}),
        ([2, 3, 4], [1, 1, 1], [0, 0, 0], [1, 1, 1], {
            "shrink_axis_mask": 7
        }),
        ([2, 2, 2, 2, 3], [0, 1, 0, 0, 1], [2, 2, 1, 2, 3], [1, 1, 1, 2, 1], {}),
        ([2, 1, 2, 2, 1, 3], [1, 0, 0, 1, 0, 2], [2, 1, 2, 0, 1, 0], [1, 1, 1, -1, 1, -1], {}),
        ([0, 3], [0, 0], [0, 2], [1, 1], {}),
        ([5], [1], [1], [1], {}),
        ([], [], [], [], {}),
        ([], [0], [0], [1], {
            "new_axis_mask": 1
        }),
        ([4], [0], [0], [1], {
            "ellipsis_mask": 1
        }),
        ([3, 4], [0, 5], [3, 9], [1, 1], {}),
        ([3, 4], [0, 3], [3, 0], [2, -1], {
            "end_mask": 3
        }),
    ]
    for i, (s, b, en, st, m) in enumerate(cases):
        it = ["int32", "int64"][i % 2]
        out = f.case("StridedSlice_%d" % i, "StridedSlice",
                     [ramp(s, "float"), arr(b, it),
                      arr(en, it), arr(st, it)], **m)
        f.case("StridedSliceGrad_%d" % i, "StridedSliceGrad",
               [arr(s, it),
                arr(b, it),
                arr(en, it),
                arr(st, it),
                ramp(out[0].shape, "float", 1)], **m)
    f.per_dtype(
        "StridedSlice", lambda d:
        [ramp([5], d), arr([3], "int32"),
         arr([0], "int32"), arr([-2], "int32")])
    f.per_dtype(
        "StridedSliceGrad", lambda d: [
            arr([5], "int32"),
            arr([3], "int32"),
            arr([0], "int32"),
            arr([-2], "int32"),
            ramp([2], d, 1)
        ])
    f.case("StridedSlice_it16", "StridedSlice",
           [ramp([5], "float"),
            arr([1], "int16"),
            arr([4], "int16"),
            arr([1], "int16")])
    f.case("StridedSlice_stride0",
           "StridedSlice",
           [ramp([5], "float"),
            arr([1], "int32"),
            arr([4], "int32"),
            arr([0], "int32")],
           error=e("strides[0] must be non-zero"))
    f.case("StridedSlice_index",
           "StridedSlice",
           [ramp([5], "float"),
            arr([5], "int32"),
            arr([6], "int32"),
            arr([1], "int32")],
           shrink_axis_mask=1,
           error=e("slice index 5 of dimension 0 out of bounds"))
    f.case("StridedSlice_toomany",
           "StridedSlice",
           [ramp([5], "float"),
            arr([0, 0], "int32"),
            arr([1, 1], "int32"),
            arr([1, 1], "int32")],
           error=e("Index out of range using input dim 1; input has only 1 dims"))
    f.case(
        "StridedSlice_ellipses",
        "StridedSlice",
        [ramp([5, 5], "float"),
         arr([0, 0], "int32"),
         arr([1, 1], "int32"),
         arr([1, 1], "int32")],
        ellipsis_mask=3,
        error=e("Multiple ellipses in slice spec not allowed"))
    f.case("StridedSlice_shrinkstride",
           "StridedSlice",
           [ramp([5], "float"),
            arr([1], "int32"),
            arr([2], "int32"),
            arr([-1], "int32")],
           shrink_axis_mask=1,
           error=e("only stride 1 allowed on non-range indexing"))
    # Transpose, InvertPermutation
    f.per_dtype("Transpose", lambda d: [ramp([2, 3], d), arr([1, 0], "int32")])
    for i, (s, p) in enumerate([([], []), ([3], [0]), ([2, 3, 4], [2, 0, 1]), ([2, 3, 4], [0, 2,
                                                                                           1]),
                                ([2, 3, 4], [0, 1, 2]), ([2, 3, 2, 2], [3, 1, 0, 2]),
                                ([2, 1, 3, 2, 2], [4, 3, 2, 1, 0]),
                                ([1, 2, 1, 3, 2, 2], [5, 0, 3, 1, 4, 2]), ([0, 3], [1, 0]),
                                ([1, 5], [1, 0]),
                                ([2, 1, 2, 1, 2, 1, 2, 2], [7, 6, 5, 4, 3, 2, 1, 0])]):
        f.case("Transpose_%d" % i, "Transpose",
               [ramp(s, "float"), arr(p, "int64" if i % 2 else "int32")])
    f.case("Transpose_count",
           "Transpose", [ramp([2, 3], "float"), arr([0], "int32")],
           error=e("transpose expects a vector of size 2"))
    f.case("Transpose_range",
           "Transpose", [ramp([2, 3], "float"), arr([0, 2], "int32")],
           error=e("is out of range [0 .. 2)"))
    f.case("Transpose_missing",
           "Transpose", [ramp([2, 3], "float"), arr([0, 0], "int32")],
           error=e("is missing"))
    for it in ["int32", "int64"]:
        f.case("InvertPermutation_" + it, "InvertPermutation", [arr([3, 0, 2, 1], it)])
    f.case("InvertPermutation_empty", "InvertPermutation", [arr([], "int32")])
    f.case("InvertPermutation_range",
           "InvertPermutation", [arr([0, 3], "int32")],
           error=e("is not between 0 and 2"))
    f.case("InvertPermutation_dup",
           "InvertPermutation", [arr([0, 0], "int32")],
           error=e("is duplicated in the input"))
    # ExpandDims, Squeeze
    f.per_dtype("ExpandDims", lambda d: [ramp([2], d), arr(0, "int32")])
    for ax in [0, 1, 2, -1, -2, -3]:
        f.case(
            "ExpandDims_ax%d" % (ax % 10), "ExpandDims",
            [ramp([2, 3], "float"), arr(ax, "int64" if ax < 0 else "int32")])
    f.case("ExpandDims_vec", "ExpandDims", [ramp([2], "float"), arr([1], "int32")])
    f.case("ExpandDims_scalar", "ExpandDims", [arr(2, "float"), arr(0, "int32")])
    f.case("ExpandDims_bad",
           "ExpandDims", [ramp([2], "float"), arr(2, "int32")],
           error=e("Tried to expand dim index 2 for tensor with 1 dimensions"))
    f.per_dtype("Squeeze", lambda d: [ramp([1, 2, 1], d)])
    for i, (s, ax) in enumerate([([1, 2, 1], [0]), ([1, 2, 1], [2]), ([1, 2, 1], [-1]),
                                 ([1, 2, 1], [0, 2]), ([1, 1], []), ([2], []), ([1, 0, 1], []),
                                 ([1, 2, 1, 3, 1], [-1, 2])]):
        f.case("Squeeze_%d" % i, "Squeeze", [ramp(s, "float")], squeeze_dims=ax)
    f.case("Squeeze_bad",
           "Squeeze", [ramp([1, 2], "float")],
           squeeze_dims=[1],
           error=e("Can not squeeze dim[1], expected a dimension of 1, got 2"))
    f.case("Squeeze_range",
           "Squeeze", [ramp([1, 2], "float")],
           squeeze_dims=[2],
           error=e("Tried to squeeze dim index 2 for tensor with 2 dimensions"))
    # Tile, BroadcastTo, BroadcastGradientArgs
    f.per_dtype("Tile", lambda d: [ramp([2], d), arr([3], "int32")])
    for i, (s, m) in enumerate([([], []), ([2, 3], [2, 1]), ([2, 3], [1, 2]), ([2, 3], [2, 2]),
                                ([2, 1, 2], [1, 3, 2]), ([2], [0]), ([0, 2], [3, 1]),
                                ([1, 2, 1, 2], [2, 1, 2, 1]), ([1, 2, 1, 2, 1], [2, 1, 1, 2, 2]),
                                ([1, 2, 1, 1, 2, 1], [1, 2, 2, 1, 1, 2])]):
        f.case("Tile_%d" % i, "Tile", [ramp(s, "float"), arr(m, "int64" if i % 2 else "int32")])
    f.case("Tile_count",
           "Tile", [ramp([2, 3], "float"), arr([2], "int32")],
           error=e("Expected multiples argument to be a vector of length 2 but got length 1"))
    f.case("Tile_neg",
           "Tile", [ramp([2], "float"), arr([-1], "int32")],
           error=e("Expected multiples[0] >= 0, but got -1"))
    f.per_dtype("BroadcastTo", lambda d: [ramp([2, 1], d), arr([2, 3], "int32")])
    for i, (s, t) in enumerate([([], []), ([], [2, 2]), ([1], [3]), ([3], [2, 3]),
                                ([2, 1], [3, 2, 2]), ([1, 2, 1], [2, 2, 3]), ([0], [2, 0]),
                                ([1], [0]), ([2, 1, 2, 1, 1], [2, 2, 2, 1, 3]), ([2, 3], [2, 3])]):
        f.case("BroadcastTo_%d" % i, "BroadcastTo",
               [ramp(s, "float"), arr(t, "int64" if i % 2 else "int32")])
    f.case("BroadcastTo_bad",
           "BroadcastTo", [ramp([2], "float"), arr([3], "int32")],
           error=e("Incompatible shapes"))
    f.case("BroadcastTo_rank", "BroadcastTo", [ramp([1, 2], "float"), arr([2], "int32")], error=e())
    for i, (a, b) in enumerate(BROADCASTS):
        f.case("BroadcastGradientArgs_%d" % i, "BroadcastGradientArgs", [
            arr(a, "int64" if i % 5 == 3 else "int32"),
            arr(b, "int64" if i % 5 == 3 else "int32")
        ])
    f.case("BroadcastGradientArgs_bad",
           "BroadcastGradientArgs", [arr([2], "int32"), arr([3], "int32")],
           error=e("Incompatible shapes"))
    # Range
    for d in NUMBERS:
        for tag, v in [("", (1, 7, 2)), ("frac", (0.5, 3, 0.5)), ("down", (5, 0, -2)),
                       ("none", (3, 3, 1))]:
            if (d in INTS and tag == "frac") or (d in UNSIGNED and tag == "down"):
                continue
            try:
                f.case("Range_%s%s" % (d, tag), "Range", [arr(x, d) for x in v], tol=4)
            except NoKernel:
                pass
    f.case("Range_zero",
           "Range",
           [arr(0, "int32"), arr(3, "int32"), arr(0, "int32")],
           error=e("Requires delta != 0"))
    f.case("Range_up",
           "Range",
           [arr(3, "int32"), arr(0, "int32"), arr(1, "int32")],
           error=e("Requires start <= limit when delta > 0: 3/0"))
    f.case("Range_dn",
           "Range",
           [arr(0, "int32"), arr(3, "int32"), arr(-1, "int32")],
           error=e("Requires start >= limit when delta < 0: 0/3"))
    f.case("Range_tenth", "Range", [arr(0, "float"), arr(1, "float"), arr(0.1, "float")], tol=4)
    f.case("LinSpace_f", "LinSpace", [arr(0, "float"), arr(3, "float"), arr(7, "int32")], tol=4)
    # Split, SplitV
    f.per_dtype("Split", lambda d: [arr(0, "int32"), ramp([4, 2], d)], num_split=2)
    for ax in [0, 1, 2, -1, -2]:
        f.case("Split_ax%d" % (ax % 10),
               "Split", [arr(ax, "int32"), ramp([2, 4, 2], "float")],
               num_split=2)
    f.case("Split_one", "Split", [arr(0, "int32"), ramp([3], "float")], num_split=1)
    f.case("Split_bad",
           "Split", [arr(0, "int32"), ramp([3], "float")],
           num_split=2,
           error=e("Number of ways to split should evenly divide the split dimension", "size = 3",
                   "num_split 2"))
    f.case("Split_axis",
           "Split", [arr(1, "int32"), ramp([3], "float")],
           num_split=1,
           error=e("-input rank(-1) <= split_dim < input rank (1)"))
    f.per_dtype("SplitV",
                lambda d: [ramp([4, 2], d), arr([1, 3], "int32"),
                           arr(0, "int32")],
                num_split=2)
    for i, (s, z, ax) in enumerate([([5], [2, -1], 0), ([2, 5], [1, 0, 4], 1), ([2, 5], [5], -1),
                                    ([2, 3, 4], [1, 1, 2], 2), ([2, 3, 4], [3, -1], 1),
                                    ([0, 3], [1, 2], 1)]):
        f.case("SplitV_%d" % i,
               "SplitV",
               [ramp(s, "float"),
                arr(z, "int64" if i % 2 else "int32"),
                arr(ax, "int32")],
               num_split=len(z))
    f.case("SplitV_sum",
           "SplitV", [ramp([5], "float"), arr([2, 2], "int32"),
                      arr(0, "int32")],
           num_split=2,
           error=e("Determined shape must either match input shape along split_dim exactly"))
    f.case("SplitV_two",
           "SplitV",
           [ramp([5], "float"), arr([-1, -1], "int32"),
            arr(0, "int32")],
           num_split=2,
           error=e("There can only be one -1 in the input"))
    # Pad
    f.per_dtype("Pad", lambda d: [ramp([2], d, 1), arr([[1, 2]], "int32")])
    f.per_dtype("PadV2",
                lambda d: [ramp([2], d, 1),
                           arr([[1, 2]], "int32"),
                           ramp([1], d, 7).reshape([])])
    for i, (s, p) in enumerate([([2, 3], [[0, 0], [1, 1]]), ([2, 3], [[2, 1], [0, 0]]),
                                ([2, 2, 2], [[1, 0], [0, 1], [1, 1]]),
                                ([1, 2, 2, 1], [[0, 0], [1, 1], [1, 1], [0, 0]]),
                                ([1, 2, 1, 2, 1], [[1, 0], [0, 0], [0, 1], [0, 0], [1, 1]]),
                                ([0], [[1, 1]]), ([2], [[0, 0]])]):
        f.case("Pad_%d" % i, "Pad", [ramp(s, "float", 1), arr(p, "int64" if i % 2 else "int32")])
        f.case("PadV2_%d" % i, "PadV2",
               [ramp(s, "float", 1),
                arr(p, "int64" if i % 2 else "int32"),
                arr(-1, "float")])
    f.case("Pad_scalar", "Pad", [arr(1, "float"), np.zeros([0, 2], np.int32)])
    f.case("Pad_neg",
           "Pad", [ramp([2], "float"), arr([[-1, 2]], "int32")],
           error=e("Paddings must be non-negative"))
    f.case("Pad_shape",
           "Pad", [ramp([2, 2], "float"), arr([[1, 2]], "int32")],
           error=e("The first dimension of paddings must be the rank of inputs"))
    f.write()


def gather():
    f = CaseFile("op_cases/gather.pb")
    e = lambda *words: list(words)  # noqa: E731
    f.per_dtype("GatherV2", lambda d: [ramp([4], d), arr([3, 0, 0], "int32"), arr(0, "int32")])
    for i, (s, ix, ax, bd) in enumerate([([4, 3], [2, 0], 0, 0), ([4, 3], [2, 0], 1, 0),
                                         ([4, 3], [[2, 0], [1, 1]], -1, 0), ([2, 3, 4], [3,
                                                                                         3], 2, 0),
                                         ([2, 3, 4], [1], 1, 0), ([2, 3, 4], 1, 1, 0),
                                         ([2, 3, 4], [[0, 2], [1, 1]], 1, 1),
                                         ([2, 3, 4], [[0, 3], [1, 1]], 2, 1),
                                         ([2, 3, 4], [[0, 2], [1, 1]], -1, -1),
                                         ([2, 2, 3], [[[0], [1]], [[2],
                                                                   [0]]], 2, 2), ([3], [], 0, 0),
                                         ([0, 2], [], 0, 0), ([2, 0], [1, 0], 0, 0),
                                         ([2, 3, 2], [[0, 1, 1], [2, 2, 0]], 1, 1),
                                         ([2, 3], [[0, 1, 1], [2, 2, 0]], 1, 1)]):
        f.case("GatherV2_%d" % i,
               "GatherV2",
               [ramp(s, "float"),
                arr(ix, "int64" if i % 2 else "int32"),
                arr(ax, "int32")],
               batch_dims=bd)
    f.case("GatherV2_range",
           "GatherV2",
           [ramp([3], "float"), arr([0, 3], "int32"),
            arr(0, "int32")],
           error=e("indices[1] = 3 is not in [0, 3)"))
    f.case("GatherV2_range2",
           "GatherV2", [ramp([3, 2], "float"),
                        arr([[0, 1], [-1, 0]], "int32"),
                        arr(0, "int32")],
           error=e("indices[1,0] = -1 is not in [0, 3)"))
    f.case("GatherV2_empty_params",
           "GatherV2", [ramp([0], "float"), arr([0], "int32"),
                        arr(0, "int32")],
           error=e("= 0 is not in [0, 0)"))
    f.case("GatherV2_axis",
           "GatherV2", [ramp([3], "float"), arr([0], "int32"),
                        arr(1, "int32")],
           error=e())
    f.case("GatherV2_scalar",
           "GatherV2",
           [arr(3, "float"), arr([0], "int32"), arr(0, "int32")],
           error=e("params must be at least 1 dimensional"))
    f.case("GatherV2_bdshape",
           "GatherV2", [ramp([2, 3], "float"),
                        arr([[0], [0], [0]], "int32"),
                        arr(1, "int32")],
           batch_dims=1,
           error=e())
    f.per_dtype("Gather", lambda d: [ramp([4, 2], d), arr([3, 0], "int64")])
    f.case("Gather_range",
           "Gather", [ramp([3], "float"), arr([5], "int32")],
           error=e("indices[0] = 5 is not in [0, 3)"))
    f.per_dtype("GatherNd", lambda d: [ramp([2, 3], d), arr([[1, 2], [0, 0]], "int32")])
    f.case("GatherNd_rows", "GatherNd", [ramp([2, 3], "float"), arr([[1], [0], [1]], "int64")])
    # UnsortedSegmentSum, DynamicStitch, DynamicPartition, Unique, Where, OneHot
    f.per_dtype(
        "UnsortedSegmentSum",
        lambda d: [ramp([4, 2], d), arr([1, 0, 1, 3], "int32"),
                   arr(4, "int32")], NUMBERS)
    f.case(
        "USS_scalar", "UnsortedSegmentSum",
        [ramp([3], "float"), arr(1, "int32"), arr(2, "int32")])
    f.case(
        "USS_negative", "UnsortedSegmentSum",
        [ramp([4], "float", 1), arr([1, -1, 1, 0], "int64"),
         arr(3, "int32")])
    f.case("USS_matrix", "UnsortedSegmentSum",
           [ramp([2, 2, 2], "float", 1),
            arr([[1, 0], [1, 2]], "int32"),
            arr(3, "int64")])
    f.case("USS_empty", "UnsortedSegmentSum",
           [ramp([0, 2], "float"), arr([], "int32"),
            arr(2, "int32")])
    f.case("USS_range",
           "UnsortedSegmentSum",
           [ramp([2], "float"), arr([0, 5], "int32"),
            arr(3, "int32")],
           error=e("is out of range [0, 3)"))
    f.case("USS_shape",
           "UnsortedSegmentSum",
           [ramp([2], "float"), arr([0, 1, 2], "int32"),
            arr(3, "int32")],
           error=e("does not start with"))
    for op in ["DynamicStitch", "ParallelDynamicStitch"]:
        f.per_dtype(
            op,
            lambda d: [arr([0, 2], "int32"),
                       arr([1, 3], "int32"),
                       ramp([2], d),
                       ramp([2], d, 9)])
        f.case(op + "_mat", op, [
            arr(1, "int32"),
            arr([[0, 3], [2, 2]], "int32"),
            ramp([2], "float"),
            ramp([2, 2, 2], "float", 10)
        ])
        f.case(op + "_one", op, [arr([1, 0], "int32"), ramp([2, 2], "float")])
        f.case(op + "_empty", op, [arr([], "int32"), ramp([0, 2], "float")])
    f.case("DynamicStitch_dup", "DynamicStitch",
           [arr([0, 1], "int32"),
            arr([1], "int32"),
            ramp([2], "float"),
            ramp([1], "float", 9)])
    f.case("DynamicStitch_neg",
           "DynamicStitch", [arr([-1], "int32"), ramp([1], "float")],
           error=e())
    f.per_dtype("DynamicPartition",
                lambda d: [ramp([4], d), arr([1, 0, 1, 2], "int32")],
                num_partitions=3)
    f.per_dtype("Unique",
                lambda d: [arr([3, 1, 3, 2, 1], d) if d not in ("string", "bool") else extremes(d)])
    f.case("Unique_64", "Unique", [arr([3, 1, 3], "int64")], out_idx=TF_DTYPE["int64"])
    f.per_dtype("Where", lambda d: [arr([[0, 1], [2, 0]], d)
                                    if d not in ("string",) else None], NUMBERS + ["bool"])
    f.case("Where_empty", "Where", [arr([], "bool")])
    for d in ALL:
        for it in ["int32", "int64", "uint8"]:
            if it != "int32" and d not in ("float", "int64"):
                continue
            try:
                f.case("OneHot_%s_%s" % (d, it), "OneHot", [
                    arr([0, 2, 1], it),
                    arr(3, "int32"),
                    ramp([1], d, 1).reshape([]) if d != "bool" else arr(True, d),
                    ramp([1], d, 0).reshape([])
                ])
            except NoKernel:
                pass
    for i, (ix, ax, dep) in enumerate([([0, -1, 3, 9], -1, 3), ([0, 1], 0, 3),
                                       ([[0, 1], [2, 0]], 1, 3), ([[0, 1], [2, 0]], 0, 2),
                                       (1, -1, 4), (1, 0, 2), ([], -1, 3), ([0, 1], -1, 0),
                                       ([[[0], [1]]], 2, 2)]):
        f.case("OneHot_%d" % i,
               "OneHot", [arr(ix, "int32"),
                          arr(dep, "int32"),
                          arr(5, "float"),
                          arr(-1, "float")],
               axis=ax)
    f.case(
        "OneHot_depth",
        "OneHot",
        [arr([0], "int32"), arr(-1, "int32"),
         arr(1, "float"), arr(0, "float")],
        error=e("depth must be non-negative"))
    f.case("OneHot_axis",
           "OneHot",
           [arr([0], "int32"), arr(2, "int32"),
            arr(1, "float"), arr(0, "float")],
           axis=2,
           error=e("Expected axis to be -1 or between [0, 2)"))
    f.case(
        "OneHot_on",
        "OneHot",
        [arr([0], "int32"),
         arr(2, "int32"), arr([1, 2], "float"),
         arr(0, "float")],
        error=e("on_value must be a scalar"))
    f.write()


def cast():
    f = CaseFile("op_cases/cast.pb")
    for s in NUMBERS + ["bool"]:
        for d in NUMBERS + ["bool"]:
            for trunc in [False, True]:
                if s == "bool":
                    v = arr([True, False], s)
                elif s in FLOATS:
                    # Out of range float to integer is undefined, so those stay within 0..127.
                    if d in INTS:
                        v = arr([0, 1.5, 2.99, 0.999, 100.5] +
                                ([-1.5, -2.99] if d in SIGNED else []), s)
                    else:
                        v = arr([
                            0, -0.0, 1, 1.5, -2.25, 3.14159265, 1e-3, 1.00390625, 1.01171875, 2049,
                            2051, 65504, 65519, 65520, 1e5, -1e5, 3.3e38, INF, -INF, NAN
                        ], s)
                else:
                    lo, hi = INT_RANGE[s]
                    v = np.array([0, 1, 2, 100, hi, lo, hi // 2 + 1, hi // 3, 16777217 % (hi + 1)],
                                 dtype=arr([0], s).dtype)
                if trunc and not (d in FLOATS and s in FLOATS):
                    continue
                try:
                    f.case("Cast_%s_%s%s" % (s, d, "_t" if trunc else ""),
                           "Cast", [v],
                           DstT=TF_DTYPE[d],
                           Truncate=trunc)
                except NoKernel:
                    f.skipped.append(("Cast", s + ">" + d))
    f.case("Cast_empty", "Cast", [arr([], "float")], DstT=TF_DTYPE["int32"])
    f.case("Cast_scalar", "Cast", [arr(3.7, "float")], DstT=TF_DTYPE["int32"])
    f.case("Cast_n100", "Cast", [ramp([100], "float", -50, 1.25)], DstT=TF_DTYPE["half"])
    f.case("Bitcast_f_i", "Bitcast", [arr([1, -2, NAN], "float")], type=TF_DTYPE["int32"])
    f.write()


def const_case(f, name, proto, error=None):
    """A Const node with that very TensorProto, against its value with every element written."""
    k = f.unique(name)
    with tf.Graph().as_default() as g:
        gd = tf1.GraphDef()
        n = gd.node.add(name=k + "/op", op="Const")
        n.attr["dtype"].type = proto.dtype
        n.attr["value"].tensor.CopyFrom(proto)
        out = err = None
        try:
            t, = tf.import_graph_def(gd, return_elements=[k + "/op:0"], name="")
            with tf1.Session(graph=g, config=session_config()) as sess:
                out = [sess.run(t)]
        except tf.errors.OpError as e:
            err = e
        except ValueError as e:  # What import_graph_def makes of an InvalidArgument.
            err = tf.errors.InvalidArgumentError(None, None, str(e))
    if (err is None) != (error is None):
        f.complain(name, "expected error %s, found %s" % (error, err and bare(err)))
        return
    f.graph_def.node.extend(gd.node)
    f.finish(k, out, 0, err, error)


def const():
    """The encodings of TensorProto: raw, one by one, and shortened (the last value repeats)."""
    f = CaseFile("op_cases/const.pb")

    def proto(d, shape, **fields):
        p = TensorProto(dtype=TF_DTYPE[d].as_datatype_enum, **fields)
        for s in shape:
            p.tensor_shape.dim.add().size = s
        return p

    bits = {"half": [0x3C00, 0xBC00, 0x7C00], "bfloat16": [0x3F80, 0xBF80, 0x7F80]}
    values = {
        "float": [1.5, -2.0, 3.25],
        "double": [1.5, -2.0, 1e300],
        "bool": [True, False, True],
        "string": [b"a", b"", b"\xff\x00"],
        "int64": [1, -2**63, 2**63 - 1],
        "uint32": [1, 2, 2**32 - 1],
        "uint64": [1, 2, 2**64 - 1]
    }
    fields = {
        "float": "float_val",
        "double": "double_val",
        "bool": "bool_val",
        "string": "string_val",
        "int64": "int64_val",
        "uint32": "uint32_val",
        "uint64": "uint64_val",
        "half": "half_val",
        "bfloat16": "half_val"
    }
    for d in ALL:
        field = fields.get(d, "int_val")
        v = values.get(d) or bits.get(d) or [1, INT_RANGE[d][1], INT_RANGE[d][0]]
        for tag, shape, given in [("full", [3], v), ("scalar", [], v[:1]), ("splat", [2,
                                                                                      3], v[1:2]),
                                  ("tail", [7], v), ("none", [2], []), ("empty", [0], []),
                                  ("empty2", [2, 0], []), ("matrix", [3, 1], v)]:
            const_case(f, "%s_%s" % (d, tag), proto(d, shape, **{field: given}))
        if d != "string":
            a = arr([1, 0, 1, 1], d)
            const_case(f, d + "_content", proto(d, [2, 2], tensor_content=a.tobytes()))
            const_case(f,
                       d + "_content_short",
                       proto(d, [2, 2], tensor_content=a.tobytes()[:-1]),
                       error=[])
            const_case(f,
                       d + "_content_long",
                       proto(d, [2, 2], tensor_content=a.tobytes() + b"\0"),
                       error=[])
    const_case(f, "negative_shape", proto("float", [-3], float_val=[1]), error=[])
    const_case(f, "huge_shape", proto("float", [2**40, 2**40], float_val=[1]), error=[])
    f.write()


def segment():
    """Reductions of rows by segment, and updates of slices of a tensor."""
    f = CaseFile("op_cases/segment.pb")
    e = lambda *words: list(words)  # noqa: E731
    for name in ["Prod", "Max", "Min"]:
        op = "UnsortedSegment" + name
        f.per_dtype(op, lambda d: [rand([5, 2], d, 1, 4), arr([2, 0, -1, 2, 0], "int32"),
                                   arr(4, "int32")], tol=4)
        f.case(op + "_matrix", op, [rand([2, 2, 3], "float", 1, 4), arr([[1, 0], [1, 1]], "int64"),
                                    arr(2, "int64")], tol=4)
        f.case(op + "_none", op, [ramp([0, 3], "float"), arr([], "int32"), arr(2, "int32")])
        f.case(op + "_range", op, [ramp([2], "float"), arr([0, 2], "int32"), arr(2, "int32")],
               error=e("segment_ids[1] = 2 is out of range [0, 2)"))
        f.case(op + "_shape", op, [ramp([2], "float"), arr([0, 2, 1], "int32"), arr(2, "int32")],
               error=e("does not start with segment_ids.shape"))
    for name in ["Sum", "Mean", "Prod", "Max", "Min"]:
        op = "Segment" + name
        f.per_dtype(op, lambda d: [rand([5, 2], d, 1, 4), arr([0, 0, 2, 2, 2], "int32")], tol=4)
        f.case(op + "_vector", op, [rand([4], "float", 1, 4), arr([1, 1, 1, 4], "int64")], tol=4)
        f.case(op + "_none", op, [ramp([0, 3], "float"), arr([], "int32")])
        f.case(op + "_order", op, [ramp([3], "float"), arr([0, 2, 1], "int32")],
               error=e("segment ids are not increasing"))
        f.case(op + "_negative", op, [ramp([2], "float"), arr([-1, 0], "int32")], error=e())
        f.case(op + "_size", op, [ramp([3], "float"), arr([0, 1], "int32")],
               error=e("segment_ids should be the same size as dimension 0 of input"))
    for name in ["Sum", "Mean", "SqrtN"]:
        op = "SparseSegment" + name
        rows, ids = arr([3, 0, 3, 1], "int32"), arr([0, 0, 2, 2], "int32")
        f.per_dtype(op, lambda d: [rand([4, 3], d, 1, 4), rows, ids], tol=8)
        f.case(op + "_vector", op, [rand([4], "float", 1, 4), rows.astype(np.int64),
                                    ids.astype(np.int64)], tol=4)
        f.case(op + "_none", op, [ramp([4, 2], "float"), arr([], "int32"), arr([], "int32")])
        f.case(op + "_range", op, [ramp([4, 2], "float"), arr([4], "int32"), arr([0], "int32")],
               error=e("out of range [0, 4)"))
        f.case(op + "_order", op, [ramp([4, 2], "float"), arr([1, 2], "int32"),
                                   arr([1, 0], "int32")], error=e("not increasing"))
        f.case(op + "_size", op, [ramp([4, 2], "float"), arr([1, 2], "int32"), arr([1], "int32")],
               error=e("segment_ids and indices should have same size"))
        f.case(op + "WithNumSegments", op + "WithNumSegments",
               [rand([4, 3], "float"), rows, ids, arr(5, "int32")], tol=4)
        f.case(op + "WithNumSegments_few", op + "WithNumSegments",
               [rand([4, 3], "float"), rows, ids, arr(2, "int32")],
               error=e("segment ids must be < num_segments"))
        f.per_dtype(op + "Grad", lambda d: [rand([3, 2], d), rows, ids, arr(5, "int32")], tol=8)
    for name in ["Update", "Add", "Sub", "Max", "Min"]:
        op = "TensorScatter" + name
        at = arr([[2], [0], [2]], "int32")
        f.per_dtype(op, lambda d: [ramp([4, 2], d, 1), at, rand([3, 2], d, 1, 5)], tol=2)
        f.case(op + "_deep", op, [ramp([4, 2], "float", 1), arr([[2, 1], [0, 0]], "int64"),
                                  ramp([2], "float", 5)])
        f.case(op + "_range", op, [ramp([4, 2], "float"), arr([[4]], "int32"),
                                   ramp([1, 2], "float")],
               error=e("indices[0] = [4] does not index into shape [4,2]"))
        f.case(op + "_ignored", op, [ramp([4, 2], "float"), arr([[4], [1]], "int32"),
                                     ramp([2, 2], "float", 7)], bad_indices_policy="IGNORE")
    f.per_dtype("ScatterNdNonAliasingAdd",
                lambda d: [ramp([4], d, 1), arr([[2], [0]], "int32"), ramp([2], d, 1)])
    f.write()


def space():
    """Blocks of places moved into another dimension, and sequences backwards."""
    f = CaseFile("op_cases/space.pb")
    e = lambda *words: list(words)  # noqa: E731
    pads = lambda *p: arr(p, "int32").reshape(-1, 2)  # noqa: E731
    for i, (shape, block, pad) in enumerate([
        ([1, 2, 2, 1], [2, 2], [0, 0, 0, 0]), ([2, 3, 4, 2], [2, 3], [1, 0, 0, 2]),
        ([1, 5], [2], [2, 1]), ([2, 4, 3], [1], [0, 0]), ([3, 2], [], []),
        ([0, 2, 2], [2], [0, 0]), ([1, 4, 2, 3, 2], [2, 1, 3], [0, 0, 3, 0, 0, 3])
    ]):
        f.case("SpaceToBatchND_%d" % i, "SpaceToBatchND",
               [ramp(shape, "float"), arr(block, "int64" if i % 2 else "int32"), pads(*pad)],
               _shaped=[1])
    f.per_dtype("SpaceToBatchND", lambda d: [ramp([1, 3, 1], d), arr([2], "int32"), pads(1, 0)],
                _shaped=[1])
    for i, (shape, block, crop) in enumerate([
        ([4, 1, 1, 2], [2, 2], [0, 0, 0, 0]), ([12, 2, 2, 2], [2, 3], [1, 0, 2, 1]),
        ([4, 3], [2], [2, 1]), ([2, 4, 3], [1], [1, 1]), ([6, 0, 2], [3], [0, 0])
    ]):
        f.case("BatchToSpaceND_%d" % i, "BatchToSpaceND",
               [ramp(shape, "float"), arr(block, "int32"), pads(*crop)], _shaped=[1])
    f.per_dtype("BatchToSpaceND", lambda d: [ramp([2, 2, 1], d), arr([2], "int32"), pads(1, 0)],
                _shaped=[1])
    f.case("SpaceToBatchND_uneven", "SpaceToBatchND",
           [ramp([1, 3], "float"), arr([2], "int32"), pads(0, 0)],
           error=e("is not divisible by"), _shaped=[1])
    f.case("SpaceToBatchND_rank", "SpaceToBatchND",
           [ramp([3], "float"), arr([2, 2], "int32"), pads(0, 0, 0, 0)],
           error=e(), _shaped=[1])
    f.case("SpaceToBatchND_negative", "SpaceToBatchND",
           [ramp([1, 4], "float"), arr([2], "int32"), pads(-1, 1)],
           error=e("non-negative"), _shaped=[1])
    f.case("BatchToSpaceND_uneven", "BatchToSpaceND",
           [ramp([3, 2], "float"), arr([2], "int32"), pads(0, 0)],
           error=e("is not divisible by"), _shaped=[1])
    f.case("BatchToSpaceND_crop", "BatchToSpaceND",
           [ramp([2, 1], "float"), arr([2], "int32"), pads(2, 1)],
           error=e(), _shaped=[1])
    f.case("SpaceToBatch_0", "SpaceToBatch", [ramp([1, 3, 4, 2], "float"), pads(1, 0, 1, 1)],
           block_size=2)
    f.case("BatchToSpace_0", "BatchToSpace", [ramp([4, 2, 2, 2], "float"), pads(1, 0, 0, 1)],
           block_size=2)
    # The CPU of TensorFlow has NHWC only.
    for op, shape in [("SpaceToDepth", [2, 4, 6, 3]), ("DepthToSpace", [2, 2, 3, 8])]:
        f.case(op + "_0", op, [ramp(shape, "float")], block_size=2)
        f.case(op + "_uneven", op, [ramp([1, 3, 3, 3], "float")], block_size=2,
               error=e("should be divisible by"))
    f.per_dtype("SpaceToDepth", lambda d: [ramp([1, 2, 2, 1], d)], block_size=2)
    f.per_dtype("DepthToSpace", lambda d: [ramp([1, 1, 1, 4], d)], block_size=2)
    for i, (shape, lengths, seq, batch) in enumerate([
        ([2, 4, 2], [3, 1], 1, 0), ([4, 3], [2, 4, 0], 0, 1), ([2, 3, 2, 2], [1, 2], 1, 3),
        ([0, 3], [], 1, 0), ([2, 0], [0, 0], 1, 0), ([1, 2, 3], [3], 2, 0)
    ]):
        f.case("ReverseSequence_%d" % i, "ReverseSequence",
               [ramp(shape, "float"), arr(lengths, "int64" if i % 2 else "int32")], seq_dim=seq,
               batch_dim=batch)
    f.per_dtype("ReverseSequence", lambda d: [ramp([2, 3], d), arr([3, 2], "int64")], seq_dim=1)
    for name, lengths, words in [("long", [4, 1], "seq_lens(0) > input.dims(1)"),
                                 ("negative", [1, -1], "seq_lens(1) < 0"),
                                 ("count", [1], "Length of seq_lengths != input.dims(0)")]:
        f.case("ReverseSequence_" + name, "ReverseSequence",
               [ramp([2, 3], "float"), arr(lengths, "int64")], seq_dim=1, error=e(words))
    f.write()


FAMILIES = [
    unary, binary, broadcast, reductions, matmul, nn, shapes, gather, cast, const, segment, space
]


def main():
    wanted = sys.argv[1:]
    for family in FAMILIES:
        if not wanted or family.__name__ in wanted:
            family()


if __name__ == "__main__":
    main()
