"""Passes models between this project and others, in both directions: frozen graphs and SavedModels
(TensorFlow), .safetensors (the format's own package) and .npz (NumPy).

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile

import ml_dtypes
import numpy as np
import safetensors.numpy
import tensorflow.compat.v1 as tf

_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")
_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/saved_model_program")


def ferry(*arguments, status=0):
    """Runs the command; its standard output and error."""
    result = subprocess.run([_FERRY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, check=False)
    if result.returncode != status:
        raise AssertionError(f"ferry {' '.join(arguments)}: {result.returncode} {result.stderr}")
    return result.stdout, result.stderr


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


class ModelsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.prefixes = 0

    def new_prefix(self):
        """One that no other checkpoint has had."""
        self.prefixes += 1
        return self.path(f"model-{self.prefixes}")

    def path(self, *names):
        return os.path.join(self.folder, *names)


class FreezeTest(ModelsTest):

    def check(self, build, feeds=None, saver=tf.train.Saver, **options):
        """`build` makes a graph and returns the node to freeze. What TensorFlow makes of it and
        what `ferry freeze` makes of its checkpoint are the same bytes, and compute the same."""
        with tf.Graph().as_default(), tf.Session() as session:
            tf.disable_control_flow_v2()
            output = build().op.name
            session.run(tf.global_variables_initializer())
            prefix = saver().save(session, self.new_prefix())
            value = session.run(output + ":0", feeds)
            expected = tf.graph_util.convert_variables_to_constants(
                session, tf.get_default_graph().as_graph_def(), [output],
                **{f"variable_names_{key}": value for key, value in options.items()})
        frozen = self.path("frozen.pb")
        _, log = ferry("freeze", "--meta", prefix + ".meta", "--checkpoint", prefix,
                       "--output_node_names", output, "--output", frozen,
                       *(f"--variable_names_{key}={','.join(value)}"
                         for key, value in options.items()))
        constants = sum(node.op == "Const" and node.name in self.names(prefix)
                        for node in expected.node)
        self.assertIn(f"Froze {constants} variables.\n", log)
        self.assertIn(f"Converted {constants} variables to const ops.\n", log)
        ours = tf.GraphDef.FromString(read_bytes(frozen))
        # What the meta graph knows besides.
        for node in ours.node:
            node.attr.pop("_output_shapes", None)
        for theirs, node in zip(expected.node, ours.node):
            self.assertEqual(theirs, node)
        self.assertEqual(len(expected.node), len(ours.node))
        self.assertEqual(expected.versions, ours.versions)
        if not options:
            with tf.Graph().as_default(), tf.Session() as session:
                result, = tf.import_graph_def(ours, return_elements=[output + ":0"], name="")
                np.testing.assert_array_equal(session.run(result, feeds), value)
        return ours

    def names(self, prefix):
        graph = tf.MetaGraphDef.FromString(read_bytes(prefix + ".meta")).graph_def
        return {node.name for node in graph.node if node.op in ("VariableV2", "VarHandleOp")}

    def test_article(self):
        def build():
            v1 = tf.Variable(tf.constant(1.0, shape=[1]), name="v1", use_resource=False)
            v2 = tf.Variable(tf.constant(2.0, shape=[1]), name="v2", use_resource=False)
            return tf.add(v1, v2, name="add")

        frozen = self.check(build)
        self.assertEqual([node.name for node in frozen.node],
                         ["v1", "v1/read", "v2", "v2/read", "add"])
        with tf.Graph().as_default(), tf.Session() as session:
            result = tf.import_graph_def(frozen, return_elements=["add:0"])
            self.assertEqual(result[0].name, "import/add:0")
            self.assertEqual(repr(session.run(result)), "[array([3.], dtype=float32)]")

    @staticmethod
    def network(resource):
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        w = tf.get_variable("w", [3, 4], use_resource=resource)
        b = tf.get_variable("b", [4], tf.float32, tf.ones_initializer(), use_resource=resource)
        tf.get_variable("unused", [7], use_resource=resource)
        return tf.nn.relu(tf.matmul(x, w) + b, name="y")

    def test_networks(self):
        feeds = {"x:0": np.arange(6, dtype=np.float32).reshape(2, 3)}
        for resource in False, True:
            with self.subTest(resource=resource):
                self.check(lambda: self.network(resource), feeds)
                for saver in (lambda: tf.train.Saver(sharded=True),
                              lambda: tf.train.Saver(write_version=tf.train.SaverDef.V1),
                              lambda: tf.train.Saver({"other/" + v.op.name: v
                                                      for v in tf.global_variables()})):
                    self.check(lambda: self.network(resource), feeds, saver)
                self.check(lambda: self.network(resource), feeds, whitelist=["w"])
                self.check(lambda: self.network(resource), feeds, blacklist=["w"])

    def test_dtypes(self):
        for resource in False, True:
            for dtype in ("float16", "bfloat16", "float64", "int8", "int32", "int64", "uint8",
                          "bool", "complex64", "string"):
                with self.subTest(dtype=dtype, resource=resource):
                    value = np.array([[1, 0, 1]]) if dtype != "string" else np.array([b"a", b""])
                    self.check(lambda: tf.identity(tf.get_variable(
                        "v", initializer=tf.constant(value, dtype), use_resource=resource), "out"))

    def test_gather(self):
        def build():
            table = tf.get_variable("table", [10, 3], use_resource=True)
            first = tf.gather(table, tf.constant([1, 5]), name="first")
            second = tf.gather(table, tf.constant([[7], [2]], tf.int64), name="second")
            third = tf.gather_nd(table, [[2, 1]], name="third")
            return tf.add(tf.reduce_sum(first) + tf.reduce_sum(second), tf.reduce_sum(third), "out")

        self.check(build)

    def test_partitions(self):
        def build():
            with tf.variable_scope("s", partitioner=tf.fixed_size_partitioner(3)):
                w = tf.get_variable("w", [8, 2], use_resource=False)
            return tf.identity(tf.convert_to_tensor(w), "out")

        self.check(build)

    def test_conditional(self):
        def build(resource):
            x = tf.placeholder(tf.float32, [], name="x")
            v = tf.get_variable("v", initializer=[2.0, 3.0], use_resource=resource)
            w = tf.get_variable("w", initializer=[5.0, 7.0], use_resource=resource)
            return tf.cond(x > 0, lambda: v * 2, lambda: w - 1, name="choose")

        for resource in False, True:
            for x in 1.0, -1.0:
                with self.subTest(resource=resource, x=x):
                    self.check(lambda: build(resource), {"x:0": x})

    def test_loop(self):
        def build():
            v = tf.get_variable("v", initializer=[2.0, 3.0], use_resource=True)
            return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * v),
                                 [tf.constant(0), tf.constant([1.0, 1.0])])[1]

        self.check(build)

    def test_reference_switch(self):
        """TensorFlow leaves a RefSwitch of a constant, which it can't import. Here it becomes a
        Switch."""
        with tf.Graph().as_default(), tf.Session() as session:
            v = tf.get_variable("v", initializer=[2.0, 3.0], use_resource=False)
            pred = tf.placeholder(tf.bool, [], name="p")
            ref = v._ref()  # pylint: disable=protected-access
            _, true = tf.raw_ops.RefSwitch(data=ref, pred=pred)
            tf.identity(true, "out")
            session.run(tf.global_variables_initializer())
            prefix = tf.train.Saver().save(session, self.path("model.ckpt"))
        ferry("freeze", "--meta", prefix + ".meta", "--checkpoint", prefix, "--output_node_names",
              "out", "--output", self.path("frozen.pb"))
        with tf.Graph().as_default(), tf.Session() as session:
            result, = tf.import_graph_def(
                tf.GraphDef.FromString(read_bytes(self.path("frozen.pb"))),
                return_elements=["out:0"], name="")
            np.testing.assert_array_equal(session.run(result, {"p:0": True}), [2, 3])


class SavedModelTest(ModelsTest):
    """What this project writes loads in TensorFlow (the other way round: saved_model_test.cc)."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.models = folder.name
        subprocess.run([_PROGRAM, cls.models], check=True, stderr=subprocess.PIPE)

    def test_loader(self):
        for kind in "ref", "resource":
            folder = os.path.join(self.models, kind, "model")
            with self.subTest(kind=kind), tf.Graph().as_default(), tf.Session() as session:
                self.assertTrue(tf.saved_model.maybe_saved_model_directory(folder))
                meta = tf.saved_model.loader.load(session, ["serve"], folder)
                signature = meta.signature_def["serving_default"]
                self.assertEqual(signature.method_name, "tensorflow/serving/predict")
                self.assertEqual(signature.inputs["input"].dtype, tf.float32.as_datatype_enum)
                self.assertEqual([dim.size for dim in signature.inputs["input"].tensor_shape.dim],
                                 [-1, 2])
                y = session.run(signature.outputs["output"].name,
                                {signature.inputs["input"].name: [[1, 10]]})
                np.testing.assert_array_equal(y, [[2.5, 30.25]])
                path = session.run("path:0").decode()
                self.assertEqual(path, os.path.join(folder, "assets", "words.txt"))
                self.assertEqual(read_bytes(path), b"two words")
            with tf.Graph().as_default(), tf.Session() as session:
                tf.saved_model.loader.load(session, ["gpu", "train"], folder)
                w, = [v for v in tf.global_variables() if v.op.name == "w"]
                np.testing.assert_array_equal(session.run(w), [2, 3])

    def test_load_of_version_2(self):
        script = """if True:
            import sys
            import tensorflow as tf
            model = tf.saved_model.load(sys.argv[1], tags=["serve"])
            out = model.signatures["serving_default"](input=tf.constant([[1.0, 10.0]]))
            print(out["output"].numpy().tolist())"""
        for kind in "ref", "resource":
            with self.subTest(kind=kind):
                result = subprocess.run(
                    [sys.executable, "-c", script, os.path.join(self.models, kind, "model")],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(result.stdout, "[[2.5, 30.25]]\n", result.stderr)

    def test_command_lines(self):
        folder = os.path.join(self.models, "ref", "model")
        cli = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")
        shown = subprocess.run([sys.executable, cli, "show", "--dir", folder, "--tag_set", "serve",
                                "--signature_def", "serving_default"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, check=True).stdout
        for words in ("inputs['input']", "shape: (-1, 2)", "name: x:0", "outputs['output']",
                      "Method name is: tensorflow/serving/predict"):
            self.assertIn(words, shown)
        self.assertIn("serving_default", ferry("summary", folder)[0])
        # And `ferry run` what saved_model_cli does, on what TensorFlow wrote.
        with tf.Graph().as_default(), tf.Session() as session:
            tf.saved_model.loader.load(session, ["serve"], folder)
            graph = tf.get_default_graph()
            tf.saved_model.simple_save(session, self.path("theirs"),
                                       {"x": graph.get_tensor_by_name("x:0")},
                                       {"y": graph.get_tensor_by_name("y:0")})
        for model, x, y in (folder, "input", "output"), (self.path("theirs"), "x", "y"):
            np.save(self.path("x.npy"), np.array([[1.0, 10.0]]))
            ferry("run", "--saved_model", model, "--feed", f"{x}={self.path('x.npy')}", "--fetch",
                  f"{y}={self.path('y.npy')}")
            result = np.load(self.path("y.npy"))
            self.assertEqual((result.dtype, result.tolist()), (np.float32, [[2.5, 30.25]]))


class RunTest(ModelsTest):

    def test_the_articles_feeding_listing(self):
        with tf.Graph().as_default(), tf.Session() as session:
            w1 = tf.placeholder("float", name="w1")
            w2 = tf.placeholder("float", name="w2")
            b1 = tf.Variable(2.0, name="bias", use_resource=False)
            tf.multiply(w1 + w2, b1, name="op_to_restore")
            session.run(tf.global_variables_initializer())
            prefix = tf.train.Saver().save(session, self.path("model"), global_step=1000)
        for w1, w2, expected in ("4", "8", 24.0), ("13", "17", 60.0):
            out, _ = ferry("run", "--meta", prefix + ".meta", "--checkpoint", self.folder, "--feed",
                           f"w1={w1}", "--feed", f"w2={w2}", "--fetch", "op_to_restore:0",
                           "--fetch", "bias", "--json")
            fetched = json.loads(out)["fetches"]
            self.assertEqual(fetched["op_to_restore:0"],
                             {"dtype": "float32", "shape": [], "value": expected})
            self.assertEqual(fetched["bias"], {"dtype": "float32", "shape": [], "value": 2.0})

    def test_training_goes_on_there_and_back(self):
        """TensorFlow's graph, trained here and saved by its own saver, as TensorFlow trains it."""
        for resource in False, True:
            for options in {}, {"sharded": True}:
                with self.subTest(resource=resource, **options), tf.Graph().as_default(), \
                        tf.Session() as session:
                    x = tf.constant(np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2))
                    w = tf.get_variable("w", initializer=[[1.0], [2.0]], use_resource=resource)
                    loss = tf.reduce_mean(tf.square(tf.matmul(x, w) - 0.5), name="loss")
                    tf.train.AdamOptimizer(0.1).minimize(loss, name="train")
                    tf.global_variables_initializer()
                    saver = tf.train.Saver(**options)
                    session.run("init")
                    first = saver.save(session, self.new_prefix())
                    for _ in range(20):
                        session.run("train")
                    expected, w_expected = session.run(["loss:0", w])
                    ours = self.new_prefix()
                    for start in ["--checkpoint", first], ["--init", "init"]:
                        report = json.loads(ferry(
                            "run", "--meta", first + ".meta", *start, "--target", "train",
                            "--repeat", "20", "--fetch", "loss:0", "--save", ours, "--json")[0])
                        self.assertEqual(report["runs"], 20)
                        self.assertAlmostEqual(report["fetches"]["loss:0"]["value"], expected, 5)
                        saver.restore(session, ours)
                        np.testing.assert_allclose(session.run(w), w_expected, rtol=1e-4)


_NUMPY = {
    "scope/float": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "double": np.array(1e300),
    "half": np.array([1.5, -2], np.float16),
    "empty": np.zeros([0, 3], np.float32),
    "bool": np.array([[True], [False]]),
    "complex": np.array([1 - 2j], np.complex64),
    "name with spaces, ü and \"": np.array([7], np.uint8),
    **{name: np.array([np.iinfo(name).min, 3, np.iinfo(name).max], name)
       for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "large": np.random.default_rng(1).standard_normal([700, 513], np.float32),
}
_SAFE = {
    **_NUMPY,
    "bfloat": np.array([1.5, -2, 3e38], ml_dtypes.bfloat16),
}


class ConvertTest(ModelsTest):

    def assert_same(self, ours, expected):
        self.assertEqual(sorted(ours), sorted(expected))
        for name, value in expected.items():
            self.assertEqual((ours[name].dtype, ours[name].shape), (value.dtype, value.shape), name)
            self.assertEqual(ours[name].tobytes(), value.tobytes(), name)

    def checkpoint(self, values, name="model.ckpt"):
        """A checkpoint by TensorFlow; its prefix."""
        prefix = self.path(name)
        with tf.Graph().as_default(), tf.Session() as session:
            session.run(tf.raw_ops.SaveV2(
                prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values),
                tensors=[tf.constant(value) for value in values.values()]))
        return prefix

    def assert_checkpoint(self, prefix, expected):
        reader = tf.train.load_checkpoint(prefix)
        self.assert_same({name: np.asarray(reader.get_tensor(name))
                          for name in reader.get_variable_to_shape_map()}, expected)
        # The files are those that TensorFlow would have written, but for the order of the data,
        # which is by name here.
        same = self.checkpoint(dict(sorted(expected.items(), key=lambda item: item[0].encode())),
                               "same")
        for end in ".index", ".data-00000-of-00001":
            self.assertEqual(read_bytes(prefix + end), read_bytes(same + end))
        self.assertIn("sound", ferry("verify", prefix)[0])

    def test_checkpoint_to_safetensors_and_back(self):
        # Seven more, so that the header needs padding.
        expected = {**_SAFE, "a": np.array(1.0, np.float32)}
        prefix, file = self.checkpoint(expected), self.path("model.safetensors")
        ferry("convert", prefix, file)
        self.assert_same(safetensors.numpy.load_file(file), expected)
        # The very bytes of the package's own writer.
        self.assertEqual(read_bytes(file), safetensors.numpy.save(expected))
        ferry("convert", file, self.path("back", "model.ckpt"))
        self.assert_checkpoint(self.path("back", "model.ckpt"), expected)

    def test_safetensors_to_checkpoint(self):
        file = self.path("model.safetensors")
        safetensors.numpy.save_file(_SAFE, file, metadata={"format": "np", "title": "ü {}"})
        report = json.loads(ferry("convert", file, self.path("model.ckpt"), "--json")[0])
        self.assertEqual(report["tensors"], len(_SAFE))
        self.assertEqual(report["parameters"], sum(value.size for value in _SAFE.values()))
        self.assert_checkpoint(self.path("model.ckpt"), _SAFE)

    def test_float8_passes(self):
        """TensorFlow's float8 types are those of safetensors."""
        values = {"a": np.array([0.5, -2], ml_dtypes.float8_e4m3fn),
                  "b": np.array([0.5, -2], ml_dtypes.float8_e5m2)}
        prefix, file = self.checkpoint(values), self.path("model.safetensors")
        ferry("convert", prefix, file)
        self.assertEqual(read_bytes(file), safetensors.numpy.save(values))
        ferry("convert", file, self.path("again"))
        self.assert_checkpoint(self.path("again"), values)

    def test_checkpoint_to_npz_and_back(self):
        prefix, file = self.checkpoint(_NUMPY), self.path("model.npz")
        ferry("convert", prefix, file)
        with np.load(file) as arrays:
            self.assert_same(dict(arrays), _NUMPY)
        with zipfile.ZipFile(file) as archive:
            self.assertIsNone(archive.testzip())
        ferry("convert", file, self.path("back", "model.ckpt"))
        self.assert_checkpoint(self.path("back", "model.ckpt"), _NUMPY)

    def test_npz_to_checkpoint(self):
        for save in np.savez, np.savez_compressed:
            with self.subTest(save=save.__name__):
                save(self.path("model.npz"), **_NUMPY)
                prefix = self.new_prefix()
                ferry("convert", self.path("model.npz"), prefix)
                self.assert_checkpoint(prefix, _NUMPY)

    def test_npz_of_other_orders(self):
        rng = np.random.default_rng(2)
        arrays = {"fortran": np.asfortranarray(rng.standard_normal([3, 4, 5])),
                  "big": np.arange(5, dtype=">i4"), "complex": np.array([[1 + 2j]], ">c16"),
                  "both": np.asfortranarray(rng.standard_normal([7, 2]).astype(">f4")),
                  "vector": np.asfortranarray(rng.standard_normal(9))}
        expected = {name: np.ascontiguousarray(value).astype(value.dtype.newbyteorder("="))
                    for name, value in arrays.items()}
        for save in np.savez, np.savez_compressed:
            save(self.path("model.npz"), **arrays)
            prefix = self.new_prefix()
            ferry("convert", self.path("model.npz"), prefix)
            self.assert_checkpoint(prefix, expected)

    def test_npz_of_many_members(self):
        """More than a zip file's plain directory counts."""
        values = {f"v{i:05}": np.array(i, np.int32) for i in range(66000)}
        safetensors.numpy.save_file(values, self.path("many.safetensors"))
        ferry("convert", self.path("many.safetensors"), self.path("many.npz"))
        with np.load(self.path("many.npz")) as arrays:
            self.assertEqual(len(arrays.files), len(values))
            self.assertEqual(arrays["v65999"], 65999)
        ferry("convert", self.path("many.npz"), self.path("again.safetensors"))
        self.assertEqual(read_bytes(self.path("again.safetensors")),
                         read_bytes(self.path("many.safetensors")))

    def test_bfloat16_widens_for_numpy(self):
        prefix = self.checkpoint(_SAFE)
        report = json.loads(ferry("convert", prefix, self.path("model.npz"), "--json")[0])
        self.assertEqual(report["widened"], 1)
        with np.load(self.path("model.npz")) as arrays:
            self.assert_same(dict(arrays), {**_SAFE, "bfloat": _SAFE["bfloat"].astype(np.float32)})

    def test_types_that_cannot_travel(self):
        prefix = self.checkpoint({"w": np.zeros(2), "words": np.array([b"a"]),
                                  "c": np.zeros(1, np.complex128)})
        _, error = ferry("convert", prefix, self.path("model.safetensors"), status=1)
        self.assertIn("c (complex128), words (string)", error)
        _, error = ferry("convert", prefix, self.path("model.npz"), status=1)
        self.assertIn("types: words (string)", error)
        np.savez(self.path("words.npz"), w=np.array(["text"]))
        _, error = ferry("convert", self.path("words.npz"), self.path("out"), status=1)
        self.assertIn("'<U4'", error)
        np.savez(self.path("objects.npz"), w=np.array([{}], object))
        _, error = ferry("convert", self.path("objects.npz"), self.path("out"), status=1)
        self.assertIn("'|O'", error)
        self.assertFalse(os.path.exists(self.path("model.safetensors")))

    def test_other_checkpoints(self):
        """Sharded, of the V1 format, in slices: each as a whole."""
        expected = {"v": np.arange(12, dtype=np.float32).reshape(4, 3), "w": np.array([1, 2])}
        for options in ({"sharded": True}, {"write_version": tf.train.SaverDef.V1}, {}):
            with self.subTest(**options), tf.Graph().as_default(), tf.Session() as session:
                partitioner = None if options else tf.fixed_size_partitioner(3)
                tf.get_variable("v", initializer=tf.constant(expected["v"]),
                                partitioner=partitioner)
                tf.get_variable("w", initializer=tf.constant(expected["w"]))
                session.run(tf.global_variables_initializer())
                prefix = tf.train.Saver(**options).save(session, self.new_prefix())
                ferry("convert", prefix, self.path("model.safetensors"))
                self.assert_same(safetensors.numpy.load_file(self.path("model.safetensors")),
                                 expected)


if __name__ == "__main__":
    unittest.main()
