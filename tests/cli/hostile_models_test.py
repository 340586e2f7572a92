"""Gives `ferry run`, `ferry summary` and `ferry freeze` graphs in which fields were changed at
random: names, inputs, attributes, shapes, values, functions. Whatever comes of it, the command ends
in time, within memory, and with a result or an error in words.

FERRY_HOSTILE_SEED and FERRY_HOSTILE_COUNT choose other graphs, or more of them.
"""

import os
import pathlib
import random
import resource
import shutil
import unittest

from command import CommandTest, ferry
from table import parse_message, varint

_LONG = bool(os.environ.get("FERRY_LONG"))
_SEED = int(os.environ.get("FERRY_HOSTILE_SEED", "1729"))
_COUNT = int(os.environ.get("FERRY_HOSTILE_COUNT", "2000" if _LONG else "80"))

_DATA = pathlib.Path(os.environ["FERRY_ROOT"]) / "tests" / "testdata"
_MEMORY = 8 << 30  # Of addresses; libraries reserve more than they use.
_SECONDS = 30      # Of the processor.

# What there is to run, and how; the variables are beside it.
_MODELS = {
    "models/cond.meta": ["--fetch", "out", "--feed", "x=1"],
    "models/gather.meta": ["--fetch", "out"],
    "models/loop.meta": ["--fetch", "out"],
    "models/ref.meta": ["--fetch", "out"],
    "models/resource.meta": ["--fetch", "out"],
    "saved_models/functions/saved_model.pb": ["--feed", "x=[[1, 2]]"],
}
_NUMBERS = [0, 1, 2, 3, 7, 100, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1,
            -1, -2, -5, -(1 << 31), -(1 << 63)]
# More is no message that a graph has, and would take time.
_DEPTH = 12


class _Field:
    """A field of a message, as bytes or, if these read like a message, as its fields."""

    def __init__(self, number, kind, value, depth):
        self.number, self.kind, self.value = number, kind, value
        self.fields = None
        if kind == 2 and depth < _DEPTH:
            self.fields = _parse(value, depth + 1)

    def write(self):
        tag = varint(self.number << 3 | self.kind)
        if self.kind == 0:
            return tag + varint(self.value)
        if self.kind != 2:
            return tag + self.value
        value = self.value if self.fields is None else _write(self.fields)
        return tag + varint(len(value)) + value


def _parse(data, depth=0):
    """The fields; None if it doesn't read like a message."""
    try:
        raw = parse_message(data)
    except (IndexError, KeyError):
        return None
    if not raw or any(number == 0 or number > 1000 for number, _, _ in raw):
        return None
    fields = [_Field(*field, depth) for field in raw]
    return fields if _write(fields) == data else None


def _write(fields):
    return b"".join(field.write() for field in fields)


def _all_lists(fields):
    """The lists of fields, at any depth."""
    yield fields
    for field in fields:
        if field.fields:
            yield from _all_lists(field.fields)


def _mutate(rng, fields, strings):
    """Changes one field, anywhere."""
    among = rng.choice([f for f in _all_lists(fields) if f])
    at = rng.randrange(len(among))
    field = among[at]
    what = rng.randrange(10)
    if what == 0:
        del among[at]
    elif what == 1:
        among.insert(rng.randrange(len(among) + 1), field)
    elif what == 2:
        other = rng.randrange(len(among))
        among[at], among[other] = among[other], among[at]
    elif what == 3:
        field.number = rng.randrange(1, 12)
    elif field.kind == 0:
        field.value = rng.choice(_NUMBERS)
    elif field.kind == 2:
        field.fields = None
        field.value = rng.choice(strings) if rng.randrange(3) else bytes(rng.randrange(20))
    else:
        field.value = bytes(rng.randrange(256) for _ in field.value)


def _strings(fields):
    """The words in a file, such as names of nodes and ops."""
    found = {f.value for among in _all_lists(fields) for f in among
             if f.kind == 2 and f.fields is None and 0 < len(f.value) < 60}
    return sorted(found | {b"^" + word for word in list(found)[:20]} | {b"", b"x:1", b"^x"})


def _limit():
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class HostileModelsTest(CommandTest):

    def check(self, about, *arguments):
        """Runs ferry, which ends with a result or with an error in words; returns its status."""
        result = ferry(*arguments, preexec_fn=_limit)
        said = f"{about}: {arguments}: status {result.returncode}: {result.stderr[-2000:]}"
        self.assertIn(result.returncode, (0, 1), said)
        self.assertEqual(result.returncode == 1, "ferry: " in result.stderr, said)
        for word in ("INTERNAL", "UNKNOWN", "terminate", "bad_alloc", "std::"):
            self.assertNotIn(word, result.stderr, said)
        return result.returncode

    def commands(self, file, model, options):
        """What is done with a graph in `file`, which was `model`."""
        if model.name == "saved_model.pb":
            shutil.copytree(model.parent / "variables", self.folder / "variables",
                            dirs_exist_ok=True)
            yield ["run", "--saved_model", self.folder, *options]
            checkpoint = self.folder / "variables" / "variables"
        else:
            checkpoint = model.with_suffix("")
            yield ["run", "--meta", file, "--checkpoint", checkpoint, *options]
            yield ["freeze", "--meta", file, "--checkpoint", checkpoint, "--output_node_names",
                   "out", "--output", self.folder / "frozen.pb"]
        yield ["summary", file, "--dot", self.folder / "graph.dot"]

    def test_mutations(self):
        print(f"hostile models: FERRY_HOSTILE_SEED={_SEED} FERRY_HOSTILE_COUNT={_COUNT}")
        models = {name: (_DATA / name).read_bytes() for name in _MODELS}
        ended = {0: 0, 1: 0}
        for seed in range(_SEED, _SEED + _COUNT):
            rng = random.Random(seed)
            name = rng.choice(sorted(models))
            fields = _parse(models[name])
            strings = _strings(fields)
            for _ in range(rng.choice([1, 1, 2, 4])):
                _mutate(rng, fields, strings)
            model = _DATA / name
            file = self.folder / model.name
            file.write_bytes(_write(fields))
            options = [*_MODELS[name], "--device", "cpu", "--threads", 1, "--timeout", 5]
            for command in self.commands(file, model, options):
                if command[0] == "run" or rng.randrange(4) == 0:
                    ended[self.check(f"{name}, seed {seed}", *command)] += 1
        for status, count in ended.items():
            self.assertGreater(count, _COUNT // 10, f"status {status}")


if __name__ == "__main__":
    unittest.main()
