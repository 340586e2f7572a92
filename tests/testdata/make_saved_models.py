"""Writes saved_models/: SavedModels as tf.compat.v1.saved_model writes them.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_saved_models.py

    plain       x [?,2] -> y = x * w + b, reference variables; tag serve, signature serving_default
    resource    the same of resource variables, as text (saved_model.pbtxt)
    two         two graphs over the same variables: tags {serve} (y) and {train, gpu} (y, loss)
    assets      two assets; the main op reads the first one into the variable `text`
    legacy      its init op (adds 1 to `count`) is in the collection legacy_init_op
    simple      by simple_save
    constant    no variables: y = x + 1
"""

import os
import shutil

from case_lib import HERE, session_config, tf, tf1

import numpy as np

OUT = os.path.join(HERE, "saved_models")
sm = tf1.saved_model


def linear(resource=False):
    x = tf1.placeholder(tf.float32, [None, 2], name="x")
    w = tf1.get_variable("w", initializer=[2.0, 3.0], use_resource=resource)
    b = tf1.get_variable("b", initializer=[0.5, 0.25], use_resource=resource)
    return x, tf.add(x * w, b, name="y")


def predict(x, y):
    return {sm.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY:
            sm.predict_signature_def({"input": x}, {"output": y})}


def write(name, build, as_text=False):
    folder = os.path.join(OUT, name)
    builder = sm.Builder(folder)
    with tf.Graph().as_default(), tf1.Session(config=session_config()) as session:
        build(builder, session)
    builder.save(as_text=as_text)


def plain(builder, session, resource=False):
    x, y = linear(resource)
    session.run(tf1.global_variables_initializer())
    builder.add_meta_graph_and_variables(session, ["serve"], predict(x, y))


def two(builder, session):
    plain(builder, session)
    with tf.Graph().as_default():
        x, y = linear()
        tf.reduce_sum(y, name="loss")
        builder.add_meta_graph(["train", "gpu"], predict(x, y), strip_default_attrs=True)


def assets(builder, session):
    folder = os.path.join(OUT, "source")
    os.makedirs(folder)
    for name in "first.txt", "second.txt":
        with open(os.path.join(folder, name), "w") as f:
            f.write(name)
    first = tf.constant(os.path.join(folder, "first.txt"), name="first")
    second = tf.constant(os.path.join(folder, "second.txt"), name="second")
    text = tf1.get_variable("text", initializer=tf.constant(""), use_resource=False)
    session.run(tf1.global_variables_initializer())
    main = tf.group(tf1.assign(text, first, name="take"), name="main")
    builder.add_meta_graph_and_variables(session, ["serve"], assets_collection=[first, second],
                                         main_op=main)
    shutil.rmtree(folder)


def legacy(builder, session):
    count = tf1.get_variable("count", initializer=tf.constant(41), use_resource=False)
    session.run(tf1.global_variables_initializer())
    step = tf1.assign_add(count, 1, name="step")
    tf1.add_to_collection("legacy_init_op", step.op)
    builder.add_meta_graph_and_variables(session, ["serve"])


def constant(builder, session):
    x = tf1.placeholder(tf.float32, [None], name="x")
    builder.add_meta_graph_and_variables(session, ["serve"], predict(x, tf.add(x, 1.0, name="y")))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    write("plain", plain)
    write("resource", lambda builder, session: plain(builder, session, True), as_text=True)
    write("two", two)
    write("assets", assets)
    write("legacy", legacy)
    write("constant", constant)
    with tf.Graph().as_default(), tf1.Session(config=session_config()) as session:
        x, y = linear()
        session.run(tf1.global_variables_initializer())
        sm.simple_save(session, os.path.join(OUT, "simple"), {"x": x}, {"y": y})
    for folder, _, files in sorted(os.walk(OUT)):
        for f in sorted(files):
            path = os.path.join(folder, f)
            print("%8d %s" % (os.path.getsize(path), os.path.relpath(path, OUT)))


if __name__ == "__main__":
    main()
