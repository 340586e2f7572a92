"""Gives `ferry run`, `ferry freeze` and `ferry convert` what they are for, and what they must refuse:
outputs and variables that aren't there, damaged and hostile .safetensors and .npz files, places that
can't be written.
"""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import unittest
import zipfile
import zlib

from command import CommandTest, FERRY, TIMEOUT, data_bytes, ferry

_LONG = bool(os.environ.get("FERRY_LONG"))
_SEED = 496


def safetensors(header, data=b"", length=None):
    """A .safetensors file with any header: a dict, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin, end, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def npy(header, data=b"", version=1):
    """A .npy array with any header: its text."""
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def array(shape=(2,), descr="<f4", fortran_order=False):
    return repr({"descr": descr, "fortran_order": fortran_order, "shape": tuple(shape)})


class ModelTest(CommandTest):
    """Tests have a trained model of few variables."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="ferry-cli-")
        cls.addClassCleanup(temporary.cleanup)
        cls.model = pathlib.Path(temporary.name) / "model"
        result = ferry("train", "--model_dir", cls.model, "--steps", 10, "--hidden", 8,
                       "--threads", 1)
        assert result.returncode == 0, result.stderr
        cls.prefix = cls.model / "model.ckpt-10"
        cls.meta = cls.model / "model.ckpt-10.meta"

    def write(self, name, contents):
        file = self.folder / name
        file.write_bytes(contents)
        return file


