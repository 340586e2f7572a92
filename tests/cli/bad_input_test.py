"""Gives the `ferry` command what it must refuse: damaged, hostile and foreign files, places that
can't be written, nonsense on its command line. Each must give its own words and exit status, and
leave the checkpoints that are there as good as they were.
"""

import gzip
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

import table
from command import CommandTest, FERRY, data_bytes, ferry, listed, newest, strays

_LONG = bool(os.environ.get("FERRY_LONG"))
_SEED = 8128
_HIDDEN = ["--hidden", 8]
_TRAIN = [*_HIDDEN, "--threads", 1, "--save_checkpoints_steps", 10, "--summary_steps", 10]


def _corrupt(file, change):
    """Replaces the file's bytes by what `change` makes of them, or does to them."""
    contents = bytearray(file.read_bytes())
    changed = change(contents)
    file.write_bytes(contents if changed is None else changed)


def _halve(contents):
    return contents[:len(contents) // 2]


def _flip_middle(contents):
    contents[len(contents) // 2] ^= 0x10


def _can_mount(folder):
    """Whether this process may mount a small tmpfs; an error message if not."""
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder],
                            stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        return result.stderr.strip()
    subprocess.run(["umount", folder], check=True)
    return None


class BadInputTest(CommandTest):
    """Tests start from a copy of a folder with the checkpoints 0, 10, 20 and 30."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="ferry-cli-")
        cls.addClassCleanup(temporary.cleanup)
        cls.model = pathlib.Path(temporary.name) / "model"
        result = ferry("train", "--model_dir", cls.model, "--steps", 30, *_TRAIN)
        assert result.returncode == 0, result.stderr

    def copy(self, name="copy"):
        folder = self.folder / name
        shutil.copytree(self.model, folder)
        return folder

    def assert_previous_restores(self, folder):
        """What the damage didn't touch is sound, and training goes on from it."""
        self.succeeds("verify", folder / "model.ckpt-20")
        for file in folder.glob("model.ckpt-30.*"):
            file.unlink()
        (folder / "checkpoint").unlink(missing_ok=True)
        report = self.succeeds_json("train", "--model_dir", folder, "--steps", 30, *_TRAIN)
        self.assertEqual(report["first_step"], 20)
        self.succeeds("verify", folder)
        self.assertEqual(data_bytes(folder / "model.ckpt-30"),
                         data_bytes(self.model / "model.ckpt-30"))


class DamagedFileTest(BadInputTest):

    def check(self, damage, words, train_words=None):
        """`damage(folder, prefix)` harms the newest checkpoint in ways that stop it from use."""
        folder = self.copy()
        shutil.rmtree(self.folder / "elsewhere", ignore_errors=True)
        damage(folder)
        result = ferry("verify", folder)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn(words, result.stdout)
        self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                   words=[train_words or words, "resum"])
        report = json.loads(ferry("verify", folder, "--json").stdout)
        self.assertFalse(report["ok"])
        self.assertIn(words, "".join(report["damage"]))
        self.assert_previous_restores(folder)
        shutil.rmtree(folder)

    def test_index(self):
        index = "model.ckpt-30.index"
        self.check(lambda d: _corrupt(d / index, _halve), "bad magic number")
        self.check(lambda d: _corrupt(d / index, lambda c: c[:20]), "too short to be an sstable")
        self.check(lambda d: _corrupt(d / index, lambda c: b""), "too short to be an sstable")
        self.check(lambda d: _corrupt(d / index, _flip_middle), "block checksum mismatch")
        self.check(lambda d: _corrupt(d / index, lambda c: c + b"\0"), "bad magic number")
        self.check(lambda d: (d / index).unlink(), "Couldn't match files for checkpoint")
        self.check(lambda d: shutil.copy(d / "model.ckpt-20.index", d / index),
                   "Checksum does not match")

    def test_data(self):
        data = "model.ckpt-30.data-00000-of-00001"
        size = (self.model / data).stat().st_size
        self.check(lambda d: _corrupt(d / data, _halve), f"{size // 2} bytes")
        self.check(lambda d: _corrupt(d / data, lambda c: b""), data)
        self.check(lambda d: _corrupt(d / data, _flip_middle), "Checksum does not match")
        self.check(lambda d: (d / data).unlink(), data)
        self.check(lambda d: shutil.copy(d / "model.ckpt-20.data-00000-of-00001", d / data),
                   "Checksum does not match")

    def test_data_that_is_too_long(self):
        # No tensor is harmed: it still restores, but verify tells.
        folder = self.copy()
        _corrupt(folder / "model.ckpt-30.data-00000-of-00001", lambda c: c + b"more")
        result = ferry("verify", folder)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("data-00000-of-00001", result.stdout)

    def test_meta(self):
        meta = "model.ckpt-30.meta"
        for damage, words in [(_halve, "truncated"), (lambda c: b"", "empty"),
                              (_flip_middle, "Checksum does not match"),
                              (lambda c: c[:-1], "damaged"), (lambda c: b"garbage", "MetaGraphDef"),
                              (lambda c: c + c, "Checksum does not match")]:
            folder = self.copy()
            _corrupt(folder / meta, damage)
            result = ferry("verify", folder)
            self.assertEqual(result.returncode, 1, result)
            self.assertIn(words, result.stdout)
            self.assertIn(meta, result.stdout)
            self.fails("summary", folder / meta, words=meta)
            # Values don't need it.
            report = self.succeeds_json("train", "--model_dir", folder, "--steps", 35, *_TRAIN)
            self.assertEqual(report["first_step"], 30)
            self.succeeds("verify", folder)
            shutil.rmtree(folder)

    def test_a_copy_is_on_its_own(self):
        original = self.copy("original")
        folder = self.folder / "copied"
        shutil.copytree(original, folder)
        before = sorted(os.listdir(original))
        report = self.succeeds_json("train", "--model_dir", folder, "--steps", 80, *_TRAIN)
        self.assertEqual(report["first_step"], 30)
        self.assertEqual(sorted(os.listdir(original)), before)
        self.assertEqual(listed(folder), [f"model.ckpt-{n}" for n in (40, 50, 60, 70, 80)])
        self.assertEqual(len(list(folder.glob("*.index"))), 5)

    def test_state_file(self):
        for damage, words in [(_halve, "crc"), (_flip_middle, "crc"),
                              (lambda c: b"", "model_checkpoint_path"),
                              (lambda c: b"\0\xff garbage {", "can't be parsed"),
                              (lambda c: b'model_checkpoint_path: "gone-7"\n', "gone-7.index")]:
            folder = self.copy()
            _corrupt(folder / "checkpoint", damage)
            result = ferry("verify", folder)
            self.assertEqual(result.returncode, 1, result)
            self.assertIn(words, result.stdout)
            self.fails("inspect", folder, words=[words, str(folder / "checkpoint")])
            # Starting anew would throw the work away.
            self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                       words=[words, f"without the file '{folder}/checkpoint'"])
            self.succeeds("verify", folder / "model.ckpt-30")
            self.assert_previous_restores(folder)
            shutil.rmtree(folder)

    def test_every_flipped_byte_is_noticed(self):
        folder = self.copy()
        prefix = folder / "model.ckpt-30"
        ends = ("index", "meta", "data-00000-of-00001")
        files = [pathlib.Path(f"{prefix}.{end}") for end in ends]
        files.append(folder / "checkpoint")
        rng = random.Random(_SEED)
        for i in range(2000 if _LONG else 200):
            file = files[i % len(files)]
            sound = file.read_bytes()
            at, bit = rng.randrange(len(sound)), 1 << rng.randrange(8)
            damaged = bytearray(sound)
            damaged[at] ^= bit
            file.write_bytes(damaged)
            result = ferry("verify", folder)
            self.assertEqual(result.returncode, 1,
                             f"{file.name}: byte {at} xor {bit}: {result.stdout}{result.stderr}")
            self.assertIn("damaged: ", result.stdout)
            self.assertIn(file.name, result.stdout)
            file.write_bytes(sound)
        self.succeeds("verify", folder)

    def test_truncation_at_any_length_is_noticed(self):
        folder = self.copy()
        rng = random.Random(_SEED)
        for end in ("index", "meta", "data-00000-of-00001"):
            file = folder / f"model.ckpt-30.{end}"
            sound = file.read_bytes()
            lengths = [1, 8, 47, 48, len(sound) - 48, len(sound) - 1]
            lengths += [rng.randrange(len(sound)) for _ in range(6)]
            for length in lengths:
                file.write_bytes(sound[:length])
                result = ferry("verify", folder)
                self.assertEqual(result.returncode, 1, f"{file.name} cut to {length}: {result}")
                self.assertIn(file.name, result.stdout)
            file.write_bytes(sound)
        self.succeeds("verify", folder)


