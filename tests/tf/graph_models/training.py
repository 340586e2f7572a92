"""What surrounds a step of training: averages, rates that change, clipping, noise, several losses.
"""

import tensorflow.compat.v1 as tf

from .model import (Ends, classes_batch, classification_loss, dense, regression_batch, register)


def _network():
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    out = dense(dense(x, 10, "hidden", tf.nn.tanh), 1, "out")
    return out, tf.reduce_mean(tf.square(out - y), name="loss")


def _moving_averages():
    """The outputs are those of the averages."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    step = tf.train.get_or_create_global_step()
    w = tf.get_variable("w", [8, 1], initializer=tf.random_normal_initializer(stddev=0.3))
    b = tf.get_variable("b", [1], initializer=tf.zeros_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w) + b - y), name="loss")
    minimize = tf.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)
    ema = tf.train.ExponentialMovingAverage(0.99, num_updates=step)
    with tf.control_dependencies([minimize]):
        train = ema.apply([w, b])
    out = tf.add(tf.matmul(x, ema.average(w)), ema.average(b), name="out")
    return Ends([out], loss, train)


register("moving_averages", _moving_averages, regression_batch)
register("moving_averages_resource", _moving_averages, regression_batch, resource=True)


def _debiased_averages():
    """Of the loss, a tensor, from zero on."""
    out, loss = _network()
    ema = tf.train.ExponentialMovingAverage(0.9, zero_debias=True)
    minimize = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    update = ema.apply([loss])
    average = ema.average(loss)
    return Ends([out, tf.identity(average)], loss, tf.group(minimize, update))


register("moving_averages_debiased", _debiased_averages, regression_batch)

_SCHEDULES = {
    "exponential": lambda step: tf.train.exponential_decay(0.2, step, 5, 0.8),
    "staircase": lambda step: tf.train.exponential_decay(0.2, step, 5, 0.8, staircase=True),
    "piecewise_constant": lambda step: tf.train.piecewise_constant(
        step, [5, 12], [0.2, 0.1, 0.05]),
    "polynomial": lambda step: tf.train.polynomial_decay(0.2, step, 15, 0.01, power=0.5),
    "polynomial_cycle": lambda step: tf.train.polynomial_decay(0.2, step, 7, 0.01, power=2.0,
                                                               cycle=True),
    "natural_exp": lambda step: tf.train.natural_exp_decay(0.2, step, 10, 0.5),
    "inverse_time": lambda step: tf.train.inverse_time_decay(0.2, step, 10, 0.5, staircase=True),
    "cosine": lambda step: tf.train.cosine_decay(0.2, step, 18, alpha=0.1),
    "cosine_restarts": lambda step: tf.train.cosine_decay_restarts(0.2, step, 6),
    "linear_cosine": lambda step: tf.train.linear_cosine_decay(0.2, step, 18),
}


def _schedule(name):
    def build():
        out, loss = _network()
        step = tf.train.get_or_create_global_step()
        rate = _SCHEDULES[name](step)
        train = tf.train.GradientDescentOptimizer(rate).minimize(loss, global_step=step)
        return Ends([out, rate], loss, train)

    return build


for _name in _SCHEDULES:
    register(f"rate_{_name}", _schedule(_name), regression_batch)
for _name in "exponential", "piecewise_constant", "cosine":
    register(f"rate_{_name}_resource", _schedule(_name), regression_batch, resource=True)
register("rate_piecewise_constant_v2", _schedule("piecewise_constant"), regression_batch,
         resource=True, control_flow_v2=True)

_CLIPPINGS = {
    "value": lambda grads: [tf.clip_by_value(g, -0.05, 0.05) for g in grads],
    "norm": lambda grads: [tf.clip_by_norm(g, 0.1) for g in grads],
    "average_norm": lambda grads: [tf.clip_by_average_norm(g, 0.01) for g in grads],
    "global_norm": lambda grads: tf.clip_by_global_norm(grads, 0.2)[0],
}


def _clipping(name):
    def build():
        out, loss = _network()
        optimizer = tf.train.MomentumOptimizer(0.2, 0.5)
        grads, variables = zip(*optimizer.compute_gradients(loss))
        train = optimizer.apply_gradients(zip(_CLIPPINGS[name](grads), variables))
        return Ends([out], loss, train)

    return build


for _name in _CLIPPINGS:
    register(f"clip_{_name}", _clipping(_name), regression_batch)


def _dropout():
    """By a probability to keep that may be fed, and of whole examples; with the graph's seed and
    the ops'."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    keep_prob = tf.placeholder_with_default(0.75, [], name="keep_prob")
    h = tf.nn.dropout(dense(x, 16, "hidden", tf.nn.relu), keep_prob=keep_prob, seed=3)
    h = tf.nn.dropout(h, rate=0.25, noise_shape=[tf.shape(h)[0], 1], seed=4)
    logits = dense(h, 5, "out")
    loss = classification_loss(logits, y)
    return Ends([logits], loss, tf.train.AdamOptimizer(0.02).minimize(loss))


