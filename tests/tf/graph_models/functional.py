"""Graphs with a function library: functions that are called, conditionals and loops of them."""

import tensorflow.compat.v1 as tf

from .model import (Ends, classification_loss, classes_batch, dense, regression_batch, register,
                    weights, biases)


def _called_functions():
    """Functions of TensorFlow 2 in a graph of TensorFlow 1, trained through."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    w, b = weights("w", [8, 6]), biases("b", [6])

    @tf.function
    def activation(h):
        return tf.nn.relu(h) - 0.1 * tf.nn.relu(-h)

    @tf.function
    def layer(h):
        return activation(tf.matmul(h, w) + b)

    out = tf.identity(dense(layer(x), 1, "out"), name="prediction")
    loss = tf.reduce_mean(tf.square(out - y), name="loss")
    return Ends([out], loss, tf.train.AdamOptimizer(0.02).minimize(loss))


register("functions_v2", _called_functions, regression_batch, resource=True, control_flow_v2=True)


def _conditional():
    """One of two activations by the inputs' sum; a variable read in a branch."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    h = dense(x, 6, "hidden")
    scale = tf.get_variable("scale", [], initializer=tf.ones_initializer())
    h = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(h) * scale, lambda: tf.nn.tanh(h))
    out = dense(h, 1, "out")
    loss = tf.reduce_mean(tf.square(out - y), name="loss")
    return Ends([out], loss, tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss))


register("conditional", _conditional, regression_batch)
register("conditional_resource", _conditional, regression_batch, resource=True)
register("conditional_v2", _conditional, regression_batch, resource=True, control_flow_v2=True)


def _cases():
    """tf.case and tf.switch_case over the steps that were trained; the loss is a loop's."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    step = tf.train.get_or_create_global_step()
    logits = dense(x, 5, "out")
    sharper = tf.case([(step < 5, lambda: logits), (step < 10, lambda: 1.1 * logits)],
                      default=lambda: 1.2 * logits, exclusive=False)
    branches = [lambda: tf.constant(0.1), lambda: tf.constant(0.2), lambda: tf.constant(0.05)]
    rate = tf.switch_case(tf.cast(step % 3, tf.int32), branches)
    loss = classification_loss(sharper, y)
    train = tf.train.GradientDescentOptimizer(rate).minimize(loss, global_step=step)
    return Ends([logits, rate], loss, train)


register("cases", _cases, classes_batch)
register("cases_v2", _cases, classes_batch, resource=True, control_flow_v2=True)


def _fixed_point():
    """Newton's square roots until all are near enough: how many steps, the values tell."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    target = 1 + tf.square(tf.matmul(x, weights("w", [8, 4])) + biases("b", [4], 0.2))

    def far(n, root):
        return tf.logical_and(n < 20, tf.reduce_max(tf.abs(root * root - target)) > 1e-3)

    n, root = tf.while_loop(far, lambda n, root: (n + 1, 0.5 * (root + target / root)),
                            (0, target))
    out = dense(root, 1, "out")
    loss = tf.reduce_mean(tf.square(out - y), name="loss")
    return Ends([n, out], loss, tf.train.GradientDescentOptimizer(0.05).minimize(loss))


register("fixed_point", _fixed_point, regression_batch)
register("fixed_point_v2", _fixed_point, regression_batch, resource=True, control_flow_v2=True)
