"""Writes op_cases/gradients.pb: what tf.gradients gives for single ops.

The form is described in case_lib.py. Run with the Python of a virtual environment that has
tensorflow-cpu 2.21: python make_gradients.py

A gradient that TensorFlow gives as IndexedSlices (GatherV2's) stands here as the dense tensor.
"""

import numpy as np

from case_lib import (CaseFile, EPS, FLOATS, TF_DTYPE, arr, const_node, dtype_name, make_op, ramp,
                      rand, session_config, tf, tf1)


def gradient_case(f, name, op_type, inputs, tol=16, **attrs):
    """dy for output i is a fixed random tensor; outputs that take no part have none."""
    k = f.unique(name)
    with tf.Graph().as_default() as g:
        consts = [tf.constant(a) for a in inputs]
        op = make_op(op_type, consts, attrs)
        node = op.node_def
        with tf1.Session(graph=g, config=session_config()) as sess:
            outs = sess.run(list(op.outputs))
            ys, dys = [], []
            for i, (t, a) in enumerate(zip(op.outputs, outs)):
                # The second output of a cross entropy is there for its gradient only.
                if t.dtype.is_floating and not (i and
                                                ("CrossEntropy" in op_type or "Norm" in op_type)):
                    dy = rand(a.shape, dtype_name(a), 0.5, 2, seed=20 + i)
                    ys.append(t)
                    dys.append(tf.constant(dy))
                    const_node(f.graph_def, "%s/dy%d" % (k, i), dy)
            xs = [c for c in consts if c.dtype.is_floating]
            grads = dict(zip([x.ref() for x in xs], tf1.gradients(ys, xs, grad_ys=dys)))
            for i, (c, a) in enumerate(zip(consts, inputs)):
                const_node(f.graph_def, "%s/in%d" % (k, i), a)
                grad = grads.get(c.ref())
                if grad is not None:
                    value = sess.run(tf.convert_to_tensor(grad))
                    assert value.shape == np.shape(a), (name, value.shape)
                    const_node(f.graph_def, "%s/grad%d" % (k, i), value)
        n = f.graph_def.node.add()
        n.CopyFrom(node)
        n.name = k + "/op"
        del n.input[:]
        n.input.extend("%s/in%d" % (k, i) for i in range(len(inputs)))
        scale = max([EPS[dtype_name(a)] for a in outs if dtype_name(a) in EPS])
        if tol:
            const_node(f.graph_def, k + "/tol", np.array(tol * scale, np.float32))


def fl(shape, seed=1, lo=-2.0, hi=2.0, dtype="float"):
    return rand(shape, dtype, lo, hi, seed)


