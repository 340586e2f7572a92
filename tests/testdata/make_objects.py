"""Writes objects/: a checkpoint as TensorFlow 2's tf.train.Checkpoint writes them, from objects.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_objects.py

objects/ckpt-1 holds the variables w [2,2] (1 to 4), layer/bias [2] (5, 6) and step (int64, 7) under
keys such as "net/kernel/.ATTRIBUTES/VARIABLE_VALUE", and the table "_CHECKPOINTABLE_OBJECT_GRAPH"
that says which names they have.
"""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "objects")


class Net(tf.Module):

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
        with tf.name_scope("layer"):
            self.bias = tf.Variable([5.0, 6.0], name="bias")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    net = Net()
    checkpoint = tf.train.Checkpoint(net=net, step=tf.Variable(7, dtype=tf.int64, name="step"))
    checkpoint.write(os.path.join(OUT, "ckpt-1"))
    for f in sorted(os.listdir(OUT)):
        print("%8d %s" % (os.path.getsize(os.path.join(OUT, f)), f))


if __name__ == "__main__":
    main()
