"""Writes op_cases/apply.pb: what TensorFlow's Assign* and Apply* ops do to variables.

The form is described in case_lib.py. Run with the Python of a virtual environment that has
tensorflow-cpu 2.21: python make_apply.py
"""

import numpy as np

from case_lib import (ALL, FLOATS, CaseFile, NoKernel, TF_DTYPE, arr, bare, const_node, dtype_name,
                      is_missing, ramp, rand, session_config, tf, tf1)
from tensorflow.python.framework import op_def_library


def apply_case(f, name, op_type, init, inputs, tol=0.0, error=None, steps=1, **attrs):
    """init: [(argument, value)] of the refs; inputs: [(argument, value)], in the op's order."""
    with tf.Graph().as_default() as g:
        refs = {}
        for arg, a in init:
            refs[arg] = tf1.Variable(tf.constant(a), name=arg, use_resource=False)
        values = {
            arg: tf1.placeholder(TF_DTYPE[dtype_name(a)], name="in_" + arg) for arg, a in inputs
        }
        kwargs = {arg: v._ref() for arg, v in refs.items()}
        kwargs.update(values)
        try:
            out = op_def_library.apply_op(op_type, name="op", **kwargs, **attrs)
        except TypeError as e:
            raise NoKernel(str(e))
        with tf1.Session(graph=g, config=session_config()) as sess:
            sess.run(tf1.global_variables_initializer())
            err = None
            try:
                for _ in range(steps):
                    sess.run(out.op, {values[arg]: a for arg, a in inputs})
            except tf.errors.OpError as e:
                if is_missing(e.message):
                    raise NoKernel(e.message)
                err = e
            after = [sess.run(v) for v in refs.values()]
        node = out.op.node_def
    if (err is not None) != (error is not None):
        f.complain(name, "expected error %s, found %s" % (error, err and bare(err)))
        return
    k = f.unique(name)
    for i, (_, a) in enumerate(init):
        const_node(f.graph_def, "%s/init%d" % (k, i), a)
    for i, (_, a) in enumerate(inputs):
        const_node(f.graph_def, "%s/in%d" % (k, i), a)
    del node.input[:]
    node.attr.pop("_class", None)
    const_node(f.graph_def, k + "/apply",
               np.array(node.SerializeToString(deterministic=True), dtype=object))
    f.finish(k, after, tol, err, error)


def optimizers():
    """(op, refs, inputs): None stands for a value like the variable's."""
    lr = ("lr", 0.01)
    adam = [("beta1_power", 0.9), ("beta2_power", 0.99), ("lr", 0.01), ("beta1", 0.9),
            ("beta2", 0.99), ("epsilon", 1e-3), ("grad", None)]
    rms = [("lr", 0.01), ("rho", 0.9), ("momentum", 0.5), ("epsilon", 1e-3), ("grad", None)]
    ftrl = [("grad", None), ("lr", 0.1), ("l1", 0.01), ("l2", 0.02), ("lr_power", -0.5)]
    return [
        ("ApplyGradientDescent", ["var"], [("alpha", 0.1), ("delta", None)]),
        ("ApplyMomentum", ["var", "accum"], [lr, ("grad", None), ("momentum", 0.9)]),
        ("ApplyAdam", ["var", "m", "v"], adam),
        ("ApplyAdagrad", ["var", "accum"], [("lr", 0.1), ("grad", None)]),
        ("ApplyAdagradV2", ["var", "accum"], [("lr", 0.1), ("epsilon", 1e-3), ("grad", None)]),
        ("ApplyRMSProp", ["var", "ms", "mom"], rms),
        ("ApplyCenteredRMSProp", ["var", "mg", "ms", "mom"], rms),
        ("ApplyAdadelta", ["var", "accum", "accum_update"], [("lr", 0.5), ("rho", 0.9),
                                                             ("epsilon", 1e-3), ("grad", None)]),
        ("ApplyFtrl", ["var", "accum", "linear"], ftrl),
        ("ApplyAdaMax", ["var", "m", "v"], [a for a in adam if a[0] != "beta2_power"]),
        ("ApplyAddSign", ["var", "m"],
         [lr, ("alpha", 1.0), ("sign_decay", 0.9), ("beta", 0.9), ("grad", None)]),
        ("ApplyPowerSign", ["var", "m"],
         [lr, ("logbase", 1.0), ("sign_decay", 0.9), ("beta", 0.9), ("grad", None)]),
        ("ApplyProximalGradientDescent", ["var"], [("alpha", 0.1), ("l1", 0.01), ("l2", 0.02),
                                                   ("delta", None)]),
    ]


