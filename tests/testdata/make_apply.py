"""Writes op_cases/apply.pb: what TensorFlow's Assign*, Apply*, SparseApply* and Scatter* ops do to
variables. Ops named Resource… were run on resource variables, the others on references.

The form is described in case_lib.py. Run with the Python of a virtual environment that has
tensorflow-cpu 2.21: python make_apply.py
"""

import numpy as np

from case_lib import (ALL, FLOATS, NUMBERS, CaseFile, NoKernel, TF_DTYPE, arr, bare, const_node,
                      dtype_name, is_missing, ramp, rand, session_config, tf, tf1)
from tensorflow.python.framework import op_def_library


def apply_case(f, name, op_type, init, inputs, tol=0.0, error=None, steps=1, **attrs):
    """init: [(argument, value)] of the refs; inputs: [(argument, value)], in the op's order."""
    with tf.Graph().as_default() as g:
        refs = {}
        resource = op_type.startswith("Resource")
        for arg, a in init:
            refs[arg] = tf1.Variable(tf.constant(a), name=arg, use_resource=resource)
        values = {
            arg: tf1.placeholder(TF_DTYPE[dtype_name(a)], name="in_" + arg) for arg, a in inputs
        }
        kwargs = {arg: v.handle if resource else v._ref() for arg, v in refs.items()}
        kwargs.update(values)
        try:
            out = op_def_library.apply_op(op_type, name="op", **kwargs, **attrs)
            op = out if resource else out.op
        except TypeError as e:
            raise NoKernel(str(e))
        with tf1.Session(graph=g, config=session_config()) as sess:
            sess.run(tf1.global_variables_initializer())
            err = None
            try:
                for _ in range(steps):
                    sess.run(op, {values[arg]: a for arg, a in inputs})
            except tf.errors.OpError as e:
                if is_missing(e.message):
                    raise NoKernel(e.message)
                err = e
            after = [sess.run(v) for v in refs.values()]
        node = op.node_def
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


def tolerance(op):
    # Ftrl's variable is a difference of numbers that are larger.
    return 64 if "Ftrl" in op else 8


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
        ("ApplyFtrlV2", ["var", "accum", "linear"], ftrl[:4] + [("l2_shrinkage", 0.3)] + ftrl[4:]),
        ("ApplyAdaMax", ["var", "m", "v"], [a for a in adam if a[0] != "beta2_power"]),
        ("ApplyAddSign", ["var", "m"],
         [lr, ("alpha", 1.0), ("sign_decay", 0.9), ("beta", 0.9), ("grad", None)]),
        ("ApplyPowerSign", ["var", "m"],
         [lr, ("logbase", 1.0), ("sign_decay", 0.9), ("beta", 0.9), ("grad", None)]),
        ("ApplyProximalGradientDescent", ["var"], [("alpha", 0.1), ("l1", 0.01), ("l2", 0.02),
                                                   ("delta", None)]),
        ("ApplyProximalAdagrad", ["var", "accum"], [("lr", 0.1), ("l1", 0.01), ("l2", 0.02),
                                                    ("grad", None)]),
        ("ApplyAdagradDA", ["var", "gradient_accumulator", "gradient_squared_accumulator"],
         [("grad", None), ("lr", 0.1), ("l1", 0.01), ("l2", 0.02), ("global_step", 3)]),
        ("ResourceApplyKerasMomentum", ["var", "accum"], [lr, ("grad", None), ("momentum", 0.9)]),
        ("ResourceApplyAdamWithAmsgrad", ["var", "m", "v", "vhat"], adam),
    ]


NESTEROV = ("ApplyMomentum", "ApplyAdam", "ResourceApplyKerasMomentum")


def sparse_optimizers():
    """The same for the ops that have a sparse form, without the indices, which follow "grad"."""
    for op, refs, inputs in optimizers():
        op = op.replace("Apply", "SparseApply")
        if op in ("SparseApplyGradientDescent", "SparseApplyAdam", "SparseApplyAdaMax",
                  "SparseApplyAddSign", "SparseApplyPowerSign",
                  "ResourceSparseApplyAdamWithAmsgrad"):
            continue
        yield op, refs, [("grad" if a == "delta" else a, v) for a, v in inputs]


def initial(refs, shape, d):
    init = []
    for i, r in enumerate(refs):
        lo = -2 if r in ("var", "m", "linear", "mom", "gradient_accumulator") else 0.5
        if r == "mg":
            lo = 0.0
        init.append((r, rand(shape, d, lo, 0.3 if r == "mg" else 2, seed=i + 1)))
    return init