class ForeignCheckpointTest(BadInputTest):

    def rewrite(self, folder, change):
        """Lets `change` alter the entries of the newest index, whose crcs are right again then."""
        index = folder / "model.ckpt-30.index"
        entries = table.read_index(index.read_bytes())
        change(entries)
        index.write_bytes(table.write_index(entries))

    def test_rewriting_alone_harms_nothing(self):
        folder = self.copy()
        self.rewrite(folder, lambda entries: None)
        self.succeeds("verify", folder)
        self.assertEqual(self.succeeds("inspect", folder, "--json"),
                         self.succeeds("inspect", self.model, "--json"))

    def test_shapes_of_another_model(self):
        folder = self.copy()
        before = data_bytes(folder / "model.ckpt-30")
        self.fails("train", "--model_dir", folder, "--steps", 40, "--hidden", 16,
                   words=["Assign requires shapes of both tensors to match", "hidden1/",
                          "another --model_dir"])
        self.fails("train", "--model_dir", folder, "--steps", 40, "--hidden", "8,8",
                   words=["Key hidden2/biases not found in checkpoint", "another --model_dir"])
        self.fails("train", "--model_dir", folder, "--steps", 40, *_HIDDEN,
                   "--optimizer", "momentum", words="not found in checkpoint")
        # Its slots would be gone from the next checkpoint.
        self.fails("train", "--model_dir", folder, "--steps", 40, *_HIDDEN, "--optimizer", "sgd",
                   words=["'beta1_power', 'beta2_power', 'hidden1/biases/Adam'",
                          " more, which this model lacks", "another --model_dir"])
        self.assertEqual(data_bytes(folder / "model.ckpt-30"), before)
        self.succeeds("verify", folder)
        self.assert_previous_restores(folder)

    def test_another_dtype(self):
        folder = self.copy()

        def as_int32(entries):
            value = entries[b"hidden1/biases"]
            self.assertEqual(value[:2], b"\x08\x01")
            entries[b"hidden1/biases"] = b"\x08\x03" + value[2:]

        self.rewrite(folder, as_int32)
        self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                   words=["hidden1/biases", "expected dtype float does not equal original dtype "
                                            "int32"])
        self.assert_previous_restores(folder)

    def test_a_tensor_is_gone(self):
        folder = self.copy()
        self.rewrite(folder, lambda entries: entries.pop(b"logits/weights"))
        self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                   words="Key logits/weights not found in checkpoint")
        self.assert_previous_restores(folder)

    def test_a_global_step_out_of_range(self):
        for step in (-1, -2**63):
            folder = self.copy()
            data = folder / "model.ckpt-30.data-00000-of-00001"
            (tensor,) = [t for t in self.succeeds_json("inspect", folder)["tensors"]
                         if t["name"] == "global_step"]
            self.assertEqual(tensor["dtype"], "int64")

            def change(entries):
                fields = {n: v for n, _, v in table.parse_message(entries[b"global_step"])}
                value, offset = struct.pack("<q", step), fields.get(4, 0)
                contents = bytearray(data.read_bytes())
                contents[offset:offset + 8] = value
                data.write_bytes(contents)
                entries[b"global_step"] = table.entry(dtype=9, offset=offset, size=8,
                                                      crc=table.masked_crc(value))

            self.rewrite(folder, change)
            self.succeeds("verify", folder)
            self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                       words=["global_step", str(step)])
            self.assert_previous_restores(folder)
            shutil.rmtree(folder)


