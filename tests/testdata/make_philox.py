"""Writes philox/*.pb: what TensorFlow's random ops give, Run after Run.

The form is described in case_lib.py. Run with the Python of a virtual environment that has
tensorflow-cpu 2.21: python make_philox.py

    uniform.pb   RandomUniform and RandomUniformInt; exact
    normal.pb    RandomStandardNormal and TruncatedNormal; within a few units of the last place,
                 since they pass through log, sin and cos
"""

import numpy as np

from case_lib import (CaseFile, EPS, TF_DTYPE, arr, const_node, crc32c, dtype_name, make_op,
                      session_config, tf, tf1)

SEEDS = [(1, 2), (42, 0), (0, 7), (87654321, 5), (-3, 2**40 + 1), (2**63 - 1, -2**63)]
SIZES = [1, 3, 4, 5, 255, 256, 257, 1000]
LARGE = 70000


def random_case(f, name, op_type, inputs, tol=0.0, runs=3, **attrs):
    """One op, run three times in one session."""
    k = f.unique(name)
    with tf.Graph().as_default() as g:
        consts = [tf.constant(a) for a in inputs]
        op = make_op(op_type, consts, attrs)
        node = op.node_def
        with tf1.Session(graph=g, config=session_config()) as sess:
            outs = [sess.run(op.outputs[0]) for _ in range(runs)]
    for i, a in enumerate(inputs):
        const_node(f.graph_def, "%s/in%d" % (k, i), a)
    n = f.graph_def.node.add()
    n.CopyFrom(node)
    n.name = k + "/op"
    del n.input[:]
    n.input.extend("%s/in%d" % (k, i) for i in range(len(inputs)))
    for r, a in enumerate(outs):
        if a.size <= 64 or (r == 0 and a.size <= 300):
            const_node(f.graph_def, "%s/expect%d" % (k, r), a)
            continue
        flat = a.ravel()
        const_node(f.graph_def, "%s/head%d" % (k, r), flat[:32])
        const_node(f.graph_def, "%s/tail%d" % (k, r), flat[-32:])
        const_node(f.graph_def, "%s/sample%d" % (k, r), flat[::997])
        const_node(f.graph_def, "%s/crc%d" % (k, r), np.array(crc32c(a.tobytes()), np.uint32))
    if tol:
        const_node(f.graph_def, k + "/tol", np.array(tol * EPS[dtype_name(outs[0])], np.float32))


def fill(f, op_type, tol):
    floats = ["half", "bfloat16", "float", "double"]
    for d in floats:
        for s, (seed, seed2) in enumerate(SEEDS):
            random_case(f,
                        "%s_%s_seed%d" % (op_type, d, s),
                        op_type, [arr([8], "int32")],
                        tol=tol,
                        dtype=TF_DTYPE[d],
                        seed=seed,
                        seed2=seed2)
        for n in SIZES:
            random_case(f,
                        "%s_%s_n%d" % (op_type, d, n),
                        op_type, [arr([n], "int64" if n % 2 else "int32")],
                        tol=tol,
                        dtype=TF_DTYPE[d],
                        seed=3,
                        seed2=9)
        random_case(f,
                    "%s_%s_large" % (op_type, d),
                    op_type, [arr([100, LARGE // 100], "int32")],
                    tol=tol,
                    runs=2,
                    dtype=TF_DTYPE[d],
                    seed=11,
                    seed2=13)
    random_case(f,
                op_type + "_empty",
                op_type, [arr([0, 4], "int32")],
                tol=tol,
                dtype=TF_DTYPE["float"],
                seed=1,
                seed2=2)
    random_case(f,
                op_type + "_scalar",
                op_type, [arr([], "int32")],
                tol=tol,
                dtype=TF_DTYPE["float"],
                seed=1,
                seed2=2)
    random_case(f,
                op_type + "_r4",
                op_type, [arr([2, 1, 3, 2], "int32")],
                tol=tol,
                dtype=TF_DTYPE["float"],
                seed=1,
                seed2=2)


def main():
    f = CaseFile("philox/uniform.pb")
    fill(f, "RandomUniform", 0)
    for d in ["int32", "int64"]:
        for s, (seed, seed2) in enumerate(SEEDS[:4]):
            random_case(f,
                        "RandomUniformInt_%s_seed%d" % (d, s),
                        "RandomUniformInt",
                        [arr([8], "int32"), arr(-5, d), arr(100, d)],
                        seed=seed,
                        seed2=seed2)
        lo, hi = np.iinfo(d).min, np.iinfo(d).max
        random_case(f,
                    "RandomUniformInt_%s_wide" % d,
                    "RandomUniformInt",
                    [arr([16], "int32"), np.array(lo, d),
                     np.array(hi, d)],
                    seed=3,
                    seed2=9)
        for n in SIZES + [LARGE]:
            random_case(
                f,
                "RandomUniformInt_%s_n%d" % (d, n),
                "RandomUniformInt",
                [arr([n], "int32"), arr(0, d), arr(1000003, d)],
                seed=3,
                seed2=9,
                runs=2 if n == LARGE else 3)
    f.case("RandomUniformInt_range",
           "RandomUniformInt",
           [arr([2], "int32"), arr(5, "int32"), arr(5, "int32")],
           seed=1,
           seed2=2,
           error=["Need minval < maxval, got 5 >= 5"])
    f.case("RandomUniform_shape",
           "RandomUniform", [arr([-2], "int32")],
           seed=1,
           seed2=2,
           dtype=TF_DTYPE["float"],
           error=[])
    f.write()
    f = CaseFile("philox/normal.pb")
    fill(f, "RandomStandardNormal", 16)
    fill(f, "TruncatedNormal", 16)
    f.write()


if __name__ == "__main__":
    main()