def scalar(arg, v, d):
    return arr(v, "int64" if arg == "global_step" else d)


def sparse(f):
    """Rows of matrices, vectors and cubes; rows that occur twice, none, and the errors."""
    cases = [([4, 2], [1, 3]), ([4, 2], [2, 0, 2, 2]), ([5], [4, 4, 0]), ([3, 2, 2], [1]),
             ([4, 2], [])]
    for op, refs, inputs in sparse_optimizers():

        def run(name, d, shape, rows, index="int32", grad=None, bad=None, error=None, **more):
            values = []
            for arg, v in inputs:
                if arg != "grad":
                    v = more.pop(arg, v)
                    values.append((arg, scalar(arg, [v, v] if arg == bad else v, d)))
                    continue
                values.append(("grad", rand(grad or [len(rows)] + shape[1:], d, -1, 1, seed=9)))
                values.append(("indices", np.array(rows, index)))
            attrs = attributes(op)
            attrs.update(more)
            try:
                apply_case(f, op + name, op, initial(refs, shape, d), values, tol=tolerance(op),
                           error=error, **attrs)
            except NoKernel:
                f.skipped.append((op, d))

        for d in FLOATS:
            for i, (shape, rows) in enumerate(cases if d == "float" else cases[1:2]):
                run("_%s_%d" % (d, i), d, shape, rows, "int64" if i == 2 else "int32")
        if op.startswith("SparseApplyFtrl"):
            run("_power", "float", [4, 2], [1, 3], lr_power=-0.7)
            run("_multiply", "float", [4, 2], [1, 3], multiply_linear_by_lr=True)
            for name, v, words in [("lr", -1.0, "positive"), ("l1", -1.0, "non-negative"),
                                   ("l2", -1.0, "non-negative"), ("lr_power", 1.0, "non-positive")]:
                run("_bad_" + name, "float", [4, 2], [1], error=["not a %s scalar" % words],
                    **{name: v})
        if "use_nesterov" in attributes(op):
            run("_nesterov", "float", [4, 2], [1, 3, 3], use_nesterov=True)
        if "update_slots" in attributes(op):
            run("_slots", "float", [4, 2], [1, 3, 3], update_slots=False)
        keras = op.startswith("Resource")
        run("_range", "float", [4, 2], [1, 4],
            error=["4" if keras else "Index 4 at offset 1 in indices is out of range"])
        run("_negative", "float", [4, 2], [-1],
            error=["-1" if keras else "Index -1 at offset 0 in indices is out of range"])
        run("_rows", "float", [4, 2], [1, 3], grad=[3, 2],
            error=["grad must be the same size as indices in the first dimension"])
        run("_inner", "float", [4, 2], [1, 3], grad=[2, 3],
            error=["var and grad must match in dimension 1"])
        run("_indices", "float", [4, 2], [[1, 3]], grad=[2, 2],
            error=["indices must be one-dimensional"])


