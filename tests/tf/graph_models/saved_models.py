"""SavedModels as programs of TensorFlow 1 and 2 write them."""

import dataclasses
from typing import Callable

import numpy as np
import tensorflow as tf2
import tensorflow.compat.v1 as tf

from .model import MODELS, dialect, make


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A directory to be."""
    name: str
    # Into the directory given; returns for each signature the inputs by name and the results.
    write: Callable[[str], dict]
    tolerance: float = 1e-5  # As Model's.


SAVED_MODELS = []


def _export(model):
    """Of a model from a session, as tf.saved_model.simple_save and builders do: the signature
    serving_default, and another without a name of its own for outputs."""
    def write(folder):
        made = make(model)
        batch = {name: array for name, array in model.batch(None).items()}
        with tf.Session(graph=made.graph) as session:
            session.run(made.init)
            inputs = {name: made.graph.get_tensor_by_name(name + ":0") for name in batch}
            outputs = {f"output_{i}": made.graph.get_tensor_by_name(name)
                       for i, name in enumerate(made.outputs)}
            # Those that the outputs need.
            values = session.run(outputs, {tensor: batch[name] for name, tensor in inputs.items()})
            signature = tf.saved_model.predict_signature_def(inputs, outputs)
            builder = tf.saved_model.Builder(folder)
            builder.add_meta_graph_and_variables(
                session, [tf.saved_model.tag_constants.SERVING], {"serving_default": signature})
            builder.save()
        return {"serving_default": (batch, values)}

    return write


# Those that have to do with files: kinds of variables, of control flow, parts, tables.
for _model in MODELS:
    if _model.name in ("lenet", "lenet_resource", "resnet_placeholder", "mlp_bfloat16",
                       "rnn_while", "rnn_while_v2", "lstm_lengths", "lstm_v2", "functions_v2",
                       "embedding_partitioned_mod", "embedding_partitioned_div_resource",
                       "conditional_v2", "cases_v2", "fixed_point_v2", "tf_layers", "slim",
                       "keras_convnet", "keras_lstm", "mlp_batch_normalized"):
        SAVED_MODELS.append(SavedModel(_model.name, _export(_model), _model.tolerance))


def _run_signatures(module, folder, calls):
    """Saves a module; calls: by signature a function and its inputs."""
    signatures = {name: function.get_concrete_function(
        **{key: tf2.TensorSpec([None, *array.shape[1:]], array.dtype, name=key)
           for key, array in inputs.items()}) for name, (function, inputs) in calls.items()}
    tf2.saved_model.save(module, folder, signatures=signatures)
    return {name: (inputs, {key: value.numpy() for key, value in signatures[name](
        **{key: tf2.constant(array) for key, array in inputs.items()}).items()})
            for name, (_, inputs) in calls.items()}


class _Network(tf2.Module):
    """Two layers, a counter, and text among its signatures."""

    def __init__(self):
        super().__init__()
        random = np.random.RandomState(3)
        self.w = tf2.Variable(random.normal(size=(4, 6)).astype(np.float32), name="w")
        self.layers = [tf2.Variable(random.normal(size=(6, 3)).astype(np.float32), name="v"),
                       tf2.Variable(tf2.zeros([3]), name="b")]
        self.calls = tf2.Variable(0, trainable=False, name="calls", dtype=tf2.int64)

    @tf2.function
    def hidden(self, x):
        return tf2.nn.relu(tf2.matmul(x, self.w))

    @tf2.function
    def serve(self, x):
        self.calls.assign_add(1)
        logits = tf2.matmul(self.hidden(x), self.layers[0]) + self.layers[1]
        return {"logits": logits, "classes": tf2.argmax(logits, axis=1), "calls": self.calls + 0}

    @tf2.function
    def loop(self, x):
        """A While and an If that autograph makes of Python's."""
        total = tf2.zeros_like(x)
        for i in tf2.range(5):
            if tf2.reduce_sum(total) > 1.0:
                total -= 0.25 * x
            else:
                total += x * tf2.cast(i, tf2.float32)
        h = total
        while tf2.reduce_max(tf2.abs(h)) > 0.5:
            h *= 0.5
        return {"total": total, "halved": h}

    @tf2.function
    def sequence(self, x):
        """A TensorList."""
        states = tf2.TensorArray(tf2.float32, 0, dynamic_size=True, clear_after_read=False)
        state = tf2.zeros([tf2.shape(x)[0], 6])
        for t in range(3):
            state = tf2.tanh(tf2.matmul(x[:, t], self.w) + state)
            states = states.write(t, state)
        return {"states": tf2.transpose(states.stack(), [1, 0, 2])}


def _module(folder):
    with dialect(resource=True, control_flow_v2=True):
        network = _Network()
        x = np.random.RandomState(5).uniform(-1, 1, (3, 4)).astype(np.float32)
        sequences = np.random.RandomState(6).uniform(-1, 1, (2, 3, 4)).astype(np.float32)
        calls = {"serving_default": (network.serve, {"x": x}),
                 "hidden": (tf2.function(lambda x: {"hidden": network.hidden(x)}), {"x": x}),
                 "loop": (network.loop, {"x": x}),
                 "sequence": (network.sequence, {"x": sequences})}
        return _run_signatures(network, folder, calls)


SAVED_MODELS.append(SavedModel("module", _module))