class HostileIndexTest(CommandTest):
    """Files that are sound as far as their crcs go, and claim what can't be."""

    def write(self, contents, data=b"\1" * 64):
        prefix = self.folder / "hostile"
        pathlib.Path(f"{prefix}.index").write_bytes(contents)
        pathlib.Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
        return prefix

    def assert_refused(self, prefix, words):
        verify = ferry("verify", prefix)
        self.assertEqual(verify.returncode, 1, verify)
        inspect = ferry("inspect", prefix, "--all_tensors")
        self.assertEqual(inspect.returncode, 1, inspect)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, verify.stdout)
            self.assertIn(word, inspect.stderr)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertLess(memory, 300 << 10, f"KiB after {words}")

    def assert_index_refused(self, entries, words, **header):
        contents = table.write_index({b"": table.header(**header), **entries})
        self.assert_refused(self.write(contents), words)

    def test_entries_that_claim_what_is_not_there(self):
        crc = table.masked_crc(b"\1" * 64)
        for name, entry in {
                "huge": table.entry(shape=[2**40], size=2**42),
                "beyond": table.entry(shape=[16], offset=1, size=64, crc=crc),
                "far": table.entry(shape=[16], offset=2**62, size=64, crc=crc),
                "wraps": table.entry(shape=[16], offset=2**63 - 8, size=64, crc=crc),
                "behind": table.entry(shape=[16], offset=-64, size=64, crc=crc),
                "negative_size": table.entry(shape=[16], size=-64, crc=crc),
                "overflow": table.entry(shape=[2**32, 2**32], size=0),
                "overflow_to_size": table.entry(shape=[2**62, 2**2, 16], size=64, crc=crc),
                "negative": table.entry(shape=[-16], size=64, crc=crc),
                "unknown_dim": table.entry(shape=[-1], size=64, crc=crc),
                "unknown_rank": table.entry(unknown_rank=True, size=64, crc=crc),
                "rank_1000": table.entry(shape=[1] * 1000 + [16], size=64, crc=crc),
                "too_small": table.entry(shape=[15], size=64, crc=crc),
                "zero_of_many": table.entry(shape=[0, 2**62, 2**62], size=64, crc=crc),
                "shard": table.entry(shape=[16], shard=7, size=64, crc=crc),
                "negative_shard": table.entry(shape=[16], shard=-1, size=64, crc=crc),
                "dtype": table.entry(dtype=99, shape=[16], size=64, crc=crc),
                "ref_dtype": table.entry(dtype=101, shape=[16], size=64, crc=crc),
                "no_dtype": table.entry(dtype=0, shape=[16], size=64, crc=crc),
                "resource": table.entry(dtype=20, shape=[1], size=64, crc=crc),
                "crc": table.entry(shape=[16], size=64, crc=crc ^ 1),
                "strings": table.entry(dtype=7, shape=[2**50], size=64, crc=crc),
                "few_strings": table.entry(dtype=7, shape=[1], size=3, crc=crc),
                "garbage": b"\xff" * 12,
                "cut": table.entry(shape=[16], size=64, crc=crc)[:-3],
        }.items():
            with self.subTest(name):
                self.assert_index_refused({name.encode(): entry}, name)

    def test_strings_that_claim_to_be_long(self):
        for lengths in ([2**60], [2**64 - 1], [2**63, 2**63 + 8], [60, 2**40]):
            data = b"".join(map(table.varint, lengths)).ljust(64, b"\1")
            entry = table.entry(dtype=7, shape=[len(lengths)], size=64,
                                crc=table.masked_crc(data))
            contents = table.write_index({b"": table.header(), b"words": entry})
            self.assert_refused(self.write(contents, data), "words")

    def test_tensors_that_share_their_bytes(self):
        # Together they would ask for far more memory than the files have bytes.
        entry = table.entry(shape=[16], size=64, crc=table.masked_crc(b"\1" * 64))
        self.assert_index_refused({b"v%d" % i: entry for i in range(1000)}, "are also those of")

    def test_headers(self):
        for name, header in {"shards": {"num_shards": 2**31 - 1}, "no_shards": {"num_shards": 0},
                             "negative": {"num_shards": -1}, "endianness": {"endianness": 1},
                             "version": {"producer": 0}}.items():
            with self.subTest(name):
                entry = table.entry(shape=[16], size=64, crc=table.masked_crc(b"\1" * 64))
                if name != "version":
                    self.assert_index_refused({b"v": entry}, "hostile", **header)
        self.assert_refused(self.write(table.write_index({})), "hostile.index")
        self.assert_refused(self.write(table.write_index({b"v": table.entry()})), "hostile.index")
        self.assert_refused(self.write(table.write_index({b"": b"\xff\xff"})), "hostile.index")

    def test_tables(self):
        good = {b"": table.header(), b"v": table.entry(shape=[16], size=64)}
        entries = sorted(good.items())
        for name, contents in {
                "restarts": table.table(table.block(entries)[:-4] + b"\xff\xff\xff\x7f"),
                "no_restarts": table.table(table.block(entries)[:-4] + bytes(4)),
                "restarts_beyond": table.table(table.block(entries, [0, 2**31])),
                "out_of_order": table.table(table.block(entries[::-1])),
                "twice": table.table(table.block(entries + entries[-1:])),
                "empty_block": table.table(b""),
                "shared": table.table(table.varint(2**32) + table.varint(1) + table.varint(1)
                                      + b"kv" + bytes(4) + b"\1\0\0\0"),
                "long_key": table.table(table.varint(0) + table.varint(2**63) + table.varint(1)
                                        + b"kv" + bytes(4) + b"\1\0\0\0"),
                "varint": table.table(b"\xff" * 30 + bytes(4) + b"\1\0\0\0"),
                "handle_huge": table.table(table.block(entries), [0, 2**63, 0, 2**63]),
                "handle_wraps": table.table(table.block(entries), [2**64 - 1, 2, 2**64 - 1, 2]),
                "handle_to_itself": table.table(table.block(entries), [0, 4, 0, 4]),
                "zeros": bytes(1000), "ones": b"\xff" * 1000,
        }.items():
            with self.subTest(name):
                self.assert_refused(self.write(contents), "hostile.index")

    def test_sparse_files_larger_than_memory(self):
        entry = table.entry(shape=[2**38], size=2**40)
        prefix = self.write(table.write_index({b"": table.header(), b"v": entry}))
        os.truncate(f"{prefix}.data-00000-of-00001", 2**40)
        self.fails("inspect", prefix, "--tensor_name", "v", words="memory")
        os.truncate(f"{prefix}.index", 2**40)
        self.assert_refused(prefix, "memory")
        v1 = self.folder / "v1"
        v1.touch()
        os.truncate(v1, 2**40)
        self.fails("inspect", v1, words="memory")
        self.fails("summary", v1, words="memory")

    def test_mutations(self):
        """Random changes with the crcs put right: any answer is good but a crash or a hang."""
        rng = random.Random(_SEED)
        data = bytes(rng.randrange(256) for _ in range(64))
        sound = table.block(sorted({
            b"": table.header(),
            b"a": table.entry(shape=[4], size=16, crc=table.masked_crc(data[:16])),
            b"b/c": table.entry(dtype=9, shape=[2, 2], offset=16, size=32,
                                crc=table.masked_crc(data[16:48])),
            b"s": table.entry(dtype=7, shape=[2], offset=48, size=16,
                              crc=table.masked_crc(data[48:])),
        }.items()))
        ended = {0: 0, 1: 0}
        for _ in range(1000 if _LONG else 60):
            mutated = bytearray(sound)
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(mutated))
                kind = rng.randrange(3)
                if kind == 0:
                    mutated[at] = rng.randrange(256)
                elif kind == 1:
                    mutated[at:at] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])])
                else:
                    del mutated[at]
            prefix = self.write(table.table(bytes(mutated)), data)
            for command in (["inspect", prefix, "--all_tensors"], ["verify", prefix]):
                result = ferry(*command)
                self.assertIn(result.returncode, ended, f"{mutated.hex()}: {result.stderr}")
                self.assertNotIn("terminate", result.stderr)
                ended[result.returncode] += 1
        self.assertGreater(ended[1], 0)