def scatter(f):
    """Updates of rows and of slices."""
    ops = ["Update", "Add", "Sub", "Mul", "Div", "Min", "Max"]
    for name in ops:
        op = "Scatter" + name
        attrs = {"use_locking": False}
        for d in NUMBERS:
            by = rand([3, 2], d, 1, 5, seed=2)
            for i, (rows, value) in enumerate([([2, 0, 2], by), ([1, 3], arr(3, d))]):
                if d in ("half", "bfloat16") and name == "Div" and i == 0:
                    continue  # Rounded to the dtype between two divisions there, or not.
                try:
                    apply_case(f, "%s_%s_%d" % (op, d, i), op, [("ref", rand([4, 2], d, 2, 9))],
                               [("indices", np.array(rows, "int64" if i else "int32")),
                                ("updates", value)], tol=4, **attrs)
                except NoKernel:
                    f.skipped.append((op, d))
        zero = [("indices", np.array([], "int32")), ("updates", ramp([0, 2], "float"))]
        apply_case(f, op + "_none", op, [("ref", ramp([4, 2], "float"))], zero, **attrs)
        apply_case(f, op + "_scalar_index", op, [("ref", ramp([4, 2], "float", 1))],
                   [("indices", np.array(2, "int32")), ("updates", ramp([2], "float", 5))], tol=4,
                   **attrs)
        apply_case(f, op + "_matrix", op, [("ref", ramp([4], "float", 1))],
                   [("indices", np.array([[0, 3], [1, 2]], "int32")),
                    ("updates", ramp([2, 2], "float", 5))], tol=4, **attrs)
        apply_case(f, op + "_range", op, [("ref", ramp([4], "float"))],
                   [("indices", np.array([0, 4], "int32")), ("updates", ramp([2], "float"))],
                   error=["indices[1] = 4 is not in [0, 4)"], **attrs)
        apply_case(f, op + "_shape", op, [("ref", ramp([4, 2], "float"))],
                   [("indices", np.array([0, 1], "int32")), ("updates", ramp([2, 3], "float"))],
                   error=["Must have updates.shape = indices.shape + params.shape[1:]"], **attrs)
    for name in ["Update", "Add", "Sub", "Min", "Max"]:
        for op in ["ScatterNd" + name, "ResourceScatterNd" + name]:
            attrs = {"use_locking": False, "bad_indices_policy": ""}
            for d in ALL:
                for i, (indices, shape) in enumerate([([[2], [0], [2]], [3, 2]),
                                                      ([[1, 1], [3, 0]], [2])]):
                    value = ramp(shape, d, 4) if d in ("bool", "string") else rand(shape, d, 1, 5)
                    try:
                        apply_case(f, "%s_%s_%d" % (op, d, i), op, [("ref", ramp([4, 2], d, 3))],
                                   [("indices", np.array(indices, "int64" if i else "int32")),
                                    ("updates", value)], **attrs)
                    except NoKernel:
                        f.skipped.append((op, d))
        op = "ScatterNd" + name
        ref = [("ref", ramp([4, 2], "float"))]
        apply_case(f, op + "_none", op, ref, [("indices", np.zeros([0, 1], "int32")),
                                              ("updates", ramp([0, 2], "float"))], **attrs)
        apply_case(f, op + "_range", op, ref, [("indices", np.array([[1, 1], [4, 0]], "int32")),
                                               ("updates", ramp([2], "float"))],
                   error=["indices[1] = [4, 0] does not index into shape [4,2]"], **attrs)
        ignore = {"use_locking": False, "bad_indices_policy": "IGNORE"}
        apply_case(f, op + "_ignore", op, ref, [("indices", np.array([[1, 1], [4, 0]], "int32")),
                                                ("updates", ramp([2], "float", 7))], **ignore)


def attributes(op, nesterov=False):
    a = {"use_locking": nesterov}
    if op.endswith("Momentum") or op == "ApplyAdam":
        a["use_nesterov"] = nesterov
    if "ApplyAdagrad" in op and not op.endswith("DA"):
        a["update_slots"] = True
    if "Ftrl" in op:
        a["multiply_linear_by_lr"] = False
    return a


def main():
    f = CaseFile("op_cases/apply.pb")
    for op, refs, inputs in optimizers():
        variants = [False, True] if op in NESTEROV else [False]
        for d in FLOATS:
            for shape in [[7], [2, 3], []] if d == "float" else [[7]]:
                for nesterov in variants:
                    values = []
                    for arg, v in inputs:
                        a = rand(shape, d, -1, 1, seed=9) if v is None else scalar(arg, v, d)
                        values.append((arg, a))
                    attrs = attributes(op, nesterov)
                    name = "%s_%s_r%d%s" % (op, d, len(shape), "_nesterov" if nesterov else "")
                    try:
                        apply_case(f, name, op, initial(refs, shape, d), values,
                                   tol=tolerance(op), **attrs)
                    except NoKernel:
                        f.skipped.append((op, d))
        # Where the gradient has another shape, and a NaN and an infinity in it.
        init = [(r, rand([3], "float", 0.5, 1.5)) for r in refs]
        apply_case(f,
                   op + "_shape",
                   op,
                   init,
                   [(a, arr([1, 2], "float") if v is None else scalar(a, v, "float"))
                    for a, v in inputs],
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
    for name, more in [("power", {"lr_power": -0.7}), ("multiply", {}), ("l1", {"l1": 5.0})]:
        for op, refs, inputs in optimizers():
            if "Ftrl" not in op:
                continue
            attrs = attributes(op)
            attrs["multiply_linear_by_lr"] = name == "multiply"
            apply_case(f, "%s_%s" % (op, name), op, initial(refs, [7], "float"),
                       [(a, rand([7], "float", -1, 1, seed=9) if v is None else
                         arr(more.get(a, v), "float")) for a, v in inputs], tol=16, **attrs)
    sparse(f)
    scatter(f)
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