def elementwise(f):
    for op in [
            "Neg", "Abs", "Sign", "Square", "Exp", "Floor", "Sigmoid", "Tanh", "Relu", "Relu6",
            "Elu", "Softplus", "Identity", "StopGradient", "ZerosLike", "OnesLike", "Sin", "Cos",
            "Erf", "Expm1", "Selu", "LeakyRelu", "Softsign"
    ]:
        for d in FLOATS if op in ("Square", "Exp", "Tanh", "Relu", "Sigmoid") else ["float"]:
            gradient_case(f, "%s_%s" % (op, d), op,
                          [fl([2, 5], dtype=d, lo=-3, hi=8 if op == "Relu6" else 3)])
    gradient_case(f, "Abs_zero", "Abs", [arr([0, -1, 2], "float")])
    gradient_case(f, "Relu_zero", "Relu", [arr([0, -1, 2], "float")])
    for op in ["Sqrt", "Rsqrt", "Log", "Log1p", "Reciprocal", "Inv"]:
        gradient_case(f, op + "_float", op, [fl([2, 5], lo=0.3, hi=4)])
        gradient_case(f, op + "_double", op, [fl([3], lo=0.3, hi=4, dtype="double")])
    shapes = [([2, 3], [2, 3]), ([2, 3], [3]), ([], [2, 2]), ([2, 1, 3], [4, 1]), ([2, 3], [1, 1]),
              ([0, 3], [1, 3]), ([1, 2, 1, 2, 1], [2, 1, 2, 1, 2])]
    for op in [
            "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Pow", "Maximum", "Minimum",
            "SquaredDifference", "DivNoNan", "FloorDiv", "FloorMod", "MulNoNan"
    ]:
        for i, (a, b) in enumerate(shapes):
            if i > 3 and op not in ("AddV2", "Mul", "RealDiv", "Pow"):
                continue
            gradient_case(f, "%s_%d" % (op, i), op, [fl(a, 1, 0.4, 3), fl(b, 2, 0.4, 3)])
        gradient_case(f, op + "_double", op,
                      [fl([3], 1, 0.4, 3, "double"),
                       fl([3], 2, 0.4, 3, "double")])
    gradient_case(f, "Pow_zero", "Pow", [arr([0, 0, 2, -1], "float"), arr([2, 0, 3, 2], "float")])
    gradient_case(f, "DivNoNan_zero", "DivNoNan",
                  [arr([1, 0, 2], "float"), arr([0, 0, 4], "float")])
    for op in ["Maximum", "Minimum"]:
        gradient_case(f, op + "_ties", op, [arr([1, 2, 3], "float"), arr([1, 3, 2], "float")])
    for n in [1, 2, 4]:
        gradient_case(f, "AddN_%d" % n, "AddN", [fl([2, 2], i) for i in range(n)])
    cond = arr([True, False, True], "bool")
    gradient_case(f, "Select_same", "Select", [cond, fl([3]), fl([3], 2)])
    gradient_case(f, "Select_rows", "Select", [cond, fl([3, 2]), fl([3, 2], 2)])
    gradient_case(f, "Select_scalar", "Select", [arr(True, "bool"), fl([2, 2]), fl([2, 2], 2)])
    for i, (c, a, b) in enumerate([([3], [3], [3]), ([3], [], [2, 3]), ([2, 1], [1, 3], [3])]):
        gradient_case(f, "SelectV2_%d" % i, "SelectV2", [rand(c, "bool", seed=3), fl(a), fl(b, 2)])
    gradient_case(f, "ClipByValue_0", "ClipByValue", [fl([7]), arr(-1, "float"), arr(1, "float")])
    for s, d in [("float", "double"), ("double", "float"), ("float", "half"),
                 ("float", "bfloat16")]:
        gradient_case(f, "Cast_%s_%s" % (s, d), "Cast", [fl([4], dtype=s)], DstT=TF_DTYPE[d])


def special_functions(f):
    domains = [("Tan", -1, 1), ("Sinh", -2, 2), ("Cosh", -2, 2), ("Asin", -0.9, 0.9),
               ("Acos", -0.9, 0.9), ("Atan", -3, 3), ("Asinh", -3, 3), ("Acosh", 1.2, 4),
               ("Atanh", -0.8, 0.8), ("Lgamma", 0.5, 5), ("Digamma", 0.5, 5), ("Erfc", -2, 2),
               ("Erfinv", -0.8, 0.8), ("Ndtri", 0.1, 0.9)]
    for op, lo, hi in domains:
        gradient_case(f, op + "_float", op, [fl([2, 3], lo=lo, hi=hi)], tol=64)
        gradient_case(f, op + "_double", op, [fl([3], lo=lo, hi=hi, dtype="double")], tol=256)
    for op in ["Atan2", "Xdivy", "Xlogy", "Xlog1py"]:
        for i, (a, b) in enumerate([([2, 3], [2, 3]), ([2, 3], [3]), ([], [2, 2]), ([0], [1])]):
            gradient_case(f, "%s_%d" % (op, i), op, [fl(a, 1), fl(b, 2, 0.4, 3)])
        gradient_case(f, op + "_zero", op, [arr([0, 1, 0], "float"), arr([1, 2, 3], "float")])
    for op in ["Polygamma", "Zeta"]:
        gradient_case(f, op + "_0", op, [arr([[2], [3]], "float"), fl([2, 3], 2, 0.5, 4)], tol=256)


