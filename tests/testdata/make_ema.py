"""Writes ema/: graphs of moving averages as tf.compat.v1.train.ExponentialMovingAverage makes them,
and of tf.cond.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_ema.py

Each NAME.pbtxt is the MetaGraphDef (no Saver) of the graph that moving_averages_test.cc builds
again; NAME.json the values that it has there after two updates.

    article      v = 0 (MakeVariable), decay 0.99
    num_updates  two variables, one in a scope; the decay bounded by an int64 global_step
    debias       of a tensor, zero_debias
    tensor       of a tensor of known shape
    cond         tf.cond with a constant, captured tensors and a nested one
"""

import json
import os
import shutil
import sys

# TensorFlow writes some sets in the order of their hashes.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)

from case_lib import HERE, session_config, tf, tf1

import numpy as np
from google.protobuf import text_format

OUT = os.path.join(HERE, "ema")
tf1.disable_resource_variables()
tf1.disable_control_flow_v2()


def write_graph(name):
    meta = tf1.train.export_meta_graph(clear_extraneous_savers=True)
    meta.ClearField("meta_info_def")
    for node in meta.graph_def.node:
        # Another test's; they would be most of the file.
        node.attr.pop("_output_shapes", None)
    with open(os.path.join(OUT, name + ".pbtxt"), "w") as f:
        f.write(text_format.MessageToString(meta))


def write_values(name, values):
    with open(os.path.join(OUT, name + ".json"), "w") as f:
        json.dump(values, f, indent=1)
        f.write("\n")


def session():
    return tf1.Session(config=session_config())


def article():
    v = tf1.Variable(0.0, name="v", dtype=tf.float32)
    ema = tf1.train.ExponentialMovingAverage(0.99)
    maintain = ema.apply(tf1.global_variables())
    assert maintain.name == "ExponentialMovingAverage", maintain.name
    write_graph("article")
    with session() as sess:
        sess.run(tf1.global_variables_initializer())
        values = []
        for _ in range(2):
            sess.run(tf1.assign(v, 10.0))
            sess.run(maintain)
            values.append([float(x) for x in sess.run([v, ema.average(v)])])
    write_values("article", {
        "values": values, "average_name": ema.average_name(v),
        "to_restore": {k: w.op.name for k, w in sorted(ema.variables_to_restore().items())}})


def num_updates():
    step = tf1.train.get_or_create_global_step()
    w = tf1.get_variable("w", initializer=tf.constant([1.0, 2.0]))
    with tf1.variable_scope("layer"):
        b = tf1.get_variable("b", [3], initializer=tf1.zeros_initializer(), dtype=tf.float64)
    ema = tf1.train.ExponentialMovingAverage(0.999, step, name="avg")
    ema.apply()
    write_graph("num_updates")


def debias():
    x = tf1.placeholder(tf.float32, [2], name="x")
    ema = tf1.train.ExponentialMovingAverage(0.9, zero_debias=True)
    update = ema.apply([x])
    write_graph("debias")
    with session() as sess:
        sess.run(tf1.global_variables_initializer())
        values = []
        for k in range(3):
            sess.run(update, {x: [1.0 + k, 2.0]})
            values.append([float(y) for y in sess.run(ema.average(x))])
    write_values("debias", {"values": values})


def tensor():
    x = tf1.placeholder(tf.float32, [2], name="x")
    y = tf.multiply(x, 2.0, name="y")
    ema = tf1.train.ExponentialMovingAverage(0.5)
    ema.apply([y])
    write_graph("tensor")


def cond():
    p = tf1.placeholder(tf.bool, [], name="p")
    q = tf1.placeholder(tf.bool, [], name="q")
    x = tf1.placeholder(tf.float32, [2], name="x")
    tf1.cond(p, lambda: tf.square(x), lambda: tf.constant([5.0, 6.0]), name="first")
    tf1.cond(p,
             lambda: tf1.cond(q, lambda: tf.negative(x), lambda: tf.add(x, x)),
             lambda: x)
    write_graph("cond")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    for make in (article, num_updates, debias, tensor, cond):
        with tf.Graph().as_default():
            make()


if __name__ == "__main__":
    main()