class InspectTest(BadInputTest):

    def test_names(self):
        prefix = self.model / "model.ckpt-30"
        self.fails("inspect", self.folder / "none", words=[
            "The passed save_path is not a valid checkpoint", str(self.folder / "none")])
        self.fails("inspect", f"{prefix}.index", words=["pass the prefix", str(prefix)])
        self.fails("inspect", f"{prefix}.data-00000-of-00001", words="pass the prefix")
        self.fails("inspect", self.folder, words=["there is no checkpoint in", str(self.folder)])
        self.fails("inspect", "", words="")
        self.fails("inspect", self.model / "graph.pbtxt", words="graph.pbtxt")
        self.fails("inspect", "/dev/null", words="/dev/null")
        result = self.fails("verify", self.folder, words="damaged")
        self.assertIn("there is no checkpoint in", result.stdout)
        result = self.fails("verify", f"{prefix}.index", words="damaged")
        self.assertIn("pass the prefix", result.stdout)
        self.fails("inspect", prefix, "--tensor_name", "hidden1/weight", words=[
            "Key hidden1/weight not found in checkpoint", "hidden1/weights"])
        self.fails("inspect", prefix, "--tensor_name", "x" * 100000, words="not found")

    def test_json_with_values(self):
        prefix = self.model / "model.ckpt-30"
        name = ["--tensor_name", "global_step"]
        one = self.succeeds_json("inspect", prefix, *name)
        self.assertEqual((one["name"], one["dtype"], one["shape"], one["value"]),
                         ("global_step", "int64", [], "30"))
        npy = self.folder / "a.npy"
        self.assertEqual(self.succeeds_json("inspect", prefix, *name, "--npy", npy)["npy"],
                         str(npy))
        every = self.succeeds_json("inspect", prefix, "--all_tensors")["tensors"]
        self.assertIn(one, every)
        biases = next(t for t in every if t["name"] == "hidden1/biases")
        self.assertEqual([len(biases["value"].split())], biases["shape"])

    def test_npy(self):
        prefix = self.model / "model.ckpt-30"
        name = ["--tensor_name", "hidden1/weights"]
        for place in ("/sys/ferry.npy", self.folder / "no" / "such.npy", self.folder):
            self.fails("inspect", prefix, *name, "--npy", place, words=str(place))
        self.assertEqual(os.listdir(self.folder), [])
        self.fails("inspect", prefix, "--npy", self.folder / "a.npy", status=2,
                   words="--tensor_name")
        target = self.folder / "a.npy"
        self.succeeds("inspect", prefix, *name, "--npy", target)
        self.assertEqual(target.read_bytes()[:8], b"\x93NUMPY\x01\x00")