def diagonals(f):
    k = lambda *v: arr(v[0] if len(v) == 1 else v, "int32")  # noqa: E731
    pad = arr(7, "float")
    gradient_case(f, "MatrixBandPart_0", "MatrixBandPart",
                  [fl([2, 3, 4]), arr(1, "int64"), arr(-1, "int64")])
    gradient_case(f, "Diag_0", "Diag", [fl([2, 3])])
    gradient_case(f, "DiagPart_0", "DiagPart", [fl([2, 3, 2, 3])])
    gradient_case(f, "MatrixDiag_0", "MatrixDiag", [fl([2, 3])])
    gradient_case(f, "MatrixDiagPart_0", "MatrixDiagPart", [fl([2, 3, 4])])
    gradient_case(f, "MatrixDiagPart_1", "MatrixDiagPart", [fl([3, 3])])
    gradient_case(f, "MatrixSetDiag_0", "MatrixSetDiag", [fl([2, 3, 4]), fl([2, 3], 2)])
    for v in ["V2", "V3"]:
        aligns = [{}] if v == "V2" else [dict(align="LEFT_RIGHT"), dict(align="RIGHT_RIGHT")]
        # TensorFlow's gradients of V2 align the diagonals as V3 does, so theirs are of one length.
        low, high = (0, 0) if v == "V2" else (-1, 1)
        packed = [2, 3] if v == "V2" else [2, 3, 3]
        for i, attrs in enumerate(aligns):
            gradient_case(f, "MatrixDiag%s_%d" % (v, i), "MatrixDiag" + v,
                          [fl(packed), k(low, high), k(4), k(-1), pad], **attrs)
            gradient_case(f, "MatrixDiagPart%s_%d" % (v, i), "MatrixDiagPart" + v,
                          [fl([2, 3, 4]), k(low, 2 * high), pad], **attrs)
            gradient_case(f, "MatrixSetDiag%s_%d" % (v, i), "MatrixSetDiag" + v,
                          [fl([3, 4]), fl([2, 3], 2), k(0, 1)], **attrs)


def beyond_edges(f):
    for mode in ["REFLECT", "SYMMETRIC"]:
        pads = arr([[1, 2], [0, 1]], "int32")
        gradient_case(f, "MirrorPad_" + mode, "MirrorPad", [fl([3, 2]), pads], mode=mode)
        gradient_case(f, "MirrorPadGrad_" + mode, "MirrorPadGrad", [fl([6, 3]), pads], mode=mode)
    gradient_case(f, "Roll_0", "Roll", [fl([3, 4]), arr([1, -6], "int32"), arr([0, 1], "int32")])
    gradient_case(f, "Roll_1", "Roll", [fl([3, 4]), arr(2, "int64"), arr(-1, "int32")])
    for exclusive in [False, True]:
        for reverse in [False, True]:
            for op in ["Cumsum", "Cumprod"]:
                gradient_case(f, "%s_%d%d" % (op, exclusive, reverse), op,
                              [fl([2, 4], 5), arr(1, "int32")], exclusive=exclusive,
                              reverse=reverse)
    gradient_case(f, "Cumprod_zero", "Cumprod", [arr([2, 0, 3], "float"), arr(0, "int32")])
    for i, (shape, n) in enumerate([([5], 2), ([2, 3], 3), ([2, 2, 4], 1), ([3, 2], 0)]):
        gradient_case(f, "TopKV2_%d" % i, "TopKV2", [fl(shape, i + 3), arr(n, "int32")])
    gradient_case(f, "AccumulateNV2_0", "AccumulateNV2", [fl([2]), fl([2], 2)],
                  shape=tf.TensorShape([2]))
    at = arr([[0, 1], [2, 0]], "int32")
    shape = arr([3, 2], "int32")
    gradient_case(f, "SparseToDense_0", "SparseToDense", [at, shape, fl([2]), arr(1, "float")])
    for i, attrs in enumerate([{}, dict(align_corners=True), dict(half_pixel_centers=True)]):
        for op in ["ResizeBilinear", "ResizeNearestNeighbor"]:
            gradient_case(f, "%s_%d" % (op, i), op, [fl([2, 3, 2, 2]), arr([4, 5], "int32")],
                          **attrs)
            gradient_case(f, "%s_small_%d" % (op, i), op, [fl([1, 4, 5, 1]), arr([2, 3], "int32")],
                          **attrs)


