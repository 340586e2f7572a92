"""Tables of vectors, whose gradients are sparse."""

import numpy as np
import tensorflow.compat.v1 as tf

from .model import (BATCH, OPTIMIZERS, Ends, biases, classification_loss, dense, random_state,
                    register, weights)

_WORDS = 20


def _words_batch(step, length=4):
    """x: [BATCH, length] int32, words, with repetitions; y: [BATCH] int64, of which kind most
    are."""
    x = random_state(step).randint(0, _WORDS, (BATCH, length))
    return {"x": x.astype(np.int32), "y": (np.sum(x < _WORDS // 2, axis=1) > length // 2) * 1}


def _embedding(optimizer):
    def build():
        x = tf.placeholder(tf.int32, [None, 4], name="x")
        y = tf.placeholder(tf.int64, [None], name="y")
        table = tf.get_variable("embeddings", [_WORDS, 6],
                                initializer=tf.random_uniform_initializer(-1, 1))
        h = tf.reduce_mean(tf.nn.embedding_lookup(table, x), axis=1)
        logits = dense(h, 2, "out")
        loss = classification_loss(logits, y)
        return Ends([logits], loss, OPTIMIZERS[optimizer]().minimize(loss))

    return build


for _name in OPTIMIZERS:
    register(f"embedding_{_name}", _embedding(_name), _words_batch)
    register(f"embedding_{_name}_resource", _embedding(_name), _words_batch, resource=True)


def _shared_embedding():
    """Looked up twice, so that two sparse gradients are added; ids of 64 bits; clipped."""
    x = tf.placeholder(tf.int64, [None, 4], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    table = tf.get_variable("table", [_WORDS, 6],
                            initializer=tf.random_uniform_initializer(-1, 1))
    first = tf.nn.embedding_lookup(table, x[:, 0])
    rest = tf.reduce_max(tf.gather(table, x[:, 1:]), axis=1)
    h = tf.concat([first, rest, first * rest], 1)
    logits = dense(h, 2, "out")
    loss = classification_loss(logits, y)
    optimizer = tf.train.AdamOptimizer(0.02)
    grads, variables = zip(*optimizer.compute_gradients(loss))
    grads, norm = tf.clip_by_global_norm(grads, 0.5)
    return Ends([logits, norm], loss, optimizer.apply_gradients(zip(grads, variables)))


def _wide_words_batch(step):
    batch = _words_batch(step)
    return {**batch, "x": batch["x"].astype(np.int64)}


register("embedding_shared", _shared_embedding, _wide_words_batch)


def _partitioned_embedding(strategy):
    """A table in three parts."""
    def build():
        x = tf.placeholder(tf.int32, [None, 4], name="x")
        y = tf.placeholder(tf.int64, [None], name="y")
        with tf.variable_scope("model", partitioner=tf.fixed_size_partitioner(3)):
            table = tf.get_variable("table", [_WORDS, 6],
                                    initializer=tf.random_uniform_initializer(-1, 1))
        h = tf.nn.embedding_lookup(table, x, partition_strategy=strategy)
        logits = dense(tf.reshape(h, [-1, 24]), 2, "out")
        loss = classification_loss(logits, y)
        return Ends([logits], loss, tf.train.AdagradOptimizer(0.2).minimize(loss))

    return build


# "mod" wants parts of sizes that differ by one at most, as the partitioner makes them.
register("embedding_partitioned_mod", _partitioned_embedding("mod"), _words_batch)
register("embedding_partitioned_div_resource", _partitioned_embedding("div"), _words_batch,
         resource=True)


def _skip_grams():
    """Words and their neighbours: products of two tables' rows against a few wrong ones."""
    x = tf.placeholder(tf.int32, [None], name="inputs")
    y = tf.placeholder(tf.int32, [None], name="labels")
    wrong = tf.placeholder(tf.int32, [5], name="negatives")
    table = tf.Variable(tf.random_uniform([_WORDS, 6], -1.0, 1.0), name="emb")
    softmax = tf.Variable(tf.zeros([_WORDS, 6]), name="sm_w_t")
    bias = tf.Variable(tf.zeros([_WORDS]), name="sm_b")
    h = tf.nn.embedding_lookup(table, x)
    true_logits = (tf.reduce_sum(h * tf.nn.embedding_lookup(softmax, y), 1) +
                   tf.nn.embedding_lookup(bias, y))
    wrong_logits = (tf.matmul(h, tf.nn.embedding_lookup(softmax, wrong), transpose_b=True) +
                    tf.reshape(tf.nn.embedding_lookup(bias, wrong), [5]))
    true = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.ones_like(true_logits),
                                                   logits=true_logits)
    false = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.zeros_like(wrong_logits),
                                                    logits=wrong_logits)
    loss = (tf.reduce_sum(true) + tf.reduce_sum(false)) / BATCH
    step = tf.Variable(0, name="global_step", trainable=False)
    rate = 0.5 * tf.maximum(0.0001, 1.0 - tf.cast(step, tf.float32) / 100)
    train = tf.train.GradientDescentOptimizer(rate).minimize(loss, global_step=step)
    norm = tf.sqrt(tf.reduce_sum(tf.square(table), 1, keep_dims=True))
    normalized = table / norm
    nearest = tf.matmul(tf.nn.embedding_lookup(normalized, x), normalized, transpose_b=True)
    return Ends([nearest], loss, train)


def _neighbours_batch(step):
    random = random_state(step)
    x = random.randint(0, _WORDS, BATCH)
    return {"inputs": x.astype(np.int32), "labels": ((x + 1) % _WORDS).astype(np.int32),
            "negatives": random.randint(0, _WORDS, 5).astype(np.int32)}


register("skip_grams", _skip_grams, _neighbours_batch)


def _sentences():
    """Sentences padded with word 0: a mask, weights of attention by dot products, one-hot words."""
    x = tf.placeholder(tf.int32, [None, 4], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    table = weights("table", [_WORDS, 6])
    h = tf.nn.embedding_lookup(table, x)
    scores = tf.matmul(h, h, transpose_b=True) / np.sqrt(6.0)
    mask = tf.expand_dims(tf.to_float(tf.equal(x, 0)), 1)
    attention = tf.nn.softmax(scores - 1e9 * mask)
    h = tf.tensordot(tf.matmul(attention, h), weights("projection", [6, 5]), [[2], [0]])
    h = tf.reduce_sum(tf.nn.relu(h + biases("b", [5])), axis=1)
    count = tf.reduce_sum(tf.one_hot(x, _WORDS), axis=1)
    logits = dense(tf.concat([h, count], axis=-1), 2, "out")
    loss = classification_loss(logits, y)
    return Ends([attention, logits], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


register("attention", _sentences, _words_batch)
