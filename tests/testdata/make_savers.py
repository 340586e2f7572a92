"""Writes savers/: meta graphs of tiny models as tf.compat.v1.train.Saver writes them.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_savers.py

Each NAME.meta is what Saver.save() writes beside a checkpoint, NAME.pbtxt the same as text, and
NAME.index, NAME.data-* the checkpoint. The model: a float [2,3] (i), b int64 [] (7), scope/c double
[4] (i / 4), in that order, VariableV2, initialised by Consts.

    unsharded   Saver() with its defaults
    options     max_to_keep=2, keep_checkpoint_every_n_hours=1.5, name="keeper", pad_step_number
    sharded     sharded=True, a on /cpu:0, b on /cpu:1, scope/c on /cpu:0
    one_device  sharded=True, no variable on any device
    reshape     reshape=True
    map         var_list {"other/name": a, "b": b}
    sequential  restore_sequentially=True
    second      two Savers in one graph; the second one's
    resource    resource variables
    partitioned a is in two slices along dimension 1
    v1          write_version V1
    cleared     clear_devices=True and strip_default_attrs=True of `sharded` (no checkpoint)
    collections the user's collections: a node list, bytes, ints and floats
    cond        with a conditional (Switch, Merge) and its context in a collection
"""

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

OUT = os.path.join(HERE, "savers")
tf1.disable_resource_variables()


def variables(devices=(None, None, None), resource=False, partitioner=None):
    with tf1.device(devices[0]):
        a = tf1.get_variable("a",
                             initializer=tf.constant(np.arange(6, dtype=np.float32).reshape(2, 3)),
                             use_resource=resource,
                             partitioner=partitioner)
    with tf1.device(devices[1]):
        b = tf1.get_variable("b", initializer=tf.constant(7, tf.int64), use_resource=resource)
    with tf1.device(devices[2]), tf1.variable_scope("scope"):
        c = tf1.get_variable("c",
                             initializer=tf.constant(np.arange(4) / 4.0),
                             use_resource=resource)
    return a, b, c


def write(name, saver, checkpoint=True, **export):
    meta = os.path.join(OUT, name + ".meta")
    config = session_config()
    config.device_count["CPU"] = 2
    if checkpoint:
        with tf1.Session(config=config) as sess:
            sess.run(tf1.global_variables_initializer())
            saver.save(sess, os.path.join(OUT, name), write_state=False)
    else:
        saver.export_meta_graph(meta, **export)
    proto = tf1.MetaGraphDef()
    with open(meta, "rb") as f:
        proto.ParseFromString(f.read())
    # The order of map entries is no part of the file; this makes it the same each time.
    with open(meta, "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    with open(os.path.join(OUT, name + ".pbtxt"), "w") as f:
        f.write(text_format.MessageToString(proto))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    two = ("/cpu:0", "/cpu:1", "/cpu:0")
    with tf.Graph().as_default():
        variables()
        write("unsharded", tf1.train.Saver())
    with tf.Graph().as_default():
        variables()
        write(
            "options",
            tf1.train.Saver(max_to_keep=2,
                            keep_checkpoint_every_n_hours=1.5,
                            name="keeper",
                            pad_step_number=True))
    with tf.Graph().as_default():
        variables(two)
        write("sharded", tf1.train.Saver(sharded=True))
    with tf.Graph().as_default():
        variables(two)
        write("cleared",
              tf1.train.Saver(sharded=True),
              checkpoint=False,
              clear_devices=True,
              strip_default_attrs=True)
    with tf.Graph().as_default():
        variables()
        write("one_device", tf1.train.Saver(sharded=True))
    with tf.Graph().as_default():
        variables()
        write("reshape", tf1.train.Saver(reshape=True))
    with tf.Graph().as_default():
        a, b, _ = variables()
        write("map", tf1.train.Saver({"other/name": a, "b": b}))
    with tf.Graph().as_default():
        variables()
        write("sequential", tf1.train.Saver(restore_sequentially=True))
    with tf.Graph().as_default():
        a, b, c = variables()
        tf1.train.Saver([a])
        write("second", tf1.train.Saver([c, b]))
    with tf.Graph().as_default():
        variables(resource=True)
        write("resource", tf1.train.Saver())
    with tf.Graph().as_default():
        variables(partitioner=tf1.fixed_size_partitioner(2, axis=1))
        write("partitioned", tf1.train.Saver())
    with tf.Graph().as_default():
        variables()
        write("v1", tf1.train.Saver(write_version=tf1.train.SaverDef.V1))
    with tf.Graph().as_default():
        a, b, c = variables()
        tf1.add_to_collection("my_nodes", a)
        tf1.add_to_collection("my_nodes", tf.identity(c, name="out"))
        tf1.add_to_collection("my_bytes", b"raw \xff".decode("latin1"))
        tf1.add_to_collection("my_ints", 3)
        tf1.add_to_collection("my_ints", -5)
        tf1.add_to_collection("my_floats", 0.5)
        tf1.add_to_collection(tf1.GraphKeys.LOSSES, tf.reduce_sum(a, name="sum"))
        tf1.add_to_collection(tf1.GraphKeys.TRAIN_OP, tf1.assign_add(b, 1, name="step"))
        write("collections", tf1.train.Saver())
    with tf.Graph().as_default():
        tf1.disable_control_flow_v2()
        a, b, c = variables()
        tf1.cond(b > 3, lambda: a * 2.0, lambda: a - 1.0, name="choose")
        write("cond", tf1.train.Saver())
    for f in sorted(os.listdir(OUT)):
        print("%8d %s" % (os.path.getsize(os.path.join(OUT, f)), f))


if __name__ == "__main__":
    main()