class SummaryTest(BadInputTest):

    def test_files_that_are_no_graphs(self):
        meta = (self.model / "model.ckpt-30.meta").read_bytes()
        file = self.folder / "file"
        rng = random.Random(_SEED)
        for contents in (b"", b"\0", b"garbage", bytes(100), b"\xff" * 100, meta[:len(meta) // 2],
                         meta[:-1], meta[1:], b"node {", b"node { name: ", b"{" * 100000,
                         b"node { attr { value { list { func { attr { value { " * 1000,
                         b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x7f" * 5000,
                         bytes(rng.randrange(256) for _ in range(3000))):
            file.write_bytes(contents)
            self.fails("summary", file, words=str(file))
        self.fails("summary", self.folder / "none", words="none")
        self.fails("summary", self.folder, words="saved_model.pb")

    def test_mutations(self):
        """Without the marks of a .meta that was written here its crc isn't asked for."""
        original = (self.model / "model.ckpt-30.meta").read_bytes()
        foreign = b"".join(table.message((number, value))
                           for number, _, value in table.parse_message(original) if number < 10)
        self.assertLess(len(foreign), len(original))
        text = (self.model / "graph.pbtxt").read_bytes()
        file = self.folder / "file"
        file.write_bytes(foreign)
        self.succeeds("summary", file)
        rng = random.Random(_SEED)
        ended = {0: 0, 1: 0}
        for i in range(600 if _LONG else 60):
            mutated = bytearray(foreign if i % 2 else text)
            for _ in range(rng.randint(1, 8)):
                at = rng.randrange(len(mutated))
                if rng.randrange(2):
                    mutated[at] = rng.randrange(256)
                else:
                    mutated[at:at + rng.randrange(30)] = b""
            file.write_bytes(mutated)
            result = ferry("summary", file, "--dot", self.folder / "graph.dot")
            self.assertIn(result.returncode, ended, f"{i}: {result.stderr}")
            self.assertNotIn("terminate", result.stderr)
            ended[result.returncode] += 1
        self.assertGreater(ended[1], 0)

    def test_pictures_that_can_not_be_written(self):
        meta = self.model / "model.ckpt-30.meta"
        for option in ("--svg", "--dot"):
            for place in ("/sys/graph", self.folder / "no" / "graph", self.folder):
                self.fails("summary", meta, option, place, words=str(place))


class PlaceTest(BadInputTest):
    """Where files can't be written."""

    def small_disk(self, size, name="disk"):
        """A tmpfs of so many KiB, mounted until the test ends."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        problem = _can_mount(folder)
        if problem:
            self.skipTest(f"mounting a small disk isn't permitted here: {problem}")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder],
                       check=True)
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        return folder

    def test_parents(self):
        deep = self.folder / "a" / "b" / "c"
        self.succeeds("train", "--model_dir", deep, "--steps", 2, *_TRAIN)
        self.succeeds("verify", deep)
        file = self.folder / "file"
        file.write_text("words")
        self.fails("train", "--model_dir", file, "--steps", 2, *_TRAIN, words=str(file))
        self.fails("train", "--model_dir", file / "model", "--steps", 2, *_TRAIN, words=str(file))
        self.assertEqual(file.read_text(), "words")
        self.fails("train", "--model_dir", "x" * 300, "--steps", 2, *_TRAIN, words="xxx")

    def test_not_writable(self):
        # /sys takes nobody's files, not even root's.
        self.fails("train", "--model_dir", "/sys/ferry-test", "--steps", 2, *_TRAIN,
                   words="/sys/ferry-test")
        if os.geteuid() != 0:
            folder = self.copy()
            folder.chmod(0o555)
            self.addCleanup(folder.chmod, 0o755)
            self.check_not_writable(folder, "Permission denied")

    def test_read_only_disk(self):
        disk = self.small_disk(8 << 10)
        folder = disk / "model"
        shutil.copytree(self.model, folder)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.check_not_writable(folder, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        report = self.succeeds_json("train", "--model_dir", folder, "--steps", 40, *_TRAIN)
        self.assertEqual((report["first_step"], report["last_step"]), (30, 40))

    def check_not_writable(self, folder, words):
        self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                   words=[words, str(folder)])
        self.succeeds("verify", folder)
        self.succeeds("inspect", folder, "--all_tensors")

    def test_full_disk(self):
        """The disk fills up at another file each time; all that is needed then is room."""
        straight = self.folder / "straight"
        options = ["--steps", 60, "--save_checkpoints_steps", 10, "--threads", 1,
                   "--keep_checkpoint_max", 0]
        self.succeeds("train", "--model_dir", straight, *options)
        saved = 0
        for size in (4, 40, 120, 300, 440, 500, 700, 900, 1100):
            with self.subTest(size=size):
                disk = self.small_disk(size, f"disk{size}")
                folder = disk / "model"
                self.fails("train", "--model_dir", folder, *options,
                           words=["No space left on device", str(disk)])
                self.assertEqual([f for f in strays(folder) if f.endswith(".ferry-tmp")]
                                 if folder.exists() else [], [])
                if newest(folder):
                    saved += 1
                    for name in listed(folder):
                        self.succeeds("verify", folder / name)
                subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
                self.succeeds("train", "--model_dir", folder, *options)
                self.assertEqual(strays(folder), [])
                self.assertEqual(data_bytes(newest(folder)), data_bytes(newest(straight)))
        self.assertGreater(saved, 2)

    def test_files_that_may_not_grow(self):
        """As on a full disk: the limit on a file's size, where the signal for it is ignored."""
        folder = self.copy()

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

        self.fails("train", "--model_dir", folder, "--steps", 40, *_TRAIN, words="File too large",
                   preexec_fn=limit)
        self.assertEqual(strays(folder), [])
        self.succeeds("verify", folder)
        report = self.succeeds_json("train", "--model_dir", folder, "--steps", 40, *_TRAIN)
        self.assertEqual(report["first_step"], 30)
        self.succeeds("verify", folder)

    def test_few_open_files(self):
        folder = self.copy()
        for files in range(3, 12):
            result = ferry("train", "--model_dir", folder, "--steps", 40, *_TRAIN,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                                                 (files, files)))
            # With the fewest the system can't load the libraries.
            self.assertIn(result.returncode, (0, 1, 127), result)
            if result.returncode == 1:
                self.assertIn("Too many open files", result.stderr)
            self.succeeds("verify", folder)
        self.assertEqual(result.returncode, 0, result.stderr)


