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


def _sampled_classes(loss, sampler):
    """Words and their neighbours, of which a few wrong ones are drawn."""
    def build():
        x = tf.placeholder(tf.int32, [BATCH], name="inputs")
        y = tf.placeholder(tf.int32, [BATCH], name="labels")
        table = tf.Variable(tf.random_uniform([_WORDS, 6], -1.0, 1.0), name="embeddings")
        softmax = tf.Variable(tf.truncated_normal([_WORDS, 6], stddev=0.4), name="weights")
        bias = tf.Variable(tf.zeros([_WORDS]), name="biases")
        h = tf.nn.embedding_lookup(table, x)
        labels = tf.expand_dims(tf.cast(y, tf.int64), 1)
        mean = tf.reduce_mean(loss(softmax, bias, labels, h, num_sampled=5, num_classes=_WORDS,
                                   sampled_values=sampler(labels) if sampler else None))
        train = tf.train.AdagradOptimizer(0.5).minimize(mean)
        return Ends([tf.matmul(h, softmax, transpose_b=True) + bias], mean, train)

    return build


def _unigrams(labels):
    """word2vec's: frequencies to the power of 3/4."""
    return tf.nn.fixed_unigram_candidate_sampler(
        labels, num_true=1, num_sampled=5, unique=True, range_max=_WORDS, distortion=0.75,
        unigrams=[1 + word % 4 for word in range(_WORDS)])


def _pairs_batch(step):
    batch = _neighbours_batch(step)
    del batch["negatives"]
    return batch


for _name, _build in (("nce", _sampled_classes(tf.nn.nce_loss, None)),
                      ("nce_unigrams", _sampled_classes(tf.nn.nce_loss, _unigrams)),
                      ("sampled_softmax", _sampled_classes(tf.nn.sampled_softmax_loss, None))):
    register(_name, _build, _pairs_batch, random=True)


def _wide_and_deep():
    """Sets of words in sparse tensors, some of them empty; an optimizer for either part."""
    at = tf.placeholder(tf.int64, [None, 2], name="at")
    words = tf.placeholder(tf.int64, [None], name="words")
    scores = tf.placeholder(tf.float32, [None], name="scores")
    y = tf.placeholder(tf.float32, [BATCH, 1], name="y")
    ids, weighted = (tf.SparseTensor(at, values, [BATCH, 4]) for values in (words, scores))
    with tf.variable_scope("wide"):
        table = tf.get_variable("weights", [_WORDS, 1], initializer=tf.zeros_initializer())
        wide = tf.nn.safe_embedding_lookup_sparse(table, ids, combiner="sum")
    with tf.variable_scope("deep"):
        table = weights("table", [_WORDS, 4])
        h = tf.concat([tf.nn.safe_embedding_lookup_sparse(table, ids, weighted, combiner="mean"),
                       tf.nn.safe_embedding_lookup_sparse(table, ids, combiner="sqrtn",
                                                          default_id=2)], 1)
        logits = dense(dense(h, 6, "hidden", tf.nn.relu), 1, "out") + wide
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
    train = tf.group(
        tf.train.FtrlOptimizer(0.2, l1_regularization_strength=0.01).minimize(
            loss, var_list=tf.trainable_variables("wide")),
        tf.train.AdagradOptimizer(0.1).minimize(loss, var_list=tf.trainable_variables("deep")))
    return Ends([tf.sigmoid(logits)], loss, train)


def _sets_batch(step):
    random = random_state(step)
    at = [(i, k) for i in range(BATCH) for k in range((i * 7 + 3) % 4)]
    words = random.randint(-1, _WORDS, len(at))  # -1: no word.
    scores = random.uniform(0.5, 2, len(at))
    y = [[max([int(word > 5) for (row, _), word in zip(at, words) if row == i], default=0)]
         for i in range(BATCH)]
    return {"at": np.array(at, np.int64), "words": words.astype(np.int64),
            "scores": scores.astype(np.float32), "y": np.array(y, np.float32)}


register("wide_and_deep", _wide_and_deep, _sets_batch)
register("wide_and_deep_resource", _wide_and_deep, _sets_batch, resource=True)


def _graph_convolution():
    """Nodes' classes from those of their neighbours: products with a sparse matrix."""
    at = tf.placeholder(tf.int64, [None, 2], name="at")
    shares = tf.placeholder(tf.float32, [None], name="shares")
    y = tf.placeholder(tf.int64, [BATCH], name="y")
    scale = tf.get_variable("scale", [], initializer=tf.ones_initializer())
    edges = tf.SparseTensor(at, shares * scale, [BATCH, BATCH])
    h = tf.nn.relu(tf.sparse_tensor_dense_matmul(edges, weights("W0", [BATCH, 8])))
    logits = tf.sparse_tensor_dense_matmul(edges, tf.matmul(h, weights("W1", [8, 3])))
    loss = classification_loss(logits, y)
    return Ends([logits], loss, tf.train.AdamOptimizer(0.05).minimize(loss))


def _edges_batch(step):
    del step  # There is one graph.
    at = [(i, k) for i in range(BATCH) for k in range(BATCH) if (i - k) % 5 in (0, 1, 4)]
    return {"at": np.array(at, np.int64), "shares": np.full(len(at), 0.2, np.float32),
            "y": np.arange(BATCH, dtype=np.int64) % 3}


register("graph_convolution", _graph_convolution, _edges_batch)


def _transformer():
    """A block of two heads over the words so far, by tf.einsum, with its table for the output."""
    length, heads, size = 5, 2, 4
    x = tf.placeholder(tf.int32, [None, length], name="x")
    table = weights("words", [_WORDS, heads * size])
    h = tf.gather(table, x) + weights("positions", [length, heads * size])

    def normalized(h, scope):
        with tf.variable_scope(scope):
            mean, variance = tf.nn.moments(h, [-1], keep_dims=True)
            return ((h - mean) * tf.rsqrt(variance + 1e-5) * biases("g", [h.shape[-1]], 1.0) +
                    biases("b", [h.shape[-1]]))

    inputs = normalized(h, "ln_1")
    q, k, v = (tf.einsum("btd,dnh->btnh", inputs, weights(name, [heads * size, heads, size]))
               for name in ("q", "k", "v"))
    scores = tf.einsum("bfnh,btnh->bnft", q, k) / np.sqrt(size)
    seen = tf.matrix_band_part(tf.ones([length, length]), -1, 0)
    attention = tf.nn.softmax(scores * seen - 1e9 * (1 - seen))
    mixed = tf.einsum("bnft,btnh->bfnh", attention, v)
    h += tf.einsum("bfnh,nhd->bfd", mixed, weights("projection", [heads, size, heads * size]))
    inner = tf.tensordot(normalized(h, "ln_2"), weights("inner", [heads * size, 12]), 1)
    h += tf.tensordot(inner * tf.sigmoid(1.702 * inner), weights("outer", [12, heads * size]), 1)
    logits = tf.einsum("btd,wd->btw", normalized(h, "ln_f"), table)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=x[:, 1:], logits=logits[:, :-1]))
    best, words = tf.nn.top_k(logits[:, -1], 3)
    return Ends([best, words], loss, tf.train.AdamOptimizer(0.01).minimize(loss))


def _texts_batch(step):
    first = random_state(step).randint(0, _WORDS, (BATCH, 1))
    return {"x": ((first + 3 * np.arange(5)) % _WORDS).astype(np.int32)}


register("transformer", _transformer, _texts_batch)
register("transformer_resource", _transformer, _texts_batch, resource=True)
