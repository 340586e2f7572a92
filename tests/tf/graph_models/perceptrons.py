"""Layers of units: each optimizer, activation and regulariser; softmax regression; autoencoders;
narrow floats.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from .model import (BATCH, OPTIMIZERS, Ends, biases, classes_batch, classification_loss, dense,
                    random_state, register, regression_batch, weights)

_ACTIVATIONS = {
    "gradient_descent": tf.nn.relu,
    "momentum": tf.nn.tanh,
    "nesterov": tf.nn.sigmoid,
    "adam": tf.nn.elu,
    "adagrad": tf.nn.selu,
    "adadelta": tf.nn.softplus,
    "rmsprop": tf.nn.leaky_relu,
    "centered_rmsprop": tf.nn.relu6,
    "ftrl": tf.nn.softsign,
}


def _mlp(optimizer):
    def build():
        x = tf.placeholder(tf.float32, [None, 8], name="x")
        y = tf.placeholder(tf.float32, [None, 1], name="y")
        h = dense(x, 12, "hidden1", _ACTIVATIONS[optimizer])
        h = dense(h, 6, "hidden2", _ACTIVATIONS[optimizer])
        out = tf.identity(dense(h, 1, "out"), name="prediction")
        loss = tf.reduce_mean(tf.square(out - y), name="loss")
        return Ends([out], loss, OPTIMIZERS[optimizer]().minimize(loss, name="train"))

    return build


for _name in OPTIMIZERS:
    register(f"mlp_{_name}", _mlp(_name), regression_batch)
    register(f"mlp_{_name}_resource", _mlp(_name), regression_batch, resource=True)


def _regularized(regularizer):
    """With tf.losses and the collection of regularisation losses."""
    def build():
        x = tf.placeholder(tf.float32, [None, 8], name="x")
        y = tf.placeholder(tf.float32, [None, 1], name="y")
        with tf.variable_scope("net", regularizer=regularizer):
            h = tf.nn.relu(tf.matmul(x, weights("w1", [8, 10])) + biases("b1", [10], 0.1))
            out = tf.add(tf.matmul(h, weights("w2", [10, 1])), biases("b2", [1]), name="out")
        tf.losses.mean_squared_error(labels=y, predictions=out)
        loss = tf.losses.get_total_loss()
        step = tf.train.get_or_create_global_step()
        train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, step)
        return Ends([out], loss, train)

    return build


register("mlp_l1", _regularized(lambda w: 0.01 * tf.reduce_sum(tf.abs(w))), regression_batch)
register("mlp_l2", _regularized(lambda w: 0.01 * tf.nn.l2_loss(w)), regression_batch)
register("mlp_l1_l2_resource",
         _regularized(lambda w: tf.add(0.01 * tf.reduce_sum(tf.abs(w)), 0.01 * tf.nn.l2_loss(w))),
         regression_batch, resource=True)


def _softmax_regression():
    """As tutorials have it, with an accuracy."""
    x = tf.placeholder(tf.float32, [None, 8])
    y_ = tf.placeholder(tf.float32, [None, 5])
    W = tf.Variable(tf.zeros([8, 5]))
    b = tf.Variable(tf.zeros([5]))
    y = tf.nn.softmax(tf.matmul(x, W) + b)
    cross_entropy = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))
    train_step = tf.train.GradientDescentOptimizer(0.5).minimize(cross_entropy)
    correct_prediction = tf.equal(tf.argmax(y, 1), tf.argmax(y_, 1))
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, tf.float32))
    return Ends([y, accuracy], cross_entropy, train_step)


def _one_hot_batch(step):
    batch = classes_batch(step)
    return {"Placeholder": batch["x"],
            "Placeholder_1": np.eye(5, dtype=np.float32)[batch["y"]]}


register("softmax_regression", _softmax_regression, _one_hot_batch)


def _logistic_regression():
    """Two classes, one logit; the top 2 of the classes of another head."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    logit = tf.squeeze(dense(x, 1, "logit"), axis=1)
    target = tf.cast(tf.greater(y, 1), tf.float32)
    logits = dense(x, 5, "classes")
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logit))
    loss += tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=tf.one_hot(y, 5), logits=logits))
    in_top = tf.cast(tf.nn.in_top_k(logits, tf.cast(y, tf.int32), 2), tf.float32)
    train = tf.train.MomentumOptimizer(0.2, 0.5).minimize(loss)
    return Ends([tf.sigmoid(logit), tf.reduce_mean(in_top), tf.nn.log_softmax(logits)], loss, train)


register("logistic_regression", _logistic_regression, classes_batch)


def _autoencoder():
    """Both halves share the weights."""
    x = tf.placeholder(tf.float32, [None, 16], name="x")
    w1, w2 = weights("w1", [16, 8]), weights("w2", [8, 3])
    h = tf.nn.sigmoid(tf.matmul(x, w1) + biases("b1", [8]))
    code = tf.nn.sigmoid(tf.matmul(h, w2) + biases("b2", [3]), name="code")
    h = tf.nn.sigmoid(tf.matmul(code, w2, transpose_b=True) + biases("b3", [8]))
    out = tf.nn.sigmoid(tf.matmul(h, tf.transpose(w1)) + biases("b4", [16]), name="out")
    loss = tf.reduce_mean(tf.pow(x - out, 2))
    return Ends([code, out], loss, tf.train.RMSPropOptimizer(0.05).minimize(loss))


def _waves_batch(step):
    phase = random_state(step).uniform(0, 2 * np.pi, (BATCH, 1))
    x = 0.5 + 0.4 * np.sin(phase + np.arange(16) / 2)
    return {"x": x.astype(np.float32)}


register("autoencoder", _autoencoder, _waves_batch)