class RunTest(ModelTest):

    def feeds(self):
        x = self.write("x.npy", npy(array([2, 64]), struct.pack("<128f", *range(128))))
        return ["--feed", f"x={x}", "--feed", "y=[1, 2]"]

    def test_runs(self):
        run = ["run", "--meta", self.meta, "--checkpoint", self.model, *self.feeds()]
        out = self.succeeds(*run, "--fetch", "loss", "--fetch", "logits/BiasAdd:0")
        self.assertRegex(out, r"^loss: float32 \[\] [0-9.e+]+\nlogits/BiasAdd:0: float32 \[2,10\] ")
        report = self.succeeds_json(*run, "--fetch", "loss",
                                    "--fetch", f"logits/weights={self.folder / 'w.npy'}")
        self.assertEqual(report["restored"], str(self.prefix))
        self.assertEqual(report["fetches"]["logits/weights"],
                         {"dtype": "float32", "shape": [8, 10], "npy": str(self.folder / "w.npy")})
        self.assertTrue((self.folder / "w.npy").read_bytes().startswith(b"\x93NUMPY"))
        # The frozen graph gives the same, and needs no checkpoint.
        self.succeeds("freeze", "--meta", self.meta, "--checkpoint", self.prefix,
                      "--output_node_names", "loss", "--output", self.folder / "frozen.pb")
        frozen = self.succeeds_json("run", "--graph", self.folder / "frozen.pb", *self.feeds(),
                                    "--fetch", "loss")
        self.assertEqual(frozen["fetches"]["loss"], report["fetches"]["loss"])

    def test_trains_and_saves(self):
        saved = self.folder / "more" / "model.ckpt"
        run = ["run", "--meta", self.meta, "--init", "init", "--checkpoint", saved, *self.feeds(),
               "--target", "train_op", "--repeat", 3, "--fetch", "global_step", "--save", saved]
        for restored, step in ("", 3), (str(saved), 6):
            report = self.succeeds_json(*run)
            self.assertEqual((report["restored"], report["saved"], report["runs"]),
                             (restored, str(saved), 3))
            self.assertEqual(report["fetches"]["global_step"]["value"], step)
        self.succeeds("verify", saved)
        # Without --repeat the target runs with the fetches, once.
        report = self.succeeds_json(*run[:-6], "--fetch", "loss")
        self.assertEqual(report["runs"], 1)

    def test_timeout(self):
        """Of a loop that never ends."""
        t = 'attr { key: "T" value { type: DT_BOOL } }'
        frame = 'attr { key: "frame_name" value { s: "loop" } }'
        graph = self.write("endless.pbtxt", f"""
            node {{ name: "yes" op: "Const" attr {{ key: "dtype" value {{ type: DT_BOOL }} }}
                    attr {{ key: "value" value {{ tensor {{ dtype: DT_BOOL tensor_shape {{ }}
                                                        bool_val: true }} }} }} }}
            node {{ name: "enter" op: "Enter" input: "yes" {t} {frame} }}
            node {{ name: "merge" op: "Merge" input: "enter" input: "next" {t}
                    attr {{ key: "N" value {{ i: 2 }} }} }}
            node {{ name: "condition" op: "LoopCond" input: "merge" }}
            node {{ name: "switch" op: "Switch" input: "merge" input: "condition" {t} }}
            node {{ name: "next" op: "NextIteration" input: "switch:1" {t} }}
            node {{ name: "exit" op: "Exit" input: "switch" {t} }}
            """.encode())
        self.fails("run", "--graph", graph, "--fetch", "exit", "--timeout", 0.1,
                   words=["DEADLINE_EXCEEDED", "'condition'"])
        self.fails("run", "--graph", graph, "--init", "exit", "--timeout", 0.1,
                   words=["DEADLINE_EXCEEDED", "--init exit"])
        self.fails("run", "--graph", graph, "--target", "exit", "--repeat", 2, "--timeout", 0.1,
                   words=["DEADLINE_EXCEEDED", "'condition'"])
        self.fails("run", "--graph", graph, "--fetch", "exit", "--timeout", 0, status=2,
                   words="--timeout")
        output = self.succeeds("run", "--graph", graph, "--fetch", "yes", "--timeout", 1e9)
        self.assertIn("yes: bool [] 1", output)

    def test_values(self):
        """Of every kind that JSON hasn't got."""
        def constant(name, dtype, shape, content):
            tensor = f"dtype: {dtype} tensor_shape {{ {shape} }} {content}"
            return (f'node {{ name: "{name}" op: "Const" '
                    f'attr {{ key: "dtype" value {{ type: {dtype} }} }} '
                    f'attr {{ key: "value" value {{ tensor {{ {tensor} }} }} }} }}\n')

        graph = self.write("values.pbtxt", (
            constant("c", "DT_COMPLEX64", "dim { size: 2 }",
                     "scomplex_val: 1.5 scomplex_val: -2 scomplex_val: inf scomplex_val: nan") +
            constant("d", "DT_COMPLEX128", "", "dcomplex_val: 0.25 dcomplex_val: 3") +
            constant("f", "DT_FLOAT", "dim { size: 4 }",
                     "float_val: nan float_val: -nan float_val: inf float_val: -inf") +
            constant("q", "DT_QINT8", "dim { size: 2 }", "int_val: 1 int_val: -1")).encode())
        run = ["run", "--graph", graph, *[f"--fetch={name}" for name in "cdfq"]]
        fetches = self.succeeds_json(*run)["fetches"]
        self.assertEqual({name: fetches[name]["value"] for name in fetches}, {
            "c": [[1.5, -2], ["inf", "nan"]], "d": [0.25, 3],
            "f": ["nan", "nan", "inf", "-inf"], "q": ["0x01", "0xff"]})
        self.assertIn("c: complex64 [2] (1.5,-2) (inf,nan)\nd: complex128 [] (0.25,3)\n",
                      self.succeeds(*run))

    def test_wrong_usage(self):
        for arguments, word in [
                (["--fetch", "loss"], "graph"),
                (["--meta", self.meta, "--graph", self.meta], "graph"),
                (["--meta", self.meta, "--feed", "x"], "expected NAME=VALUE"),
                (["--meta", self.meta, "--feed", "=3"], "expected NAME=VALUE"),
                (["--meta", self.meta, "--repeat", "-1"], "-1"),
                (["--meta", self.meta, "--repeat", "1", "--fetch", "loss"], "--target"),
                (["--meta", self.meta, "--signature", "a"], "--saved_model"),
                (["--meta", self.meta, "--tag_set", "serve"], "--saved_model"),
                (["--meta", self.meta, "--timeout", "nan"], "'nan' is not a positive number"),
                (["--meta", self.meta, "--timeout", "-1"], "'-1' is not a positive number"),
                (["--meta", ""], "it is empty"),
                (["--meta", self.meta, "--save", ""], "it is empty"),
                (["--meta", self.meta, "--checkpoint", ""], "it is empty"),
                (["--meta", self.meta, "--device", "tpu"], "tpu")]:
            with self.subTest(arguments=arguments):
                self.fails("run", *arguments, status=2, words=word)

    def test_refusals(self):
        run = ["run", "--meta", self.meta, "--checkpoint", self.prefix]
        ones = f"x=[{','.join(['1'] * 64)}]"
        for arguments, words in [
                (["--fetch", "none"], "none"),
                (["--target", "none"], "none"),
                (["--fetch", "loss"], "x"),
                (["--feed", "none=3"], "feed 'none'"),
                (["--feed", "^x=3"], "feed '^x': a tensor is expected, not node 'x'"),
                (["--fetch", "^x"], "fetch ^x: a tensor is expected"),
                (["--feed", "x=three"], ["feed 'x'", "'three' is no float32 tensor"]),
                (["--feed", "x=[[1], [2, 3]]"], "different lengths"),
                (["--feed", "x=[1, true]"], "found true"),
                (["--feed", 'x=["a"]'], 'found "a"'),
                (["--feed", "x={}"], "object"),
                (["--feed", "y=[0.5]"], "0.5 is no int64"),
                (["--feed", "y=[9223372036854775808]"], "9223372036854775808 is no int64"),
                (["--feed", "y=[1e30]"], "is no int64"),
                (["--feed", "x=" + "[" * 10000 + "]" * 10000], "nested too deep"),
                (["--feed", "x=[1," + "[" * 10000 + "]" * 10000 + "]"], "a list"),
                (["--feed", ones, "--feed", "y=1", "--fetch", "loss"], "x"),
                (["--feed", "x=none.npy", "--fetch", "loss"], "none.npy"),
                (["--init", "none", "--checkpoint", "/no/such"], "--init none"),
                (["--checkpoint", "/no/such"], "not a valid checkpoint"),
                (["--save", "/no/such/place"], "Parent directory of")]:
            with self.subTest(arguments=arguments):
                # The last --checkpoint counts.
                start = run if "--checkpoint" not in arguments else run[:3]
                self.fails(*start, *arguments, words=words)
        self.fails("run", "--graph", self.folder / "none.pb", words="none.pb")
        self.fails("run", "--saved_model", self.folder, words="SavedModel file does not exist at")
        words = self.write("text.npy", npy(array([1], "|b1"), b"\1"))
        self.fails(*run, "--feed", f"x={words}", words="bool elements are no numbers")
        # A checkpoint that is there, but damaged, isn't initialised over.
        copy = self.folder / "copy"
        shutil.copytree(self.model, copy)
        index = copy / "model.ckpt-10.index"
        index.write_bytes(index.read_bytes()[:-1])
        self.fails("run", "--meta", self.meta, "--checkpoint", copy, "--init", "init",
                   "--fetch", "global_step", words="model.ckpt-10.index")

    def test_saved_models(self):
        models = pathlib.Path(os.environ["FERRY_ROOT"]) / "tests" / "testdata" / "saved_models"
        run = ["run", "--saved_model", models / "plain"]
        expected = {"dtype": "float32", "shape": [1, 2], "value": [[2.5, 30.25]]}
        for arguments, name in ([], "output"), (["--fetch", "output"], "output"), \
                (["--fetch", "y:0"], "y:0"):
            report = self.succeeds_json(*run, "--feed", "input=[[1, 10]]", *arguments)
            self.assertEqual(report["fetches"], {name: expected})
        self.succeeds("run", "--saved_model", models / "resource", "--signature",
                      "serving_default", "--feed", "input=[[1, 10]]")
        self.fails(*run, "--signature", "other", words=["no signature 'other'", "serving_default"])
        self.fails(*run, "--tag_set", "train,gpu", words=["'gpu', 'train'", "[{'serve'}]"])
        report = self.succeeds_json("run", "--saved_model", models / "two", "--tag_set",
                                    "gpu,train", "--feed", "input=[[1, 10]]", "--fetch", "loss")
        self.assertEqual(report["fetches"]["loss"]["value"], 32.75)
        report = self.succeeds_json("run", "--saved_model", models / "assets", "--fetch", "text")
        self.assertEqual(report["fetches"]["text"]["value"],
                         str(models / "assets" / "assets" / "first.txt"))
        # Other variables than the model's own.
        other = self.folder / "other"
        self.succeeds(*run, "--feed", "input=[[1, 10]]", "--save", other)
        self.succeeds("run", "--saved_model", models / "two", "--checkpoint", other, "--feed",
                      "input=[[1, 10]]")


