"""Writes op_cases/functions.pb: small graphs that call functions (PartitionedCall, If, While).

The form is that of case_lib.py, with more nodes under K/ between the inputs and K/op, and the
functions of all cases in the file's library. Run with the Python of a virtual environment that has
tensorflow-cpu 2.21: python make_functions.py
"""

from case_lib import CaseFile, arr, ramp, rand, tf, tf1
from make_control import graph_case
from make_loops import hidden, results

tf1.enable_control_flow_v2()


def calls(f):
    x, y = ramp([3], "float", 1), ramp([3], "float", 10)

    @tf.function
    def add(a, b):
        return a + b

    @tf.function
    def both(a, b):
        return add(a, b), a * b, tf.constant([5.0])

    graph_case(f, "call", [x, y], lambda i: results(add(i[0], i[1])))
    graph_case(f, "call_nested", [x, y], lambda i: results(*both(i[0], add(i[1], i[0]))))
    graph_case(f, "call_twice", [x, y], lambda i: results(add(*i), add(i[1], i[1])))

    @tf.function
    def nothing():
        return tf.constant([1.0, 2.0])

    graph_case(f, "call_without_inputs", [x], lambda i: results(nothing() * 2.0, i[0]))

    @tf.function
    def many(a):
        return tf.split(a, 3) + [tf.concat(tf.unstack(a)[::-1] + [a[0]] if a.shape.rank > 1 else [a],
                                           0)]

    graph_case(f, "call_lists", [x], lambda i: results(*many(i[0])))

    @tf.function
    def checked(a):
        tf.debugging.assert_less(a, 3.5)
        return a * 2.0

    graph_case(f, "call_effects", [x], lambda i: results(checked(i[0])))
    graph_case(f, "call_effects_fail", [y], lambda i: results(checked(i[0])),
               error=["assertion failed"])

    def gradient(i):
        z = both(i[0], i[1])
        results(*tf1.gradients(z[0] * z[1], i))

    graph_case(f, "call_gradient", [x, y], gradient, rtol=4)


def conditionals(f):
    x, y = ramp([3], "float", 1), ramp([3], "float", 10)
    for p in [False, True]:
        pred = arr(p, "bool")
        t = "_%d" % p
        graph_case(f, "if" + t, [pred, x, y], lambda i: results(
            tf.cond(i[0], lambda: i[1] + i[2], lambda: i[1] - i[2])))
        graph_case(
            f, "if_const" + t, [pred], lambda i: results(*tf.cond(
                i[0], lambda: (tf.constant([1, 2]), 3), lambda: (tf.constant([3, 4, 5]), 4))))
        for q in [False, True]:
            graph_case(
                f, "if_nested%s_%d" % (t, q), [pred, arr(q, "bool"), x], lambda i: results(
                    tf.cond(i[0], lambda: tf.cond(i[1], lambda: i[2] + 1.0, lambda: i[2] + 2.0),
                            lambda: tf.cond(i[1], lambda: i[2] + 3.0, lambda: i[2] + 4.0))))

        def gradient(i):
            z = tf.cond(i[0], lambda: i[1] * i[1], lambda: tf.exp(-i[1]))
            results(z, tf1.gradients(tf.reduce_sum(z), i[1])[0])

        graph_case(f, "if_gradient" + t, [pred, x], gradient, rtol=4)

        def loop(i):
            results(
                tf.cond(
                    i[0], lambda: tf.while_loop(lambda k, a: k < 3, lambda k, a:
                                                (k + 1, a * 2.0), [0, i[1]])[1], lambda: i[1]))

        graph_case(f, "if_loop" + t, [pred, x], loop)

        def effects(i):

            def fails():
                tf.debugging.Assert(False, ["taken"])
                return i[1] * 1.0

            results(tf.cond(i[0], fails, lambda: i[1] * 2.0))

        graph_case(f, "if_effects" + t, [pred, x], effects,
                   error=["assertion failed", "taken"] if p else None)
    for index in [-1, 0, 1, 2, 7]:
        graph_case(
            f, "case_%d" % index, [arr(index, "int32"), x, y], lambda i: results(
                *tf.switch_case(hidden(i[0]), [
                    lambda: (i[1] + i[2], 1), lambda: (i[1] * i[2], 2), lambda: (-i[1], 3)
                ])))
    for value in [0, 2]:
        graph_case(f, "if_int_%d" % value, [arr(value, "int32"), x], lambda i: results(
            tf.raw_ops.StatelessIf(cond=i[0], input=[i[1]], Tout=[tf.float32],
                                   then_branch=double.get_concrete_function(),
                                   else_branch=negate.get_concrete_function())[0]))