class OutputTest(BadInputTest):
    """Standard output and error that are gone."""

    def test_closed_pipe(self):
        def run(**kwargs):
            reader, writer = os.pipe()
            os.close(reader)
            try:
                return ferry("inspect", self.model, "--all_tensors", stdout=writer, **kwargs)
            finally:
                os.close(writer)

        result = run()
        self.assertEqual((result.returncode, result.stderr), (-signal.SIGPIPE, ""))
        # With the signal ignored, as under some parents.
        result = run(restore_signals=False,
                     preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN))
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("standard output can't be written", result.stderr)

    def test_full_output(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            for command in (["inspect", self.model], ["inspect", self.model, "--json"],
                            ["inspect", self.model, "--all_tensors"], ["verify", self.model],
                            ["summary", self.model / "graph.pbtxt"], ["--help"],
                            ["train", "--help"]):
                self.fails(*command, words="standard output can't be written", stdout=full)

    def test_pipes_and_devices(self):
        """Nobody reads from the pipe; and neither is to be replaced by a file."""
        pipe = self.folder / "pipe.npz"
        os.mkfifo(pipe)
        self.fails("convert", self.model, pipe, words=["pipe.npz' is not a regular file"])
        device = self.folder / "device.npz"
        os.symlink("/dev/null", device)
        self.fails("convert", self.model, device, words=["device.npz' is not a regular file"])
        self.fails("inspect", self.model, "--tensor_name", "logits/biases", "--npy", device,
                   words="device.npz' is not a regular file")
        self.assertTrue(pipe.is_fifo() and device.is_symlink())
        os.mkfifo(self.folder / "new.npz.ferry-tmp")
        self.fails("convert", self.model, self.folder / "new.npz",
                   words="new.npz.ferry-tmp': it is a pipe")
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["device.npz", "new.npz.ferry-tmp", "pipe.npz"])

    def test_a_folder_named_by_any_bytes(self):
        folder = os.fsencode(self.folder) + b"/\xff\xfe\n\""
        for steps in 20, 40:
            result = subprocess.run([FERRY, "train", "--model_dir", folder, "--steps", str(steps),
                                     "--summary_steps", "1", "--json"], timeout=60, check=False,
                                    capture_output=True)
            self.assertEqual(result.returncode, 0, result)
            self.assertNotIn(b"protobuf", result.stderr)
            self.assertIn("\ufffd\ufffd", json.loads(result.stdout)["checkpoint"])
        # The curve is of both runs.
        with open(folder + b"/training.svg", "rb") as file:
            self.assertIn(b"resumed", file.read())

    def test_no_standard_streams(self):
        """Without them the first files that are opened would get their numbers, and the words."""
        folder = self.copy()

        def close():
            for stream in range(3):
                os.close(stream)

        subprocess.run([FERRY, "train", "--model_dir", folder, "--steps", "60",
                        *map(str, _TRAIN)], preexec_fn=close, timeout=60, check=False)
        self.succeeds("verify", folder)
        self.assertTrue(newest(folder).endswith("model.ckpt-60"))
        straight = self.folder / "straight"
        self.succeeds("train", "--model_dir", straight, "--steps", 60, *_TRAIN)
        self.assertEqual(data_bytes(newest(folder)), data_bytes(newest(straight)))
        for file in folder.iterdir():
            self.assertNotIn(b"resumed from", file.read_bytes(), file)


