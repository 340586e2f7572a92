"""Writes op_cases/conv.pb, pooling.pb and norm.pb: what TensorFlow's CPU kernels give for ops on
images. The form is described in case_lib.py.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_images.py

TensorFlow's CPU kernels take NHWC alone; the NCHW cases are its NHWC results, transposed. Nor do
its gradients of convolutions have dilations or groups: those cases come from its results for the
filter with zeros in between, and for each group alone.
"""

import sys

import numpy as np

from case_lib import (FLOATS, NUMBERS, CaseFile, arr, const_node, dtype_name, make_op, ramp, rand,
                      tf, tf1, TF_DTYPE)

INF, NAN = float("inf"), float("nan")


def node_of(op, inputs, attrs):
    with tf.Graph().as_default():
        phs = [
            tf1.placeholder(TF_DTYPE[dtype_name(a)], name="in%d" % i) for i, a in enumerate(inputs)
        ]
        return make_op(op, phs, attrs).node_def


def known_case(f, name, op, inputs, outs, tol=0.0, **attrs):
    """A case whose results were found some other way."""
    k = f.unique(name)
    for i, a in enumerate(inputs):
        const_node(f.graph_def, "%s/in%d" % (k, i), a)
    n = f.graph_def.node.add()
    n.CopyFrom(node_of(op, inputs, attrs))
    n.name = k + "/op"
    del n.input[:]
    n.input.extend("%s/in%d" % (k, i) for i in range(len(inputs)))
    f.finish(k, outs, tol)


def result(f, op, inputs, **attrs):
    _, out, err = f.run_op(op, inputs, attrs)
    assert err is None, (op, attrs, err)
    return out


def nchw(a):
    """An image tensor, or a list with an entry a dimension."""
    if isinstance(a, list):
        if len(a) == 8:
            return a[0:2] + a[6:8] + a[2:6]
        return [a[0], a[3], a[1], a[2]]
    a = np.asarray(a)
    return a[[0, 3, 1, 2]] if a.ndim == 1 else np.ascontiguousarray(a.transpose(0, 3, 1, 2))


def first(attrs):
    """Attributes for NCHW."""
    lists = ("strides", "dilations", "ksize", "explicit_paddings")
    return dict({k: nchw(v) if k in lists and v else v for k, v in attrs.items()},
                data_format="NCHW")


# Image, filter, strides, padding (or before and after rows, then columns).
CONVS = [
    ([2, 5, 6, 3], [3, 3, 3, 4], (1, 1), "SAME"),
    ([2, 5, 6, 3], [3, 2, 3, 4], (1, 1), "VALID"),
    ([1, 7, 8, 2], [3, 3, 2, 5], (2, 2), "SAME"),
    ([1, 8, 7, 2], [2, 3, 2, 5], (2, 3), "VALID"),
    ([2, 4, 4, 3], [3, 3, 3, 2], (1, 1), (2, 0, 1, 3)),
    ([1, 6, 5, 1], [4, 2, 1, 3], (3, 2), (1, 2, 0, 3)),
    ([3, 4, 3, 5], [1, 1, 5, 7], (1, 1), "VALID"),
    ([1, 6, 6, 4], [1, 1, 4, 3], (2, 2), "SAME"),
    ([1, 9, 3, 2], [2, 2, 2, 3], (3, 3), "VALID"),
    ([1, 3, 17, 1], [3, 5, 1, 17], (1, 1), "SAME"),
    ([1, 5, 14, 8], [3, 3, 8, 18], (1, 1), "SAME"),
    ([1, 9, 13, 2], [3, 5, 2, 36], (2, 1), "SAME"),
    ([1, 2, 3, 2], [5, 4, 2, 3], (1, 1), "SAME"),
    ([1, 4, 30, 2], [3, 3, 2, 20], (1, 1), "VALID"),
]