def reductions(f):
    for op in ["Sum", "Mean", "Max", "Min", "Prod"]:
        for i, (s, axes, keep) in enumerate([([2, 3], [0], False), ([2, 3], [1], False),
                                             ([2, 3], [1], True), ([2, 3], [0, 1], False),
                                             ([2, 3, 2], [-1], False), ([2, 3, 2], [0, 2], True),
                                             ([4], [0], False), ([2, 3], [], False),
                                             ([], [], False), ([2, 3, 2], [1], False)]):
            gradient_case(f, "%s_%d" % (op, i), op, [fl(s, 5), arr(axes, "int32")], keep_dims=keep)
        gradient_case(f, op + "_double", op, [fl([2, 3], 5, dtype="double"), arr([0], "int32")])
    gradient_case(f, "Max_ties", "Max", [arr([[1, 3, 3], [2, 2, 2]], "float"), arr([1], "int32")])
    gradient_case(f, "Min_ties", "Min", [arr([[1, 1, 3], [2, 2, 2]], "float"), arr([1], "int32")])
    gradient_case(f, "Prod_zero", "Prod", [arr([[1, 0, 3], [0, 0, 2]], "float"), arr([1], "int32")])
    gradient_case(f, "Mean_empty", "Mean", [ramp([0, 3], "float"), arr([1], "int32")])
    for d in ["float", "double"]:
        gradient_case(f, "L2Loss_" + d, "L2Loss", [fl([2, 3], dtype=d)])


def matrices(f):
    for ta in [False, True]:
        for tb in [False, True]:
            a, b = fl([3, 4]), fl([4, 2], 2)
            gradient_case(f,
                          "MatMul_%d%d" % (ta, tb),
                          "MatMul", [a.T if ta else a, b.T if tb else b],
                          transpose_a=ta,
                          transpose_b=tb)
            x, y = fl([2, 3, 4]), fl([2, 4, 2], 2)
            for op in ["BatchMatMul", "BatchMatMulV2"]:
                gradient_case(
                    f,
                    "%s_%d%d" % (op, ta, tb),
                    op, [x.transpose(0, 2, 1) if ta else x,
                         y.transpose(0, 2, 1) if tb else y],
                    adj_x=ta,
                    adj_y=tb)
    gradient_case(f, "BatchMatMulV2_bc", "BatchMatMulV2", [fl([2, 1, 3, 4]), fl([3, 4, 2], 2)])
    for i, (s, c, fmt) in enumerate([([3, 4], 4, "NHWC"), ([2, 2, 2, 3], 3, "NHWC"),
                                     ([2, 3, 2, 2], 3, "NCHW")]):
        gradient_case(f, "BiasAdd_%d" % i, "BiasAdd", [fl(s), fl([c], 2)], data_format=fmt)
    for op in ["Softmax", "LogSoftmax"]:
        gradient_case(f, op + "_0", op, [fl([3, 4])])
        gradient_case(f, op + "_1", op, [fl([5], dtype="double")])
        gradient_case(f, op + "_2", op, [fl([2, 2, 3])])
    labels = rand([3, 4], "float", 0.1, 1, 7)
    gradient_case(f, "SoftmaxCrossEntropyWithLogits_0", "SoftmaxCrossEntropyWithLogits",
                  [fl([3, 4]), labels / labels.sum(1, keepdims=True)])
    gradient_case(f, "SparseSoftmaxCrossEntropyWithLogits_0", "SparseSoftmaxCrossEntropyWithLogits",
                  [fl([3, 4]), arr([2, 0, 3], "int64")])