class FreezeTest(ModelTest):

    def freeze(self, output="frozen.pb", **changes):
        options = {"meta": self.meta, "checkpoint": self.prefix,
                   "output_node_names": "logits/BiasAdd", "output": self.folder / output, **changes}
        return ["freeze", *(f"--{key}={value}" for key, value in options.items())]

    def test_freezes(self):
        report = self.succeeds_json(*self.freeze())
        size = os.path.getsize(self.folder / "frozen.pb")
        self.assertEqual(report["bytes"], size)
        summary = self.succeeds("summary", self.folder / "frozen.pb")
        self.assertNotIn("VariableV2", summary)
        self.assertIn("Const", summary)
        # A folder stands for its latest checkpoint; the same comes out again.
        before = (self.folder / "frozen.pb").read_bytes()
        self.succeeds(*self.freeze(checkpoint=self.model))
        self.assertEqual((self.folder / "frozen.pb").read_bytes(), before)
        # The names that TensorFlow's freeze_graph has for these options.
        result = ferry("freeze", "--input_meta_graph", self.meta, "--input_checkpoint", self.prefix,
                       "--output_node_names", "logits/BiasAdd", "--output_graph",
                       self.folder / "again.pb")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("INFO:ferry:Froze 4 variables.\n", result.stderr)
        self.assertIn("INFO:ferry:Converted 4 variables to const ops.\n", result.stderr)
        self.assertEqual((self.folder / "again.pb").read_bytes(), before)

    def test_refusals(self):
        self.fails(*self.freeze(output_node_names="no_such"), words="no_such is not in graph")
        self.fails(*self.freeze(meta=self.folder / "none.meta"), words="none.meta")
        self.fails(*self.freeze(checkpoint=self.folder / "none"),
                   words="The passed save_path is not a valid checkpoint")
        self.fails(*self.freeze(meta=self.model / "checkpoint"), words="checkpoint")
        self.fails(*self.freeze(output=self.folder),
                   words=str(self.folder))
        self.fails(*self.freeze(output=self.folder / "no" / "such.pb"), words="such.pb")
        self.fails("freeze", "--meta", self.meta, status=2, words="--checkpoint")
        # What an output needs mustn't write a variable that is frozen.
        self.fails(*self.freeze(output_node_names="save/restore_all"), words="writes the variable")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_checkpoint_of_another_model(self):
        other = self.folder / "other"
        self.succeeds("train", "--model_dir", other, "--steps", 1, "--hidden", 9)
        self.fails(*self.freeze(checkpoint=other),
                   words=["Assign requires shapes of both tensors to match", "variable"])
        self.succeeds("train", "--model_dir", self.folder / "none", "--steps", 1, "--hidden", "")
        self.fails(*self.freeze(checkpoint=self.folder / "none"),
                   words=["Key hidden1/", "not found in checkpoint"])

    def test_damaged_data(self):
        copy = self.folder / "copy"
        shutil.copytree(self.model, copy)
        file = copy / "model.ckpt-10.data-00000-of-00001"
        contents = bytearray(file.read_bytes())
        for at in range(0, len(contents), 64):
            contents[at] ^= 1
        file.write_bytes(contents)
        self.fails(*self.freeze(checkpoint=copy),
                   words="Checksum does not match")