class DataTest(CommandTest):

    def idx(self, dims, payload=None, magic=None):
        size = 1
        for dim in dims:
            size *= dim
        payload = bytes(i % 10 for i in range(size)) if payload is None else payload
        return struct.pack(f">{1 + len(dims)}I", 0x800 + len(dims) if magic is None else magic,
                           *dims) + payload

    def mnist(self, **files):
        """A folder with four sound files, but for those that are given (None: missing)."""
        good = {"train-images-idx3-ubyte": self.idx([40, 4, 4]),
                "train-labels-idx1-ubyte": self.idx([40]),
                "t10k-images-idx3-ubyte": self.idx([20, 4, 4]),
                "t10k-labels-idx1-ubyte": self.idx([20])}
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        for name, contents in good.items():
            short = name.split("-idx")[0].replace("-", "_")
            contents = files.get(short, contents)
            if contents is None:
                continue
            if contents[:2] == b"\x1f\x8b":
                name += ".gz"
            (folder / name).write_bytes(contents)
        return folder

    def refuses(self, path, words):
        model = self.folder / "model"
        self.fails("train", "--model_dir", model, "--data", path, "--steps", 2, words=words)
        self.assertFalse(model.exists())

    def test_sound_files(self):
        for folder in (self.mnist(), self.mnist(train_images=gzip.compress(self.idx([40, 4, 4])))):
            self.succeeds("train", "--model_dir", folder / "model", "--data", folder, "--steps", 2)

    def test_idx(self):
        images = "train-images-idx3-ubyte"
        good = self.idx([40, 4, 4])
        for contents, words in [
                (b"", [images, "header"]), (b"\0\0\x08", [images, "header"]),
                (good[:10], [images, "header"]), (good[:-1], [images, "640", "639"]),
                (good + b"!", [images, "more follow"]), (b"P5 4 4 255 " + good, [images, "magic"]),
                (self.idx([40, 4, 4], magic=0x0D03), [images, "magic"]),
                (self.idx([40]), [images, "magic"]),
                (self.idx([0, 4, 4]), [images, "is 0"]),
                (self.idx([2**32 - 1] * 3, b""), [images, "overflow"]),
                (self.idx([2**31, 2**15, 2**10], b""), [images, "promises"]),
                (self.idx([39, 4, 4]), [images, "39 pictures", "40 labels"]),
                (self.idx([40, 5, 5]), ["25", "16"]),
                (gzip.compress(good)[:-20], [images, "cut short"]),
                (gzip.compress(good)[:-4], [images, "cut short"]),
                (gzip.compress(good)[:-8] + bytes(8), [images, "damaged"]),
                (gzip.compress(good) + b"tail", [images, "follow"]),
                (b"\x1f\x8b" + bytes(50), [images, "damaged"]),
                (gzip.compress(good[:-1]), [images, "639"]),
                (None, ["holds none of", images])]:
            self.refuses(self.mnist(train_images=contents), words)
        self.refuses(self.mnist(t10k_labels=self.idx([20], bytes([10] * 20))), "label 10")
        self.refuses(self.mnist(t10k_labels=None), "t10k-labels-idx1-ubyte")
        self.refuses(self.folder, "holds none of")

    def test_rows(self):
        row = ",".join(["1"] * 64 + ["3"]) + "\n"
        file = self.folder / "digits.csv"
        for text, words in [("", "line 1"), (row, "at least 5 lines"), (row * 4 + "\n", "line 5"),
                            (row * 4 + row.replace("1", "17", 1), ["line 5", "'17'"]),
                            (row * 4 + row.replace("3", "10"), ["line 5", "'10'"]),
                            (row * 4 + row.replace("1", "-1", 1), ["line 5", "'-1'"]),
                            (row * 4 + row.replace("1", "1.5", 1), ["line 5", "'1.5'"]),
                            (row * 4 + "1," + row, "line 5"), (row * 4 + row[2:], "line 5"),
                            ("name,label\n" + row * 4, "line 1"), ("\0" * 100, "line 1"),
                            (row * 4 + row.rstrip() + "\0\n", "line 5")]:
            file.write_text(text)
            self.refuses(file, [str(file)] + ([words] if isinstance(words, str) else words))
        self.refuses(self.folder / "none", "none")
        self.refuses("/dev/null", "/dev/null")
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        self.refuses(fifo, [str(fifo), "not a regular file"])


