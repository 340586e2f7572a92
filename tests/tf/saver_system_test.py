"""Passes checkpoints and meta graphs of every kind of Saver between this project and TensorFlow.

The variables are those of saver_program.cc: w float [5,3] (i / 2), b int64 [] (7), scope/s string [2]
("x", "yy").

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from google.protobuf import text_format
import numpy as np
import tensorflow.compat.v1 as tf

_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")
_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/saver_program")
_W = (np.arange(15, dtype=np.float32) / 2).reshape(5, 3)
_PRINTED = ("w float32 [5,3] " + " ".join("%g" % v for v in _W.flat) +
            "\nb int64 [] 7\ns string [2] \"x\" \"yy\"\n")
# As saver_program names them.
_KINDS = ("", "s", "2", "5", "c", "s2", "sc", "r", "rs", "r2")


def run(*command, check=True):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            check=False)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(command)}: {result.stderr}")
    return result.stdout if check else result


def program(*arguments, check=True):
    return run(_PROGRAM, *arguments, check=check)


def build(kind):
    """The variables in the default graph; their values' tensors and the arguments of a Saver."""
    sharded = "s" in kind
    parts = 3 if "c" in kind else max([1] + [int(c) for c in kind if c.isdigit()])
    partitioner = None
    if parts > 1:
        partitioner = tf.fixed_size_partitioner(parts, axis=1 if "c" in kind else 0)
    resource = "r" in kind
    with tf.device("/cpu:0" if sharded else None):
        w = tf.get_variable("w", initializer=tf.constant(_W), partitioner=partitioner,
                            use_resource=resource)
    with tf.device("/cpu:1" if sharded else None):
        b = tf.get_variable("b", initializer=tf.constant(7, tf.int64), use_resource=resource)
        with tf.variable_scope("scope"):
            s = tf.get_variable("s", initializer=tf.constant(["x", "yy"]), trainable=False,
                                use_resource=resource)
    if "m" in kind:
        return (w, b), {"var_list": {"other/w": w, "b": b}}
    return (tf.convert_to_tensor(w), tf.identity(b), tf.identity(s)), {"sharded": sharded}


def config():
    return tf.ConfigProto(device_count={"CPU": 2})


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


class SaverSystemTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        tf.disable_resource_variables()
        tf.disable_control_flow_v2()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        # What each kind of Saver saves, TensorFlow's and ours.
        cls.theirs, cls.ours = {}, {}
        for kind in _KINDS:
            cls.theirs[kind] = os.path.join(cls.folder, "theirs" + kind, "m")
            cls.ours[kind] = os.path.join(cls.folder, "ours" + kind, "m")
            program("build", kind, cls.ours[kind])
            os.makedirs(os.path.dirname(cls.theirs[kind]))
            with tf.Graph().as_default(), tf.Session(config=config()) as session:
                _, arguments = build(kind)
                session.run(tf.global_variables_initializer())
                tf.train.Saver(**arguments).save(session, cls.theirs[kind])

    def new_folder(self):
        return tempfile.mkdtemp(dir=self.folder)

    def expect_values(self, values):
        np.testing.assert_array_equal(values[0], _W)
        self.assertEqual(values[1], 7)
        if len(values) > 2:
            self.assertEqual(list(values[2]), [b"x", b"yy"])

    def expect_restored(self, kind, prefix, imported=None):
        """TensorFlow restores the checkpoint into its own variables, or through a meta graph."""
        with tf.Graph().as_default(), tf.Session(config=config()) as session:
            if imported:
                saver = tf.train.import_meta_graph(imported)
                parts = [v for v in tf.global_variables() if v.op.name.startswith("w")]
                w = parts[0] if len(parts) == 1 else tf.concat(parts, 1 if "c" in kind else 0)
                fetches = [w] + [[v for v in tf.global_variables() if v.op.name == name][0]
                                 for name in ("b", "scope/s")]
            else:
                fetches, arguments = build(kind)
                saver = tf.train.Saver(**arguments)
            saver.restore(session, prefix)
            self.expect_values(session.run(list(fetches)))

    def expect_same_files(self, a, b):
        names = sorted(f for f in os.listdir(os.path.dirname(a))
                       if f.startswith("m.") and not f.endswith(".meta"))
        self.assertEqual(names, sorted(f for f in os.listdir(os.path.dirname(b))
                                       if f.startswith("m.") and not f.endswith(".meta")))
        self.assertGreaterEqual(len(names), 2)
        for name in names:
            self.assertEqual(read_bytes(os.path.join(os.path.dirname(a), name)),
                             read_bytes(os.path.join(os.path.dirname(b), name)), name)

    # ---- The files ----

    def test_files_are_the_same(self):
        for kind in _KINDS:
            with self.subTest(kind=kind):
                self.expect_same_files(self.theirs[kind], self.ours[kind])

    def test_saver_nodes_are_the_same(self):
        for kind in _KINDS:
            if kind == "r2":  # TensorFlow reads the parts of resource variables by more nodes.
                continue
            with self.subTest(kind=kind):
                nodes = []
                for path in (self.theirs[kind], self.ours[kind]):
                    with tf.Graph().as_default() as graph:
                        tf.train.import_meta_graph(path + ".meta")
                        nodes.append({
                            n.name: (n.op, sorted(n.input), n.device)
                            for n in graph.as_graph_def().node if n.name.startswith("save/")})
                self.assertEqual(nodes[0], nodes[1])

    # ---- Ours there ----

    def test_they_restore_ours(self):
        for kind in _KINDS:
            with self.subTest(kind=kind):
                self.expect_restored(kind, self.ours[kind])
                self.expect_restored(kind, self.ours[kind], self.ours[kind] + ".meta")

    def test_they_restore_ours_split_otherwise(self):
        for saved, restored in itertools.product(("", "2", "5", "c", "s2"), repeat=2):
            with self.subTest(saved=saved, restored=restored):
                self.expect_restored(restored, self.ours[saved])

    def test_they_save_by_our_nodes(self):
        for kind in _KINDS:
            with self.subTest(kind=kind):
                out = os.path.join(self.new_folder(), "m")
                with tf.Graph().as_default(), tf.Session(config=config()) as session:
                    saver = tf.train.import_meta_graph(self.ours[kind] + ".meta")
                    saver.restore(session, self.ours[kind])
                    saver.save(session, out)
                self.expect_same_files(self.ours[kind], out)

    def test_they_take_ours_of_other_options(self):
        folder = os.path.join(self.new_folder(), "old")
        program("options", folder)
        # Padded steps, paths relative to a directory that is moved, names of one's own.
        os.rename(folder, folder + "-moved")
        folder += "-moved"
        prefix = os.path.join(folder, "m-00000012")
        self.assertEqual(tf.train.latest_checkpoint(folder, latest_filename="best"), prefix)
        self.assertIsNone(tf.train.latest_checkpoint(folder))
        self.expect_restored("", prefix, prefix + ".graph")
        meta = tf.MetaGraphDef.FromString(read_bytes(prefix + ".graph"))
        self.assertTrue(meta.meta_info_def.stripped_default_attrs)
        self.assertFalse([n.name for n in meta.graph_def.node
                          if n.op == "RestoreV2" and "dtypes" not in n.attr])
        self.assertEqual([n.name for n in meta.graph_def.node if "validate_shape" in n.attr], [])
        # Nodes of another name, which reshape: TensorFlow restores w of another shape by them.
        other = os.path.join(self.new_folder(), "m")
        with tf.Graph().as_default(), tf.Session() as session:
            _, _ = build("")
            w = tf.get_variable("turned", initializer=tf.constant(_W.reshape(3, 5)))
            rest = {v.op.name: v for v in tf.global_variables() if v.op.name not in ("w", "turned")}
            session.run(tf.global_variables_initializer())
            tf.train.Saver(dict(rest, w=w)).save(session, other)
        meta = os.path.join(folder, "reshaped.meta")
        self.expect_restored("", other, meta)
        definition = tf.MetaGraphDef.FromString(read_bytes(meta)).saver_def
        self.assertEqual((definition.filename_tensor_name, definition.restore_op_name,
                          definition.max_to_keep),
                         ("keeper/Const:0", "keeper/restore_all", 7))
        self.assertEqual(definition.keep_checkpoint_every_n_hours, 2)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.train.import_meta_graph(meta)
            self.assertEqual(session.run("keeper/filename:0"), b"elsewhere")

    def test_collections(self):
        prefix = os.path.join(self.new_folder(), "m")
        program("collections", prefix)
        with tf.Graph().as_default(), tf.Session() as session:
            saver = tf.train.import_meta_graph(prefix + ".meta")
            names = lambda variables: sorted(v.op.name for v in variables)
            self.assertEqual(names(tf.global_variables()), ["averaged", "global_step", "model", "w"])
            self.assertEqual(names(tf.local_variables()), ["local"])
            self.assertEqual(names(tf.model_variables()), ["model"])
            self.assertEqual(names(tf.trainable_variables()), ["averaged", "model", "w"])
            self.assertEqual(names(tf.moving_average_variables()), ["averaged"])
            # Of the user's own TensorFlow has the tensors.
            self.assertEqual([t.name for t in tf.get_collection("mine")], ["w:0"])
            self.assertEqual(tf.train.get_global_step().op.name, "global_step")
            saver.restore(session, prefix)
            missing = session.run(tf.report_uninitialized_variables())
            self.assertEqual(list(missing), [b"local"])

    def test_their_collections(self):
        prefix = os.path.join(self.new_folder(), "m")
        for resource in (False, True):
            with tf.Graph().as_default(), tf.Session() as session:
                variables = [tf.get_variable(name, initializer=tf.constant(2.0),
                                             use_resource=resource) for name in ("a", "b", "c")]
                for v in variables[:2]:
                    tf.add_to_collection("init_params", v)
                session.run(tf.global_variables_initializer())
                tf.train.Saver().save(session, prefix)
            self.assertEqual(program("listed", prefix + ".meta", "init_params"), "a\nb\n")

    def test_conditionals_move_with_their_scopes(self):
        folder = self.new_folder()
        with tf.Graph().as_default():
            x = tf.placeholder(tf.float32, [], name="x")
            tf.identity(tf.cond(x > 0, lambda: x * 2.0, lambda: tf.cond(
                x < -5, lambda: -x, lambda: x - 1.0)), name="y")
            tf.train.export_meta_graph(os.path.join(folder, "m.meta"))
        out = os.path.join(folder, "scoped.meta")
        program("reexport", os.path.join(folder, "m.meta"), "in", out)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.train.import_meta_graph(out)
            x, y = "in/x:0", "in/y:0"
            gradient, = tf.gradients(tf.get_default_graph().get_tensor_by_name(y),
                                     tf.get_default_graph().get_tensor_by_name(x))
            for value, expected in ((3, (6, 2)), (-1, (-2, 1)), (-9, (9, -1))):
                self.assertEqual(tuple(session.run([y, gradient], {x: value})), expected)

    def test_errors_are_worded_alike(self):
        def damaged(name, change):
            folder = self.new_folder()
            shutil.copytree(os.path.dirname(self.theirs[""]), os.path.join(folder, "c"))
            path = os.path.join(folder, "c", "m." + name)
            contents = change(bytearray(read_bytes(path)))
            with open(path, "wb") as file:
                file.write(contents)
            return os.path.join(folder, "c", "m")

        def flipped(contents, at):
            contents[at] ^= 1
            return contents

        def with_variables(**values):
            prefix = os.path.join(self.new_folder(), "m")
            with tf.Graph().as_default(), tf.Session() as session:
                everything = {"w": _W, "b": np.int64(7), "scope/s": np.array([b"x", b"yy"])}
                for name, value in dict(everything, **values).items():
                    if value is not None:
                        tf.get_variable(name, initializer=tf.constant(value))
                session.run(tf.global_variables_initializer())
                tf.train.Saver().save(session, prefix)
            return prefix

        data = "data-00000-of-00001"
        nowhere = os.path.join(self.folder, "nowhere")
        for prefix, words in (
                (nowhere, "The passed save_path is not a valid checkpoint: " + nowhere),
                (with_variables(b=None), "Key b not found in checkpoint"),
                (with_variables(w=_W[:4]), "Assign requires shapes of both tensors to match. "
                                           "lhs shape= [5,3] rhs shape= [4,3]"),
                (with_variables(b=np.int32(7)), "tensor_name = b; expected dtype int64 does not "
                                                "equal original dtype int32"),
                (damaged(data, lambda c: flipped(c, 3)), "Checksum does not match: stored "),
                (damaged("index", lambda c: c[:-1]), "not an sstable (bad magic number)"),
                (damaged("index", lambda c: b""), "file is too short to be an sstable"),
                (damaged("index", lambda c: flipped(c, 20)), "block checksum mismatch")):
            with self.subTest(words=words):
                with self.assertRaises(Exception) as raised:
                    self.expect_restored("", prefix)
                self.assertIn(words, str(raised.exception))
                result = program("restore", "", prefix, check=False)
                self.assertEqual(result.returncode, 1)
                self.assertIn(words, result.stderr)
        prefix = os.path.join(self.folder, "no", "such", "m")
        words = f"Parent directory of {prefix} doesn't exist, can't save."
        with tf.Graph().as_default(), tf.Session() as session:
            build("")
            session.run(tf.global_variables_initializer())
            with self.assertRaises(Exception) as raised:
                tf.train.Saver().save(session, prefix)
        self.assertIn(words, str(raised.exception))
        self.assertIn(words, program("build", "", prefix, check=False).stderr)

    def test_they_find_ours(self):
        folder = self.new_folder()
        before = time.time()
        program("train", folder)
        times = tf.train.get_checkpoint_state(folder).all_model_checkpoint_timestamps
        self.assertEqual(len(times), 3)
        self.assertTrue(all(before - 1 <= t <= time.time() + 1 for t in times), times)
        # The best, of step 2, beside the newest two; the notes on them are comments there.
        state = tf.train.get_checkpoint_state(folder)
        names = [os.path.basename(p) for p in state.all_model_checkpoint_paths]
        self.assertEqual(names, ["m-2", "m-4", "m-5"])
        self.assertEqual(tf.train.latest_checkpoint(folder), os.path.join(folder, "m-5"))
        # After TensorFlow rewrote the state the metrics are gone, nothing else is.
        tf.train.update_checkpoint_state(folder, state.model_checkpoint_path,
                                         state.all_model_checkpoint_paths)
        program("train", folder)
        self.assertEqual(tf.train.latest_checkpoint(folder), os.path.join(folder, "m-5"))

    # ---- Theirs here ----

    def test_we_restore_theirs(self):
        for kind in _KINDS:
            with self.subTest(kind=kind):
                self.assertEqual(program("restore", kind, self.theirs[kind]), _PRINTED)

    def test_we_restore_theirs_split_otherwise(self):
        for saved, restored in itertools.product(("", "2", "5", "c", "s2"), repeat=2):
            with self.subTest(saved=saved, restored=restored):
                self.assertEqual(program("restore", restored, self.theirs[saved]), _PRINTED)

    def test_we_save_theirs_again(self):
        for kind, how in itertools.product(_KINDS, ("resave", "resave_nodes")):
            with self.subTest(kind=kind, how=how):
                out = os.path.join(self.new_folder(), "m")
                program(how, self.theirs[kind] + ".meta", self.theirs[kind], out)
                self.expect_same_files(self.theirs[kind], out)

    def test_we_save_theirs_of_other_options_again(self):
        for name, options in {"sequential": {"restore_sequentially": True},
                              "reshape": {"reshape": True}, "name": {"name": "keeper"},
                              "v1": {"write_version": tf.train.SaverDef.V1},
                              "filename": {"filename": "elsewhere"}}.items():
            with self.subTest(options=name):
                prefix = os.path.join(self.new_folder(), "m")
                with tf.Graph().as_default(), tf.Session() as session:
                    build("")
                    session.run(tf.global_variables_initializer())
                    tf.train.Saver(**options).save(session, prefix)
                out = os.path.join(self.new_folder(), "m")
                program("resave", prefix + ".meta", prefix, out)
                self.expect_same_files(self.theirs[""], out)

    def test_we_find_theirs_after_a_move(self):
        folder = self.new_folder()
        old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
        shutil.copytree(os.path.dirname(self.theirs[""]), old)
        with tf.Graph().as_default(), tf.Session() as session:
            build("")
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, os.path.join(old, "m"), global_step=3)
        self.assertEqual(program("latest", old), os.path.join(old, "m-3") + "\n")
        os.rename(old, new)
        self.assertEqual(program("latest", new), os.path.join(new, "m-3") + "\n")

    def test_variables_start_from_theirs(self):
        for saved, started in itertools.product(("", "c", "s2"), ("", "2", "c", "r")):
            with self.subTest(saved=saved, started=started):
                self.assertEqual(program("start", started, self.theirs[saved]), _PRINTED)

    def test_maps(self):
        ours = os.path.join(self.new_folder(), "m")
        program("build", "m", ours)
        self.expect_restored("m", ours)
        theirs = os.path.join(self.new_folder(), "m")
        with tf.Graph().as_default(), tf.Session() as session:
            _, arguments = build("m")
            session.run(tf.global_variables_initializer())
            tf.train.Saver(**arguments).save(session, theirs)
        self.expect_same_files(theirs, ours)
        self.assertEqual(program("restore", "m2", theirs), _PRINTED)

    # ---- Scopes of meta graphs ----

    def test_an_exported_scope_is_imported_there(self):
        folder = self.new_folder()
        with tf.Graph().as_default():
            x = tf.placeholder(tf.float32, [2], name="x")
            with tf.variable_scope("inner"):
                v = tf.get_variable("v", initializer=tf.constant([3.0, 4.0]))
                tf.multiply(x, v, name="out")
            tf.train.export_meta_graph(os.path.join(folder, "all.meta"))
            theirs = tf.train.export_meta_graph(export_scope="inner")
        out = os.path.join(folder, "scope.pbtxt")
        program("export_scope", os.path.join(folder, "all.meta"), "inner", out)
        with tf.Graph().as_default(), tf.Session() as session:
            y = tf.constant([10.0, 100.0])
            tf.train.import_meta_graph(out, import_scope="again",
                                       input_map={"$unbound_inputs_x": y})
            self.assertEqual([v.name for v in tf.global_variables()], ["again/v:0"])
            session.run(tf.global_variables_initializer())
            np.testing.assert_array_equal(session.run("again/out:0"), [30.0, 400.0])
        ours = tf.MetaGraphDef()
        with open(out) as file:
            text_format.Parse(file.read(), ours)
        describe = lambda meta: {n.name: (n.op, list(n.input)) for n in meta.graph_def.node}
        self.assertEqual(describe(ours), describe(theirs))
        self.assertEqual(ours.collection_def["unbound_inputs"],
                         theirs.collection_def["unbound_inputs"])

    # ---- Checkpoints of objects ----

    def test_objects_are_restored_by_names(self):
        prefix = os.path.join(self.new_folder(), "ckpt")
        # With TensorFlow 2's behaviour, in a process of its own.
        program_text = (
            "import sys\nimport tensorflow as tf\n"
            "root = tf.train.Checkpoint()\n"
            "root.first = tf.Variable(tf.reshape(tf.range(15, dtype=tf.float32) / 2, [5, 3]),"
            " name='w')\n"
            "root.second = tf.Variable(tf.constant(7, tf.int64), name='b')\n"
            "root.third = tf.Variable(['x', 'yy'], name='scope/s')\n"
            "root.write(sys.argv[1])\n")
        run(sys.executable, "-c", program_text, prefix)
        for kind in ("", "2", "c", "r"):
            with self.subTest(kind=kind):
                self.assertEqual(program("restore", kind, prefix), _PRINTED)
        shown = run(_FERRY, "inspect", "--file_name", prefix, "--tensor_name", "b")
        self.assertIn("7", shown)
        shown = run(_FERRY, "inspect", "--file_name=" + prefix, "--all_tensor_names")
        self.assertIn("first/.ATTRIBUTES/VARIABLE_VALUE (DT_FLOAT) [5,3]", shown)


if __name__ == "__main__":
    unittest.main()
