"""Models of sizes that people train, for models.py: as those of tests/tf/graph_models, but larger.

Their batches are random, as only time is measured.
"""

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl

from graph_models.model import Ends, Model, biases, classification_loss, dense, weights

MODELS = []


def _register(name, build, batch, **options):
    random = np.random.RandomState(1)
    fed = batch(random)
    MODELS.append(Model(name, build, lambda step: fed, **options))


# ---- what images go through ----


def _images(size, channels):
    return (tf.placeholder(tf.float32, [None, size, size, channels], name="x"),
            tf.placeholder(tf.int64, [None], name="y"))


def _images_batch(count, size, channels, classes=10):
    return lambda random: {
        "x": random.uniform(size=(count, size, size, channels)).astype(np.float32),
        "y": random.randint(0, classes, count).astype(np.int64)}


def _conv(x, channels, size, scope, stride=1, bias=True):
    with tf.variable_scope(scope):
        filters = weights("filters", [size, size, x.shape[-1], channels])
        h = tf.nn.conv2d(x, filters, strides=[1, stride, stride, 1], padding="SAME")
        return tf.nn.bias_add(h, biases("biases", [channels])) if bias else h


def _pool(x):
    return tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")


def _flatten(x):
    return tf.reshape(x, [-1, int(np.prod(x.shape.as_list()[1:]))])


def _lenet(first, second, units, optimizer):
    def build():
        x, y = _images(28, 1)
        h = _pool(tf.nn.relu(_conv(x, first, 5, "conv1")))
        h = _pool(tf.nn.relu(_conv(h, second, 5, "conv2")))
        h = dense(_flatten(h), units, "fc1", tf.nn.relu)
        logits = dense(h, 10, "fc2")
        loss = classification_loss(logits, y)
        return Ends([logits], loss, optimizer().minimize(loss))

    return build


_register("lenet 6-16, 28x28, batch 64", _lenet(6, 16, 120, lambda: tf.train.AdamOptimizer(1e-3)),
          _images_batch(64, 28, 1))
_register("lenet 32-64, 28x28, batch 64",
          _lenet(32, 64, 1024, lambda: tf.train.AdamOptimizer(1e-4)), _images_batch(64, 28, 1))


def _normalized(x, scope, train):
    """Batch normalisation that moves its averages (in UPDATE_OPS) when it trains."""
    with tf.variable_scope(scope):
        shape = [x.shape[-1]]
        gamma, beta = biases("gamma", shape, 1.0), biases("beta", shape)
        average = tf.get_variable("moving_mean", shape, trainable=False,
                                  initializer=tf.zeros_initializer())
        spread = tf.get_variable("moving_variance", shape, trainable=False,
                                 initializer=tf.ones_initializer())
        if not train:
            return tf.nn.fused_batch_norm(x, gamma, beta, average, spread, is_training=False)[0]
        out, mean, variance = tf.nn.fused_batch_norm(x, gamma, beta)
        for moving, value in (average, mean), (spread, variance):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                                 tf.assign_sub(moving, 0.1 * (moving - value)))
        return out


def _residual(x, channels, stride, scope, train):
    with tf.variable_scope(scope):
        h = _conv(x, channels, 3, "conv1", stride, bias=False)
        h = tf.nn.relu(_normalized(h, "bn1", train))
        h = _normalized(_conv(h, channels, 3, "conv2", bias=False), "bn2", train)
        if stride != 1:
            x = _conv(x, channels, 1, "shortcut", stride, bias=False)
        return tf.nn.relu(h + x)


