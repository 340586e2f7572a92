"""Networks over sequences: unrolled, in loops of the graph, with cells of several kinds."""

import numpy as np
import tensorflow.compat.v1 as tf
# What tf.nn.rnn_cell was.
from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl

from .model import (Ends, biases, classification_loss, dense, random_state, register, weights)

_BATCH, _STEPS, _INPUTS, _UNITS = 8, 6, 3, 5


def _sequences_batch(step):
    """x: [8, 6, 3]; y: [8, 1], an average in which what came last counts most."""
    x = random_state(step).uniform(-1, 1, (_BATCH, _STEPS, _INPUTS)).astype(np.float32)
    y = np.average(x[:, :, :1], axis=1, weights=0.7**np.arange(_STEPS)[::-1])
    return {"x": x, "y": y.astype(np.float32)}


def _placeholders():
    return (tf.placeholder(tf.float32, [None, _STEPS, _INPUTS], name="x"),
            tf.placeholder(tf.float32, [None, 1], name="y"))


def _clipped_step(loss, optimizer, norm=1.0):
    variables = tf.trainable_variables()
    grads, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), norm)
    return optimizer.apply_gradients(zip(grads, variables))


def _ends(state, y):
    out = dense(state, 1, "out")
    loss = tf.reduce_mean(tf.squared_difference(out, y), name="loss")
    return Ends([out], loss, _clipped_step(loss, tf.train.GradientDescentOptimizer(0.2)))


def _cell_weights():
    with tf.variable_scope("rnn"):
        return weights("w", [_INPUTS + _UNITS, _UNITS]), biases("b", [_UNITS])


def _rnn_unrolled():
    x, y = _placeholders()
    w, b = _cell_weights()
    state = tf.zeros([tf.shape(x)[0], _UNITS])
    for inputs in tf.unstack(x, axis=1):
        state = tf.tanh(tf.matmul(tf.concat([inputs, state], 1), w) + b)
    return _ends(state, y)


register("rnn_unrolled", _rnn_unrolled, _sequences_batch)


def _rnn_while():
    """A loop that reads one TensorArray and writes another."""
    x, y = _placeholders()
    w, b = _cell_weights()
    inputs = tf.TensorArray(tf.float32, _STEPS, name="inputs").unstack(tf.transpose(x, [1, 0, 2]))
    states = tf.TensorArray(tf.float32, _STEPS, element_shape=[None, _UNITS], name="states")

    def body(t, state, states):
        state = tf.tanh(tf.matmul(tf.concat([inputs.read(t), state], 1), w) + b)
        return t + 1, state, states.write(t, state)

    _, state, states = tf.while_loop(lambda t, *_: t < _STEPS, body,
                                     (0, tf.zeros([tf.shape(x)[0], _UNITS]), states))
    return _ends(state + 0.1 * tf.reduce_mean(states.stack(), axis=0), y)


register("rnn_while", _rnn_while, _sequences_batch)
register("rnn_while_resource", _rnn_while, _sequences_batch, resource=True)
register("rnn_while_v2", _rnn_while, _sequences_batch, resource=True, control_flow_v2=True)


def _weighted_loop():
    """Loops in a loop, a conditional in them, values that stay the same, and no TensorArray: sums
    over steps and units, one of every two steps."""
    x, y = _placeholders()
    w, b = _cell_weights()

    def outer(t, state):
        inputs = x[:, t]

        def inner(k, h):
            return k + 1, tf.sigmoid(tf.matmul(tf.concat([inputs, h], 1), w) + b)

        _, h = tf.while_loop(lambda k, _: k < t % 3, inner, (0, state))
        state = tf.cond(tf.equal(t % 2, 0), lambda: state + h, lambda: state * 0.5)
        return t + 1, state

    _, state = tf.while_loop(lambda t, _: t < _STEPS, outer,
                             (0, tf.zeros([tf.shape(x)[0], _UNITS])), parallel_iterations=1)
    return _ends(state, y)