class _Convnet(tf2.Module):
    """With its normalisation's averages, saved after a step of training."""

    def __init__(self):
        super().__init__()
        random = np.random.RandomState(4)
        self.filters = tf2.Variable(random.normal(size=(3, 3, 1, 4)).astype(np.float32) / 3)
        self.gamma, self.beta = tf2.Variable(tf2.ones([4])), tf2.Variable(tf2.zeros([4]))
        self.mean = tf2.Variable(tf2.zeros([4]), trainable=False)
        self.variance = tf2.Variable(tf2.ones([4]), trainable=False)
        self.w = tf2.Variable(random.normal(size=(36, 3)).astype(np.float32) / 6)

    @tf2.function
    def __call__(self, images, training):
        h = tf2.nn.conv2d(images, self.filters, 1, "SAME")
        if training:
            h, mean, variance = tf.nn.fused_batch_norm(h, self.gamma, self.beta)
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
        else:
            h, _, _ = tf.nn.fused_batch_norm(h, self.gamma, self.beta, self.mean, self.variance,
                                             is_training=False)
        h = tf2.nn.max_pool2d(tf2.nn.relu(h), 2, 2, "VALID")
        return {"probabilities": tf2.nn.softmax(tf2.matmul(tf2.reshape(h, [-1, 36]), self.w))}


def _convnet(folder):
    with dialect(resource=True, control_flow_v2=True):
        network = _Convnet()
        images = np.random.RandomState(7).uniform(size=(2, 6, 6, 1)).astype(np.float32)
        with tf2.GradientTape() as tape:
            loss = tf2.reduce_sum(network(images, True)["probabilities"][:, 0])
        for v, g in zip(network.trainable_variables,
                        tape.gradient(loss, network.trainable_variables)):
            v.assign_sub(0.1 * g)
        serve = tf2.function(lambda images: network(images, False))
        return _run_signatures(network, folder, {"serving_default": (serve, {"images": images})})


SAVED_MODELS.append(SavedModel("module_convnet", _convnet))


class _Effects(tf2.Module):
    """Functions that write and read variables, whose order is that of the calls."""

    def __init__(self):
        super().__init__()
        self.v = tf2.Variable(1.0, name="v")
        self.calls = tf2.Variable(0, name="calls")

    @tf2.function
    def step(self, x):
        self.v.assign(self.v * 2.0 + x)
        self.calls.assign_add(1)
        return self.v + 0.0

    @tf2.function
    def read(self, x):
        return self.v * x

    @tf2.function
    def branch(self, x):
        if x > 0.0:
            self.v.assign_add(x)
        else:
            self.v.assign(self.v * 3.0)
        return self.v * 1.0

    @tf2.function
    def serve(self, x):
        x = tf2.reduce_sum(x)
        results = [self.read(x), self.step(x), self.read(x), self.step(x), self.branch(-x),
                   self.read(x)]
        self.v.assign_add(100.0)
        results += [self.read(x), self.branch(x)]
        for _ in tf2.range(2):
            self.step(x)
        return {"results": tf2.stack(results + [self.read(x)]), "calls": self.calls + 0}


def _effects(folder):
    with dialect(resource=True, control_flow_v2=True):
        module = _Effects()
        return _run_signatures(module, folder,
                               {"serving_default": (module.serve, {"x": np.float32([0.5, 1.5])})})


SAVED_MODELS.append(SavedModel("module_effects", _effects))


def _ordered_calls(folder):
    """Calls, conditionals and loops of functions that nothing but control edges orders."""
    with dialect(resource=True, control_flow_v2=True), tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [], name="x")
        positive, index, zero = x > 0.0, tf.cast(x, tf.int32), tf.constant(0)
        v = tf.get_variable("v", initializer=1.0)
        outputs, last = {}, []

        def after(name, fn):
            """Writes, and then calls."""
            with tf.control_dependencies(last):
                wrote = tf.assign_add(v, 10.0)
            with tf.control_dependencies([wrote.op]):
                outputs[name] = tf.identity(fn())
            last[:] = [outputs[name].op]

        @tf2.function
        def read(a):
            return v.read_value() * a

        @tf2.function
        def write(a):
            with tf.control_dependencies([v.assign(v * 2.0 + a)]):
                return v.read_value()

        after("read", lambda: read(x))
        after("write", lambda: write(x))
        after("then", lambda: tf.cond(positive, lambda: x * 2.0, lambda: v.read_value() + x))
        after("else", lambda: tf.cond(tf.logical_not(positive), lambda: x * 2.0,
                                      lambda: v.read_value() + x))
        after("case", lambda: tf.switch_case(index, [lambda: x, lambda: v.read_value() * 2.0,
                                                     lambda: v.read_value() * 3.0]))
        after("loop", lambda: tf.while_loop(lambda i, z: i < 2,
                                            lambda i, z: (i + 1, z + v.read_value()), [zero, x])[1])
        value = np.float32(-1)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            signature = tf.saved_model.predict_signature_def({"x": x}, outputs)
            builder = tf.saved_model.Builder(folder)
            builder.add_meta_graph_and_variables(
                session, [tf.saved_model.tag_constants.SERVING], {"serving_default": signature})
            builder.save()
            return {"serving_default": ({"x": value}, session.run(outputs, {x: value}))}


SAVED_MODELS.append(SavedModel("ordered_calls", _ordered_calls))