class UsageTest(CommandTest):

    def test_help(self):
        for command in ([], ["train"], ["inspect"], ["verify"], ["summary"], ["bench"]):
            self.assertIn("--help", self.succeeds(*command, "--help"))

    def test_wrong_usage(self):
        train = ["train", "--model_dir", self.folder / "model"]
        for command, words in [
                ([], "subcommand"), (["fly"], "fly"), (["train"], "--model_dir"),
                ([*train, "--wings", "2"], "--wings"), ([*train, "more"], "more"),
                ([*train, "--steps"], "--steps"), ([*train, "--steps", "many"], "many"),
                ([*train, "--steps", "1.5"], "1.5"),
                ([*train, "--learning_rate", "fast"], "fast"),
                ([*train, "--optimizer", "hope"], "hope"), ([*train, "--device", "tpu"], "tpu"),
                ([*train, "--threads", "-1"], "--threads"),
                ([*train, "--threads", "1000000"], "--threads"),
                (["inspect"], "checkpoint"), (["verify"], "checkpoint"), (["summary"], "file"),
                (["bench"], "what"), (["bench", "speed"], "speed"),
                (["bench", "save", "--mib", "big"], "big"),
                (["bench", "run", "--threads", "-4"], "--threads")]:
            self.fails(*command, words=words, status=2)
        self.assertFalse((self.folder / "model").exists())

    def test_empty_names(self):
        """Which an unset variable of a shell script leaves."""
        for command in (["train", "--model_dir", self.folder / "model", "--data", ""],
                        ["inspect", self.folder, "--tensor_name", ""],
                        ["inspect", self.folder, "--tensor_name", "v", "--npy", ""],
                        ["summary", self.folder, "--svg", ""],
                        ["summary", self.folder, "--dot", ""],
                        ["freeze", "--meta", "m", "--checkpoint", "c", "--output", "o",
                         "--output_node_names", ""]):
            self.fails(*command, words="it is empty", status=2)
        self.assertFalse((self.folder / "model").exists())

    def test_numbers_out_of_range(self):
        train = ["train", "--model_dir", self.folder / "model"]
        for option, *values in [
                ("--steps", 0, -5, 2**63, "9" * 30), ("--batch_size", 0, -32),
                ("--save_checkpoints_steps", 0), ("--summary_steps", 0),
                ("--keep_checkpoint_max", -1), ("--learning_rate", 0, -1, "nan", "inf"),
                ("--hidden", "0", "8,,8", "8,", "wide", "-8", "8 8", "9" * 40)]:
            for value in values:
                self.fails(*train, option, value, words=option, status=2)
        self.fails("train", "--model_dir", "", words="--model_dir", status=2)
        self.assertFalse((self.folder / "model").exists())
        # Each could be meant, but not here.
        for options, words in [
                (["--steps", 2**63 - 1], "--steps"),
                (["--steps", 1, "--batch_size", 2**62], "--batch_size"),
                (["--steps", 1, "--batch_size", 2**40], "memory"),
                (["--hidden", 2**62], ""), (["--hidden", 10**12], "memory"),
                (["--device", "gpu"], "no GPU can be used")]:
            self.fails(*train, *options, words=words)
            self.assertEqual(list(self.folder.glob("model/model.ckpt*")), [], options)
            shutil.rmtree(self.folder / "model", ignore_errors=True)

    def test_a_loss_that_is_no_number(self):
        folder = self.folder / "model"
        self.fails("train", "--model_dir", folder, "--steps", 100, "--optimizer", "sgd",
                   "--learning_rate", "1e30", words=["the loss is", "--learning_rate"])
        self.succeeds("verify", folder)

    def test_bench(self):
        for what in ("save", "restore", "run", "train"):
            for option, *values in [("--mib", 0, -1), ("--tensors", 0), ("--rounds", 0, -1)]:
                for value in values:
                    self.fails("bench", what, option, value, words=option, status=2)
            for option, *values in [("--mib", 10**9, 2**62), ("--tensors", 10**12),
                                    ("--rounds", 2**31 - 1)]:
                for value in values:
                    self.fails("bench", what, option, value, words=option)
        small = ["--mib", 1, "--tensors", 2, "--rounds", 1]
        for what in ("save", "restore"):
            self.fails("bench", what, *small, "--dir", self.folder / "none", words="none")
            self.fails("bench", what, *small, "--dir", "/sys", words="/sys")
        self.fails("bench", "save", "--device", "gpu", words="no GPU can be used")
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    unittest.main()
