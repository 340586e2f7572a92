"""Looks at what docs/ says: code there is code that compiles, and tests that it names are there."""

import os
import pathlib
import re
import unittest

_ROOT = pathlib.Path(os.environ["FERRY_ROOT"])
# A cell of a table may hold an escaped bar.
_BAR = re.compile(r"(?<!\\)\|")


def plain(code):
    """Without comments, white space, and what a program does with a Status."""
    code = re.sub(r"//[^\n]*", "", code)
    code = re.sub(r"\s+", "", code)
    return re.sub(r"Ignore\(|FERRY_RETURN_IF_ERROR\(", "", code)


class FromTensorFlowTest(unittest.TestCase):

    def snippets(self):
        text = (_ROOT / "docs/from-tensorflow.md").read_text()
        blocks = re.findall(r"```c\+\+\n(.*?)```", text, re.DOTALL)
        for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
            if line.startswith("| ") and not line.startswith("| ---"):
                cells = [c.strip() for c in _BAR.split(line)][1:-1]
                self.assertEqual(len(cells), 2, line)
                blocks += re.findall(r"`([^`]+)`", cells[1])
        for block in blocks:
            if block.startswith("ferry "):  # A command.
                continue
            # What "..." leaves out may be anything.
            for statement in re.split("[;\u2026]", re.sub(r"//[^\n]*", "", block)):
                if plain(statement):
                    yield statement

    def test_snippets_compile(self):
        program = plain((_ROOT / "tests/tf/snippets_program.cc").read_text())
        snippets = list(self.snippets())
        self.assertGreater(len(snippets), 100)
        for snippet in snippets:
            with self.subTest(snippet=snippet):
                self.assertTrue(plain(snippet) in program,
                                "is not in tests/tf/snippets_program.cc")


class NamesTest(unittest.TestCase):

    def test_named_tests_are_there(self):
        """`file_test` Name, name means tests of these names in that file."""
        named = 0
        for page in ("tensorflow-tests.md", "saver-behaviour.md"):
            text = (_ROOT / "docs" / page).read_text()
            for file, names in re.findall(r"`([\w/]+_test)` (\w+(?:, \w+)*)", text):
                path = _ROOT / (file if "/" in file else "tests/" + file)
                source = path.with_suffix(".cc" if path.with_suffix(".cc").exists() else ".py")
                with self.subTest(page=page, file=file):
                    self.assertTrue(source.exists())
                    there = set(re.findall(r"^(?:TEST\w*\(\w+, |    def )(\w+)",
                                           source.read_text(), re.MULTILINE))
                    for name in names.split(", "):
                        self.assertIn(name, there, file)
                        named += 1
        self.assertGreater(named, 150)


if __name__ == "__main__":
    unittest.main()