def conv_attrs(strides, padding, dilations=None):
    attrs = {"strides": [1] + list(strides) + [1]}
    if isinstance(padding, str):
        attrs["padding"] = padding
    else:
        attrs.update(padding="EXPLICIT", explicit_paddings=[0, 0] + list(padding) + [0, 0])
    if dilations:
        attrs["dilations"] = [1] + list(dilations) + [1]
    return attrs


def spread_filter(w, dilations):
    """The filter with zeros in between, which does without dilation."""
    dy, dx = dilations
    big = np.zeros(((w.shape[0] - 1) * dy + 1, (w.shape[1] - 1) * dx + 1) + w.shape[2:], w.dtype)
    big[::dy, ::dx] = w
    return big


def convolutions():
    f = CaseFile("op_cases/conv.pb")
    tol = 16
    ops = ["Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"]

    def cases(name, x, w, dy, attrs, wanted):
        """The three ops, from their results y, dx, dw; both formats."""
        sizes, filter_sizes = arr(x.shape, "int32"), arr(w.shape, "int32")
        for op, inputs, out in zip(ops, [[x, w], [sizes, w, dy], [x, filter_sizes, dy]], wanted):
            if out is None:
                continue
            known_case(f, "%s_%s" % (op, name), op, inputs, [out], tol, **attrs)
            if not name.endswith("_float") and not name.startswith("0_"):
                continue
            flipped = {
                "Conv2D": lambda: [nchw(x), w],
                "Conv2DBackpropInput": lambda: [nchw(sizes), w, nchw(dy)],
                "Conv2DBackpropFilter": lambda: [nchw(x), filter_sizes, nchw(dy)]
            }[op]()
            known_case(f, "%s_%s_nchw" % (op, name), op, flipped,
                       [out if op == ops[2] else nchw(out)], tol, **first(attrs))

    for i, (xs, ws, strides, padding) in enumerate(CONVS):
        for d in FLOATS + ["int32"] if i in (0, 2, 4) else FLOATS if i == 10 else ["float"]:
            x, w = rand(xs, d, -2, 2, 3), rand(ws, d, -2, 2, 4)
            attrs = conv_attrs(strides, padding)
            y = result(f, "Conv2D", [x, w], **attrs)[0]
            dy = rand(y.shape, d, -2, 2, 5)
            dx = result(f, "Conv2DBackpropInput", [arr(xs, "int32"), w, dy], **attrs)[0]
            dw = None
            if d != "int32":
                dw = result(f, "Conv2DBackpropFilter", [x, arr(ws, "int32"), dy], **attrs)[0]
            cases("%d_%s" % (i, d), x, w, dy, attrs, [y, dx, dw])

    dilated = [([2, 7, 8, 3], [3, 2, 3, 4], (1, 1), "SAME", (2, 3)),
               ([1, 9, 9, 2], [3, 3, 2, 3], (1, 1), "VALID", (2, 2)),
               ([1, 9, 9, 2], [3, 3, 2, 3], (2, 3), "SAME", (3, 2)),
               ([1, 8, 9, 2], [2, 3, 2, 3], (2, 4), (3, 1, 2, 2), (2, 2))]
    for i, (xs, ws, strides, padding, dilations) in enumerate(dilated):
        for d in FLOATS if i == 0 else ["float", "double"]:
            x, w = rand(xs, d, -2, 2, 3), rand(ws, d, -2, 2, 4)
            attrs = conv_attrs(strides, padding, dilations)
            dense = conv_attrs(strides, padding)
            big = spread_filter(w, dilations)
            y = result(f, "Conv2D", [x, w], **attrs)[0]
            dy = rand(y.shape, d, -2, 2, 5)
            dx = result(f, "Conv2DBackpropInput", [arr(xs, "int32"), big, dy], **dense)[0]
            dw = result(f, "Conv2DBackpropFilter", [x, arr(big.shape, "int32"), dy], **dense)[0]
            cases("dilated%d_%s" % (i, d), x, w, dy, attrs,
                  [y, dx, dw[::dilations[0], ::dilations[1]]])

    grouped = [([2, 5, 6, 4], [3, 3, 2, 6], (1, 1), "SAME"),
               ([1, 5, 6, 3], [2, 3, 1, 3], (2, 1), "VALID"),
               ([1, 5, 6, 3], [3, 3, 1, 51], (1, 1), (0, 1, 2, 0))]
    for i, (xs, ws, strides, padding) in enumerate(grouped):
        for d in FLOATS if i == 0 else ["float"]:
            x, w = rand(xs, d, -2, 2, 3), rand(ws, d, -2, 2, 4)
            attrs = conv_attrs(strides, padding)
            groups, depth = xs[3] // ws[2], ws[3] // (xs[3] // ws[2])
            y = result(f, "Conv2D", [x, w], **attrs)[0]
            dy = rand(y.shape, d, -2, 2, 5)
            dxs, dws = [], []
            for g in range(groups):
                xg = x[..., g * ws[2]:(g + 1) * ws[2]]
                wg, dyg = [a[..., g * depth:(g + 1) * depth] for a in (w, dy)]
                dxs += result(f, "Conv2DBackpropInput", [arr(xg.shape, "int32"), wg, dyg], **attrs)
                dws += result(f, "Conv2DBackpropFilter", [xg, arr(wg.shape, "int32"), dyg], **attrs)
            cases("grouped%d_%s" % (i, d), x, w, dy, attrs,
                  [y, np.concatenate(dxs, 3), np.concatenate(dws, 3)])

    # Sizes of zero, and what can't be.
    same = conv_attrs((1, 1), "SAME")
    x, w, dy = ramp([1, 5, 5, 4], "float"), ramp([3, 3, 4, 2], "float"), ramp([1, 5, 5, 2], "float")
    sizes, filter_sizes = arr(x.shape, "int32"), arr(w.shape, "int32")
    f.case("Conv2D_no_images", ops[0], [x[:0], w], **same)
    f.case("Conv2D_no_rows", ops[0], [x[:, :0], w], **same)
    f.case("Conv2D_no_channels_out", ops[0], [x, w[..., :0]], **same)
    f.case("Conv2D_no_place", ops[0], [x[:, :2, :2], w], **conv_attrs((1, 1), "VALID"))
    f.case("Conv2DBackpropInput_no_images", ops[1], [arr([0, 5, 5, 4], "int32"), w, dy[:0]], **same)
    f.case("Conv2DBackpropInput_two", ops[1], [sizes[1:3], w, dy], **same)
    f.case("Conv2DBackpropFilter_no_images", ops[2], [x[:0], filter_sizes, dy[:0]], **same)
    f.case("Conv2D_rank", ops[0], [x[0], w], error=["must be 4-dimensional: [5,5,4]"], **same)
    f.case("Conv2D_filter_rank",
           ops[0], [x, w[0]],
           error=["filter must be 4-dimensional: [3,4,2]"],
           **same)
    f.case("Conv2D_depth",
           ops[0], [x, w[:, :, :3]],
           error=["input depth must be evenly divisible by filter depth: 4 vs 3"],
           **same)
    f.case("Conv2D_groups",
           ops[0], [x, ramp([3, 3, 2, 3], "float")],
           error=["output depth must be evenly divisible by number of groups: 3 vs 2"],
           **same)
    f.case("Conv2D_no_depth",
           ops[0], [x, w[:, :, :0]],
           error=["filter depth must be stricly positive, got 0"],
           **same)
    f.case("Conv2D_no_filter", ops[0], [x, w[:0]], error=["must not have zero elements"], **same)
    f.case("Conv2D_negative",
           ops[0], [x[:, :2], ramp([5, 3, 4, 2], "float")],
           error=["Computed output size would be negative: -2 [input_size: 2"],
           **conv_attrs((1, 1), "VALID"))
    f.case("Conv2DBackpropInput_three",
           ops[1], [sizes[1:], w, dy],
           error=["requires input_sizes to contain 4 values or 2 values, but got: 3"],
           **same)
    f.case("Conv2DBackpropInput_depth",
           ops[1], [arr([1, 5, 5, 3], "int32"), w, dy],
           error=["input depth must be evenly divisible by filter depth"],
           **same)
    f.case("Conv2DBackpropInput_size",
           ops[1], [arr([1, 6, 5, 4], "int32"), w, dy],
           error=["doesn't match computed: actual = 5, computed = 6"],
           **same)
    f.case("Conv2DBackpropInput_batch",
           ops[1], [arr([2, 5, 5, 4], "int32"), w, dy],
           error=["must have the same batch size. Input batch: 2, outbackprop batch: 1"],
           **same)
    f.case("Conv2DBackpropInput_out_depth",
           ops[1], [sizes, w, ramp([1, 5, 5, 3], "float")],
           error=["filter and out_backprop must have the same out_depth"],
           **same)
    f.case("Conv2DBackpropInput_rank",
           ops[1], [sizes, w[0], dy],
           error=["filter must be 4-dimensional"],
           **same)
    f.case("Conv2DBackpropInput_negative", ops[1], [arr([1, 5, -5, 4], "int32"), w, dy],
           error=["-5"], **same)
    f.case("Conv2DBackpropFilter_rank",
           ops[2], [x, filter_sizes[:3], dy],
           error=["filter must be 4-dimensional"],
           **same)
    f.case("Conv2DBackpropFilter_depth",
           ops[2], [x, arr([3, 3, 3, 2], "int32"), dy],
           error=["input depth must be evenly divisible by filter depth"],
           **same)
    f.case("Conv2DBackpropFilter_out_depth",
           ops[2], [x, arr([3, 3, 4, 3], "int32"), dy],
           error=["filter and out_backprop must have the same out_depth"],
           **same)
    f.case("Conv2DBackpropFilter_size",
           ops[2], [x, filter_sizes, dy[:, :4]],
           error=["doesn't match computed: actual = 4, computed = 5"],
           **same)
    f.case("Conv2DBackpropFilter_batch",
           ops[2], [x, filter_sizes, np.concatenate([dy, dy])],
           error=["must have the same batch size. Input batch: 1, outbackprop batch: 2"],
           **same)
    f.write()