class ConvertTest(ModelTest):

    def test_there_and_back(self):
        """A checkpoint's tensors through each format and back."""
        expected = self.succeeds("inspect", self.prefix, "--all_tensors").splitlines()[:-1]
        for ending in "safetensors", "npz":
            file, back = self.folder / f"a.{ending}", self.folder / f"from_{ending}"
            report = self.succeeds_json("convert", self.prefix, file)
            self.assertEqual(report["tensors"], len(expected) // 2)
            self.succeeds("convert", file, back)
            self.assertEqual(
                self.succeeds("inspect", back, "--all_tensors").splitlines()[:-1], expected)
            self.succeeds("verify", back)
        # And from one to the other; into itself too.
        self.succeeds("convert", self.folder / "a.npz", self.folder / "b.safetensors")
        self.assertEqual((self.folder / "b.safetensors").read_bytes(),
                         (self.folder / "a.safetensors").read_bytes())
        before = (self.folder / "a.npz").read_bytes()
        self.succeeds("convert", self.folder / "a.npz", self.folder / "a.npz")
        self.assertEqual((self.folder / "a.npz").read_bytes(), before)
        # A folder stands for its latest checkpoint.
        self.succeeds("convert", self.model, self.folder / "c.npz")
        self.assertEqual((self.folder / "c.npz").read_bytes(), before)

    def test_places(self):
        file = self.folder / "a.npz"
        self.succeeds("convert", self.prefix, file)
        self.fails("convert", self.folder / "none", file, words="not a valid checkpoint")
        self.fails("convert", self.folder / "none.npz", file, words="none.npz")
        self.fails("convert", self.folder / "none.safetensors", file, words="none.safetensors")
        self.fails("convert", file, self.folder / "no" / "such" / "place",
                   words="Parent directory of")
        self.fails("convert", file, self.folder / "no" / "such.npz", words="such.npz")
        self.fails("convert", file, self.folder, words="is a directory")
        self.fails("convert", file, "", status=2, words="")
        self.fails("convert", file, status=2, words="to")
        for name in "full.npz", "full.safetensors", "full":
            command = f"ulimit -f 1; trap '' XFSZ; exec {FERRY} convert {file} {self.folder / name}"
            result = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True,
                                    check=False, timeout=60)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(str(self.folder / name), result.stderr)
        self.assertEqual(os.listdir(self.folder), ["a.npz"])

    def test_several_at_once(self):
        """The last one's file is there, whole; and no one's fails for another's."""
        for name in "a.npz", "a.safetensors":
            running = [subprocess.Popen([FERRY, "convert", self.prefix, self.folder / name],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                       text=True)
                       for _ in range(8)]
            for process in running:
                said = process.communicate(timeout=TIMEOUT)[1]
                self.assertEqual((process.returncode, said), (0, ""))
            self.succeeds("convert", self.folder / name, self.folder / "back")
            self.assertEqual(data_bytes(self.folder / "back"), data_bytes(self.prefix))

    def test_a_failed_conversion_leaves_what_was_there(self):
        good, target = self.folder / "good", self.folder / "target"
        self.succeeds("convert", self.prefix, good)
        self.succeeds("convert", self.prefix, target)
        before = data_bytes(target)
        self.succeeds("convert", good, self.folder / "a.npz")
        file = self.folder / "a.npz"
        contents = bytearray(file.read_bytes())
        contents[len(contents) // 2] ^= 1
        file.write_bytes(contents)
        self.fails("convert", file, target, words=["Checksum does not match", "a.npz"])
        self.succeeds("verify", target)
        self.assertEqual(data_bytes(target), before)

    def test_damaged_checkpoint(self):
        copy = self.folder / "copy"
        shutil.copytree(self.model, copy)
        file = copy / "model.ckpt-10.data-00000-of-00001"
        contents = bytearray(file.read_bytes())
        contents[1000] ^= 1
        file.write_bytes(contents)
        for name in "a.npz", "a.safetensors", "a":
            self.fails("convert", copy, self.folder / name, words="Checksum does not match")
        self.assertEqual(os.listdir(self.folder), ["copy"])


class HostileSafetensorsTest(CommandTest):

    def refuse(self, contents, words):
        file = self.folder / "bad.safetensors"
        file.write_bytes(contents)
        self.fails("convert", file, self.folder / "out", words=["bad.safetensors", *words])
        self.assertEqual(os.listdir(self.folder), ["bad.safetensors"])

    def test_headers(self):
        for contents, word in [
                (b"", "too short"),
                (b"1234567", "too short"),
                (safetensors({}, length=2**63), "claims"),
                (safetensors({}, length=3), "claims"),
                (safetensors({}, length=0), "JSON object"),
                (safetensors(b"[]"), "JSON object"),
                (safetensors(b" {}"), "JSON object"),
                (safetensors(b"{"), "no JSON"),
                (safetensors(b"{}}"), "no JSON"),
                (safetensors(b'{"a\xff":{}}'), "no JSON"),
                (safetensors(b'{"a":' * 100000), "has a field 'a'"),
                (safetensors(b'{"a":{"dtype":' + b'{"a":' * 100000), "object where none belongs"),
                (safetensors(b'{"a":[' + b"[" * 100000), "list where none belongs"),
                (safetensors({"__metadata__": {"a": 1}}), "number where none"),
                (safetensors({"__metadata__": {"a": {}}}), "object where none"),
                (safetensors({"__metadata__": 7}), "number where none"),
                (safetensors({"a": 7}), "number where none"),
                (safetensors({"a": None}), "null"),
                (safetensors({"a": {}}), "lacks"),
                (safetensors({"a": {**tensor(0, 8), "more": 1}}, bytes(8)), "'more'"),
                (safetensors(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "twice"),
                (safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 8)).encode(),) * 2),
                             bytes(8)), "twice"),
                (safetensors({"a": {**tensor(0, 8), "dtype": 3}}), "number where none"),
                (safetensors({"a": {**tensor(0, 8), "shape": "2"}}), "string where none"),
                (safetensors({"a": {**tensor(0, 8), "shape": ["2"]}}), "string among"),
                (safetensors({"a": tensor(0, 8, shape=[-2])}, bytes(8)), "negative"),
                (safetensors({"a": tensor(0, 8, shape=[2.0])}, bytes(8)), "whole"),
                (safetensors({"a": tensor(0, 8, shape=[2**63])}, bytes(8)), "shape"),
                (safetensors({"a": tensor(0, 8, shape=[2**62, 8])}, bytes(8)), "shape"),
                (safetensors({"a": tensor(0, 8, shape=[2**62])}, bytes(8)), "has 8 bytes"),
                (safetensors({"a": tensor(0, 8, shape=[3])}, bytes(8)), "has 8 bytes"),
                (safetensors({"a": tensor(0, 8, dtype="F4")}, bytes(8)), "'F4'"),
                (safetensors({"a": tensor(8, 0)}), "data_offsets"),
                (safetensors({"a": tensor(1, 9)}, bytes(9)), "data_offsets"),
                (safetensors({"a": {**tensor(0, 8), "data_offsets": [0]}}, bytes(8)),
                 "data_offsets"),
                (safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "data_offsets"),
                (safetensors({"a": tensor(0, 8), "b": tensor(0, 8)}, bytes(8)), "data_offsets"),
                (safetensors({"a": tensor(0, 8), "b": tensor(12, 20)}, bytes(20)),
                 "data_offsets"),
                (safetensors({"a": tensor(0, 8)}, bytes(7)), "there are 7"),
                (safetensors({"a": tensor(0, 8)}, bytes(9)), "there are 9"),
                (safetensors({"a": tensor(0, 2**40, shape=[2**38])}, bytes(8)), "there are 8")]:
            with self.subTest(contents=contents[:200], word=word):
                self.refuse(contents, [word])

    def test_what_is_allowed(self):
        file = self.folder / "a.safetensors"
        file.write_bytes(safetensors({"b": tensor(8, 8, shape=[0, 7]), "a": tensor(0, 8),
                                      "__metadata__": {"x": "y"}}, bytes(range(8))))
        self.succeeds("convert", file, self.folder / "out")
        tensors = self.succeeds_json("inspect", self.folder / "out")["tensors"]
        self.assertEqual([(t["name"], t["shape"]) for t in tensors], [("a", [2]), ("b", [0, 7])])
        file.write_bytes(safetensors({}))
        self.fails("convert", file, self.folder / "none", words="no tensors")
        self.succeeds("convert", file, self.folder / "none.npz")

    def test_mutations(self):
        good = safetensors({"a": tensor(0, 8), "b/c": tensor(8, 20, dtype="I32", shape=[3, 1])},
                           bytes(range(20)))
        mutate(self, good, "bad.safetensors")