def attributes(op, nesterov=False):
    a = {"use_locking": nesterov}
    if op in ("ApplyMomentum", "ApplyAdam"):
        a["use_nesterov"] = nesterov
    if op.startswith("ApplyAdagrad"):
        a["update_slots"] = True
    if op == "ApplyFtrl":
        a["multiply_linear_by_lr"] = False
    return a


def main():
    f = CaseFile("op_cases/apply.pb")
    for op, refs, inputs in optimizers():
        variants = [False, True] if op in ("ApplyMomentum", "ApplyAdam") else [False]
        for d in FLOATS:
            for shape in [[7], [2, 3], []] if d == "float" else [[7]]:
                for nesterov in variants:
                    init, values = [], []
                    for i, r in enumerate(refs):
                        lo = -2 if r in ("var", "m", "linear", "mom") else 0.5
                        if r == "mg":
                            lo = 0.0
                        hi = 0.3 if r == "mg" else 2
                        init.append((r, rand(shape, d, lo, hi, seed=i + 1)))
                    for arg, v in inputs:
                        a = rand(shape, d, -1, 1, seed=9) if v is None else arr(v, d)
                        values.append((arg, a))
                    attrs = attributes(op, nesterov)
                    name = "%s_%s_r%d%s" % (op, d, len(shape), "_nesterov" if nesterov else "")
                    try:
                        apply_case(f, name, op, init, values, tol=8, **attrs)
                    except NoKernel:
                        f.skipped.append((op, d))
        # Where the gradient has another shape, and a NaN and an infinity in it.
        init = [(r, rand([3], "float", 0.5, 1.5)) for r in refs]
        apply_case(f,
                   op + "_shape",
                   op,
                   init,
                   [(a, arr([1, 2], "float") if v is None else arr(v, "float")) for a, v in inputs],
                   error=["same shape"],
                   **attributes(op))
        if op in ("ApplyGradientDescent", "ApplyMomentum", "ApplyAdam"):
            apply_case(f,
                       op + "_nan",
                       op,
                       init,
                       [(a, arr([np.nan, np.inf, 1], "float") if v is None else arr(v, "float"))
                        for a, v in inputs],
                       tol=8,
                       **attributes(op))
            apply_case(
                f, op + "_empty", op, [(r, ramp([0, 2], "float")) for r in refs],
                [(a, ramp([0, 2], "float") if v is None else arr(v, "float")) for a, v in inputs],
                **attributes(op))
            name, bad = [(a, v) for a, v in inputs if v is not None][0]
            apply_case(f,
                       op + "_vector_lr",
                       op,
                       init, [(a, arr([1, 2, 3], "float") if v is None else
                               (arr([bad, bad], "float") if a == name else arr(v, "float")))
                              for a, v in inputs],
                       error=[name + " is not a scalar"],
                       **attributes(op))
    for d in ALL:
        for op, arg in [("Assign", "value"), ("AssignAdd", "value"), ("AssignSub", "value")]:
            attrs = {"use_locking": False}
            if op == "Assign":
                attrs["validate_shape"] = True
            try:
                apply_case(f, "%s_%s" % (op, d), op, [("ref", ramp([4], d, 3))],
                           [(arg, ramp([4], d, 1))], **attrs)
            except NoKernel:
                f.skipped.append((op, d))
    apply_case(
        f,
        "Assign_shape",
        "Assign", [("ref", ramp([3], "float"))], [("value", ramp([2], "float"))],
        validate_shape=True,
        use_locking=True,
        error=["Assign requires shapes of both tensors to match. lhs shape= [3] rhs shape= [2]"])
    apply_case(f,
               "Assign_novalidate",
               "Assign", [("ref", ramp([3], "float"))], [("value", ramp([2, 2], "float"))],
               validate_shape=False,
               use_locking=True)
    apply_case(f,
               "AssignAdd_shape",
               "AssignAdd", [("ref", ramp([3], "float"))], [("value", ramp([2], "float"))],
               use_locking=False,
               error=["must be the same size"])
    f.write()


if __name__ == "__main__":
    main()
