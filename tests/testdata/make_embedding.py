"""Writes embedding/: a table of rows that two lookups share, trained by TensorFlow.

Run with the Python of a virtual environment that has tensorflow-cpu 2.21: python make_embedding.py

The network: first int32 [None] and second int64 [None] (placeholders), y float [None,1]; `table`
[11,4] (uniform in [-1,1)), looked up with both as e1 and e2; w [4,1] (uniform too); the l2_loss of
matmul(e1 * e2, w) - y; global_step; one optimizer (see OPTIMIZERS). Graph-level seed 42. Step s
takes, for i in 0..5, first = (3 s + i i) % 11, second = (s + 2 i) % 11, y = ((s + i) % 5 - 2) / 2.

embedding/NAME.pb     the GraphDef, without a Saver
embedding/NAME.txt    lines `loss S V`: the loss before step S (0..19); `table V..`: its elements
                      after step 19; `slot NAME V..`: the same of each slot
"""

import os
import shutil

from case_lib import HERE, session_config, tf, tf1

import numpy as np

tf1.disable_resource_variables()

OUT = os.path.join(HERE, "embedding")
train = tf1.train
OPTIMIZERS = {
    "sgd": lambda: train.GradientDescentOptimizer(0.1),
    "momentum": lambda: train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "adam": lambda: train.AdamOptimizer(0.05),
    "adagrad": lambda: train.AdagradOptimizer(0.1, initial_accumulator_value=0.2),
    "adadelta": lambda: train.AdadeltaOptimizer(0.5, rho=0.9, epsilon=1e-6),
    "rmsprop": lambda: train.RMSPropOptimizer(0.01, decay=0.8, momentum=0.5),
    "centered": lambda: train.RMSPropOptimizer(0.01, epsilon=1e-3, centered=True),
    "ftrl": lambda: train.FtrlOptimizer(0.1, l1_regularization_strength=0.01,
                                        l2_regularization_strength=0.02, beta=0.1),
    "ftrl_v2": lambda: train.FtrlOptimizer(0.1, learning_rate_power=-0.6,
                                           l2_shrinkage_regularization_strength=0.1),
}


def feeds(s):
    i = np.arange(6)
    return {
        "first:0": ((3 * s + i * i) % 11).astype(np.int32),
        "second:0": ((s + 2 * i) % 11).astype(np.int64),
        "y:0": (((s + i) % 5 - 2) / 2).astype(np.float32).reshape(6, 1),
    }


def build(optimizer):
    tf1.set_random_seed(42)
    first = tf1.placeholder(tf.int32, [None], name="first")
    second = tf1.placeholder(tf.int64, [None], name="second")
    y = tf1.placeholder(tf.float32, [None, 1], name="y")
    uniform = tf1.random_uniform_initializer(-1.0, 1.0)
    table = tf1.get_variable("table", [11, 4], initializer=uniform)
    w = tf1.get_variable("w", [4, 1], initializer=uniform)
    e1 = tf1.nn.embedding_lookup(table, first, name="e1")
    e2 = tf1.nn.embedding_lookup(table, second, name="e2")
    error = tf.subtract(tf.matmul(tf.multiply(e1, e2, name="both"), w, name="out"), y, name="error")
    loss = tf.nn.l2_loss(error, name="loss")
    step = train.get_or_create_global_step()
    train_op = optimizer.minimize(loss, step)
    init = tf1.global_variables_initializer()
    return table, loss, train_op, init


def numbers(values):
    return " ".join("%.9g" % v for v in np.ravel(values))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    for name, make in OPTIMIZERS.items():
        with tf.Graph().as_default() as g:
            optimizer = make()
            table, loss, train_op, init = build(optimizer)
            with open(os.path.join(OUT, name + ".pb"), "wb") as f:
                f.write(g.as_graph_def().SerializeToString(deterministic=True))
            lines = []
            with tf1.Session(config=session_config()) as sess:
                sess.run(init)
                for s in range(20):
                    v, _ = sess.run([loss, train_op], feeds(s))
                    lines.append("loss %d %.9g" % (s, v))
                lines.append("table " + numbers(sess.run(table)))
                for slot in optimizer.get_slot_names():
                    lines.append("slot %s %s" % (slot, numbers(
                        sess.run(optimizer.get_slot(table, slot)))))
            with open(os.path.join(OUT, name + ".txt"), "w") as f:
                f.write("\n".join(lines) + "\n")
            print(name, lines[0], lines[19])


if __name__ == "__main__":
    main()
