"""Counts single test cases in what `bazel test` and Python's unittest report."""

import dataclasses
import json
import re
import urllib.parse
import urllib.request
import xml.etree.ElementTree


@dataclasses.dataclass
class Counts:
    """How many test cases passed, failed and were skipped, and the names of those that failed."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        return self

    def fail(self, name):
        self.failed += 1
        self.failures.append(name)

    def __str__(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def _count_xml(path, label):
    counts = Counts()
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts.fail(f"{label} {case.get('classname', '')}.{case.get('name')}")
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            counts.skipped += 1
        elif case.get("status") != "notrun":
            counts.passed += 1
    return counts


def count_bazel(events_path, left_out=()):
    """Counts from a --build_event_json_file. A test target that wasn't built counts as failed, unless
    it has one of the tags in `left_out`, those that the filter left out."""
    expected, statuses, reports = set(), {}, {}
    with open(events_path, encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            key = event["id"]
            if "targetConfigured" in key:
                configured = event.get("configured", {})
                if (configured.get("targetKind", "").endswith("_test rule") and
                        not set(left_out) & set(configured.get("tag", []))):
                    expected.add(key["targetConfigured"]["label"])
            elif "targetCompleted" in key:
                # Incompatible with this build, such as CUDA's tests without a toolkit.
                if event.get("aborted", {}).get("reason") == "SKIPPED":
                    statuses[key["targetCompleted"]["label"]] = "SKIPPED"
            elif "testSummary" in key:
                label = key["testSummary"]["label"]
                statuses[label] = event["testSummary"]["overallStatus"]
            elif "testResult" in key:
                for output in event["testResult"].get("testActionOutput", []):
                    if output["name"] == "test.xml":
                        result = key["testResult"]
                        run = (result.get("shard", 1), result.get("run", 1))
                        path = urllib.request.url2pathname(
                            urllib.parse.urlparse(output["uri"]).path)
                        reports.setdefault(result["label"], {})[run] = path

    total = Counts()
    for label in sorted(expected | statuses.keys()):
        status = statuses.get(label, "NOT BUILT")
        if status == "SKIPPED":
            total.skipped += 1
            continue
        counts = Counts()
        for path in reports.get(label, {}).values():
            try:
                counts += _count_xml(path, label)
            except (OSError, xml.etree.ElementTree.ParseError):
                counts.fail(f"{label} left no readable report")
        if status not in ("PASSED", "FLAKY") and not counts.failed:
            counts.fail(f"{label} {status}")
        total += counts
    return total


def count_unittest(output, status, label):
    """Counts from what one `python -m unittest` printed and its exit status."""
    counts = Counts()
    ran = re.search(r"^Ran (\d+) tests? in .*", output, re.MULTILINE | re.DOTALL)
    if not ran:
        counts.fail(f"{label} ended early with status {status}")
        return counts
    skipped = re.search(r"^(?:OK|FAILED) \(.*skipped=(\d+)", ran.group(), re.MULTILINE)
    counts.skipped = int(skipped.group(1)) if skipped else 0
    # A test may fail more than once: in several subtests, and in its cleanup.
    failures = re.findall(
        r"^(?:FAIL|ERROR|UNEXPECTED SUCCESS): (\S+ \([^)]*\))", output, re.MULTILINE)
    for failure in sorted(set(failures)):
        counts.fail(f"{label} {failure}")
    # setUpClass and the like are no tests, but may fail.
    bad = sum(not re.search(" (setUp|tearDown)(Class|Module) ", name) for name in counts.failures)
    counts.passed = int(ran.group(1)) - bad - counts.skipped
    if not counts.failed and (status or not int(ran.group(1))):
        counts.fail(f"{label} ran {ran.group(1)} tests and ended with status {status}")
    return counts