def shaping(f):
    x = fl([2, 3, 4])
    gradient_case(f, "Reshape_0", "Reshape", [x, arr([4, -1], "int32")])
    gradient_case(f, "ExpandDims_0", "ExpandDims", [x, arr(1, "int32")])
    gradient_case(f, "Squeeze_0", "Squeeze", [fl([1, 3, 1])], squeeze_dims=[0])
    gradient_case(f, "Transpose_0", "Transpose", [x, arr([2, 0, 1], "int32")])
    gradient_case(f, "Fill_0", "Fill", [arr([2, 3], "int32"), arr(2, "float")])
    for i, ax in enumerate([0, 1, -1]):
        gradient_case(f, "Pack_%d" % i, "Pack", [fl([2, 3], j) for j in range(3)], axis=ax)
        gradient_case(f, "Unpack_%d" % i, "Unpack", [x], num=x.shape[ax], axis=ax)
    gradient_case(f, "ConcatV2_0", "ConcatV2",
                  [fl([2, 3]), fl([2, 1], 2),
                   fl([2, 2], 3), arr(1, "int32")])
    gradient_case(f, "ConcatV2_1", "ConcatV2", [fl([2, 3]), fl([1, 3], 2), arr(-2, "int32")])
    gradient_case(f, "Split_0", "Split", [arr(1, "int32"), fl([2, 4])], num_split=2)
    gradient_case(
        f, "SplitV_0", "SplitV",
        [fl([2, 5]), arr([1, 4], "int32"), arr(1, "int32")], num_split=2)
    gradient_case(f, "Slice_0", "Slice", [x, arr([1, 0, 1], "int32"), arr([1, -1, 2], "int32")])
    gradient_case(
        f,
        "StridedSlice_0",
        "StridedSlice",
        [x, arr([0, 1], "int32"),
         arr([2, 3], "int32"), arr([1, 1], "int32")],
        shrink_axis_mask=1)
    gradient_case(f,
                  "StridedSlice_1",
                  "StridedSlice",
                  [x, arr([0, 0, 3], "int32"),
                   arr([0, 0, 0], "int32"),
                   arr([1, 1, -2], "int32")],
                  ellipsis_mask=1,
                  new_axis_mask=2,
                  end_mask=4)
    gradient_case(
        f, "StridedSlice_2", "StridedSlice",
        [fl([7]), arr([5], "int32"),
         arr([0], "int32"), arr([-2], "int32")])
    for i, (s, m) in enumerate([([2, 3], [2, 1]), ([2], [3]), ([1, 2, 2], [3, 1, 2])]):
        gradient_case(f, "Tile_%d" % i, "Tile", [fl(s), arr(m, "int32")])
    gradient_case(f, "Pad_0", "Pad", [fl([2, 3]), arr([[1, 0], [2, 1]], "int32")])
    gradient_case(f, "PadV2_0", "PadV2",
                  [fl([2, 3]), arr([[1, 0], [2, 1]], "int32"),
                   arr(4, "float")])
    gradient_case(f, "BroadcastTo_0", "BroadcastTo", [fl([2, 1]), arr([3, 2, 4], "int32")])
    for i, (s, ix, ax, bd) in enumerate([([4, 2], [3, 0, 3], 0, 0), ([2, 4], [1, 1], 1, 0),
                                         ([2, 3, 2], [[0, 2], [1, 1]], 1, 1), ([4], 2, 0, 0)]):
        gradient_case(f,
                      "GatherV2_%d" % i,
                      "GatherV2",
                      [fl(s), arr(ix, "int32"), arr(ax, "int32")],
                      batch_dims=bd)
    gradient_case(f, "Gather_0", "Gather", [fl([4, 2]), arr([3, 0, 3], "int32")])
    gradient_case(f, "UnsortedSegmentSum_0", "UnsortedSegmentSum",
                  [fl([4, 2]), arr([1, 0, -1, 1], "int32"),
                   arr(3, "int32")])
    ids = arr([1, 0, -1, 1], "int32")
    for name in ["Max", "Min", "Prod"]:
        op = "UnsortedSegment" + name
        gradient_case(f, op + "_0", op, [fl([4, 2]), ids, arr(3, "int32")])
        gradient_case(f, op + "_1", op,
                      [arr([2, 0, 3, 2, 0, 5], "float"), arr([0, 0, 0, 0, 1, 1], "int32"),
                       arr(2, "int32")])
    gradient_case(f, "UnsortedSegmentProd_zeros", "UnsortedSegmentProd",
                  [arr([2, 0, 0, 3], "float"), arr([0, 0, 0, 1], "int32"), arr(2, "int32")])
    for name in ["Sum", "Mean", "Max", "Min"]:
        gradient_case(f, "Segment%s_0" % name, "Segment" + name,
                      [fl([4, 2]), arr([0, 0, 2, 2], "int32")])
    for name in ["Sum", "Mean", "SqrtN"]:
        gradient_case(f, "SparseSegment%s_0" % name, "SparseSegment" + name,
                      [fl([4, 2]), arr([3, 0, 3, 1], "int32"), arr([0, 0, 2, 2], "int32")])
    for name in ["Update", "Add", "Sub", "Max", "Min"]:
        gradient_case(f, "TensorScatter%s_0" % name, "TensorScatter" + name,
                      [fl([4, 2]), arr([[2], [0]], "int32"), fl([2, 2], 2)])
    pads = arr([[1, 0], [0, 2]], "int32")
    gradient_case(f, "SpaceToBatchND_0", "SpaceToBatchND",
                  [fl([1, 3, 4, 2]), arr([2, 3], "int32"), pads])
    gradient_case(f, "BatchToSpaceND_0", "BatchToSpaceND",
                  [fl([6, 2, 2, 2]), arr([2, 3], "int32"), pads])
    gradient_case(f, "SpaceToDepth_0", "SpaceToDepth", [fl([1, 2, 4, 2])], block_size=2)
    gradient_case(f, "DepthToSpace_0", "DepthToSpace", [fl([1, 2, 1, 8])], block_size=2)
    gradient_case(f, "ReverseSequence_0", "ReverseSequence",
                  [fl([2, 3, 2]), arr([2, 3], "int64")], seq_dim=1)
    gradient_case(
        f, "DynamicStitch_0", "DynamicStitch",
        [arr([0, 2], "int32"), arr([1], "int32"),
         fl([2, 2]), fl([1, 2], 2)])
    gradient_case(f,
                  "DynamicPartition_0",
                  "DynamicPartition", [fl([4]), arr([1, 0, 1, 0], "int32")],
                  num_partitions=2)
    gradient_case(
        f, "OneHot_0", "OneHot",
        [arr([0, 2], "int32"),
         arr(3, "int32"), arr(5, "float"),
         arr(1, "float")])