def _resnet_logits(x, train):
    with tf.variable_scope("resnet", reuse=tf.AUTO_REUSE):
        h = _conv(x, 16, 3, "conv0", bias=False)
        h = tf.nn.relu(_normalized(h, "bn0", train))
        for i, (channels, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
            h = _residual(h, channels, stride, f"block{i}", train)
        return dense(tf.reduce_mean(h, [1, 2]), 10, "out")


def _resnet():
    x, y = _images(32, 3)
    loss = classification_loss(_resnet_logits(x, True), y)
    loss += 1e-4 * tf.add_n([tf.nn.l2_loss(v) for v in tf.trainable_variables()])
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train = tf.train.MomentumOptimizer(0.01, 0.9).minimize(loss)
    return Ends([_resnet_logits(x, False)], loss, train)


_register("resnet of 8 layers, 32x32, batch 32", _resnet, _images_batch(32, 32, 3))
_register("resnet of 8 layers, 32x32, batch 1", _resnet, _images_batch(1, 32, 3))


def _mobilenet(multiplier):
    def build():
        x, y = _images(32, 3)
        h = tf.nn.relu6(_normalized(_conv(x, 32, 3, "conv", bias=False), "bn", True))
        for i, (channels, stride) in enumerate([(64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]):
            with tf.variable_scope(f"separable{i}"):
                filters = weights("depthwise", [3, 3, h.shape[-1], multiplier])
                h = tf.nn.depthwise_conv2d(h, filters, [1, stride, stride, 1], "SAME")
                h = tf.nn.relu6(_normalized(h, "bn1", True))
                h = _conv(h, channels, 1, "pointwise", bias=False)
                h = tf.nn.relu6(_normalized(h, "bn2", True))
        logits = dense(tf.reduce_mean(h, [1, 2]), 10, "out")
        loss = classification_loss(logits, y)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            return Ends([logits], loss, tf.train.RMSPropOptimizer(1e-3).minimize(loss))

    return build


_register("mobilenet 32-256, 32x32, batch 16", _mobilenet(1), _images_batch(16, 32, 3))
_register("mobilenet of multiplier 2, 32x32, batch 16", _mobilenet(2), _images_batch(16, 32, 3))


def _vgg():
    x, y = _images(32, 3)
    h = x
    for i, channels in enumerate((32, 64, 128)):
        h = tf.nn.relu(_conv(h, channels, 3, f"conv{i}a"))
        h = _pool(tf.nn.relu(_conv(h, channels, 3, f"conv{i}b")))
    logits = dense(tf.nn.dropout(dense(_flatten(h), 256, "fc", tf.nn.relu), rate=0.5, seed=3), 10,
                   "out")
    loss = classification_loss(logits, y)
    return Ends([logits], loss, tf.train.MomentumOptimizer(0.001, 0.9).minimize(loss))


_register("vgg 32-64-128, 32x32, batch 16", _vgg, _images_batch(16, 32, 3))


def _convolutional_autoencoder():
    x, _ = _images(28, 1)
    h = tf.nn.relu(_conv(x, 16, 3, "down1", 2))
    h = tf.nn.relu(_conv(h, 32, 3, "down2", 2))
    batch = tf.shape(x)[0]
    h = tf.nn.conv2d_transpose(h, weights("up1", [3, 3, 16, 32]), tf.stack([batch, 14, 14, 16]),
                               [1, 2, 2, 1])
    h = tf.nn.relu(tf.nn.bias_add(h, biases("b1", [16])))
    out = tf.nn.conv2d_transpose(h, weights("up2", [3, 3, 1, 16]), tf.stack([batch, 28, 28, 1]),
                                 [1, 2, 2, 1])
    loss = tf.reduce_mean(tf.squared_difference(tf.sigmoid(out), x))
    return Ends([out], loss, tf.train.AdamOptimizer(1e-3).minimize(loss))


_register("convolutional autoencoder 16-32, 28x28, batch 64", _convolutional_autoencoder,
          lambda random: {"x": _images_batch(64, 28, 1)(random)["x"]})

# ---- sequences ----

_STEPS, _UNITS = 32, 128


def _sequence_ends(state, y):
    logits = dense(state, 10, "out")
    loss = classification_loss(logits, y)
    variables = tf.trainable_variables()
    grads, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), 5.0)
    train = tf.train.AdamOptimizer(1e-3).apply_gradients(zip(grads, variables))
    return Ends([logits], loss, train)


def _sequences():
    return (tf.placeholder(tf.float32, [None, _STEPS, 64], name="x"),
            tf.placeholder(tf.int64, [None], name="y"))


def _sequences_batch(random):
    return {"x": random.normal(size=(32, _STEPS, 64)).astype(np.float32),
            "y": random.randint(0, 10, 32).astype(np.int64)}


def _unrolled():
    x, y = _sequences()
    outputs, _ = tf.nn.static_rnn(rnn_cell_impl.BasicLSTMCell(_UNITS), tf.unstack(x, axis=1),
                                  dtype=tf.float32)
    return _sequence_ends(outputs[-1], y)


def _looped(make_cell):
    def build():
        x, y = _sequences()
        outputs, _ = tf.nn.dynamic_rnn(make_cell(_UNITS), x, dtype=tf.float32)
        return _sequence_ends(outputs[:, -1], y)

    return build


_register("lstm 128, 32 steps unrolled, batch 32", _unrolled, _sequences_batch)
_register("lstm 128, 32 steps in a loop, batch 32", _looped(rnn_cell_impl.BasicLSTMCell),
          _sequences_batch)
_register("lstm 128, 32 steps in a loop of functions, batch 32",
          _looped(rnn_cell_impl.BasicLSTMCell), _sequences_batch, resource=True,
          control_flow_v2=True)
_register("gru 128, 32 steps in a loop, batch 32", _looped(rnn_cell_impl.GRUCell),
          _sequences_batch)


