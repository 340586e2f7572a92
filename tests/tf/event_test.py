"""Reads event files that this project wrote, through TensorFlow's reader and TensorBoard's.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import ast
import glob
import os
import subprocess
import tempfile
import unittest

import numpy as np
import tensorflow.compat.v1 as tf
from tensorboard.backend.event_processing import event_accumulator

_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")
_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/event_program")


class EventTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.logdir = os.path.join(folder.name, "a", "b")
        subprocess.run([_PROGRAM, cls.logdir], check=True)
        paths = glob.glob(os.path.join(cls.logdir, "events.out.tfevents.*"))
        assert len(paths) == 1, paths
        cls.events = list(tf.train.summary_iterator(paths[0]))

    def test_order_and_kinds(self):
        kinds = [event.WhichOneof("what") for event in self.events]
        self.assertEqual(kinds, ["file_version", "graph_def", "meta_graph_def"] +
                         ["summary"] * 101 + ["session_log"] + ["summary"] * 10)
        self.assertEqual(self.events[0].file_version, "brain.Event:2")
        times = [event.wall_time for event in self.events]
        self.assertEqual(times, sorted(times))

    def test_graph(self):
        graph = tf.GraphDef.FromString(self.events[1].graph_def)
        self.assertEqual([node.name for node in graph.node], ["x"])
        meta_graph = tf.MetaGraphDef.FromString(self.events[2].meta_graph_def)
        self.assertEqual(meta_graph.graph_def, graph)
        tf.import_graph_def(graph)

    def test_histogram_is_tensorflows(self):
        values = [(i * i % 97 - 48) * 0.25 for i in range(500)]
        with tf.Graph().as_default(), tf.Session() as session:
            theirs = tf.Summary.FromString(
                session.run(tf.summary.histogram("weights", tf.constant(values, tf.float32))))
        self.assertEqual(self.events[103].summary.value[0].histo, theirs.value[0].histo)
        self.assertEqual(self.events[103].step, 100)

    def test_tensorboard(self):
        events = event_accumulator.EventAccumulator(
            self.logdir, size_guidance={event_accumulator.TENSORS: 0, event_accumulator.SCALARS: 0})
        events.Reload()
        # The log of a new start at step 50 takes away what was recorded from there on.
        loss = [(event.step, event.value) for event in events.Scalars("training/loss")]
        self.assertEqual([step for step, _ in loss], list(range(60)))
        self.assertAlmostEqual(loss[3][1], 0.25)
        self.assertEqual(loss[55][1], 0.5)
        self.assertEqual(len(events.Graph().node), 1)


class ImageSummaryTest(unittest.TestCase):

    def summaries(self, images, **options):
        """TensorFlow's and ours, of a graph that TensorFlow wrote."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = os.path.join(folder.name, "x.npy")
        np.save(file, images)
        with tf.Graph().as_default() as graph, tf.Session() as session:
            x = tf.placeholder(images.dtype, [None, *images.shape[1:]], name="x")
            image = tf.summary.image("pictures", x, **options)
            merged = tf.summary.merge([image, tf.summary.scalar("mean", tf.reduce_mean(x))]) if (
                images.dtype == np.float32) else image
            theirs = session.run(merged, {x: images})
            tf.io.write_graph(graph.as_graph_def(), folder.name, "graph.pb", as_text=False)
        printed = subprocess.run(
            [_FERRY, "run", "--graph", os.path.join(folder.name, "graph.pb"), "--feed",
             f"x={file}", "--fetch", merged.name], stdout=subprocess.PIPE, text=True,
            check=True).stdout
        ours = ast.literal_eval("b" + printed[printed.index('"'):].strip())
        return tf.Summary.FromString(theirs), tf.Summary.FromString(ours)

    def check(self, images, **options):
        theirs, ours = self.summaries(images, **options)
        self.assertEqual([value.tag for value in ours.value],
                         [value.tag for value in theirs.value])
        with tf.Graph().as_default(), tf.Session() as session:
            for their, our in zip(theirs.value, ours.value):
                if not their.HasField("image"):
                    continue
                pixels = [session.run(tf.image.decode_png(value.image.encoded_image_string))
                          for value in (their, our)]
                np.testing.assert_array_equal(*pixels)
                for value in (their, our):
                    value.image.encoded_image_string = b""
                self.assertEqual(their.image, our.image)

    def test_images(self):
        random = np.random.RandomState(3)
        self.check(random.uniform(0, 3, (5, 6, 7, 3)).astype(np.float32))
        self.check(random.normal(size=(2, 28, 28, 1)).astype(np.float32), max_outputs=1)
        self.check(random.randint(0, 256, (2, 40, 30, 4)).astype(np.uint8))
        self.check(np.zeros((1, 300, 200, 3), np.uint8))
        self.check(random.randint(0, 256, (1, 300, 200, 3)).astype(np.uint8))
        self.check(np.zeros((1, 2, 2, 1), np.float16))
        bad = random.uniform(-1, 1, (2, 4, 4, 3))
        bad[0, 1, 2, 0], bad[1, :, 0] = np.nan, np.inf
        self.check(bad.astype(np.float32))
        self.check(bad)


class TrainEventsTest(unittest.TestCase):

    def train(self, steps):
        subprocess.run([_FERRY, "train", "--model_dir", self.logdir, "--steps", str(steps),
                        "--summary_steps", "10", "--save_checkpoints_steps", "50"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_resumed_training(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.logdir = folder.name
        self.train(100)
        # As if it had been killed at step 100 before that was saved.
        for path in glob.glob(os.path.join(self.logdir, "model.ckpt-100.*")):
            os.remove(path)
        tf.train.update_checkpoint_state(self.logdir, os.path.join(self.logdir, "model.ckpt-50"))
        self.train(120)
        self.assertEqual(len(glob.glob(os.path.join(self.logdir, "events.out.tfevents.*"))), 2)

        events = event_accumulator.EventAccumulator(
            self.logdir, size_guidance={event_accumulator.SCALARS: 0})
        events.Reload()
        self.assertEqual(sorted(events.Tags()["scalars"]), ["accuracy", "loss", "test_accuracy"])
        for tag in ("loss", "accuracy"):
            # What was done again is there once.
            self.assertEqual([event.step for event in events.Scalars(tag)],
                             list(range(10, 121, 10)), tag)
        loss = [event.value for event in events.Scalars("loss")]
        self.assertLess(loss[-1], loss[0] / 2)
        self.assertEqual(events.Scalars("test_accuracy")[-1].step, 120)
        self.assertGreater(events.Scalars("test_accuracy")[-1].value, 0.5)
        names = {node.name for node in events.Graph().node}
        self.assertLessEqual({"x", "y", "hidden1/weights", "loss", "train_op"}, names)


if __name__ == "__main__":
    unittest.main()
