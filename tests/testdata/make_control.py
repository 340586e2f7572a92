"""Writes op_cases/control.pb: small graphs with conditionals (Switch, Merge) and dead values.

The form is that of case_lib.py, with more nodes under K/ between the inputs and K/op. Run with the
Python of a virtual environment that has tensorflow-cpu 2.21: python make_control.py
"""

from case_lib import CaseFile, arr, ramp, session_config, tf, tf1

tf1.disable_control_flow_v2()


def graph_case(f, name, inputs, build, error=None, rtol=0, tol=0):
    """build(tensors) gives the output tensors, all of them of the op named `op`."""
    k = f.unique(name)
    with tf.Graph().as_default() as g:
        with tf1.name_scope(k):
            build([tf.constant(a, name="in%d" % i) for i, a in enumerate(inputs)])
        op = g.get_operation_by_name(k + "/op")
        err = out = None
        with tf1.Session(graph=g, config=session_config()) as sess:
            try:
                out = sess.run(list(op.outputs))
            except tf.errors.OpError as e:
                err = e
        assert (err is None) == (error is None), (name, err)
        graph = g.as_graph_def()
        f.graph_def.node.extend(graph.node)
        known = {d.signature.name for d in f.graph_def.library.function}
        f.graph_def.library.function.extend(
            d for d in graph.library.function if d.signature.name not in known)
    f.finish(k, out, tol, err, error, rtol)


def switch(data, pred):
    return tf.raw_ops.Switch(data=data, pred=pred)


def main():
    f = CaseFile("op_cases/control.pb")
    for p in [False, True]:
        pred = arr(p, "bool")
        x, y = ramp([3], "float", 1), ramp([3], "float", 10)
        t = "_%d" % p

        def named(v):
            return tf.identity(v, name="op")

        graph_case(f, "Merge" + t, [pred, x],
                   lambda i: tf.raw_ops.Merge(inputs=list(switch(i[1], i[0])), name="op"))

        def two_paths(i):
            off, on = switch(i[1], i[0])
            tf.raw_ops.Merge(inputs=[off * 2.0, on - 1.0], name="op")

        graph_case(f, "paths" + t, [pred, x], two_paths)

        def long_dead(i):
            off, on = switch(i[1], i[0])
            a = tf.add_n([off, off * off, tf.exp(off)])
            b = tf.concat([on, i[2]], 0)[:3]
            tf.raw_ops.Merge(inputs=[a * 0.0, b], name="op")

        graph_case(f, "long" + t, [pred, x, y], long_dead)

        graph_case(f, "cond" + t, [pred, x, y],
                   lambda i: named(tf1.cond(i[0], lambda: i[1] + i[2], lambda: i[1] - i[2])))
        graph_case(
            f, "cond_const" + t, [pred], lambda i: named(
                tf1.cond(i[0], lambda: tf.constant([1, 2]), lambda: tf.constant([3, 4, 5]))))
        for q in [False, True]:
            graph_case(
                f, "nested%s_%d" % (t, q), [pred, arr(q, "bool"), x], lambda i: named(
                    tf1.cond(i[0], lambda: tf1.cond(i[1], lambda: i[2] + 1.0, lambda: i[2] + 2.0),
                             lambda: tf1.cond(i[1], lambda: i[2] + 3.0, lambda: i[2] + 4.0))))
            graph_case(
                f, "chain%s_%d" % (t, q), [pred, arr(q, "bool"), x], lambda i: named(
                    tf1.cond(i[1], lambda: tf1.cond(i[0], lambda: i[2] * 2.0, lambda: i[2]) + 1.0,
                             lambda: i[2] * 0.0)))

        def tuple_out(i):
            a, b = tf1.cond(i[0], lambda: (i[1] * 2.0, tf.size(i[1])), lambda:
                            (i[1][:1], tf.constant(-1)))
            named(tf.cast(b, tf.float32) + a)

        graph_case(f, "tuple" + t, [pred, x], tuple_out)

        def gradient(i):
            z = tf1.cond(i[0], lambda: i[1] * i[1], lambda: tf.exp(-i[1]))
            named(tf1.gradients(tf.reduce_sum(z), i[1])[0])

        graph_case(f, "gradient" + t, [pred, x], gradient, rtol=4)

        def control_edge(i):
            _, on = switch(i[1], i[0])
            with tf.control_dependencies([on]):
                dead_if_off = tf.constant([7.0, 7.0, 7.0])
            with tf.control_dependencies([switch(i[1], i[0])[0]]):
                dead_if_on = tf.constant([8.0, 8.0, 8.0])
            tf.raw_ops.Merge(inputs=[dead_if_on, dead_if_off], name="op")

        graph_case(f, "control_edge" + t, [pred, x], control_edge)

        def three(i):
            off, on = switch(i[1], i[0])
            nothing, _ = switch(off, tf.constant(True))
            tf.raw_ops.Merge(inputs=[nothing, on, off * 1.0], name="op")

        graph_case(f, "three" + t, [pred, x], three)

        def dead_fetch(i):
            off, on = switch(i[1], i[0])
            named(tf.negative(off if p else on))

        graph_case(f, "dead" + t, [pred, x], dead_fetch, error=["does not have value"])

        def all_dead(i):
            off, on = switch(i[1], i[0])
            dead = off if p else on
            tf.raw_ops.Merge(inputs=[dead, tf.negative(dead)], name="op")

        graph_case(f, "all_dead" + t, [pred, x], all_dead, error=["does not have value"])
    graph_case(f,
               "bad_pred",
               [arr([True, False], "bool"), ramp([3], "float")],
               lambda i: tf.raw_ops.Merge(inputs=list(
                   tf.raw_ops.Switch(data=i[1], pred=tf1.placeholder_with_default(i[0], None))),
                                          name="op"),
               error=["must be a scalar"])
    f.write()


if __name__ == "__main__":
    main()