register("loop_nested", _weighted_loop, _sequences_batch)
register("loop_nested_v2", _weighted_loop, _sequences_batch, resource=True, control_flow_v2=True)


def _dynamic(make_cell, with_lengths=False):
    """tf.nn.dynamic_rnn: the last output of each sequence."""
    def build():
        x, y = _placeholders()
        lengths = tf.placeholder(tf.int32, [None], name="lengths") if with_lengths else None
        outputs, state = tf.nn.dynamic_rnn(make_cell(), x, lengths, dtype=tf.float32)
        del state
        return _ends(tf.reduce_sum(outputs, axis=1) if with_lengths else outputs[:, -1], y)

    return build


def _lengths_batch(step):
    lengths = random_state(step).randint(1, _STEPS + 1, _BATCH)
    return {**_sequences_batch(step), "lengths": lengths.astype(np.int32)}


def _lstm():
    return rnn_cell_impl.BasicLSTMCell(_UNITS)


def _peephole_lstm():
    return rnn_cell_impl.LSTMCell(_UNITS, use_peepholes=True, num_proj=3, cell_clip=2.0)


def _stacked_cells():
    return rnn_cell_impl.MultiRNNCell([_lstm(), rnn_cell_impl.GRUCell(4)])


register("lstm", _dynamic(_lstm), _sequences_batch)
register("lstm_lengths", _dynamic(_peephole_lstm, True), _lengths_batch)
register("lstm_lengths_resource", _dynamic(_lstm, True), _lengths_batch, resource=True)
register("lstm_v2", _dynamic(_lstm), _sequences_batch, resource=True, control_flow_v2=True)
register("gru", _dynamic(lambda: rnn_cell_impl.GRUCell(_UNITS)), _sequences_batch)
register("rnn_stacked", _dynamic(_stacked_cells), _sequences_batch)


def _lstm_unrolled():
    """tf.nn.static_rnn, its outputs dropped."""
    x, y = _placeholders()
    cell = rnn_cell_impl.DropoutWrapper(_lstm(), output_keep_prob=0.8, seed=11)
    outputs, _ = tf.nn.static_rnn(cell, tf.unstack(x, axis=1), dtype=tf.float32)
    return _ends(outputs[-1], y)


register("lstm_unrolled", _lstm_unrolled, _sequences_batch, random=True)


def _bidirectional():
    x, y = _placeholders()
    lengths = tf.placeholder(tf.int32, [None], name="lengths")
    cells = [rnn_cell_impl.BasicRNNCell(_UNITS) for _ in range(2)]
    outputs, _ = tf.nn.bidirectional_dynamic_rnn(*cells, x, lengths, dtype=tf.float32)
    return _ends(tf.reduce_mean(tf.concat(outputs, 2), axis=1), y)


register("rnn_bidirectional", _bidirectional, _lengths_batch)

_CHARACTERS = 9


def _characters():
    """Predicts each next character: a table, a loop, logits of all steps at once."""
    x = tf.placeholder(tf.int32, [None, _STEPS], name="x")
    y = tf.placeholder(tf.int32, [None, _STEPS], name="y")
    table = weights("table", [_CHARACTERS, 4])
    outputs, state = tf.nn.dynamic_rnn(_lstm(), tf.nn.embedding_lookup(table, x),
                                       dtype=tf.float32)
    logits = dense(tf.reshape(outputs, [-1, _UNITS]), _CHARACTERS, "out")
    loss = classification_loss(logits, tf.reshape(y, [-1]))
    train = _clipped_step(loss, tf.train.AdamOptimizer(0.02), 5.0)
    return Ends([tf.nn.softmax(logits), *state], loss, train)


def _characters_batch(step):
    first = random_state(step).randint(0, _CHARACTERS, (_BATCH, 1))
    text = (first + 2 * np.arange(_STEPS + 1)) % _CHARACTERS
    return {"x": text[:, :-1].astype(np.int32), "y": text[:, 1:].astype(np.int32)}


register("characters", _characters, _characters_batch)
register("characters_resource", _characters, _characters_batch, resource=True)
