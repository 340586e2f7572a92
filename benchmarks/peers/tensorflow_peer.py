"""Measures TensorFlow through tensorflow.compat.v1: graphs, sessions and the Saver.

Saves are not durable, since TensorFlow never syncs a file.
"""

import os

import measure

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np  # pylint: disable=wrong-import-position
import tensorflow.compat.v1 as tf  # pylint: disable=wrong-import-position


def session(args, optimize=True):
    config = tf.ConfigProto(intra_op_parallelism_threads=args.threads,
                            inter_op_parallelism_threads=args.threads)
    if not optimize:
        # Else a chain of adds is folded into one.
        config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


def variables(args):
    size = measure.floats_per_tensor(args)
    values = [tf.get_variable(f"v{i}", initializer=tf.random.uniform([size], seed=i + 1))
              for i in range(args.tensors)]
    return values, tf.global_variables_initializer()


def save(args):
    _, initializer = variables(args)
    saver = tf.train.Saver(max_to_keep=None)
    with session(args) as sess, measure.scratch_folder(args) as folder:
        sess.run(initializer)
        prefix = os.path.join(folder, "model.ckpt")

        def remove():
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))

        seconds = measure.median_seconds(
            lambda: saver.save(sess, prefix, write_meta_graph=False, write_state=False), remove)
        whole = measure.median_seconds(lambda: saver.save(sess, prefix), remove)
    measure.print_json(save_mb_per_s=measure.megabytes(args) / seconds, save_ms=seconds * 1e3,
                       save_with_meta_and_state_ms=whole * 1e3)


def restore(args):
    _, initializer = variables(args)
    saver = tf.train.Saver()
    with session(args) as sess, measure.scratch_folder(args) as folder:
        sess.run(initializer)
        prefix = saver.save(sess, os.path.join(folder, "model.ckpt"), write_meta_graph=False,
                            write_state=False)
        seconds = measure.median_seconds(lambda: saver.restore(sess, prefix))
    measure.print_json(restore_mb_per_s=measure.megabytes(args) / seconds)


def run(args):
    counter = tf.get_variable("counter", initializer=0.0)
    increment = tf.assign_add(counter, 1.0).op
    last = tf.get_variable("start", initializer=0.0).read_value()
    one = tf.constant(1.0)
    for _ in range(measure.CHAIN):
        last = tf.add(last, one)
    with session(args, optimize=False) as sess:
        sess.run(tf.global_variables_initializer())
        assign_add = measure.seconds_per_call(sess.make_callable(increment), args.seconds)
        chain = measure.seconds_per_call(sess.make_callable(last.op), args.seconds)
    measure.print_json(assign_add_ns=assign_add * 1e9, chain_ns_per_op=chain / measure.CHAIN * 1e9)


def steps_per_second(args, network):
    sizes, batch = network
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, sizes[0]])
        y = tf.placeholder(tf.int64, [None])
        h = x
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            weights = tf.get_variable(
                f"weights{i}", [inputs, outputs],
                initializer=tf.truncated_normal_initializer(stddev=inputs**-0.5))
            biases = tf.get_variable(f"biases{i}", [outputs], initializer=tf.zeros_initializer())
            h = tf.nn.bias_add(tf.matmul(h, weights), biases)
            if outputs != sizes[-1]:
                h = tf.nn.relu(h)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=h))
        train = tf.train.AdamOptimizer(1e-3).minimize(loss)
        rng = np.random.default_rng(1)
        images = rng.random((batch, sizes[0]), np.float32)
        labels = rng.integers(0, sizes[-1], batch)
        with session(args) as sess:
            sess.run(tf.global_variables_initializer())
            step = sess.make_callable(train, feed_list=[x, y])
            return 1 / measure.seconds_per_call(lambda: step(images, labels), args.seconds)


def train(args):
    measure.print_json(digits_steps_per_s=steps_per_second(args, measure.DIGITS),
                       mnist_steps_per_s=steps_per_second(args, measure.MNIST))


def main():
    args = measure.parse_arguments(__doc__)
    tf.disable_eager_execution()
    tf.disable_resource_variables()
    {"save": save, "restore": restore, "run": run, "train": train}[args.work](args)


if __name__ == "__main__":
    main()
