"""Writes op_cases/loops.pb: small graphs with while loops, TensorArrays and lists of tensors.

The form is that of case_lib.py, with more nodes under K/ between the inputs and K/op. Run with the
Python of a virtual environment that has tensorflow-cpu 2.21: python make_loops.py
"""

from case_lib import CaseFile, arr, ramp, rand, tf, tf1
from make_control import graph_case

tf1.disable_control_flow_v2()


def results(*values):
    """What a case compares: the outputs of its op."""
    tf.identity_n(list(values), name="op")


def hidden(value):
    """The value, of a shape that is known only when it runs."""
    return tf1.placeholder_with_default(value, None)


def plain(f):
    i32 = lambda *v: arr(v[0] if len(v) == 1 else v, "int32")
    n = i32(5)

    def count(i):
        out = tf1.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, a * 2.0), [0, i[1]])
        results(*out)

    for times in [0, 1, 2, 7]:
        graph_case(f, "count_%d" % times, [i32(times), ramp([3], "float", 1)], count)
    graph_case(
        f, "one_result", [n, ramp([2], "float", 1)], lambda i: results(
            tf1.while_loop(lambda k, a, b: k < i[0], lambda k, a, b: (k + 1, a + b, b * 2.0),
                           [0, i[1], i[1]])[1]))
    graph_case(
        f, "fibonacci", [n, arr(0.0, "float"), arr(1.0, "float")], lambda i: results(*tf1.while_loop(
            lambda k, a, b: k < i[0], lambda k, a, b: (k + 1, b, a + b), [0, i[1], i[2]])))
    graph_case(
        f, "rotate", [n, ramp([2], "float", 1), ramp([2], "float", 5), ramp([2], "float", 9)],
        lambda i: results(*tf1.while_loop(lambda k, a, b, c: k < i[0], lambda k, a, b, c:
                                          (k + 1, b, c, a), [0, i[1], i[2], i[3]])))
    graph_case(
        f, "same_next", [n, ramp([2], "float", 1), ramp([2], "float", 5)], lambda i: results(
            *tf1.while_loop(lambda k, a, b: k < i[0], lambda k, a, b:
                            (k + 1,) + (a + b,) * 2, [0, i[1], i[2]])))
    graph_case(
        f, "unchanged", [n, ramp([2], "float", 1), ramp([2], "float", 5)], lambda i: results(
            *tf1.while_loop(lambda k, a, b: k < i[0], lambda k, a, b: (k + 1, a + b, b),
                            [0, i[1], i[2]])))
    graph_case(
        f, "constant_next", [n, ramp([2], "float", 1)], lambda i: results(*tf1.while_loop(
            lambda k, a, b: k < i[0], lambda k, a, b: (k + 1, tf.constant([3.0, 4.0]), a + b),
            [0, i[1], i[1]])))
    graph_case(
        f, "invariants", [n, ramp([2], "float", 1), ramp([2], "float", 5)], lambda i: results(
            *tf1.while_loop(lambda k, a: k < i[0], lambda k, a:
                            (k + 1, a * i[2] + tf.reduce_sum(i[1])), [0, i[1]])))
    graph_case(
        f, "grow", [n, ramp([2], "float", 1)], lambda i: results(*tf1.while_loop(
            lambda k, a: k < i[0], lambda k, a: (k + 1, tf.concat([a, [tf.cast(k, tf.float32)]], 0)),
            [0, i[1]], shape_invariants=[tf.TensorShape([]), tf.TensorShape([None])])))
    graph_case(
        f, "strings", [n, arr("a", "string")], lambda i: results(*tf1.while_loop(
            lambda k, a: k < i[0], lambda k, a: (k + 1, tf.strings.join([a, i[1]])), [0, i[1]])))
    graph_case(
        f, "condition_of_values", [arr(100.0, "float"), arr(1.5, "float")], lambda i: results(
            *tf1.while_loop(lambda k, a: tf.logical_and(a < i[0], k < 50), lambda k, a:
                            (k + 1, a * i[1]), [0, i[1]])))
    graph_case(
        f, "maximum_iterations", [n, ramp([2], "float", 1)], lambda i: results(tf1.while_loop(
            lambda a: True, lambda a: a + 1.0, [i[1]], maximum_iterations=i[0])))

    def control(i):
        before = tf.negative(i[1])
        with tf.control_dependencies([before]):
            out = tf1.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, a + before),
                                 [tf.constant(0), i[1]])
        with tf.control_dependencies(out):
            results(tf.constant(3.0), tf.square(out[1]))

    graph_case(f, "control_edges", [n, ramp([2], "float", 1)], control)

    def inner_control(i):

        def body(k, a):
            with tf.control_dependencies([tf.debugging.Assert(k < 10, [k])]):
                return k + 1, tf.identity(a) * i[1]

        results(*tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "assert", [n, ramp([2], "float", 1)], inner_control)
    graph_case(f, "assert_fails", [i32(12), ramp([2], "float", 1)], inner_control,
               error=["assertion failed", "[10]"])

    def nested(i):

        def body(k, a):
            inner = tf1.while_loop(lambda m, b: m < k, lambda m, b: (m + 1, b * 1.5 + i[1]), [0, a])
            return k + 1, inner[1] + tf.cast(inner[0], tf.float32)

        results(*tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "nested", [n, ramp([2], "float", 1)], nested, rtol=4)

    def three_deep(i):

        def loop(depth, a):
            if depth == 0:
                return a + i[1]
            return tf1.while_loop(lambda k, b: k < i[0], lambda k, b: (k + 1, loop(depth - 1, b)),
                                  [0, a])[1]

        results(loop(3, i[1]))

    graph_case(f, "three_deep", [i32(3), ramp([2], "float", 1)], three_deep)

    def cond_within(i):

        def body(k, a):
            odd = tf.equal(k % 2, 1)
            return k + 1, tf1.cond(odd, lambda: a * i[1], lambda: a - tf.cast(k, tf.float32))

        results(*tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "cond_within", [n, ramp([2], "float", 1)], cond_within)

    def loop_in_cond_in_loop(i):

        def body(k, a):
            odd = tf.equal(k % 2, 1)
            return k + 1, tf1.cond(
                odd, lambda: tf1.while_loop(lambda m, b: m < k, lambda m, b: (m + 1, b * 1.5),
                                            [0, a])[1], lambda: a + 1.0)

        results(*tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "loop_in_cond_in_loop", [n, ramp([2], "float", 1)], loop_in_cond_in_loop)
    for p in [False, True]:

        def in_branch(i):
            results(
                tf1.cond(
                    i[0], lambda: tf1.while_loop(lambda k, a: k < i[1], lambda k, a:
                                                 (k + 1, a * 2.0), [0, i[2]])[1], lambda: -i[2]))

        graph_case(f, "in_branch_%d" % p, [arr(p, "bool"), n, ramp([2], "float", 1)], in_branch)

    def two_loops(i):
        a = tf1.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, a * 2.0), [0, i[1]])
        b = tf1.while_loop(lambda k, b: k < a[0] + 2, lambda k, b: (k + 1, b + a[1]), [0, i[1]])
        results(a[1], b[1], b[0])

    graph_case(f, "two_loops", [n, ramp([2], "float", 1)], two_loops)
    for d in ["half", "bfloat16", "double", "int8", "int64", "uint8"]:
        graph_case(
            f, "dtype_" + d, [n, ramp([3], d, 1)], lambda i: results(*tf1.while_loop(
                lambda k, a: k < i[0], lambda k, a: (k + 1, a + i[1]), [0, i[1]])))
    graph_case(
        f, "bad_condition", [n, arr([True, False], "bool")], lambda i: results(tf1.while_loop(
            lambda k: tf1.placeholder_with_default(i[1], None), lambda k: k + 1, [0])),
        error=["scalar"])