@tf.function(input_signature=[tf.TensorSpec([3], tf.float32)])
def double(a):
    return a * 2.0


@tf.function(input_signature=[tf.TensorSpec([3], tf.float32)])
def negate(a):
    return -a


def loops(f):
    i32 = lambda v: arr(v, "int32")
    n, x, w = i32(4), rand([3], "float", 0.5, 1.5, 1), rand([3], "float", 0.5, 1.5, 2)
    for times in [0, 1, 5]:
        graph_case(
            f, "while_%d" % times, [i32(times), x], lambda i: results(*tf.while_loop(
                lambda k, a: k < i[0], lambda k, a: (k + 1, a * 2.0 + i[1]), [0, i[1]])))

    def nested(i):

        def body(k, a):
            inner = tf.while_loop(lambda m, b: m < k, lambda m, b: (m + 1, b * 1.5 + i[1]), [0, a])
            return k + 1, inner[1] + tf.cast(inner[0], tf.float32)

        results(*tf.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "while_nested", [n, x], nested, rtol=4)

    def cond_within(i):

        def body(k, a):
            odd = tf.equal(k % 2, 1)
            return k + 1, tf.cond(odd, lambda: a * i[1], lambda: a - tf.cast(k, tf.float32))

        results(*tf.while_loop(lambda k, a: k < i[0], body, [0, i[1]]))

    graph_case(f, "while_cond", [n, x], cond_within, rtol=4)

    @tf.function
    def step(a, b):
        return tf.tanh(a * b) + a

    def call_within(i):
        results(*tf.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, step(a, i[1])),
                               [0, i[1]]))

    graph_case(f, "while_call", [n, x], call_within, rtol=4)

    def gradient(i):
        y = tf.while_loop(lambda k, a: k < i[0], lambda k, a: (k + 1, tf.tanh(a * i[2]) + a),
                          [0, i[1]])[1]
        results(y, *tf1.gradients(tf.reduce_sum(y), [i[1], i[2]]))

    graph_case(f, "while_gradient", [n, x, w], gradient, rtol=16)

    def gradient_cond(i):

        def body(k, a):
            return k + 1, tf.cond(tf.equal(k % 2, 0), lambda: a * i[2], lambda: tf.exp(-a) + a)

        y = tf.while_loop(lambda k, a: k < i[0], body, [0, i[1]])[1]
        results(y, *tf1.gradients(tf.reduce_sum(y * y), [i[1], i[2]]))

    graph_case(f, "while_gradient_cond", [n, x, w], gradient_cond, rtol=32)

    def rnn(i):
        xs, wx, wh, h0 = i
        steps = tf.shape(xs)[0]
        inputs = tf.TensorArray(tf.float32, steps).unstack(xs)
        outputs = tf.TensorArray(tf.float32, steps)

        def body(k, h, ta):
            h = tf.tanh(inputs.read(k) @ wx + h @ wh)
            return k + 1, h, ta.write(k, h)

        _, h, ta = tf.while_loop(lambda k, h, ta: k < steps, body, [0, h0, outputs])
        y = ta.stack()
        loss = tf.reduce_sum(y * y) + tf.reduce_sum(h)
        results(y, h, *tf1.gradients(loss, i))

    graph_case(f, "rnn", [
        rand([5, 2, 3], "float", -1, 1, 1),
        rand([3, 4], "float", -1, 1, 2),
        rand([4, 4], "float", -1, 1, 3),
        rand([2, 4], "float", -1, 1, 4)
    ], rnn, tol=16)

    def map_fn(i):
        y = tf.map_fn(lambda a: tf.reduce_sum(a * a), i[0])
        results(y, *tf1.gradients(y, i))

    graph_case(f, "map_fn", [rand([4, 3], "float", -1, 1, 5)], map_fn, rtol=16)

    @tf.function
    def collatz(k):
        count = 0
        while k > 1:
            if k % 2 == 0:
                k = k // 2
            else:
                k = 3 * k + 1
            count += 1
        return count

    graph_case(f, "autograph", [i32(27)], lambda i: results(collatz(i[0])))


def main():
    f = CaseFile("op_cases/functions.pb")
    calls(f)
    conditionals(f)
    loops(f)
    f.write()


if __name__ == "__main__":
    main()