def _attention():
    """A block of a transformer: 4 heads, normalised layers, a network of each position."""
    x, y = _sequences()
    units, heads = 128, 4

    def project(h, outputs, scope):
        with tf.variable_scope(scope):
            w = weights("w", [h.shape[-1], outputs])
            flat = tf.matmul(tf.reshape(h, [-1, int(h.shape[-1])]), w)
            return tf.reshape(flat + biases("b", [outputs]), [-1, _STEPS, outputs])

    def normalized(h, scope):
        with tf.variable_scope(scope):
            mean, variance = tf.nn.moments(h, [2], keep_dims=True)
            return ((h - mean) * tf.rsqrt(variance + 1e-6) * biases("gamma", [units], 1.0) +
                    biases("beta", [units]))

    def split(h):
        return tf.transpose(tf.reshape(h, [-1, _STEPS, heads, units // heads]), [0, 2, 1, 3])

    h = project(x, units, "in")
    query, key, value = (split(project(h, units, name)) for name in ("query", "key", "value"))
    scores = tf.matmul(query, key, transpose_b=True) / np.sqrt(units / heads)
    mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), [0, 2, 1, 3])
    h = normalized(h + project(tf.reshape(mixed, [-1, _STEPS, units]), units, "mixed"), "norm1")
    inner = tf.nn.relu(project(h, 4 * units, "inner"))
    h = normalized(h + project(inner, units, "outer"), "norm2")
    return _sequence_ends(tf.reduce_mean(h, axis=1), y)


_register("attention, 4 heads, 128 units, 32 steps, batch 32", _attention, _sequences_batch)

# ---- tables ----

_WORDS = 50000


def _words_batch(random):
    return {"x": random.randint(0, _WORDS, (128, 20)).astype(np.int32),
            "y": random.randint(0, 2, 128).astype(np.int64)}


def _embedding(optimizer):
    def build():
        x = tf.placeholder(tf.int32, [None, 20], name="x")
        y = tf.placeholder(tf.int64, [None], name="y")
        table = tf.get_variable("embeddings", [_WORDS, 64],
                                initializer=tf.random_uniform_initializer(-1, 1))
        h = tf.reduce_mean(tf.nn.embedding_lookup(table, x), axis=1)
        logits = dense(h, 2, "out")
        loss = classification_loss(logits, y)
        return Ends([logits], loss, optimizer().minimize(loss))

    return build


for _kind, _options in ("", {}), (", resource", {"resource": True}):
    for _name, _optimizer in (("adam", lambda: tf.train.AdamOptimizer(1e-3)),
                              ("adagrad", lambda: tf.train.AdagradOptimizer(0.1)),
                              ("gradient descent",
                               lambda: tf.train.GradientDescentOptimizer(0.1))):
        _register(f"embedding 50000 x 64, {_name}{_kind}, batch 128 x 20", _embedding(_optimizer),
                  _words_batch, **_options)

# ---- units ----


def _mlp(sizes, optimizer, normalize=False):
    def build():
        x = tf.placeholder(tf.float32, [None, sizes[0]], name="x")
        y = tf.placeholder(tf.int64, [None], name="y")
        h = x
        for i, units in enumerate(sizes[1:-1]):
            h = dense(h, units, f"hidden{i}")
            if normalize:
                mean, variance = tf.nn.moments(h, [0])
                h = tf.nn.batch_normalization(h, mean, variance, biases(f"beta{i}", [units]),
                                              biases(f"gamma{i}", [units], 1.0), 1e-3)
            h = tf.nn.relu(h)
            if normalize:
                h = tf.nn.dropout(h, rate=0.2, seed=i)
        logits = dense(h, sizes[-1], "out")
        loss = classification_loss(logits, y)
        return Ends([logits], loss, optimizer().minimize(loss))

    return build


def _vectors_batch(count, inputs, classes):
    return lambda random: {"x": random.uniform(size=(count, inputs)).astype(np.float32),
                           "y": random.randint(0, classes, count).astype(np.int64)}


_register("mlp 784-512-512-10, dropout, normalised, batch 128",
          _mlp((784, 512, 512, 10), lambda: tf.train.RMSPropOptimizer(1e-4), True),
          _vectors_batch(128, 784, 10))
_register("softmax of 10000 classes, 256 units, batch 64",
          _mlp((256, 10000), lambda: tf.train.GradientDescentOptimizer(0.1)),
          _vectors_batch(64, 256, 10000))


def _autoencoder():
    x = tf.placeholder(tf.float32, [None, 784], name="x")
    h = x
    for i, units in enumerate((256, 64, 256)):
        h = dense(h, units, f"hidden{i}", tf.nn.sigmoid)
    logits = dense(h, 784, "out")
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits))
    return Ends([tf.sigmoid(logits)], loss, tf.train.AdamOptimizer(1e-3).minimize(loss))


_register("autoencoder 784-256-64-256-784, batch 128", _autoencoder,
          lambda random: {"x": random.uniform(size=(128, 784)).astype(np.float32)})
