"""Passes the state of one training between this project and TensorFlow, in both directions.

`ferry train` trains the digits network to step 200 and on to 220; TensorFlow goes on from step 200
through the meta graph, and in a network and with an optimizer of its own, and has to get the same
losses. What TensorFlow saves then, `ferry train` resumes.

Environment: FERRY_BIN is the folder with the build's outputs, FERRY_ROOT the checkout.
"""

import glob
import gzip
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from google.protobuf import text_format
import tensorflow.compat.v1 as tf

_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")
_DIGITS = os.path.join(os.environ["FERRY_ROOT"], "examples", "data", "digits.csv.gz")
_SEED = 7
_BATCH = 32
_SAVED, _END = 200, 220
# The two sum in different orders.
_TOLERANCE = 1e-4

_OPTIMIZERS = {
    "adam": lambda: tf.train.AdamOptimizer(1e-3),
    "momentum": lambda: tf.train.MomentumOptimizer(1e-2, 0.9),
    "sgd": lambda: tf.train.GradientDescentOptimizer(1e-1),
}
_SLOTS = {"adam": ("Adam", "Adam_1"), "momentum": ("Momentum",), "sgd": ()}


def ferry(*arguments):
    """Runs the command; its standard output."""
    result = subprocess.run([_FERRY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, check=False)
    if result.returncode:
        raise AssertionError(f"ferry {' '.join(arguments)}: {result.stderr}")
    return result.stdout


def train(model_dir, optimizer, steps, *arguments):
    return json.loads(ferry("train", "--model_dir", model_dir, "--optimizer", optimizer, "--steps",
                            str(steps), "--batch_size", str(_BATCH), "--seed", str(_SEED),
                            "--summary_steps", "1", "--save_checkpoints_steps", "100", "--threads",
                            "1", "--json", *arguments))


class Digits:
    """The training rows in the order in which `ferry train` takes them (tools/train.h)."""

    def __init__(self):
        with gzip.open(_DIGITS, "rt") as file:
            rows = np.loadtxt(file, delimiter=",")
        test = np.arange(len(rows)) % 5 == 4
        self.x = (rows[~test, :64] / 16).astype(np.float32)
        self.y = rows[~test, 64].astype(np.int64)
        self._epoch, self._permutation = None, None

    def _permute(self, epoch):
        mask = 2**64 - 1
        state = (_SEED * 0x2545f4914f6cdd1d + epoch) & mask
        permutation = list(range(len(self.y)))
        for k in range(len(permutation), 1, -1):
            state = (state + 0x9e3779b97f4a7c15) & mask
            z = state
            z = ((z ^ (z >> 30)) * 0xbf58476d1ce4e5b9) & mask
            z = ((z ^ (z >> 27)) * 0x94d049bb133111eb) & mask
            j = (z ^ (z >> 31)) % k
            permutation[k - 1], permutation[j] = permutation[j], permutation[k - 1]
        return permutation

    def feeds(self, step):
        rows = []
        for at in range(step * _BATCH, (step + 1) * _BATCH):
            epoch, i = divmod(at, len(self.y))
            if epoch != self._epoch:
                self._epoch, self._permutation = epoch, self._permute(epoch)
            rows.append(self._permutation[i])
        return {"x:0": self.x[rows], "y:0": self.y[rows]}


def build_network(optimizer):
    """The network of `ferry train`, as a user of TensorFlow writes it."""
    x = tf.placeholder(tf.float32, [None, 64], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    h = x
    for scope, units in (("hidden1", 128), ("hidden2", 64), ("logits", 10)):
        with tf.variable_scope(scope):
            weights = tf.get_variable(
                "weights", [h.shape[1], units],
                initializer=tf.truncated_normal_initializer(stddev=math.sqrt(2 / int(h.shape[1]))))
            biases = tf.get_variable("biases", [units], initializer=tf.zeros_initializer())
            h = tf.nn.bias_add(tf.matmul(h, weights), biases)
        if scope != "logits":
            h = tf.nn.relu(h)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=h),
                          name="loss")
    tf.reduce_mean(tf.cast(tf.equal(tf.argmax(h, 1), y), tf.float32), name="accuracy")
    _OPTIMIZERS[optimizer]().minimize(loss, tf.train.get_or_create_global_step(), name="train_op")


def run_steps(session, digits, first, last):
    """Runs the steps from first up to last; (loss, accuracy) of each."""
    out = []
    for step in range(first, last):
        loss, accuracy, _ = session.run(["loss:0", "accuracy:0", "train_op"], digits.feeds(step))
        out.append((float(loss), float(accuracy)))
    return out


