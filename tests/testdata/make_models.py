"""Writes models/: what others make of a model, for the tests of freezing and conversion.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21 and safetensors:
python make_models.py

    NAME.meta, NAME.index, NAME.data-*   a model as TensorFlow's Saver saves it
    NAME.frozen.pb                       what convert_variables_to_constants makes of it, with the
                                         node `out` as output

        ref         (v1 + v2), unused, VariableV2; v1 [1.], v2 [2.]
        resource    the same of resource variables
        gather      tf.gather and tf.gather_nd of a resource variable
        cond        a conditional of resource variables (Switch, Merge)
        loop        a while loop with a resource variable (Enter, Exit, NextIteration)
        sliced      a variable in two slices

    arrays.npz, packed.npz               arrays by numpy.savez and numpy.savez_compressed
    arrays.safetensors                   the same by the safetensors package, with bfloat16
"""

import os
import shutil

from case_lib import HERE, session_config, tf, tf1

import ml_dtypes
import numpy as np
import safetensors.numpy

OUT = os.path.join(HERE, "models")


def sum_of_two(resource):
    v1 = tf1.get_variable("v1", initializer=tf.constant([1.0]), use_resource=resource)
    v2 = tf1.get_variable("v2", initializer=tf.constant([2.0]), use_resource=resource)
    tf1.get_variable("unused", initializer=tf.constant([3.0]), use_resource=resource)
    tf1.add(v1, v2, name="out")


def gather():
    table = tf1.get_variable("table", initializer=tf.reshape(tf.range(12.0), [4, 3]),
                             use_resource=True)
    first = tf1.gather(table, tf.constant([1, 3]), name="first")
    tf.concat([first, tf1.gather_nd(table, [[2]], name="second")], 0, name="out")


def cond():
    x = tf1.placeholder(tf.float32, [], name="x")
    v = tf1.get_variable("v", initializer=[2.0, 3.0], use_resource=True)
    w = tf1.get_variable("w", initializer=[5.0, 7.0], use_resource=True)
    tf.identity(tf1.cond(x > 0, lambda: v * 2, lambda: w - 1, name="choose"), name="out")


def loop():
    v = tf1.get_variable("v", initializer=[2.0, 3.0], use_resource=True)
    result = tf1.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * v),
                            [tf.constant(0), tf.constant([1.0, 1.0])])
    tf.identity(result[1], name="out")


def sliced():
    w = tf1.get_variable("w", initializer=tf.reshape(tf.range(6.0), [2, 3]), use_resource=False,
                         partitioner=tf1.fixed_size_partitioner(2, axis=1))
    tf.identity(tf.convert_to_tensor(w), name="out")


def write(name, build):
    with tf.Graph().as_default() as graph, tf1.Session(config=session_config()) as session:
        build()
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, os.path.join(OUT, name), write_state=False)
        frozen = tf1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(),
                                                               ["out"])
    meta = tf1.MetaGraphDef()
    path = os.path.join(OUT, name + ".meta")
    with open(path, "rb") as f:
        meta.ParseFromString(f.read())
    # The order of map entries is no part of the files; this makes them the same each time.
    with open(path, "wb") as f:
        f.write(meta.SerializeToString(deterministic=True))
    with open(os.path.join(OUT, name + ".frozen.pb"), "wb") as f:
        f.write(frozen.SerializeToString(deterministic=True))


def main():
    tf1.disable_control_flow_v2()
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    write("ref", lambda: sum_of_two(False))
    write("resource", lambda: sum_of_two(True))
    write("gather", gather)
    write("cond", cond)
    write("loop", loop)
    write("sliced", sliced)
    arrays = {
        "scope/float": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
        "double": np.array(0.5),
        "half": np.array([1.5, -2], np.float16),
        "int8": np.array([[-128], [127]], np.int8),
        "int64": np.array([-2**63, 2**63 - 1]),
        "uint16": np.array([65535], np.uint16),
        "bool": np.array([True, False]),
        "complex64": np.array([1 - 2j], np.complex64),
        "empty": np.zeros([0, 3], np.float32),
        "zeros": np.zeros([1000], np.int32),
    }
    safetensors.numpy.save_file({**arrays, "bfloat16": np.array([1.5, -3], ml_dtypes.bfloat16)},
                                os.path.join(OUT, "arrays.safetensors"))
    others = {"fortran": np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4)),
              "big_endian": np.array([1, -2, 3], ">i4")}
    np.savez(os.path.join(OUT, "arrays.npz"), **arrays, **others)
    np.savez_compressed(os.path.join(OUT, "packed.npz"), **arrays, **others)
    for f in sorted(os.listdir(OUT)):
        print("%8d %s" % (os.path.getsize(os.path.join(OUT, f)), f))


if __name__ == "__main__":
    main()