# Image, window, strides, padding (or before and after rows, then columns).
POOLS = [
    ([2, 5, 6, 3], (2, 2), (2, 2), "VALID"),
    ([2, 5, 6, 3], (2, 2), (2, 2), "SAME"),
    ([1, 7, 8, 2], (3, 3), (2, 2), "SAME"),
    ([1, 7, 8, 2], (3, 2), (1, 1), "VALID"),
    ([1, 6, 5, 4], (2, 3), (3, 1), "SAME"),
    ([1, 4, 4, 2], (1, 1), (2, 2), "VALID"),
    ([1, 3, 4, 70], (3, 3), (1, 2), "SAME"),
    ([1, 5, 5, 2], (3, 3), (2, 2), (1, 2, 0, 1)),
    ([1, 3, 4, 2], (5, 2), (1, 1), "SAME"),
    ([1, 3, 4, 2], (4, 2), (1, 1), "VALID"),
]


def pool_attrs(window, strides, padding):
    return dict(conv_attrs(strides, padding), ksize=[1] + list(window) + [1])


def pooling():
    f = CaseFile("op_cases/pooling.pb")
    for i, (xs, window, strides, padding) in enumerate(POOLS):
        attrs = pool_attrs(window, strides, padding)
        for d in NUMBERS if i == 2 else FLOATS if i == 4 else ["float"]:
            # Whole numbers, so that some are equal.
            x = np.floor(rand(xs, d, -4, 4, 3).astype(np.float64)).astype(arr([0], d).dtype)
            name = "%d_%s" % (i, d)

            def both(op, inputs, out, which, tol=0):
                known_case(f, "%s_%s" % (op, name), op, inputs, [out], tol, **attrs)
                flipped = [nchw(a) if k in which else a for k, a in enumerate(inputs)]
                if d in ("float", "half", "int32"):
                    known_case(f, "%s_%s_nchw" % (op, name), op, flipped, [nchw(out)], tol,
                               **first(attrs))

            if d not in ("uint32", "uint64"):
                y = result(f, "MaxPool", [x], **attrs)[0]
                both("MaxPool", [x], y, [0])
            else:
                y = result(f, "MaxPool", [x.astype(np.int64)], **attrs)[0].astype(x.dtype)
            if y.size == 0:  # TensorFlow leaves the gradients unset.
                continue
            dy = np.floor(rand(y.shape, d, 1, 9, 5).astype(np.float64)).astype(x.dtype)
            dx = result(f, "MaxPoolGrad", [x, y, dy], **attrs)[0]
            both("MaxPoolGrad", [x, y, dy], dx, [0, 1, 2])
            if not isinstance(padding, str):
                continue
            g = np.floor(rand(xs, d, 1, 9, 6).astype(np.float64)).astype(x.dtype)
            both("MaxPoolGradGrad", [x, y, g],
                 result(f, "MaxPoolGradGrad", [x, y, g], **attrs)[0], [0, 1, 2])
            if d in FLOATS:
                x, dy = rand(xs, d, -2, 2, 3), rand(y.shape, d, -2, 2, 5)
                both("AvgPool", [x], result(f, "AvgPool", [x], **attrs)[0], [0], 4)
                sizes = arr(xs, "int32")
                both("AvgPoolGrad", [sizes, dy],
                     result(f, "AvgPoolGrad", [sizes, dy], **attrs)[0], [0, 1], 8)
    for i in range(3):
        xs, window, strides, padding = POOLS[i]
        x, windows = rand(xs, "float", -2, 2, 3), [
            arr([1] + list(v) + [1], "int32") for v in (window, strides)
        ]
        y = result(f, "MaxPoolV2", [x] + windows, padding=padding)[0]
        known_case(f, "MaxPoolV2_%d" % i, "MaxPoolV2", [x] + windows, [y], padding=padding)
        dy = rand(y.shape, "float", -2, 2, 5)
        f.case("MaxPoolGradV2_%d" % i, "MaxPoolGradV2", [x, y, dy] + windows, padding=padding)
        known_case(f,
                   "MaxPoolV2_%d_nchw" % i,
                   "MaxPoolV2", [nchw(x)] + [nchw(w) for w in windows], [nchw(y)],
                   padding=padding,
                   data_format="NCHW")
    x = rand([2, 3, 2, 6], "float", -2, 2, 3)
    depth = {"ksize": [1, 1, 1, 3], "strides": [1, 1, 1, 3], "padding": "VALID"}
    y = f.case("MaxPool_depth", "MaxPool", [x], **depth)[0]
    known_case(f, "MaxPool_depth_nchw", "MaxPool", [nchw(x)], [nchw(y)], **first(depth))
    equal = np.ones([1, 3, 3, 2], np.float32)
    plain = pool_attrs((2, 2), (1, 1), "VALID")
    f.case("MaxPoolGrad_equal", "MaxPoolGrad",
           [equal, np.ones([1, 2, 2, 2], np.float32),
            ramp([1, 2, 2, 2], "float", 1)], **plain)

    across = pool_attrs((1, 2), (1, 2), "VALID")
    for d in FLOATS:
        odd = arr([[NAN, 1], [2, NAN], [NAN, NAN], [-INF, -INF], [-INF, NAN], [INF, NAN], [3, 3]],
                  d).reshape(7, 1, 2, 1)
        y = f.case("MaxPool_odd_" + d, "MaxPool", [odd], **across)[0]
        f.case("MaxPoolGrad_odd_" + d, "MaxPoolGrad", [odd, y, np.ones_like(y)], **across)
    plain = pool_attrs((2, 2), (2, 2), "VALID")
    x, y = ramp([1, 5, 5, 4], "float"), ramp([1, 2, 2, 4], "float")
    sizes = arr(x.shape, "int32")
    f.case("MaxPool_no_images", "MaxPool", [x[:0]], **plain)
    f.case("MaxPool_no_channels", "MaxPool", [x[..., :0]], **plain)
    f.case("MaxPool_no_place", "MaxPool", [x], **pool_attrs((7, 7), (2, 2), "VALID"))
    f.case("AvgPool_no_images", "AvgPool", [x[:0]], **plain)
    f.case("AvgPool_no_place", "AvgPool", [x], **pool_attrs((7, 7), (2, 2), "VALID"))
    f.case("MaxPool_padding",
           "MaxPool", [x],
           error=["Top padding 3 needs to be smaller than the window size 2"],
           **pool_attrs((2, 2), (2, 2), (3, 1, 0, 1)))
    f.case("MaxPool_rank", "MaxPool", [x[0]], error=[], **plain)
    f.case("MaxPoolGrad_grad",
           "MaxPoolGrad", [x, y, y[..., :3]],
           error=["Expected grad shape to be [1,2,2,4], but got [1,2,2,3]"],
           **plain)
    f.case("MaxPoolGrad_output",
           "MaxPoolGrad", [x, y[:, :, :1], y],
           error=["Expected orig_output shape to be [1,2,2,4], but got [1,2,1,4]"],
           **plain)
    f.case("MaxPoolV2_three",
           "MaxPoolV2", [x, arr([2, 2, 1], "int32"),
                         arr([1, 2, 2, 1], "int32")],
           error=["Sliding window ksize field must specify 4 dimensions"],
           padding="VALID")
    f.case("AvgPoolGrad_three",
           "AvgPoolGrad", [sizes[1:], y],
           error=["must be 1-dimensional and 4 elements"],
           **plain)
    f.case("AvgPoolGrad_rank", "AvgPoolGrad", [sizes, y[0]], error=[], **plain)
    f.write()