def _variational_autoencoder():
    """Draws its codes."""
    x = tf.placeholder(tf.float32, [None, 16], name="x")
    h = dense(x, 8, "encoder", tf.nn.tanh)
    mean, log_variance = dense(h, 2, "mean"), dense(h, 2, "log_variance")
    code = mean + tf.exp(0.5 * log_variance) * tf.random_normal(tf.shape(mean), seed=7)
    logits = dense(dense(code, 8, "decoder", tf.nn.tanh), 16, "out")
    likelihood = tf.reduce_sum(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), axis=1)
    divergence = -0.5 * tf.reduce_sum(
        1 + log_variance - tf.square(mean) - tf.exp(log_variance), axis=1)
    loss = tf.reduce_mean(likelihood + divergence)
    return Ends([mean, tf.sigmoid(logits)], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


register("variational_autoencoder", _variational_autoencoder, _waves_batch, random=True)


def _batch_normalized():
    """Batch normalisation of one's own: moments, averages of them, a placeholder that says
    which."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    training = tf.placeholder(tf.bool, [], name="training")
    h = tf.matmul(x, weights("w", [8, 10]))
    mean, variance = tf.nn.moments(h, [0], name="moments")
    ema = tf.train.ExponentialMovingAverage(0.8)

    def update():
        with tf.control_dependencies([ema.apply([mean, variance])]):
            return tf.identity(mean), tf.identity(variance)

    mean, variance = tf.cond(training, update,
                             lambda: (ema.average(mean), ema.average(variance)))
    h = tf.nn.batch_normalization(h, mean, variance, biases("beta", [10]),
                                  biases("gamma", [10], 1.0), 1e-3)
    logits = dense(tf.nn.relu(h), 5, "out")
    loss = classification_loss(logits, y)
    return Ends([logits], loss, tf.train.GradientDescentOptimizer(0.2).minimize(loss))


def _training_classes_batch(step):
    return {**classes_batch(step), "training": np.array(step is not None)}


register("mlp_batch_normalized", _batch_normalized, _training_classes_batch)


def _layer_normalized():
    """Normalised over each example's units, in double."""
    x = tf.placeholder(tf.float64, [None, 8], name="x")
    y = tf.placeholder(tf.float64, [None, 1], name="y")
    h = tf.matmul(x, weights("w", [8, 10], dtype=tf.float64))
    mean, variance = tf.nn.moments(h, [1], keep_dims=True)
    h = tf.nn.relu((h - mean) * tf.rsqrt(variance + 1e-6))
    out = tf.matmul(h, weights("v", [10, 1], dtype=tf.float64))
    loss = tf.losses.huber_loss(y, out)
    return Ends([out], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


def _double_batch(step):
    return {name: array.astype(np.float64) for name, array in regression_batch(step).items()}


register("mlp_double", _layer_normalized, _double_batch)


def _mixed_precision(dtype):
    """Variables and their updates in float32, products in `dtype`, the loss scaled."""
    def build():
        x = tf.placeholder(tf.float32, [None, 8], name="x")
        y = tf.placeholder(tf.int64, [None], name="y")

        def getter(getter, name, *args, **kwargs):
            kwargs["dtype"] = tf.float32
            return tf.cast(getter(name, *args, **kwargs), dtype, name=name + "/cast")

        with tf.variable_scope("net", custom_getter=getter):
            h = tf.nn.relu(tf.matmul(tf.cast(x, dtype), weights("w1", [8, 12])) +
                           biases("b1", [12]))
            logits = tf.nn.bias_add(tf.matmul(h, weights("w2", [12, 5])), biases("b2", [5]))
        logits = tf.cast(logits, tf.float32)
        loss = classification_loss(logits, y)
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
        scale = 128.0
        grads = [(g / scale, v) for g, v in optimizer.compute_gradients(loss * scale)]
        return Ends([logits], loss, optimizer.apply_gradients(grads))

    return build


# A unit in the last place of these types.
register("mlp_half", _mixed_precision(tf.float16), classes_batch, tolerance=2**-10)
register("mlp_bfloat16", _mixed_precision(tf.bfloat16), classes_batch, tolerance=2**-7)


def _gaussian_mixture():
    """Covariances by their roots; inverses and determinants beside those."""
    x = tf.placeholder(tf.float32, [None, 2], name="x")
    means = tf.get_variable("means", [3, 2], initializer=tf.random_normal_initializer())
    roots = tf.get_variable("roots", initializer=tf.eye(2, batch_shape=[3]) + 0.1)
    covariances = tf.matmul(roots, roots, transpose_b=True) + 0.1 * tf.eye(2)
    triangles = tf.cholesky(covariances)
    away = tf.transpose(x[tf.newaxis] - means[:, tf.newaxis], [0, 2, 1])
    scaled = tf.matrix_triangular_solve(triangles, away)
    log_roots = tf.reduce_sum(tf.log(tf.matrix_diag_part(triangles)), axis=1)
    logs = -0.5 * tf.reduce_sum(tf.square(scaled), axis=1) - log_roots[:, tf.newaxis]
    inverses = tf.matrix_inverse(covariances)
    loss = (-tf.reduce_mean(tf.reduce_logsumexp(logs, axis=0)) +
            0.01 * tf.reduce_sum(tf.log(tf.matrix_determinant(covariances))) +
            0.001 * tf.reduce_sum(tf.trace(inverses)))
    train = tf.train.AdamOptimizer(0.02).minimize(loss)
    return Ends([tf.nn.softmax(logs, axis=0), inverses], loss, train)


register("gaussian_mixture", _gaussian_mixture,
         lambda step: {"x": random_state(step).normal(size=(BATCH, 2)).astype(np.float32)})