def images(f):
    """Convolutions and poolings, of which TensorFlow has gradients for NHWC without dilation."""
    windows = [([2, 5, 6, 3], [3, 2, 3, 4], [1, 1, 1, 1], "SAME"),
               ([1, 7, 5, 2], [3, 3, 2, 3], [1, 2, 2, 1], "VALID")]
    for i, (xs, ws, strides, padding) in enumerate(windows):
        attrs = {"strides": strides, "padding": padding}
        x, w = fl(xs), fl(ws, 2)
        gradient_case(f, "Conv2D_%d" % i, "Conv2D", [x, w], **attrs)
        y = [xs[0]] + ([5, 6] if i == 0 else [3, 2]) + [ws[3]]
        gradient_case(f, "Conv2DBackpropInput_%d" % i, "Conv2DBackpropInput",
                      [arr(xs, "int32"), w, fl(y, 3)], **attrs)
        gradient_case(f, "Conv2DBackpropFilter_%d" % i, "Conv2DBackpropFilter",
                      [x, arr(ws, "int32"), fl(y, 3)], **attrs)
    gradient_case(f,
                  "Conv2D_explicit",
                  "Conv2D", [fl([1, 4, 5, 2]), fl([2, 3, 2, 2], 2)],
                  strides=[1, 2, 1, 1],
                  padding="EXPLICIT",
                  explicit_paddings=[0, 0, 1, 0, 2, 1, 0, 0])
    x = fl([2, 5, 6, 3])
    for i, padding in enumerate(["SAME", "VALID"]):
        attrs = {"ksize": [1, 3, 2, 1], "strides": [1, 2, 2, 1], "padding": padding}
        y = f.run_op("MaxPool", [x], attrs)[1][0]
        gradient_case(f, "MaxPool_%d" % i, "MaxPool", [x], **attrs)
        gradient_case(f, "AvgPool_%d" % i, "AvgPool", [x], **attrs)
        gradient_case(f, "MaxPoolGrad_%d" % i, "MaxPoolGrad", [x, y, fl(y.shape, 3)], **attrs)
        gradient_case(f, "MaxPoolGradGrad_%d" % i, "MaxPoolGradGrad",
                      [x, y, fl([2, 5, 6, 3], 3)], **attrs)
        gradient_case(f, "AvgPoolGrad_%d" % i, "AvgPoolGrad",
                      [arr([2, 5, 6, 3], "int32"), fl(y.shape, 3)], **attrs)
        gradient_case(f, "MaxPoolV2_%d" % i, "MaxPoolV2",
                      [x, arr([1, 3, 2, 1], "int32"),
                       arr([1, 2, 2, 1], "int32")],
                      padding=padding)