def mutate(test, good, name):
    """No change makes the command crash: it refuses, or finds tensors."""
    random.seed(_SEED)
    file = test.folder / name
    for _ in range(500 if _LONG else 12):
        contents = bytearray(good)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(contents))
            change = random.randrange(4)
            if change == 0:
                contents[at] ^= 1 << random.randrange(8)
            elif change == 1:
                contents[at] = random.choice(b'\0\xff\x7f\x80"{}[]:,09')
            elif change == 2:
                del contents[at:at + random.randrange(1, 9)]
            else:
                contents[at:at] = contents[at // 2:at // 2 + random.randrange(1, 9)]
            if not contents:
                break
        file.write_bytes(contents)
        result = ferry("convert", file, test.folder / "out")
        test.assertIn(result.returncode, (0, 1), f"{contents}: {result.stderr}")
        if result.returncode:
            test.assertIn(name, result.stderr)


class HostileNpzTest(CommandTest):

    def archive(self, members, method=zipfile.ZIP_STORED):
        file = self.folder / "bad.npz"
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, contents in members.items():
                archive.writestr(name, contents)
        return file

    def refuse(self, file, *words):
        self.fails("convert", file, self.folder / "out", words=["bad.npz", *words])
        self.assertEqual(os.listdir(self.folder), ["bad.npz"])

    def test_arrays(self):
        for contents, word in [
                (b"", "doesn't begin"),
                (b"\x93NUMPY\1\0", "doesn't begin"),
                (npy("", version=4), "version 4"),
                (npy(array())[:30], "cut off"),
                (b"\x93NUMPY\2\0\xff\xff\xff\xff", "claims to be"),
                (npy("{"), "can't be read"),
                (npy("{}"), "can't be read"),
                (npy("[]"), "can't be read"),
                (npy(array() + "x"), "can't be read"),
                (npy("{'descr': '<f4', 'shape': (2,)}", bytes(8)), "can't be read"),
                (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'shape': (2,)}",
                     bytes(8)), "can't be read"),
                (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", bytes(8)),
                 "records"),
                (npy(array(descr="|O"), b"."), "'|O'"),
                (npy(array(descr="<U3"), bytes(24)), "'<U3'"),
                (npy(array(descr="<M8[s]"), bytes(16)), "'<M8[s]'"),
                (npy(array(descr="<f5"), bytes(10)), "'<f5'"),
                (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"), "can't be read"),
                (npy(array([2**62, 8])), "elements"),
                (npy(array([2**62])), "elements"),
                (npy(array([2**40])), "needs"),
                (npy(array([2**31, 0, 2**40])), "elements"),
                (npy(array(), bytes(7)), "has 7"),
                (npy(array(), bytes(9)), "has 9")]:
            for method in zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED:
                with self.subTest(contents=contents[:200], method=method):
                    self.refuse(self.archive({"a.npy": contents}, method), "'a.npy'", word)
        self.refuse(self.archive({"a.txt": b"text"}), "'a.txt' is not a .npy array")
        self.refuse(self.archive({"a.npy": npy(array(), bytes(8))}, zipfile.ZIP_BZIP2),
                    "packed by the method 12")

    def test_a_member_that_unpacks_to_more_than_there_is_memory(self):
        """The archive says so itself, or it doesn't and the member doesn't end."""
        data = bytes(1 << 20)
        good = self.archive({"a.npy": npy(array([1 << 18]), data)}, zipfile.ZIP_DEFLATED)
        contents = bytearray(good.read_bytes())
        central = contents.rindex(b"PK\1\2")
        for size, word in [(2**32 - 2, "claims"), (1 << 21, "claims"), (1000, "longer"),
                           (len(npy(array([1 << 18]), data)) - 4, "needs")]:
            changed = bytearray(contents)
            struct.pack_into("<I", changed, central + 24, size)
            good.write_bytes(changed)
            self.refuse(good, "'a.npy'", word)

    def test_directories(self):
        good = self.archive({"a.npy": npy(array(), bytes(8)), "b.npy": npy(array(), bytes(8))})
        contents = good.read_bytes()
        first, last = contents.index(b"PK\1\2"), contents.rindex(b"PK\1\2")
        end = contents.rindex(b"PK\5\6")

        def change(at, form, value):
            changed = bytearray(contents)
            struct.pack_into(form, changed, at, value)
            good.write_bytes(changed)

        for at, form, value, word in [
                (end + 10, "<H", 3, "directory"), (end + 10, "<H", 1, "directory"),
                (end + 12, "<I", 7, "directory"), (end + 16, "<I", 2**31, "directory"),
                (end + 16, "<I", 2**32 - 1, "zip64"), (end + 20, "<H", 1, "end of a zip"),
                (first + 8, "<H", 1, "encrypted"), (first + 10, "<H", 99, "method 99"),
                (first + 16, "<I", 7, "Checksum does not match"),
                (first + 20, "<I", 7, "two sizes"), (first + 20, "<I", 2**32 - 1, "two sizes"),
                (first + 28, "<H", 0xffff, "damaged"), (first + 30, "<H", 0xffff, "damaged"),
                (first + 42, "<I", 2**31, "outside"), (last + 42, "<I", 0, "in another member"),
                (last + 42, "<I", 3, "in another member"), (last + 46, "<B", ord("a"), "twice"),
                (0, "<I", 0, "no header"), (26, "<H", 0xffff, "fewer")]:
            with self.subTest(at=at, value=value):
                change(at, form, value)
                self.refuse(good, word)
        good.write_bytes(contents[:-1])
        self.refuse(good, "end of a zip")
        good.write_bytes(b"")
        self.refuse(good, "end of a zip")

    def test_damaged_packing(self):
        data = random.Random(_SEED).randbytes(1 << 16)
        packed = npy(array([1 << 14]), data)
        good = self.archive({"a.npy": packed}, zipfile.ZIP_DEFLATED)
        contents = good.read_bytes()
        central = contents.rindex(b"PK\1\2")
        begin = 30 + len("a.npy")
        (size,) = struct.unpack_from("<I", contents, central + 20)
        changed = bytearray(contents)
        for at in range(begin, begin + size, 97):
            changed[at] ^= 0xff
        good.write_bytes(changed)
        self.refuse(good, "'a.npy'")
        # The right bytes under another crc; and packed bytes that end early, or go on.
        struct.pack_into("<I", changed := bytearray(contents), central + 16, zlib.crc32(b""))
        good.write_bytes(changed)
        self.refuse(good, "Checksum does not match")
        struct.pack_into("<I", changed := bytearray(contents), central + 20, size - 3)
        good.write_bytes(changed)
        self.refuse(good, "packed bytes")

    def test_mutations(self):
        for method in zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED:
            good = self.archive({"a.npy": npy(array(), bytes(8)),
                                 "b/c.npy": npy(array([3, 1], "<i8", True), bytes(24))}, method)
            mutate(self, good.read_bytes(), "bad.npz")


if __name__ == "__main__":
    unittest.main()
