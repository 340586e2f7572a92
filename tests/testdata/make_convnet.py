"""Writes convnet/losses.txt: the loss before each of 20 steps of training a small network of
convolutions, one a line.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_convnet.py

The network, for the digits as [16,8,8,1] (pixels / 16; row (16 s + j) % 1438 of those rows of
examples/data with i % 5 != 4 is number j of step s): twice a convolution (3x3, SAME, 8 and 16
channels), bias, Relu and maximum over 2x2; then layers of 32 (Relu) and 10 units; the mean sparse
softmax cross entropy; momentum, 0.05 and 0.9. Element i of the weights number k (in the order of
the layers) is 1.5 / sqrt(inputs of an output) * sin(i + 1 + k), biases are zero.
"""

import gzip
import os

import numpy as np

from case_lib import HERE, session_config, tf, tf1

tf1.disable_resource_variables()


def main():
    with gzip.open(os.path.join(HERE, "..", "..", "examples", "data", "digits.csv.gz")) as f:
        rows = np.loadtxt(f, delimiter=",")
    rows = rows[np.arange(len(rows)) % 5 != 4]
    images = (rows[:, :64] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = rows[:, 64].astype(np.int64)
    assert len(rows) == 1438
    with tf.Graph().as_default():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 1])
        y = tf1.placeholder(tf.int64, [None])
        made = [0]

        def weights(shape):
            n = int(np.prod(shape))
            v = np.sin(np.arange(n) + 1.0 + made[0]) * 1.5 / np.sqrt(n / shape[-1])
            made[0] += 1
            return tf1.Variable(v.astype(np.float32).reshape(shape))

        def biased(z):
            return tf1.nn.bias_add(z, tf1.Variable(np.zeros(z.shape[-1], np.float32)))

        h = x
        for channels in (8, 16):
            w = weights([3, 3, int(h.shape[-1]), channels])
            h = tf.nn.relu(biased(tf1.nn.conv2d(h, w, strides=[1, 1, 1, 1], padding="SAME")))
            h = tf1.nn.max_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
        h = tf.reshape(h, [-1, 64])
        h = tf.nn.relu(biased(tf.matmul(h, weights([64, 32]))))
        logits = biased(tf.matmul(h, weights([32, 10])))
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        train = tf1.train.MomentumOptimizer(0.05, 0.9).minimize(loss)
        lines = []
        with tf1.Session(config=session_config()) as sess:
            sess.run(tf1.global_variables_initializer())
            for step in range(20):
                at = (step * 16 + np.arange(16)) % 1438
                v, _ = sess.run([loss, train], {x: images[at], y: labels[at]})
                lines.append("%.9g" % v)
    os.makedirs(os.path.join(HERE, "convnet"), exist_ok=True)
    with open(os.path.join(HERE, "convnet", "losses.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