def normalizations(f):
    scale, offset = fl([3], 2, 0.5, 2), fl([3], 3)
    mean, variance = fl([3], 4, -1, 1), fl([3], 5, 0.5, 2)
    none = np.zeros([0], np.float32)
    x = fl([2, 3, 2, 3])
    for op in ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"]:
        for fmt in ["NHWC", "NCHW"]:
            image = x if fmt == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            for training in [True, False]:
                averages = [none, none] if training else [mean, variance]
                gradient_case(f,
                              "%s_%s_%d" % (op, fmt, training),
                              op, [image, scale, offset] + averages,
                              tol=64,
                              data_format=fmt,
                              is_training=training)
    gradient_case(f, "LRN_0", "LRN", [fl([1, 2, 3, 9])], tol=32, depth_radius=2, beta=0.75)
    for op, alpha in [("LeakyRelu", 0.3)]:
        gradient_case(f, op + "_alpha", op, [fl([2, 5])], alpha=alpha)


def einsums(f):
    for i, (equation, *shapes) in enumerate([
            ("ij->ji", [2, 3]), ("ij->i", [2, 3]), ("ijk->j", [2, 3, 4]), ("ij->", [2, 3]),
            ("...ij->...ji", [2, 2, 3]), ("...ij->...", [2, 2, 3]), ("ij,jk->ik", [2, 3], [3, 4]),
            ("bfnd,btnd->bnft", [2, 3, 2, 4], [2, 5, 2, 4]), ("i,j->ij", [2], [3]),
            ("ij,ij->ij", [2, 3], [2, 3]), ("ijk,jl->i", [2, 3, 4], [3, 2]),
            ("...ij,...jk->...ik", [2, 1, 2, 3], [2, 3, 4]), ("...i,ij->...j", [2, 2, 3], [3, 4]),
            ("...ij,jk->...k", [2, 2, 3], [3, 4])]):
        gradient_case(f, "Einsum_%d" % i, "Einsum", [fl(s, k) for k, s in enumerate(shapes)],
                      equation=equation)