def norm():
    f = CaseFile("op_cases/norm.pb")
    none = np.zeros([0], np.float32)
    scale, offset = rand([3], "float", 0.5, 2, 7), rand([3], "float", -2, 2, 8)
    mean, variance = rand([3], "float", -1, 1, 9), rand([3], "float", 0.5, 2, 10)
    for op, types in [("FusedBatchNorm", ["float"]), ("FusedBatchNormV2", ["float", "half"]),
                      ("FusedBatchNormV3", ["float", "half", "bfloat16"])]:
        grad = op.replace("Norm", "NormGrad")
        third = [none] if op.endswith("V3") else []
        for d in types:
            x, dy = rand([2, 3, 4, 3], d, -2, 3, 3), rand([2, 3, 4, 3], d, -2, 2, 5)
            for tag, averages, attrs in [("train", [none, none], {}),
                                         ("epsilon", [mean, variance], {
                                             "epsilon": 0.1
                                         }),
                                         ("factor", [mean, variance], {
                                             "exponential_avg_factor": 0.25
                                         }), ("infer", [mean, variance], {
                                             "is_training": False
                                         })]:
                for fmt in ["NHWC", "NCHW"]:
                    name = "%s_%s_%s_%s" % (op, d, tag, fmt)
                    inputs = [x if fmt == "NHWC" else nchw(x), scale, offset] + averages
                    attrs = dict(attrs, data_format=fmt)
                    if tag == "infer":  # The reserve spaces are whatever was in memory.
                        out = result(f, op, inputs, **attrs)[:3]
                        known_case(f, name, op, inputs, out, tol=8, **attrs)
                    else:
                        f.case(name, op, inputs, tol=8, **attrs)
            for training in [True, False]:
                name = "%s_%s_%d" % (grad, d, training)
                inputs = [dy, x, scale, mean, variance] + third
                out = f.case(name, grad, inputs, tol=16, is_training=training)
                known_case(f,
                           name + "_nchw",
                           grad, [nchw(dy), nchw(x)] + inputs[2:], [nchw(out[0])] + out[1:],
                           tol=16,
                           is_training=training,
                           data_format="NCHW")
    x = rand([2, 3, 4, 3], "float", -2, 3, 3)
    v3 = "FusedBatchNormV3"
    f.case("V3_large", v3, [1000 + rand([2, 20, 30, 3], "float", 0, 1), scale, offset, none, none],
           tol=8192)
    f.case("V3_one", v3, [x[:1, :1, :1], scale, offset, none, none], tol=8)
    empty = [x[:0], scale, offset, none, none]
    known_case(f, "V3_none", v3, empty, result(f, v3, empty)[:3])
    f.case("V3_ndhwc",
           v3, [rand([2, 2, 3, 2, 3], "float"), scale, offset, none, none],
           tol=8,
           data_format="NDHWC")
    f.case("V3_ncdhw",
           v3, [rand([2, 3, 2, 2, 3], "float"), scale, offset, none, none],
           tol=8,
           data_format="NCDHW")
    f.case("GradV3_none", "FusedBatchNormGradV3", [x[:0], x[:0], scale, mean, variance, none])
    wrong = ["must have the same number of elements as the channels of x, got"]
    f.case("V3_scale", v3, [x, scale[:2], offset, none, none], error=["scale"] + wrong)
    f.case("V3_offset", v3, [x, scale, offset[:2], none, none], error=["offset"] + wrong)
    f.case("V3_scale_rank",
           v3, [x, scale[None], offset, none, none],
           error=["scale must be 1-dimensional"])
    f.case("V3_rank", v3, [x[0], scale, offset, none, none], error=["input must be 4"])
    f.case("V3_mean",
           v3, [x, scale, offset, none, variance],
           error=["When is_training=false, mean"] + wrong,
           is_training=False)
    f.case("V3_factor",
           v3, [x, scale, offset, mean, none],
           error=["When exponential_avg_factor != 1, variance"] + wrong,
           exponential_avg_factor=0.5)
    f.case("GradV3_shapes",
           "FusedBatchNormGradV3", [x[:1], x, scale, mean, variance, none],
           error=["x and y_backprop must have same shape"])
    f.case("GradV3_reserve",
           "FusedBatchNormGradV3", [x, x, scale, mean[:2], variance, none],
           error=["reserve_space_1"] + wrong)
    for d in ["float", "half"]:
        x, dy = rand([2, 2, 3, 13], d, -2, 2, 3), rand([2, 2, 3, 13], d, -2, 2, 4)
        for i, attrs in enumerate([{}, {
                "depth_radius": 2,
                "bias": 2.0,
                "alpha": 0.3,
                "beta": 0.75
        }, {
                "depth_radius": 0,
                "beta": 1.0
        }, {
                "depth_radius": 20,
                "beta": 0.6
        }]):
            y = f.case("LRN_%s_%d" % (d, i), "LRN", [x], tol=16, **attrs)[0]
            f.case("LRNGrad_%s_%d" % (d, i), "LRNGrad", [dy, x, y], tol=32, **attrs)
    x = x.astype(np.float32)
    f.case("LRN_none", "LRN", [x[:0]])
    f.case("LRN_rank", "LRN", [x[0]], error=["must be 4-dimensional"])
    f.case("LRNGrad_shapes",
           "LRNGrad", [x, x, x[:1]],
           error=["input_grads, input_image, and out_image should have the same shape"])
    f.write()


FAMILIES = [convolutions, pooling, norm]


def main():
    wanted = sys.argv[1:]
    for family in FAMILIES:
        if not wanted or family.__name__ in wanted:
            family()


if __name__ == "__main__":
    main()
