"""Writes mlp/: the digits network, trained by TensorFlow, with what comes next.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_mlp.py

The network: x float [None,64] and y int64 [None] (placeholders), layers hidden1 (128, Relu),
hidden2 (64, Relu) and logits (10), each a variable scope with `weights` (truncated normal, stddev
1/sqrt(inputs)) and `biases` (zeros); the mean sparse softmax cross entropy; global_step; one
optimizer: adam (1e-3), momentum (0.05, 0.9, Nesterov) or sgd (0.1). Inputs are pixels / 16.
Training rows are those of examples/data with i % 5 != 4, in order; step s takes the 32 rows
(s * 32 + j) % 1438. Graph-level seed 42.

mlp/adam, mlp/momentum and mlp/sgd hold
    model.ckpt-100.{index,data-00000-of-00001,meta}, checkpoint   after 100 steps (relative paths)
    graph.pbtxt        the graph with its Saver, as text
    nodes.txt          a node a line: name, op, inputs separated by spaces, tab-separated
    expected.txt       lines `loss S V`: the loss before step S (100..119), going on from the
                       checkpoint; `logits I V0 .. V9`: the logits of test row I (0..7) at the
                       checkpoint; `accuracy V`: of all test rows at the checkpoint; `initial V..`:
                       the first 8 of row 0 of hidden1/weights before training; `final V..`: the
                       first 8 of its row 20 after step 119
"""

import gzip
import os
import shutil

from case_lib import HERE, session_config, tf, tf1

import numpy as np

tf1.disable_resource_variables()  # global_step and the optimizers' slots too.

OUT = os.path.join(HERE, "mlp")
DATA = os.path.join(HERE, "..", "..", "examples", "data", "digits.csv.gz")


def load_digits():
    with gzip.open(DATA) as f:
        rows = np.loadtxt(f, delimiter=",")
    x = (rows[:, :64] / 16).astype(np.float32)
    y = rows[:, 64].astype(np.int64)
    test = np.arange(len(x)) % 5 == 4
    return x[~test], y[~test], x[test], y[test]


def layer(x, units, scope, activation):
    inputs = x.shape[1]
    with tf1.variable_scope(scope):
        weights = tf1.get_variable(
            "weights", [inputs, units],
            use_resource=False,
            initializer=tf1.truncated_normal_initializer(stddev=1.0 / np.sqrt(int(inputs))))
        biases = tf1.get_variable("biases", [units],
                                  use_resource=False,
                                  initializer=tf1.zeros_initializer())
        z = tf1.nn.bias_add(tf.matmul(x, weights), biases)
        return tf.nn.relu(z) if activation else z


def build(optimizer):
    tf1.set_random_seed(42)
    x = tf1.placeholder(tf.float32, [None, 64], name="x")
    y = tf1.placeholder(tf.int64, [None], name="y")
    h = layer(x, 128, "hidden1", True)
    h = layer(h, 64, "hidden2", True)
    logits = layer(h, 10, "logits", False)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits),
                          name="loss")
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), y), tf.float32),
                              name="accuracy")
    global_step = tf1.train.get_or_create_global_step()
    train_op = optimizer().minimize(loss, global_step)
    init = tf1.global_variables_initializer()
    saver = tf1.train.Saver()
    return x, y, logits, loss, accuracy, global_step, train_op, init, saver


OPTIMIZERS = {
    "adam": lambda: tf1.train.AdamOptimizer(1e-3),
    "momentum": lambda: tf1.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "sgd": lambda: tf1.train.GradientDescentOptimizer(0.1),
}


def numbers(values):
    return " ".join("%.9g" % v for v in values)


def main():
    train_x, train_y, test_x, test_y = load_digits()
    assert len(train_x) == 1438

    def batch(step):
        rows = (step * 32 + np.arange(32)) % 1438
        return train_x[rows], train_y[rows]

    shutil.rmtree(OUT, ignore_errors=True)
    for name, optimizer in OPTIMIZERS.items():
        folder = os.path.join(OUT, name)
        os.makedirs(folder)
        with tf.Graph().as_default() as g:
            x, y, logits, loss, accuracy, step, train_op, init, saver = build(optimizer)
            tf1.io.write_graph(g.as_graph_def(), folder, "graph.pbtxt")
            with open(os.path.join(folder, "nodes.txt"), "w") as f:
                for n in g.as_graph_def().node:
                    f.write("%s\t%s\t%s\n" % (n.name, n.op, " ".join(n.input)))
            lines = []
            with tf1.Session(config=session_config()) as sess:
                sess.run(init)
                w = g.get_tensor_by_name("hidden1/weights:0")
                lines.append("initial " + numbers(sess.run(w).ravel()[:8]))
                for s in range(100):
                    bx, by = batch(s)
                    sess.run(train_op, {x: bx, y: by})
                cwd = os.getcwd()
                os.chdir(folder)  # So that the state file holds relative paths.
                saver.save(sess, "./model.ckpt", global_step=step)
                os.chdir(cwd)
                for i, row in enumerate(sess.run(logits, {x: test_x[:8]})):
                    lines.append("logits %d %s" % (i, numbers(row)))
                lines.append("accuracy %.9g" % sess.run(accuracy, {x: test_x, y: test_y}))
                for s in range(100, 120):
                    bx, by = batch(s)
                    v, _ = sess.run([loss, train_op], {x: bx, y: by})
                    lines.append("loss %d %.9g" % (s, v))
                lines.append("final " + numbers(sess.run(w)[20, :8]))
                with open(os.path.join(folder, "expected.txt"), "w") as f:
                    f.write("\n".join(lines) + "\n")
                for s in range(120, 2000):
                    bx, by = batch(s)
                    sess.run(train_op, {x: bx, y: by})
                print(name, "accuracy after 2000 steps", sess.run(accuracy, {x: test_x, y: test_y}))


if __name__ == "__main__":
    main()