def gradients(f):
    n = arr(4, "int32")
    x, w = rand([3], "float", 0.5, 1.5, 1), rand([3], "float", 0.5, 1.5, 2)

    def power(i):
        y = tf1.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, tf.tanh(a * i[2]) + a),
                           [0, i[1]])[1]
        results(y, *tf1.gradients(tf.reduce_sum(y), [i[1], i[2]]))

    graph_case(f, "gradient", [n, x, w], power, rtol=8)
    graph_case(f, "gradient_0", [arr(0, "int32"), x, w], power, rtol=8)

    def of_cond(i):

        def body(k, a):
            return k + 1, tf1.cond(tf.equal(k % 2, 0), lambda: a * i[2], lambda: tf.exp(-a) + a)

        y = tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]])[1]
        results(y, *tf1.gradients(tf.reduce_sum(y * y), [i[1], i[2]]))

    graph_case(f, "gradient_cond", [n, x, w], of_cond, rtol=16)

    def nested(i):

        def body(k, a):
            b = tf1.while_loop(lambda m, b: m < k + 1, lambda m, b: (m + 1, tf.sin(b) * i[2]),
                               [0, a])[1]
            return k + 1, b + a

        y = tf1.while_loop(lambda k, a: k < i[0], body, [0, i[1]])[1]
        results(y, *tf1.gradients(tf.reduce_sum(y * y), [i[1], i[2]]))

    graph_case(f, "gradient_nested", [n, x, w], nested, rtol=16)
    for p in [False, True]:

        def in_branch(i):
            y = tf1.cond(
                i[3], lambda: tf1.while_loop(lambda k, a: k < i[0], lambda k, a:
                                             (k + 1, a * i[2]), [0, i[1]])[1], lambda: i[1] * 3.0)
            results(y, *tf1.gradients(tf.reduce_sum(y * y), [i[1]]))

        graph_case(f, "gradient_in_branch_%d" % p, [n, x, w, arr(p, "bool")], in_branch, rtol=8)

    def rnn(i):
        xs, wx, wh, h0 = i
        steps = tf.shape(xs)[0]
        inputs = tf1.TensorArray(tf.float32, steps).unstack(xs)
        outputs = tf1.TensorArray(tf.float32, steps)

        def body(k, h, ta):
            h = tf.tanh(inputs.read(k) @ wx + h @ wh)
            return k + 1, h, ta.write(k, h)

        _, h, ta = tf1.while_loop(lambda k, h, ta: k < steps, body, [0, h0, outputs])
        y = ta.stack()
        loss = tf.reduce_sum(y * y) + tf.reduce_sum(h)
        results(y, h, *tf1.gradients(loss, i))

    graph_case(f, "rnn", [
        rand([5, 2, 3], "float", -1, 1, 1),
        rand([3, 4], "float", -1, 1, 2),
        rand([4, 4], "float", -1, 1, 3),
        rand([2, 4], "float", -1, 1, 4)
    ], rnn, tol=16)
    xs = rand([4, 3], "float", -1, 1, 5)

    def scan(i):
        y = tf1.scan(lambda a, b: a * 0.5 + tf.sin(b), i[0], tf.zeros([3]))
        results(y, *tf1.gradients(y, i))

    graph_case(f, "scan", [xs], scan, rtol=16)

    def map_fn(i):
        y = tf1.map_fn(lambda a: tf.reduce_sum(a * a), i[0])
        results(y, *tf1.gradients(y, i))

    graph_case(f, "map_fn", [xs], map_fn, rtol=16)

    def foldl(i):
        y = tf1.foldl(lambda a, b: a * b + 1.0, i[0])
        results(y, *tf1.gradients(y, i))

    graph_case(f, "foldl", [xs], foldl, rtol=16)


