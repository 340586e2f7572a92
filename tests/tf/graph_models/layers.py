"""Graphs that libraries above TensorFlow write: tf.layers, slim, Keras."""

import numpy as np
import tensorflow.compat.v1 as tf
import tensorflow.python.keras as keras
# What tf.layers was.
from tensorflow.python.keras.layers import recurrent
from tensorflow.python.keras.legacy_tf_layers import convolutional, core, pooling

from .model import (Ends, biases, classes_batch, images_batch, random_state, register, weights)


def _tf_layers():
    """Names like conv2d/kernel and dense_1/bias; dropout by a placeholder."""
    x = tf.placeholder(tf.float32, [None, 12, 12, 1], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    training = tf.placeholder(tf.bool, [], name="training")
    h = convolutional.conv2d(x, 4, 3, padding="same", activation=tf.nn.relu)
    h = pooling.max_pooling2d(h, 2, 2)
    h = convolutional.conv2d(h, 6, [3, 3], strides=2, activation=tf.nn.relu)
    h = pooling.average_pooling2d(h, 2, 1, padding="same")
    h = core.dense(core.flatten(h), 12, activation=tf.nn.relu,
                   kernel_regularizer=lambda w: 1e-3 * tf.nn.l2_loss(w))
    h = core.dropout(h, 0.4, seed=9, training=training)
    logits = core.dense(h, 4)
    tf.losses.sparse_softmax_cross_entropy(labels=y, logits=logits)
    loss = tf.losses.get_total_loss()
    train = tf.train.AdamOptimizer(0.01).minimize(loss, tf.train.get_or_create_global_step())
    predictions = {"classes": tf.argmax(logits, axis=1),
                   "probabilities": tf.nn.softmax(logits, name="softmax_tensor")}
    return Ends([predictions["probabilities"], predictions["classes"]], loss, train)


def _training_images_batch(step):
    return {**images_batch(step), "training": np.array(step is not None)}


register("tf_layers", _tf_layers, _training_images_batch, random=True)
register("tf_layers_resource", _tf_layers, _training_images_batch, resource=True, random=True)


def _model_variable(name, shape, initializer, regularizer=None):
    return tf.get_variable(name, shape, initializer=initializer, regularizer=regularizer,
                           collections=[tf.GraphKeys.GLOBAL_VARIABLES,
                                        tf.GraphKeys.MODEL_VARIABLES])


def _slim_fully_connected(x, units, scope, activation=tf.nn.relu):
    with tf.variable_scope(scope, "fully_connected", [x]):
        w = _model_variable("weights", [x.shape[-1], units],
                            tf.variance_scaling_initializer(mode="fan_avg", distribution="uniform"),
                            lambda w: tf.multiply(tf.nn.l2_loss(w), 5e-4, name="l2_regularizer"))
        b = _model_variable("biases", [units], tf.zeros_initializer())
        h = tf.nn.bias_add(tf.matmul(x, w), b)
        h = activation(h) if activation else h
        tf.add_to_collection("end_points", h)
        return h


def _slim():
    """Names like fc1/weights, the collection model_variables, a train op that checks its loss and
    returns it."""
    x = tf.placeholder(tf.float32, [None, 8], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    h = _slim_fully_connected(x, 12, "fc1")
    h = _slim_fully_connected(h, 8, "fc2")
    logits = _slim_fully_connected(h, 5, "logits", None)
    tf.losses.softmax_cross_entropy(tf.one_hot(y, 5), logits, label_smoothing=0.1)
    total_loss = tf.losses.get_total_loss()
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.RMSPropOptimizer(0.005, momentum=0.9)
    grads = optimizer.compute_gradients(total_loss)
    grads = [(tf.clip_by_norm(g, 2.0), v) for g, v in grads]
    with tf.name_scope("train_op"):
        updates = optimizer.apply_gradients(grads, global_step=step)
        checked = tf.check_numerics(total_loss, "LossTensor is inf or nan")
        with tf.control_dependencies([updates]):
            train = tf.identity(checked)
    return Ends([tf.nn.softmax(logits, name="Predictions")], total_loss, train.op)


register("slim", _slim, classes_batch)


def _keras(make_layers, optimizer, loss):
    """A compiled model: the graph of its `fit`."""
    def build():
        network = keras.models.Sequential(make_layers())
        network.compile(optimizer=optimizer(), loss=loss, metrics=["accuracy"])
        network._make_train_function()
        return Ends(network.outputs, network.total_loss, network.train_function.updates_op)

    return build


def _convnet_layers():
    return [keras.layers.Conv2D(4, 3, activation="relu", input_shape=(12, 12, 1), name="conv"),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dropout(0.3, seed=3, name="drop"),
            keras.layers.Dense(4, activation="softmax", name="dense",
                               kernel_regularizer=keras.regularizers.l2(0.01))]


def _keras_images_batch(step):
    batch = images_batch(step)
    return {"conv_input": batch["x"], "dense_target": batch["y"][:, None].astype(np.float32),
            "keras_learning_phase": np.array(step is not None)}


register("keras_convnet",
         _keras(_convnet_layers, lambda: keras.optimizer_v2.adam.Adam(0.01),
                "sparse_categorical_crossentropy"),
         _keras_images_batch, resource=True, random=True)

_WORDS, _LENGTH = 12, 5


def _lstm_layers():
    return [keras.layers.Embedding(_WORDS, 4, input_length=_LENGTH, name="words"),
            recurrent.LSTM(6, recurrent_activation="hard_sigmoid", name="lstm"),
            keras.layers.Dense(1, activation="sigmoid", name="dense")]


def _keras_words_batch(step):
    x = random_state(step).randint(0, _WORDS, (16, _LENGTH))
    return {"words_input": x.astype(np.float32),
            "dense_target": (x[:, -1:] > _WORDS // 2).astype(np.float32)}


register("keras_lstm",
         _keras(_lstm_layers,
                lambda: keras.optimizer_v2.rmsprop.RMSprop(0.01, clipnorm=1.0),
                "binary_crossentropy"),
         _keras_words_batch, resource=True)


def _mlp_layers():
    return [keras.layers.Dense(10, activation="relu", input_shape=(8,), name="hidden"),
            keras.layers.Dense(5, name="dense"),
            keras.layers.Activation("softmax", name="softmax")]


def _keras_classes_batch(step):
    batch = classes_batch(step)
    return {"hidden_input": batch["x"], "softmax_target": np.eye(5, dtype=np.float32)[batch["y"]]}


for _name, _optimizer in [
        ("sgd", lambda: keras.optimizer_v2.gradient_descent.SGD(0.2, momentum=0.9, nesterov=True,
                                                                decay=0.01)),
        ("adagrad", lambda: keras.optimizer_v2.adagrad.Adagrad(0.1))]:
    register(f"keras_mlp_{_name}", _keras(_mlp_layers, _optimizer, "categorical_crossentropy"),
             _keras_classes_batch, resource=True)