def linear_algebra(f):
    for i, (outer, dtype) in enumerate([([], "float"), ([2], "double")]):
        a = fl(outer + [3, 3], dtype=dtype) + arr(4 * np.eye(3), dtype)
        definite = arr(a @ np.swapaxes(a, -1, -2), dtype)
        b = fl(outer + [3, 2], 2, dtype=dtype)
        gradient_case(f, "Cholesky_%d" % i, "Cholesky", [definite], tol=64)
        gradient_case(f, "MatrixDeterminant_%d" % i, "MatrixDeterminant", [a], tol=64)
        gradient_case(f, "LogMatrixDeterminant_%d" % i, "LogMatrixDeterminant", [a], tol=64)
        for adjoint in [False, True]:
            name = "%d_%d" % (i, adjoint)
            gradient_case(f, "MatrixInverse_" + name, "MatrixInverse", [a], tol=64,
                          adjoint=adjoint)
            gradient_case(f, "MatrixSolve_" + name, "MatrixSolve", [a, b], tol=64, adjoint=adjoint)
            for lower in [False, True]:
                gradient_case(f, "MatrixTriangularSolve_%s_%d" % (name, lower),
                              "MatrixTriangularSolve", [a, b], tol=64, adjoint=adjoint,
                              lower=lower)
    gradient_case(f, "MatrixTriangularSolve_bc", "MatrixTriangularSolve",
                  [fl([3, 3]) + arr(4 * np.eye(3), "float"), fl([2, 3, 2], 2)], tol=64)


def sparse(f):
    at = np.array([[0, 1], [2, 0], [2, 3]], np.int64)
    for ta in [False, True]:
        for tb in [False, True]:
            b = fl([3, 2] if ta else [4, 2], 2)
            gradient_case(f, "SparseTensorDenseMatMul_%d%d" % (ta, tb), "SparseTensorDenseMatMul",
                          [at, fl([3]), arr([3, 4], "int64"), b.T if tb else b],
                          adjoint_a=ta, adjoint_b=tb)
    gradient_case(f, "SparseReorder", "SparseReorder",
                  [at[[1, 2, 0]], fl([3]), arr([3, 4], "int64")])
    gradient_case(f, "SparseFillEmptyRows", "SparseFillEmptyRows",
                  [at, fl([3]), arr([4, 4], "int64"), fl([], 2)])


def quantized(f):
    x, low, high = fl([4, 5]), arr([-1.1] * 5, "float"), arr([0.8] * 5, "float")
    gradient_case(f, "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxArgs", [x], min=-1.0, max=1.5)
    gradient_case(f, "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVars", [x, low[0], high[0]])
    gradient_case(f, "FakeQuantWithMinMaxVarsPerChannel", "FakeQuantWithMinMaxVarsPerChannel",
                  [x, low, high], num_bits=4)


def depthwise(f):
    x, w = fl([2, 5, 4, 2]), fl([3, 2, 2, 3], 2)
    attrs = dict(strides=[1, 2, 2, 1], padding="SAME")
    dy = fl([2, 3, 2, 6], 3)
    gradient_case(f, "MaxPoolWithArgmax", "MaxPoolWithArgmax", [x], ksize=[1, 2, 2, 1],
                  strides=[1, 2, 1, 1], padding="SAME", Targmax=tf.int64)
    gradient_case(f, "DepthwiseConv2dNative", "DepthwiseConv2dNative", [x, w], **attrs)
    gradient_case(f, "DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropInput",
                  [arr(x.shape, "int32"), w, dy], **attrs)
    gradient_case(f, "DepthwiseConv2dNativeBackpropFilter", "DepthwiseConv2dNativeBackpropFilter",
                  [x, arr(w.shape, "int32"), dy], **attrs)


def main():
    f = CaseFile("op_cases/gradients.pb")
    elementwise(f)
    special_functions(f)
    diagonals(f)
    beyond_edges(f)
    reductions(f)
    matrices(f)
    shaping(f)
    images(f)
    normalizations(f)
    einsums(f)
    linear_algebra(f)
    sparse(f)
    depthwise(f)
    quantized(f)
    f.write()


if __name__ == "__main__":
    main()