def arrays(f):
    raw = tf.raw_ops
    n = arr(3, "int32")
    x = ramp([3, 2], "float", 1)

    def make(size=3, dtype=tf.float32, **attrs):
        return raw.TensorArrayV3(size=size, dtype=dtype, tensor_array_name="ta", **attrs)

    def write(h, flow, index, value):
        return raw.TensorArrayWriteV3(handle=h, index=index, value=value, flow_in=flow)

    def read(h, flow, index, dtype=tf.float32):
        return raw.TensorArrayReadV3(handle=h, index=index, flow_in=flow, dtype=dtype)

    def scattered(i, **attrs):
        h, flow = make(i[0], **attrs)
        flow = raw.TensorArrayScatterV3(handle=h, indices=[0, 1, 2], value=i[1], flow_in=flow)
        return h, flow

    def case(name, build, inputs=None, **kwargs):
        graph_case(f, "array_" + name, inputs or [n, x], build, **kwargs)

    def size_of(i):
        h, flow = make(i[0])
        results(raw.TensorArraySizeV3(handle=h, flow_in=flow))

    case("size", size_of)
    for d in ["float", "half", "int32", "uint8", "bool", "string", "double", "int64"]:

        def dtype(i):
            h, flow = make(i[0], i[1].dtype)
            flow = raw.TensorArrayScatterV3(handle=h, indices=[2, 0, 1], value=i[1], flow_in=flow)
            results(
                raw.TensorArrayGatherV3(handle=h, indices=[1, 2], flow_in=flow, dtype=i[1].dtype),
                read(h, flow, 0, i[1].dtype))

        case("scatter_gather_" + d, dtype, [n, ramp([3, 2], d, 1)])

    def concat(i):
        h, flow = make(i[0])
        flow = raw.TensorArraySplitV3(handle=h, value=i[1],
                                      lengths=tf.constant([1, 0, 2], tf.int64), flow_in=flow)
        results(read(h, flow, 1), *raw.TensorArrayConcatV3(handle=h, flow_in=flow,
                                                           dtype=tf.float32))

    case("split_concat", lambda i: concat(i), error=["Could not read index 1 twice"])

    def kept(i):
        h, flow = make(i[0], clear_after_read=False)
        flow = raw.TensorArraySplitV3(handle=h, value=i[1],
                                      lengths=tf.constant([1, 0, 2], tf.int64), flow_in=flow)
        results(read(h, flow, 2), *raw.TensorArrayConcatV3(handle=h, flow_in=flow,
                                                           dtype=tf.float32))

    case("split_concat_kept", kept)

    def dynamic(i):
        h, flow = make(0, dynamic_size=True)
        flow = write(h, flow, 4, i[1])
        results(raw.TensorArraySizeV3(handle=h, flow_in=flow), read(h, flow, 4))

    case("dynamic", dynamic)

    def zeros(i):
        h, flow = make(i[0], element_shape=[2])
        results(read(h, flow, 1))

    case("unwritten", zeros)

    def unknown(i):
        h, flow = make(i[0])
        results(read(h, flow, 1))

    case("unwritten_unknown", unknown, error=["Could not read from TensorArray index 1"])

    def beyond(i):
        h, flow = make(i[0])
        results(read(h, flow, i[0]))

    case("read_beyond", beyond, error=["Tried to read from index 3 but array size is: 3"])

    def negative(i):
        h, flow = make(i[0])
        results(read(h, flow, -1 * i[0]))

    case("read_negative", negative, error=["Tried to read from index -3"])

    def write_beyond(i):
        h, flow = make(i[0])
        results(write(h, flow, i[0], i[1]))

    case("write_beyond", write_beyond,
         error=["Tried to write to index 3 but array is not resizeable and size is: 3"])

    def twice(i):
        h, flow = make(i[0])
        results(write(h, write(h, flow, 1, i[1]), 1, i[1]))

    case("write_twice", twice,
         error=["Could not write to TensorArray index 1 because it has already been written to"])

    def after_read(i):
        h, flow = scattered(i, clear_after_read=False)
        with tf.control_dependencies([read(h, flow, 1)]):
            results(write(h, flow, 1, i[1][1]))

    case("write_after_read", after_read, error=["because it has already been read"])

    def shape(i):
        h, flow = make(i[0], element_shape=[None, 3])
        results(write(h, flow, 1, i[1]))

    case("wrong_shape", shape,
         error=["Could not write to TensorArray index 1", "value shape is [3,2]"])

    def identical(i):
        h, flow = make(i[0], identical_element_shapes=True)
        results(write(h, write(h, flow, 1, i[1]), 2, i[1][0]))

    case("identical_shapes", identical, error=["Could not write to TensorArray index 2"])

    def dtype_mismatch(i):
        h, flow = make(i[0], tf.int32)
        results(write(h, flow, 1, i[1]))

    case("wrong_dtype", dtype_mismatch,
         error=["TensorArray dtype is int32 but Op is trying to write dtype float"])

    def closed(i):
        h, flow = scattered(i)
        with tf.control_dependencies([raw.TensorArrayCloseV3(handle=h)]):
            results(read(h, flow, 1))

    case("closed", closed, error=["has already been closed"])

    def inconsistent(i):
        h, flow = make(i[0])
        flow = write(h, write(h, write(h, flow, 0, i[1]), 1, i[1][0]), 2, i[1])
        results(
            raw.TensorArrayGatherV3(handle=h, indices=[0, 1, 2], flow_in=flow, dtype=tf.float32))

    case("inconsistent", inconsistent, error=["TensorArray has inconsistent shapes"])

    def empty(i):
        h, flow = make(i[0], element_shape=[2])
        results(
            raw.TensorArrayGatherV3(handle=h, indices=tf.zeros([0], tf.int32), flow_in=flow,
                                    dtype=tf.float32, element_shape=[2]))

    case("gather_none", empty)

    def empty_unknown(i):
        h, flow = make(i[0])
        results(
            raw.TensorArrayGatherV3(handle=h, indices=tf.zeros([0], tf.int32), flow_in=flow,
                                    dtype=tf.float32))

    case("gather_none_unknown", empty_unknown, error=["is not fully defined"])

    def wrong_lengths(i):
        h, flow = make(i[0])
        results(
            raw.TensorArraySplitV3(handle=h, value=i[1], lengths=tf.constant([1, 1, 2], tf.int64),
                                   flow_in=flow))

    case("wrong_lengths", wrong_lengths, error=["Expected sum of lengths"])

    def scalars(i):
        h, flow = make(i[0])
        for k in range(3):
            flow = write(h, flow, k, i[1][k, 0])
        results(raw.TensorArrayConcatV3(handle=h, flow_in=flow, dtype=tf.float32)[0])

    case("concat_scalars", scalars, error=["Concat saw a scalar shape at index 0"])

    def gradient(i):
        h, flow = scattered(i)
        g, gflow = raw.TensorArrayGradV3(handle=h, flow_in=flow, source="s")
        g2, _ = raw.TensorArrayGradV3(handle=h, flow_in=flow, source="s")
        gflow = write(g, write(g, gflow, 1, i[1][0]), 1, i[1][1])
        with tf.control_dependencies([gflow]):
            results(read(g2, gflow, 1), read(g, gflow, 2),
                    raw.TensorArraySizeV3(handle=g, flow_in=gflow))

    case("gradient", gradient)

    def gradient_mismatch(i):
        h, flow = make(i[0])
        g, gflow = raw.TensorArrayGradV3(handle=h, flow_in=flow, source="s")
        results(write(g, write(g, gflow, 1, i[1][0]), 1, i[1]))

    case("gradient_mismatch", gradient_mismatch,
         error=["Could not aggregate to TensorArray index 1"])

    def other_source(i):
        h, flow = scattered(i)
        g, gflow = raw.TensorArrayGradV3(handle=h, flow_in=flow, source="s")
        g2, _ = raw.TensorArrayGradV3(handle=h, flow_in=flow, source="t")
        gflow = write(g, gflow, 1, i[1][0])
        results(read(g2, gflow, 1), read(g, gflow, 1))

    case("other_source", other_source)

    def with_shape(i):
        h, flow = scattered(i)
        g, gflow = raw.TensorArrayGradWithShape(handle=h, flow_in=flow, shape_to_prepend=[4],
                                                source="s")
        results(read(g, gflow, 1))

    case("gradient_with_shape", with_shape)

    def stack(i):
        h = raw.StackV2(max_size=2, elem_type=tf.float32)
        a = raw.StackPushV2(handle=h, elem=i[1])
        with tf.control_dependencies([a]):
            b = raw.StackPushV2(handle=h, elem=i[1] * 2.0)
        with tf.control_dependencies([b]):
            c = raw.StackPopV2(handle=h, elem_type=tf.float32)
        with tf.control_dependencies([c]):
            d = raw.StackPopV2(handle=h, elem_type=tf.float32)
        results(a, b, c, d)

    graph_case(f, "stack", [n, x], stack)

    def overflow(i):
        h = raw.StackV2(max_size=1, elem_type=tf.float32)
        with tf.control_dependencies([raw.StackPushV2(handle=h, elem=i[1])]):
            results(raw.StackPushV2(handle=h, elem=i[1]))

    graph_case(f, "stack_overflow", [n, x], overflow, error=["overflowed its max_size (1)"])

    def underflow(i):
        h = raw.StackV2(max_size=1, elem_type=tf.float32)
        with tf.control_dependencies([i[1]]):
            results(raw.StackPopV2(handle=h, elem_type=tf.float32))

    graph_case(f, "stack_underflow", [n, x], underflow, error=["is empty when calling Pop()"])

    def stack_type(i):
        h = raw.StackV2(max_size=1, elem_type=tf.int32)
        results(raw.StackPushV2(handle=h, elem=i[1]))

    graph_case(f, "stack_wrong_dtype", [n, x], stack_type, error=["Must have type"])