def recorded(model_dir):
    """{step: (loss, accuracy)} from the event files; `step` counts the updates that were made."""
    values = {}
    for path in sorted(glob.glob(os.path.join(model_dir, "events.out.tfevents.*"))):
        for event in tf.train.summary_iterator(path):
            for value in event.summary.value:
                values.setdefault((value.tag, event.step), value.simple_value)
    return {step: (value, values["accuracy", step]) for (tag, step), value in values.items()
            if tag == "loss"}


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


class InteropTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        tf.disable_resource_variables()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.digits = Digits()
        cls.saved, cls.end, cls.losses = {}, {}, {}
        for optimizer in _OPTIMIZERS:
            model_dir = os.path.join(cls.folder, optimizer)
            cls.saved[optimizer] = train(model_dir, optimizer, _SAVED)["checkpoint"]
            cls.end[optimizer] = train(model_dir, optimizer, _END)["checkpoint"]
            cls.losses[optimizer] = recorded(model_dir)

    def new_folder(self):
        return tempfile.mkdtemp(dir=self.folder)

    def variable_names(self, optimizer):
        trained = [f"{layer}/{part}" for layer in ("hidden1", "hidden2", "logits")
                   for part in ("weights", "biases")]
        names = trained + [f"{name}/{slot}" for name in trained for slot in _SLOTS[optimizer]]
        names.append("global_step")
        if optimizer == "adam":
            names += ["beta1_power", "beta2_power"]
        return sorted(names)

    def expect_recorded(self, optimizer, values, first):
        """`values` are what `ferry train` recorded for the steps from `first` on."""
        for step, (loss, accuracy) in enumerate(values, first):
            expected_loss, expected_accuracy = self.losses[optimizer][step + 1]
            self.assertAlmostEqual(loss, expected_loss, delta=_TOLERANCE * expected_loss,
                                   msg=f"loss of step {step}")
            self.assertAlmostEqual(accuracy, expected_accuracy, delta=1e-6,
                                   msg=f"accuracy of step {step}")

    def expect_end(self, optimizer, session):
        """The session's variables are those of the last checkpoint, up to rounding."""
        reader = tf.train.load_checkpoint(self.end[optimizer])
        for name in self.variable_names(optimizer):
            expected = reader.get_tensor(name)
            np.testing.assert_allclose(session.run(name + ":0"), expected, rtol=1e-3,
                                       atol=1e-4 * max(1e-2, np.max(np.abs(expected))),
                                       err_msg=name)

    def expect_equal_checkpoints(self, ours, theirs):
        ours, theirs = tf.train.load_checkpoint(ours), tf.train.load_checkpoint(theirs)
        self.assertEqual(ours.get_variable_to_shape_map(), theirs.get_variable_to_shape_map())
        self.assertEqual(ours.get_variable_to_dtype_map(), theirs.get_variable_to_dtype_map())
        for name in ours.get_variable_to_shape_map():
            self.assertEqual(ours.get_tensor(name).tobytes(), theirs.get_tensor(name).tobytes(),
                             name)

    # ---- Ferry's checkpoints there ----

    def test_checkpoints_are_found(self):
        for optimizer, end in self.end.items():
            with self.subTest(optimizer=optimizer):
                model_dir = os.path.dirname(end)
                self.assertEqual(end, f"{model_dir}/model.ckpt-{_END}")
                self.assertEqual(tf.train.latest_checkpoint(model_dir), end)
                state = tf.train.get_checkpoint_state(model_dir)
                self.assertEqual(state.model_checkpoint_path, end)
                self.assertEqual(list(state.all_model_checkpoint_paths),
                                 [f"{model_dir}/model.ckpt-{step}" for step in (0, 100, 200, 220)])
                for prefix in state.all_model_checkpoint_paths:
                    self.assertTrue(tf.train.checkpoint_exists(prefix), prefix)
                times = list(state.all_model_checkpoint_timestamps)
                self.assertEqual(len(times), 4)
                for time, mtime in zip(times, tf.train.get_checkpoint_mtimes(
                        state.all_model_checkpoint_paths)):
                    self.assertAlmostEqual(time, mtime, delta=60)

    def test_values_are_read(self):
        for optimizer, prefix in self.saved.items():
            with self.subTest(optimizer=optimizer):
                listed = json.loads(ferry("inspect", prefix, "--json"))["tensors"]
                self.assertEqual([t["name"] for t in listed], self.variable_names(optimizer))
                self.assertEqual([(t["name"], t["shape"]) for t in listed],
                                 [(name, list(shape)) for name, shape in
                                  sorted(tf.train.list_variables(prefix))])
                reader = tf.train.load_checkpoint(prefix)
                dtypes = reader.get_variable_to_dtype_map()
                npy = os.path.join(self.new_folder(), "value.npy")
                for tensor in listed:
                    name = tensor["name"]
                    # `ferry inspect` says "float" where TensorFlow's Python says "float32".
                    self.assertEqual(dtypes[name].as_datatype_enum,
                                     tf.as_dtype(tensor["dtype"]).as_datatype_enum)
                    ferry("inspect", prefix, "--tensor_name", name, "--npy", npy)
                    ours, theirs = np.load(npy), np.asarray(reader.get_tensor(name))
                    self.assertEqual((ours.dtype, ours.shape), (theirs.dtype, theirs.shape))
                    self.assertEqual(ours.tobytes(), theirs.tobytes(), name)
        # Each checkpoint is of its step.
        for prefix in tf.train.get_checkpoint_state(
                os.path.dirname(self.end["adam"])).all_model_checkpoint_paths:
            step = int(prefix.rpartition("-")[2])
            self.assertEqual(tf.train.load_variable(prefix, "global_step"), step)
            self.assertAlmostEqual(tf.train.load_variable(prefix, "beta2_power"), 0.999**(step + 1),
                                   delta=1e-5)

    def test_inspect_checkpoint(self):
        prefix = self.saved["adam"]
        output = subprocess.run(
            [sys.executable, "-m", "tensorflow.python.tools.inspect_checkpoint",
             f"--file_name={prefix}", "--all_tensor_names"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        lines = [line for line in output.splitlines() if line.startswith("tensor: ")]
        self.assertEqual([line.split()[1] for line in lines], self.variable_names("adam"))
        self.assertIn("tensor: hidden1/weights (float32) [64, 128]", lines)
        parameters = json.loads(ferry("inspect", prefix, "--json"))["parameters"]
        self.assertIn(f"# Total number of params: {parameters}", output)

    def test_meta_graph_is_imported_and_goes_on(self):
        for optimizer, prefix in self.saved.items():
            with self.subTest(optimizer=optimizer), tf.Graph().as_default(), \
                    tf.Session() as session:
                saver = tf.train.import_meta_graph(prefix + ".meta")
                saver.restore(session, prefix)
                variables = {variable.op.name: variable for variable in tf.global_variables()}
                self.assertEqual(sorted(variables), self.variable_names(optimizer))
                self.assertEqual([variable.op.name for variable in tf.trainable_variables()],
                                 [f"{layer}/{part}" for layer in ("hidden1", "hidden2", "logits")
                                  for part in ("weights", "biases")])
                self.assertEqual([op.name for op in tf.get_collection(tf.GraphKeys.TRAIN_OP)],
                                 ["train_op"])
                self.assertEqual(tf.train.get_global_step().name, "global_step:0")
                reader = tf.train.load_checkpoint(prefix)
                for name, variable in variables.items():
                    self.assertEqual(session.run(variable).tobytes(),
                                     reader.get_tensor(name).tobytes(), name)
                self.assertEqual(len(session.run(tf.report_uninitialized_variables())), 0)
                self.expect_recorded(optimizer, run_steps(session, self.digits, _SAVED, _END),
                                     _SAVED)
                self.expect_end(optimizer, session)

    def test_initial_values(self):
        """The initializers of the imported graph give what the first checkpoint holds."""
        prefix = os.path.join(os.path.dirname(self.saved["adam"]), "model.ckpt-0")
        reader = tf.train.load_checkpoint(prefix)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.train.import_meta_graph(prefix + ".meta")
            session.run("init")
            for name in self.variable_names("adam"):
                np.testing.assert_allclose(session.run(name + ":0"), reader.get_tensor(name),
                                           rtol=1e-6, err_msg=name)

    def test_networks_own_optimizer_goes_on(self):
        for optimizer, prefix in self.saved.items():
            with self.subTest(optimizer=optimizer), tf.Graph().as_default(), \
                    tf.Session() as session:
                build_network(optimizer)
                self.assertEqual(sorted(v.op.name for v in tf.global_variables()),
                                 self.variable_names(optimizer))
                tf.train.Saver().restore(session, prefix)
                self.expect_recorded(optimizer, run_steps(session, self.digits, _SAVED, _END),
                                     _SAVED)
                self.expect_end(optimizer, session)

    def test_monitored_session_resumes(self):
        model_dir = self.new_folder()
        for path in glob.glob(self.saved["adam"] + ".*"):
            shutil.copy(path, model_dir)
        prefix = os.path.join(model_dir, os.path.basename(self.saved["adam"]))
        tf.train.update_checkpoint_state(model_dir, prefix, [prefix])
        with tf.Graph().as_default():
            build_network("adam")
            with tf.train.MonitoredTrainingSession(checkpoint_dir=model_dir, save_summaries_steps=0,
                                                   log_step_count_steps=0) as session:
                values = run_steps(session, self.digits, _SAVED, _SAVED + 5)
        self.expect_recorded("adam", values, _SAVED)
        # It saved at its end, which resumes here.
        self.assertEqual(tf.train.latest_checkpoint(model_dir),
                         os.path.join(model_dir, f"model.ckpt-{_SAVED + 5}"))
        report = train(model_dir, "adam", _END)
        self.assertEqual(report["first_step"], _SAVED + 5)
        resumed = recorded(model_dir)
        self.expect_recorded("adam", [resumed[step + 1] for step in range(_SAVED + 5, _END)],
                             _SAVED + 5)

    # ---- The files, byte for byte ----

    def test_files_are_tensorflows(self):
        for optimizer, prefix in self.saved.items():
            with self.subTest(optimizer=optimizer), tf.Graph().as_default():
                reader = tf.train.load_checkpoint(prefix)
                names = self.variable_names(optimizer)
                folder = self.new_folder()
                again = os.path.join(folder, "raw")
                with tf.Session() as session:
                    session.run(tf.raw_ops.SaveV2(
                        prefix=again, tensor_names=names, shape_and_slices=[""] * len(names),
                        tensors=[tf.constant(reader.get_tensor(name)) for name in names]))
                prefixes = [again]
                # And as the Savers of both graphs write it.
                for name in ("imported", "own"):
                    with tf.Graph().as_default(), tf.Session() as session:
                        if name == "imported":
                            saver = tf.train.import_meta_graph(prefix + ".meta")
                        else:
                            build_network(optimizer)
                            saver = tf.train.Saver()
                        saver.restore(session, prefix)
                        prefixes.append(saver.save(session, os.path.join(folder, name)))
                for other in prefixes:
                    for suffix in (".index", ".data-00000-of-00001"):
                        self.assertEqual(read_bytes(prefix + suffix), read_bytes(other + suffix),
                                         f"{other}{suffix}")

    def test_saver_def(self):
        """The Saver in the meta graph has what TensorFlow's own has, and so does the graph file."""
        prefix = self.saved["adam"]
        meta = tf.MetaGraphDef.FromString(read_bytes(prefix + ".meta"))
        with tf.Graph().as_default():
            build_network("adam")
            expected = tf.train.export_meta_graph(saver_def=tf.train.Saver().as_saver_def())
        self.assertEqual(meta.saver_def, expected.saver_def)
        self.assertEqual(sorted(meta.collection_def), sorted(expected.collection_def))
        ours = {node.name: node for node in meta.graph_def.node}
        for node in expected.graph_def.node:
            if node.name.startswith("save/"):
                self.assertEqual(ours[node.name].op, node.op, node.name)
                self.assertEqual(list(ours[node.name].input), list(node.input), node.name)
        self.assertEqual({op.name for op in meta.meta_info_def.stripped_op_list.op},
                         {node.op for node in meta.graph_def.node})
        with open(os.path.join(os.path.dirname(prefix), "graph.pbtxt"), encoding="utf-8") as file:
            graph = text_format.Parse(file.read(), tf.GraphDef())
        with tf.Graph().as_default():
            loss, = tf.import_graph_def(graph, return_elements=["loss:0"], name="again")
            self.assertEqual(loss.name, "again/loss:0")

    # ---- TensorFlow's checkpoints here ----

    def resume(self, optimizer, make_saver, step):
        """TensorFlow trains to `step` and saves; Ferry has to go on as if it had never left."""
        model_dir = self.new_folder()
        with tf.Graph().as_default(), tf.Session() as session:
            saver = make_saver()
            saver.restore(session, self.saved[optimizer])
            first = saver.save(session, os.path.join(model_dir, "model.ckpt"), global_step=_SAVED)
            run_steps(session, self.digits, _SAVED, step)
            theirs = saver.save(session, os.path.join(model_dir, "model.ckpt"), global_step=step)
        for path in (theirs, model_dir):
            self.assertTrue(json.loads(ferry("verify", path, "--json"))["ok"])
        listed = json.loads(ferry("inspect", theirs, "--json"))["tensors"]
        self.assertEqual([t["name"] for t in listed], self.variable_names(optimizer))
        summary = ferry("summary", theirs + ".meta")
        for words in ("MatMul", "hidden1/weights", "restore save/restore_all"):
            self.assertIn(words, summary)

        report = train(model_dir, optimizer, _END)
        self.assertEqual((report["first_step"], report["last_step"]), (step, _END))
        resumed = recorded(model_dir)
        self.assertEqual(sorted(resumed), list(range(step + 1, _END + 1)))
        self.expect_recorded(optimizer, [resumed[s + 1] for s in range(step, _END)], step)
        # Retention knows TensorFlow's checkpoints.
        state = tf.train.get_checkpoint_state(model_dir)
        self.assertEqual(list(state.all_model_checkpoint_paths),
                         [first, theirs, os.path.join(model_dir, f"model.ckpt-{_END}")])
        ours, end = (tf.train.load_checkpoint(prefix)
                     for prefix in (state.model_checkpoint_path, self.end[optimizer]))
        for name in self.variable_names(optimizer):
            expected = end.get_tensor(name)
            np.testing.assert_allclose(ours.get_tensor(name), expected, rtol=1e-3,
                                       atol=1e-4 * max(1e-2, np.max(np.abs(expected))),
                                       err_msg=name)

        train(model_dir, optimizer, _END + 1, "--keep_checkpoint_max", "1")
        left = glob.glob(os.path.join(model_dir, "model.ckpt-*"))
        self.assertEqual({os.path.basename(path).partition(".data")[0] for path in left},
                         {f"model.ckpt-{_END + 1}{suffix}" for suffix in ("", ".index", ".meta")})

    def test_ferry_resumes_from_the_imported_graphs_saver(self):
        for optimizer, prefix in self.saved.items():
            with self.subTest(optimizer=optimizer):
                self.resume(optimizer, lambda: tf.train.import_meta_graph(prefix + ".meta"), 210)

    def test_ferry_resumes_from_the_networks_own_saver(self):

        def make_saver(optimizer, **options):
            build_network(optimizer)
            return tf.train.Saver(**options)

        for optimizer in self.saved:
            with self.subTest(optimizer=optimizer):
                self.resume(optimizer, lambda: make_saver(optimizer), 203)
        with self.subTest(sharded=True):
            self.resume("adam", lambda: make_saver("adam", sharded=True), 201)
        with self.subTest(save_relative_paths=True):
            self.resume("adam", lambda: make_saver("adam", save_relative_paths=True), 201)
        with self.subTest(version=1):
            self.resume("adam", lambda: make_saver("adam", write_version=tf.train.SaverDef.V1), 201)

    def test_training_that_tensorflow_began(self):
        """From TensorFlow's initial values to a network that has learnt."""
        model_dir = self.new_folder()
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(3)
            build_network("adam")
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, os.path.join(model_dir, "model.ckpt"), global_step=0)
            theirs = run_steps(session, self.digits, 0, 50)
        report = train(model_dir, "adam", 300)
        self.assertEqual(report["first_step"], 0)
        self.assertGreater(report["test_accuracy"], 0.9)
        ours = recorded(model_dir)
        # Roundings grow from step to step.
        np.testing.assert_allclose([ours[step + 1][0] for step in range(50)],
                                   [loss for loss, _ in theirs], rtol=1e-3)

    def test_arrays_pass_to_numpy(self):
        folder = self.new_folder()
        values = {name: np.array([[0, 1, np.iinfo(name).max], [np.iinfo(name).min, 5, 7]], name)
                  for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                               "uint64")}
        values.update(float16=np.array([1.5, -2], np.float16), float64=np.array(1e300),
                      bool=np.array([True, False, True]), empty=np.zeros([0, 3], np.float32),
                      complex64=np.array([1 - 2j], np.complex64), complex128=np.array([-1e300j]))
        prefix = os.path.join(folder, "arrays")
        with tf.Graph().as_default(), tf.Session() as session:
            session.run(tf.raw_ops.SaveV2(
                prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values),
                tensors=[tf.constant(value) for value in values.values()]))
        npy = os.path.join(folder, "value.npy")
        for name, value in values.items():
            ferry("inspect", prefix, "--tensor_name", name, "--npy", npy)
            ours = np.load(npy)
            self.assertEqual((ours.dtype, ours.shape), (value.dtype, value.shape))
            self.assertEqual(ours.tobytes(), value.tobytes(), name)


if __name__ == "__main__":
    unittest.main()
