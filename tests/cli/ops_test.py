"""`ferry ops` lists what there is, and docs/ops.md says the same."""

import json
import os
import pathlib
import unittest

from command import CommandTest, ferry

_PAGE = pathlib.Path(os.environ["FERRY_ROOT"]) / "docs" / "ops.md"


def _without_gpu(page):
    """The page as a program without CUDA prints it."""
    lines = []
    for line in page.splitlines():
        cells = line.split(" | ")
        if len(cells) == 4 and not line.startswith(("| op |", "| --- |")):
            cells[2] = ""
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


class OpsTest(CommandTest):

    def ops(self, *arguments):
        result = ferry("ops", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_the_page_in_docs_is_current(self):
        page = self.ops("--markdown")
        committed = _PAGE.read_text()
        has_gpu = any(op["gpu"] for op in json.loads(self.ops("--json"))["ops"])
        self.assertEqual(page, committed if has_gpu else _without_gpu(committed),
                         "print it anew: ferry ops --markdown > docs/ops.md")

    def test_rows_tell_dtypes_and_gradients(self):
        rows = {op["op"]: op for op in json.loads(self.ops("--json"))["ops"]}
        self.assertIn("floats", rows["MatMul"]["cpu"])
        self.assertEqual(rows["MatMul"]["gradient"], "yes")
        self.assertEqual(rows["ArgMax"]["gradient"], "none")
        self.assertEqual(rows["NoOp"]["cpu"], "yes")
        one = json.loads(self.ops("MatMul", "--json"))["ops"]
        self.assertEqual(one, [rows["MatMul"]])

    def test_an_unknown_name_is_an_error(self):
        result = ferry("ops", "MatMull")
        self.assertEqual(result.returncode, 1)
        self.assertIn("MatMull", result.stderr)


if __name__ == "__main__":
    unittest.main()