def lists(f):
    raw = tf.raw_ops
    n = arr(3, "int32")
    x = ramp([3, 2], "float", 1)

    def case(name, build, inputs=None, **kwargs):
        graph_case(f, "list_" + name, inputs or [n, x], build, **kwargs)

    def reserve(count, shape=(2,), dtype=tf.float32):
        return raw.TensorListReserve(element_shape=list(shape) if shape is not None else -1,
                                     num_elements=count, element_dtype=dtype)

    def stacked(l, shape=(2,), num=-1):
        return raw.TensorListStack(input_handle=l,
                                   element_shape=list(shape) if shape is not None else -1,
                                   element_dtype=tf.float32, num_elements=num)

    def item(l, index, shape=(2,)):
        return raw.TensorListGetItem(input_handle=l, index=index,
                                     element_shape=list(shape) if shape is not None else -1,
                                     element_dtype=tf.float32)

    def setting(l, index, value, **kw):
        return raw.TensorListSetItem(input_handle=l, index=index, item=value, **kw)

    def from_tensor(i, shape=(2,)):
        return raw.TensorListFromTensor(tensor=i[1], element_shape=list(shape))

    case("from_tensor", lambda i: results(stacked(from_tensor(i)), item(from_tensor(i), 1),
                                          raw.TensorListLength(input_handle=from_tensor(i))))
    for d in ["half", "int32", "bool", "string", "int64"]:

        def dtype(i):
            l = from_tensor(i)
            results(
                raw.TensorListStack(input_handle=l, element_shape=[2], element_dtype=i[1].dtype),
                raw.TensorListGetItem(input_handle=l, index=2, element_shape=-1,
                                      element_dtype=i[1].dtype))

        case("dtype_" + d, dtype, [n, ramp([3, 2], d, 1)])
    case("unset", lambda i: results(stacked(setting(reserve(i[0]), 1, i[1][0])),
                                    item(reserve(i[0]), 0)))

    def versions(i):
        a = from_tensor(i)
        b = setting(a, 0, i[1][2])
        c = setting(b, 1, i[1][2] * 2.0)
        d = setting(b, 2, i[1][0] * 3.0)
        results(stacked(a), stacked(b), stacked(c), stacked(d))

    case("versions", versions)

    def loop(i):
        l = tf1.while_loop(lambda k, l: k < i[0], lambda k, l:
                           (k + 1, setting(l, k, i[1][k] * 2.0)), [0, reserve(i[0])])[1]
        results(stacked(l), raw.TensorListLength(input_handle=l))

    case("loop", loop)

    def push(i):
        l = raw.EmptyTensorList(element_shape=[2], max_num_elements=-1, element_dtype=tf.float32)
        l = tf1.while_loop(
            lambda k, l: k < i[0], lambda k, l:
            (k + 1, raw.TensorListPushBack(input_handle=l, tensor=i[1][k])), [0, l])[1]
        shorter, last = raw.TensorListPopBack(input_handle=l, element_shape=[2],
                                              element_dtype=tf.float32)
        results(stacked(l), stacked(shorter), last, raw.TensorListLength(input_handle=shorter))

    case("push", push)
    for t in [tf.int32, tf.int64]:
        case("element_shape_" + t.name, lambda i: results(
            raw.TensorListElementShape(input_handle=reserve(i[0]), shape_type=t),
            raw.TensorListElementShape(input_handle=reserve(i[0], None), shape_type=t)))
    case("gather", lambda i: results(raw.TensorListGather(
        input_handle=from_tensor(i), indices=[2, 0], element_shape=[2], element_dtype=tf.float32)))
    case("scatter", lambda i: results(stacked(raw.TensorListScatterV2(
        tensor=i[1], indices=[3, 0, 1], element_shape=[2], num_elements=-1))))
    case("resize", lambda i: results(
        raw.TensorListLength(input_handle=raw.TensorListResize(input_handle=from_tensor(i), size=5)),
        stacked(raw.TensorListResize(input_handle=from_tensor(i), size=2))))
    case("concat", lambda i: results(*raw.TensorListConcatV2(
        input_handle=raw.TensorListSplit(tensor=i[1], element_shape=[-1, 2], lengths=tf.constant(
            [1, 0, 2], tf.int64)), element_shape=[-1, 2], leading_dims=tf.zeros([0], tf.int64),
        element_dtype=tf.float32)))
    case("add", lambda i: results(stacked(tf.add_n([from_tensor(i), setting(
        reserve(i[0]), 1, i[1][0])]))))
    case("zeros_like", lambda i: results(stacked(tf.zeros_like(from_tensor(i)))))
    case("index", lambda i: results(item(from_tensor(i), i[0])),
         error=["Trying to access element 3 in a list with 3 elements"])
    case("set_index", lambda i: results(stacked(setting(from_tensor(i), i[0], i[1][0]))),
         error=["Trying to modify element 3 in a list with 3 elements"])
    case("set_resize", lambda i: results(stacked(setting(
        from_tensor(i), i[0] + 1, i[1][0], resize_if_index_out_of_bounds=True))))
    case("set_shape", lambda i: results(stacked(setting(from_tensor(i), 0, hidden(i[1])))),
         error=["Tried to set a tensor with incompatible shape at a list index"])
    case("push_shape", lambda i: results(stacked(raw.TensorListPushBack(
        input_handle=from_tensor(i), tensor=hidden(i[1])))),
         error=["Tried to append a tensor with incompatible shape to a list"])
    case("full", lambda i: results(stacked(raw.TensorListPushBack(input_handle=raw.EmptyTensorList(
        element_shape=[2], max_num_elements=0, element_dtype=tf.float32), tensor=i[1][0]))),
         error=["Tried to push item into a full list"])
    case("pop_empty", lambda i: results(raw.TensorListPopBack(input_handle=raw.EmptyTensorList(
        element_shape=[2], max_num_elements=i[0], element_dtype=tf.float32), element_shape=[2],
                                                              element_dtype=tf.float32)[1]),
         error=["Trying to pop from an empty list"])
    case("stack_count", lambda i: results(stacked(from_tensor(i), num=2)),
         error=["Operation expected a list with 2 elements but got a list with 3 elements"])
    case("unset_unknown", lambda i: results(item(reserve(i[0], None), 1, None)),
         error=["Trying to read an uninitialized tensor but element_shape is not fully defined"])
    case("stack_empty", lambda i: results(stacked(reserve(0))))
    case("negative", lambda i: results(stacked(reserve(-1 * i[0]))),
         error=["The num_elements to reserve must be a non negative"])


def main():
    f = CaseFile("op_cases/loops.pb")
    plain(f)
    gradients(f)
    arrays(f)
    lists(f)
    f.write()


if __name__ == "__main__":
    main()
