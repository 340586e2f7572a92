"""Trains the models of graph_models/ here and in TensorFlow, and runs its SavedModels and frozen
graphs.

From the files that TensorFlow writes: the first outputs agree, the losses of 20 steps too, and
TensorFlow goes on from the checkpoint and the .meta that are written here.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import json
import os
import subprocess
import tempfile
import unittest

import numpy as np
import tensorflow as tf2
import tensorflow.compat.v1 as tf
import tensorflow.python.keras as keras
from tensorflow.python.framework import convert_to_constants

import graph_models

_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")
_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/graph_models_program")
_STEPS = 20  # Trained here.
_MORE = 5  # And from there on in TensorFlow.
_LOSS_TOLERANCE = 1e-3
_TIMEOUT = 120

# What these programs call is deprecated.
tf.logging.set_verbosity(tf.logging.ERROR)

# Those of the models whose frozen graphs are run: each kind of variable and of control flow.
_FROZEN = ("mlp_adam", "mlp_adam_resource", "mlp_bfloat16", "lenet", "lenet_resource", "resnet",
           "resnet_placeholder", "alexnet", "convolutional_autoencoder", "embedding_adam",
           "embedding_adam_resource", "embedding_partitioned_mod", "attention", "rnn_unrolled",
           "rnn_while", "rnn_while_resource", "rnn_while_v2", "loop_nested", "lstm", "lstm_lengths",
           "lstm_v2", "characters", "conditional", "conditional_v2", "fixed_point",
           "fixed_point_v2", "tf_layers", "slim", "keras_convnet", "keras_lstm", "dropout", "mobile",
           "transformer")

# What TensorFlow freezes to graphs that it doesn't take itself, and the words of our error. The
# function that a gradient was taken through gives out what it read from a variable, by the name
# that the output of a ReadVariableOp has; the node is an Identity then. An average's variable is
# switched as a reference, and a constant is none.
_BROKEN_WHEN_FROZEN = {
    "functions_v2": ["INVALID_ARGUMENT",
                     "'MatMul/ReadVariableOp:value:0' is no output of its node"],
    "mlp_batch_normalized": ["INVALID_ARGUMENT", "incompatible with expected float_ref"],
}


def _session(graph):
    # One thread adds up in one order.
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    return tf.Session(graph=graph, config=config)


def _run(*arguments):
    """Runs a program to its end; its output. Raises the words on its standard error."""
    result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            timeout=_TIMEOUT, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{result.returncode}: {result.stderr}")
    return result.stdout


def _feeds(model, step):
    return {name + ":0": array for name, array in model.batch(step).items()}


class _Folder:
    """Hands out paths of a temporary folder."""

    def __init__(self, test):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self._path = folder.name
        self._count = 0

    def path(self, name):
        return os.path.join(self._path, name)

    def save(self, array):
        """In a .npy file, whose path it returns."""
        self._count += 1
        path = self.path(f"fed-{self._count}.npy")
        np.save(path, array)
        return path


class _Trained:
    """What TensorFlow makes of a model."""

    def __init__(self, model, prefix):
        self.model = model
        self.made = graph_models.make(model)
        batch = _feeds(model, None)
        with self.made.graph.as_default(), _session(self.made.graph) as session:
            saver = tf.train.Saver()
            session.run(self.made.init)
            self.saver, self.start = saver, saver.save(session, prefix + "-start")
            self.outputs = session.run(self.made.outputs, batch)
            self.losses = self._steps(session, range(_STEPS))
            middle = saver.save(session, prefix + "-middle")
            if not model.random:
                self.more = self._steps(session, range(_STEPS, _STEPS + _MORE))
        if model.random:
            self.more = self.go_on(middle)

    def _steps(self, session, steps):
        losses = []
        for step in steps:
            session.run(self.made.train, _feeds(self.model, step))
            losses.append(float(session.run(self.made.loss, _feeds(self.model, None))))
        return losses

    def go_on(self, prefix):
        """The losses of the next steps, from a checkpoint and its .meta."""
        with tf.Graph().as_default() as graph, _session(graph) as session:
            saver = tf.train.import_meta_graph(prefix + ".meta")
            saver.restore(session, prefix)
            return self._steps(session, range(_STEPS, _STEPS + _MORE))


def _train_here(trained, folder):
    """Returns the outputs, the losses, and the prefix that was saved."""
    model, made = trained.model, trained.made
    batches = [model.batch(step) for step in range(_STEPS)]
    feeds = [{"name": name + ":0", "inference": folder.save(array),
              "training": folder.save(np.stack([batch[name] for batch in batches]))}
             for name, array in model.batch(None).items()]
    outputs = [{"name": name, "file": folder.path(f"output-{i}.npy")}
               for i, name in enumerate(made.outputs)]
    task = {"meta": trained.start + ".meta", "checkpoint": trained.start, "feeds": feeds,
            "outputs": outputs, "loss": made.loss, "train": made.train, "steps": _STEPS,
            "save": folder.path("here")}
    with open(folder.path("task.json"), "w", encoding="utf-8") as file:
        json.dump(task, file)
    losses = [float(line) for line in _run(_PROGRAM, folder.path("task.json")).split()]
    return [np.load(output["file"]) for output in outputs], losses, task["save"]


class GraphModelsTest(unittest.TestCase):

    def assert_near(self, found, expected, tolerance):
        """Within the tolerance, of the largest magnitude."""
        expected = np.asarray(expected)
        self.assertEqual(found.shape, expected.shape)
        self.assertEqual(found.dtype, expected.dtype)
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(found, expected)
            return
        largest = np.max(np.abs(expected), initial=0)
        self.assertTrue(np.isfinite(largest))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest)

    def assert_losses_near(self, found, expected):
        self.assertEqual(len(found), len(expected))
        self.assertTrue(np.all(np.isfinite(expected)))
        bounds = _LOSS_TOLERANCE * np.maximum(1, np.abs(expected))
        self.assertTrue(np.all(np.abs(np.subtract(found, expected)) <= bounds),
                        f"losses here {found}, expected {expected}")

    def check_training(self, model):
        folder = _Folder(self)
        trained = _Trained(model, folder.path("there"))
        outputs, losses, saved = _train_here(trained, folder)
        for found, expected in zip(outputs, trained.outputs, strict=True):
            self.assert_near(found, expected, model.tolerance)
        self.assert_losses_near(losses, trained.losses)
        self.assert_losses_near(trained.go_on(saved), trained.more)

    def check_run(self, folder, graph, feeds, expected, tolerance):
        """`ferry run` on a graph; `feeds` and what is expected by names."""
        arguments = [_FERRY, "run", "--device", "cpu", *graph]
        for name, array in feeds.items():
            arguments += ["--feed", f"{name}={folder.save(array)}"]
        files = {name: folder.path(f"fetched-{i}.npy") for i, name in enumerate(expected)}
        for name, file in files.items():
            arguments += ["--fetch", f"{name}={file}"]
        _run(*arguments)
        for name, value in expected.items():
            self.assert_near(np.load(files[name]), value, tolerance)

    def check_saved_model(self, saved_model):
        folder = _Folder(self)
        path = folder.path("model")
        for signature, (feeds, expected) in saved_model.write(path).items():
            self.check_run(folder, ["--saved_model", path, "--signature", signature], feeds,
                           expected, saved_model.tolerance)

    def freeze(self, model, folder):
        """Writes the frozen graph. Its path, feeds, and what the graph gave before that."""
        made = graph_models.make(model)
        with _session(made.graph) as session:
            session.run(made.init)
            names = [name.split(":")[0] for name in made.outputs]
            frozen = tf.graph_util.convert_variables_to_constants(
                session, made.graph.as_graph_def(), names)
            path = folder.path("frozen.pb")
            with open(path, "wb") as file:
                file.write(frozen.SerializeToString())
            # Some are for training alone.
            kept = {node.name for node in frozen.node}
            feeds = {name: array for name, array in model.batch(None).items() if name in kept}
            values = session.run(made.outputs, {name + ":0": feeds[name] for name in feeds})
        return path, feeds, dict(zip(made.outputs, values))

    def check_frozen(self, model):
        folder = _Folder(self)
        path, feeds, expected = self.freeze(model, folder)
        self.check_run(folder, ["--graph", path], feeds, expected, model.tolerance)

    def check_broken_when_frozen(self, model):
        """Neither program takes the graph."""
        folder = _Folder(self)
        path, feeds, expected = self.freeze(model, folder)
        graph_def = tf.GraphDef()
        with open(path, "rb") as file:
            graph_def.ParseFromString(file.read())
        with tf.Graph().as_default(), self.assertRaises(ValueError):
            tf.import_graph_def(graph_def, name="")
        with self.assertRaises(RuntimeError) as caught:
            self.check_run(folder, ["--graph", path], feeds, expected, model.tolerance)
        for word in _BROKEN_WHEN_FROZEN[model.name]:
            self.assertIn(word, str(caught.exception))

    def test_frozen_functions(self):
        """What TensorFlow 2 freezes: a Keras model, and a function with a loop and a branch."""
        random = np.random.RandomState(5)
        network = keras.Sequential([
            keras.layers.Conv2D(3, 3, activation="relu", input_shape=(8, 8, 2), name="conv"),
            keras.layers.MaxPooling2D(name="pool"), keras.layers.Flatten(name="flat"),
            keras.layers.Dense(4, activation="softmax", name="dense")])
        network.set_weights([random.normal(size=weight.shape) for weight in network.get_weights()])
        matrix = tf2.Variable(random.normal(size=(3, 3)).astype(np.float32))

        def loop(x):
            for i in tf2.range(4):
                rows = tf2.gather(matrix.read_value(), i % 3)
                x = tf2.tanh(x @ matrix) if tf2.equal(i % 2, 0) else x - rows
            return x

        for function, shape in ((network, [5, 8, 8, 2]), (tf2.function(loop), [5, 3])):
            with self.subTest(shape=shape):
                folder = _Folder(self)
                x = random.normal(size=shape).astype(np.float32)
                concrete = tf2.function(lambda x, call=function: call(x)).get_concrete_function(
                    tf2.TensorSpec([None, *shape[1:]], tf2.float32, name="x"))
                frozen = convert_to_constants.convert_variables_to_constants_v2(
                    concrete, lower_control_flow=False)
                path = folder.path("frozen.pb")
                with open(path, "wb") as file:
                    file.write(frozen.graph.as_graph_def().SerializeToString())
                self.check_run(folder, ["--graph", path], {"x": x},
                               {frozen.outputs[0].name: concrete(tf2.constant(x)).numpy()}, 1e-5)


def _add_tests():
    cases = [("train", model.name, "check_training", model) for model in graph_models.MODELS]
    cases += [("saved_model", model.name, "check_saved_model", model)
              for model in graph_models.SAVED_MODELS]
    cases += [("frozen", model.name, "check_frozen", model) for model in graph_models.MODELS
              if model.name in _FROZEN]
    cases += [("frozen", model.name, "check_broken_when_frozen", model)
              for model in graph_models.MODELS if model.name in _BROKEN_WHEN_FROZEN]
    for kind, name, check, model in cases:

        def test(self, check=check, model=model):
            getattr(self, check)(model)

        setattr(GraphModelsTest, f"test_{kind}_{name}", test)


_add_tests()

if __name__ == "__main__":
    unittest.main()
