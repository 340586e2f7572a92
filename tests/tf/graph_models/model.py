"""What a model of this package is, and what its files share.

A model is a function that builds a graph as programs of TensorFlow 1 do, and the batches that it is
trained with. Everything is seeded: two builds make the same graph, the same initial variables and
the same random numbers.
"""

import contextlib
import dataclasses
from typing import Callable

import numpy as np
import tensorflow.compat.v1 as tf

BATCH = 16  # Examples in a batch.


@dataclasses.dataclass(frozen=True)
class Ends:
    """What one runs of a graph."""
    outputs: list  # Tensors for inference.
    loss: tf.Tensor
    train: tf.Operation  # One step.


@dataclasses.dataclass(frozen=True)
class Model:
    """A graph to be; call `make`."""
    name: str
    build: Callable[[], Ends]  # Into the default graph.
    # Of a step of training, and (None) for inference: from the placeholders' names to arrays.
    batch: Callable
    resource: bool = False  # Resource variables, or ref variables.
    control_flow_v2: bool = False  # If and While, or Switch, Merge and their like.
    # Whether its random numbers depend on how many were drawn before, which no checkpoint tells.
    random: bool = False
    # Of the outputs, relative to the largest: more than that of float32 where the graph computes
    # in a narrower type, whose own rounding is coarser.
    tolerance: float = 1e-5


@dataclasses.dataclass(frozen=True)
class MadeModel:
    """A graph with the names of what one runs."""
    graph: tf.Graph
    outputs: list  # Names of tensors.
    loss: str
    train: str  # Names of ops.
    init: str


MODELS = []  # All that the package's modules register.


def register(name, build, batch, **options):
    """Adds a model to MODELS."""
    MODELS.append(Model(name, build, batch, **options))


@contextlib.contextmanager
def dialect(resource, control_flow_v2):
    """How the programs of a time built graphs: kinds of variables and of control flow."""
    before = tf.resource_variables_enabled(), tf.control_flow_v2_enabled()
    _set_dialect(resource, control_flow_v2)
    try:
        yield
    finally:
        _set_dialect(*before)


def _set_dialect(resource, control_flow_v2):
    (tf.enable_resource_variables if resource else tf.disable_resource_variables)()
    (tf.enable_control_flow_v2 if control_flow_v2 else tf.disable_control_flow_v2)()


def make(model):
    """Builds the model's graph, with an op that initialises it."""
    graph = tf.Graph()
    with graph.as_default(), dialect(model.resource, model.control_flow_v2):
        tf.set_random_seed(20160204)
        ends = model.build()
        init = tf.global_variables_initializer()
    return MadeModel(graph, [output.name for output in ends.outputs], ends.loss.name,
                     ends.train.name, init.name)


# ---- batches ----


def random_state(step):
    """Of a step, or (None) of the inference."""
    return np.random.RandomState(0 if step is None else 1 + step)


def regression_batch(step, inputs=8):
    """x: [BATCH, inputs]; y: [BATCH, 1], a smooth function of x."""
    x = random_state(step).uniform(-1, 1, (BATCH, inputs)).astype(np.float32)
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    return {"x": x, "y": y.astype(np.float32)}


def classes_batch(step, inputs=8, classes=5):
    """x: [BATCH, inputs]; y: [BATCH] int64, the largest of the first few of x."""
    x = random_state(step).uniform(-1, 1, (BATCH, inputs)).astype(np.float32)
    return {"x": x, "y": np.argmax(x[:, :classes], axis=1).astype(np.int64)}


def images_batch(step, size=12, channels=1, classes=4):
    """x: [BATCH, size, size, channels], each with a bright square; y: [BATCH] int64, its corner."""
    random = random_state(step)
    x = random.uniform(0, 0.5, (BATCH, size, size, channels)).astype(np.float32)
    y = random.randint(0, classes, BATCH)
    half = size // 2
    for image, corner in zip(x, y):
        top, left = corner // 2 * half, corner % 2 * half
        image[top:top + half, left:left + half] += 0.5
    return {"x": x, "y": y.astype(np.int64)}


# ---- what models have in common ----

# By their names, as programs make them: steps of a size at which 20 of them are seen in the loss.
OPTIMIZERS = {
    "gradient_descent": lambda: tf.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: tf.train.MomentumOptimizer(0.05, 0.9),
    "nesterov": lambda: tf.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "adam": lambda: tf.train.AdamOptimizer(0.02),
    "adagrad": lambda: tf.train.AdagradOptimizer(0.1),
    "adadelta": lambda: tf.train.AdadeltaOptimizer(1.0, rho=0.9, epsilon=1e-4),
    "rmsprop": lambda: tf.train.RMSPropOptimizer(0.01, decay=0.9, momentum=0.5),
    "centered_rmsprop": lambda: tf.train.RMSPropOptimizer(0.01, momentum=0.3, centered=True),
    "ftrl": lambda: tf.train.FtrlOptimizer(0.2, l1_regularization_strength=0.001,
                                           l2_regularization_strength=0.001),
}


def weights(name, shape, **options):
    """A matrix or filter, small enough for its inputs."""
    deviation = 1 / np.sqrt(np.prod(shape[:-1]))
    return tf.get_variable(name, shape,
                           initializer=tf.truncated_normal_initializer(stddev=deviation),
                           **options)


def biases(name, shape, value=0.0):
    """A vector of one value."""
    return tf.get_variable(name, shape, initializer=tf.constant_initializer(value))


def dense(x, units, scope, activation=None):
    """A layer of a TF1 program of one's own: W and b."""
    with tf.variable_scope(scope):
        h = tf.nn.xw_plus_b(x, weights("W", [x.shape[-1], units]), biases("b", [units]))
    return activation(h) if activation else h


def classification_loss(logits, labels):
    """The mean cross entropy of classes by number."""
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits), name="loss")