register("dropout", _dropout, classes_batch, random=True)
register("dropout_resource", _dropout, classes_batch, resource=True, random=True)


def _noise():
    """Noise of several kinds on inputs and labels."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    noisy = x + tf.random_normal(tf.shape(x), stddev=0.1, seed=5)
    noisy += tf.truncated_normal(tf.shape(x), stddev=0.1, seed=6)
    noisy *= tf.random_uniform([8], 0.9, 1.1, seed=7)
    keep = tf.to_float(tf.random_uniform(tf.shape(x), 0, 10, tf.int32, seed=8) > 0)
    out = dense(dense(noisy * keep, 10, "hidden", tf.nn.tanh), 1, "out")
    loss = tf.reduce_mean(tf.abs(out - y), name="loss")
    return Ends([out], loss, tf.train.GradientDescentOptimizer(0.1).minimize(loss))


register("noise", _noise, regression_batch, random=True)


def _accumulation():
    """Gradients of four batches are summed before they are applied."""
    out, loss = _network()
    optimizer = tf.train.AdamOptimizer(0.05)
    step = tf.train.get_or_create_global_step()
    grads = optimizer.compute_gradients(loss)
    sums = [tf.Variable(tf.zeros(v.shape), trainable=False) for _, v in grads]
    with tf.control_dependencies([s.assign_add(g) for s, (g, _) in zip(sums, grads)]):
        count = tf.assign_add(step, 1)

    def apply():
        applied = optimizer.apply_gradients([(s / 4.0, v) for s, (_, v) in zip(sums, grads)])
        with tf.control_dependencies([applied]):
            return tf.group(*[s.assign(tf.zeros_like(s)) for s in sums])

    return Ends([out], loss, tf.group(tf.cond(tf.equal(count % 4, 0), apply, tf.no_op)))


register("accumulated_gradients", _accumulation, regression_batch)
register("accumulated_gradients_resource", _accumulation, regression_batch, resource=True)


def _two_players():
    """Each of two networks is trained against the other, one after the other."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")

    def judge(inputs):
        with tf.variable_scope("judge", reuse=tf.AUTO_REUSE):
            return dense(dense(inputs, 6, "hidden", tf.nn.leaky_relu), 1, "out")

    with tf.variable_scope("painter"):
        painted = tf.tanh(dense(dense(x, 6, "hidden", tf.nn.relu), 8, "out"))
    real, false = judge(x), judge(painted)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits
    judge_loss = tf.reduce_mean(cross_entropy(labels=tf.ones_like(real), logits=real) +
                                cross_entropy(labels=tf.zeros_like(false), logits=false))
    painter_loss = tf.reduce_mean(cross_entropy(labels=tf.ones_like(false), logits=false))
    judged = tf.train.AdamOptimizer(0.01, beta1=0.5).minimize(
        judge_loss, var_list=tf.trainable_variables("judge"))
    with tf.control_dependencies([judged]):
        train = tf.train.RMSPropOptimizer(0.01).minimize(
            tf.reduce_mean(tf.nn.softplus(-judge(painted))),
            var_list=tf.trainable_variables("painter"))
    return Ends([painted, real], judge_loss + painter_loss, train)


register("two_players", _two_players, lambda step: {"x": regression_batch(step)["x"]})


def _assigned_slices():
    """Writes the last inputs into rows and columns of a matrix."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    seen = tf.get_variable("seen", [4, 8], initializer=tf.zeros_initializer(), trainable=False)
    out = dense(x + tf.reduce_mean(seen, axis=0), 1, "out")
    loss = tf.reduce_mean(tf.square(out - y))
    trained = tf.train.AdamOptimizer(0.01).minimize(loss)
    with tf.control_dependencies([trained]):
        rows = seen[1:3, ::2].assign(x[:2, :4])
    with tf.control_dependencies([rows]):
        row = seen[0].assign(x[2])
    return Ends([out], loss, tf.group(rows, row))


register("assigned_slices", _assigned_slices, regression_batch)
register("assigned_slices_resource", _assigned_slices, regression_batch, resource=True)
