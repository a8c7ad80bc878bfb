"""Parsing of reports: those that test tools write, and malformed or hostile ones."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sandbox.records.reports.coverage import read_cobertura, read_coverage_json
from sandbox.records.reports.junit import read_junit
from sandbox.records.reports.warnings import warnings_in
from sandbox.records.reports.xml import ReportRefused

#: Made by jest-junit (with the console's output), Vitest and Istanbul; their paths are another machine's.
REPORTS = Path(__file__).parent / "reports"
PYTHON_TESTS = """
import logging, unittest, warnings

import pytest

from shop import stock

def test_passes():
    assert stock.count(1) == 2

def test_warns(capsys):
    with capsys.disabled():
        pass
    print("shop/stock.py:7: DeprecationWarning: count is old")
    logging.getLogger("shop").warning("low on stock")
    for _ in range(2):
        warnings.warn("count is older", DeprecationWarning)

def test_fails():
    assert stock.count(1) == 3, "wrong count"

@pytest.mark.skip
def test_skipped():
    pass

@pytest.fixture
def broken():
    raise RuntimeError("no database")

def test_errors(broken):
    pass
"""
STOCK = """
def count(number):
    if number > 0:
        return number + 1
    return 0

def unused():
    return 1
"""
NODE_TESTS = """
const test = require('node:test');
const assert = require('node:assert');
test('adds', () => assert.strictEqual(1 + 1, 2));
test('fails', () => assert.strictEqual(1 + 1, 3));
test('later', { skip: true }, () => {});
test('some day', { todo: true }, () => assert.fail('not yet'));
test.describe('cart', () => { test('slow', () => new Promise((done) => setTimeout(done, 20))); });
"""
SUREFIRE = b"""<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="com.shop.CartTest" time="1,234.5" tests="3" errors="0" skipped="1" failures="1">
  <properties><property name="java.version" value="21"/></properties>
  <testcase name="adds" classname="com.shop.CartTest" time="0.01"/>
  <testcase name="total" classname="com.shop.CartTest" time="0.02">
    <failure message="expected: 3 but was: 2" type="org.opentest4j.Failed"><![CDATA[org.opentest4j.Failed: expected: 3
\tat com.shop.CartTest.total(CartTest.java:21)
]]></failure>
  </testcase>
  <testcase name="slow" classname="com.shop.CartTest"><skipped/></testcase>
</testsuite>"""
GO = b"""<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1" errors="0" skipped="0" time="0.5">
  <testsuite name="example.com/shop" tests="2" failures="1" timestamp="2026-11-20T10:00:00+01:00" time="0.5">
    <testcase name="TestOk" classname="example.com/shop" time="0.1"></testcase>
    <testcase name="TestSum" classname="example.com/shop" time="0.4">
      <failure message="Failed"><![CDATA[    cart_test.go:17: got 2, want 3]]></failure>
    </testcase>
  </testsuite>
</testsuites>"""


@pytest.fixture(scope="module")
def python_run(tmp_path_factory) -> Path:
    """A real pytest run under coverage, with its reports."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop").mkdir()
    (folder / "shop/__init__.py").write_text("")
    (folder / "shop/stock.py").write_text(STOCK)
    (folder / "test_shop.py").write_text(PYTHON_TESTS)
    run = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        "--branch",
        "--source=shop",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*run, "--junitxml=junit.xml", "-o", "junit_logging=all"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    (folder / "console.log").write_text(done.stdout)
    for report in ("xml", "json"):
        subprocess.run([sys.executable, "-m", "coverage", report, "-q"], cwd=folder, check=True)
    return folder


def test_pytest(python_run):
    result = read_junit((python_run / "junit.xml").read_bytes())
    assert {name: result[name] for name in ("status", "total_tests", "passed", "failed", "skipped", "warnings")} == {
        "status": "completed",
        "total_tests": 5,
        "passed": 2,
        "failed": 2,
        "skipped": 1,
        "warnings": 2,
    }
    fails, errors = result["failed_tests"]
    assert fails["name"] == "test_fails"
    assert fails["error"].startswith("AssertionError: wrong count")
    assert (fails["file"], fails["line"]) == ("test_shop.py", 20)
    assert "stock.count(1) == 3" in fails["stack_trace"]
    assert (errors["name"], "no database" in errors["error"]) == ("test_errors", True)
    assert result["warning_details"] == PRINTED
    assert result["execution_time"] > 0
    assert abs(datetime.now(UTC) - result["timestamp"]) < timedelta(days=1)


PRINTED = [
    {"message": "low on stock", "file": "test_shop.py", "line": 15},
    {"message": "DeprecationWarning: count is old", "file": "shop/stock.py", "line": 7},
]


def test_warnings_of_pytest_are_found_in_its_output(python_run):
    report, console = ((python_run / name).read_bytes() for name in ("junit.xml", "console.log"))
    result = read_junit(report, console)
    (own, *printed) = result["warning_details"]
    assert own["message"] == "DeprecationWarning: count is older"
    assert (Path(own["file"]).name, own["line"]) == ("test_shop.py", 17)
    assert printed == PRINTED
    assert result["warnings"] == 4  # one of them is printed once and counted twice
    assert "warnings summary" in result["test_output"]


@pytest.mark.parametrize("name", ["shop.test.js", "shop.test.mjs"])
def test_node(tmp_path, name):
    imports = re.sub(r"const (\w+) = require\(('.*?')\)", r"import \1 from \2", NODE_TESTS)
    (tmp_path / name).write_text(imports if name.endswith(".mjs") else NODE_TESTS)
    done = subprocess.run(
        ["node", "--test", "--test-reporter=junit", name], cwd=tmp_path, capture_output=True, check=False
    )
    result = read_junit(done.stdout)
    assert (result["total_tests"], result["passed"], result["failed"], result["skipped"]) == (5, 2, 1, 2)
    (failed,) = result["failed_tests"]
    assert failed["name"] == "fails"
    assert (failed["file"], failed["line"]) == (str(tmp_path / name), 5)
    # The duration includes tests within suites and tests outside of them.
    cases = [float(case.attrib["time"]) for case in ElementTree.fromstring(done.stdout).findall("testcase")]
    assert result["execution_time"] > sum(cases) + 0.01


def test_jest():
    result = read_junit((REPORTS / "jest.xml").read_bytes())
    assert (result["failed"], result["skipped"], result["execution_time"] > 0) == (2, 1, True)
    fails, throws = result["failed_tests"]
    assert (fails["name"], fails["file"], fails["line"]) == ("shop fails", "/builds/shop/jest/shop.test.js", 5)
    assert throws["error"] == "Error: boom"
    (warning,) = result["warning_details"]
    assert warning == {"message": "old() is deprecated", "file": "/builds/shop/jest/shop.js", "line": 2}


def test_vitest():
    result = read_junit((REPORTS / "vitest.xml").read_bytes())
    assert (result["total_tests"], result["passed"], result["failed"], result["skipped"]) == (5, 2, 1, 2)
    assert (result["failed_tests"][0]["file"], result["failed_tests"][0]["line"]) == ("shop.test.mjs", 5)
    assert "old() is deprecated" in result["test_output"]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("(node:47) [DEP0005] DeprecationWarning: Buffer()", {"message": "[DEP0005] DeprecationWarning: Buffer()"}),
        ("WARNING  shop:cart.py:17 low", {"message": "low", "file": "cart.py", "line": 17}),
        ("[WARNING] /src/Cart.java:[21,5] old", {"message": "old", "file": "/src/Cart.java", "line": 21}),
        ("12:00:01.123 [main] WARN  shop.Cart - low", {"message": "shop.Cart - low"}),
        ("2026-11-20T10:00:00.1Z  WARN 1 --- [main] Cart : low", {"message": "1 --- [main] Cart : low"}),
        ("[WARNING] low", {"message": "low"}),
        ("WARNING: low", {"message": "low"}),
        ("a warning from me", None),
        ("no warnings", None),
        ("3 warnings", None),
    ],
)
def test_warnings_in_output(line, detail):
    assert warnings_in(f"before\n{line}\nafter")[0] == ([detail] if detail else [])


@pytest.mark.parametrize(
    ("end", "count"),
    [
        ("=== 1 failed, 2 passed, 3 warnings in 0.12s ===", 3),
        ("8 failed, 5 passed, 1 skipped, 1 warning, 3 errors, 1 subtests passed in 0.14s", 1),
        ("2 passed in 0.1s", 0),
    ],
)
def test_pytest_counts_its_warnings(end, count):
    assert warnings_in(end) == ([], count)


def test_maven():
    result = read_junit(SUREFIRE)
    assert (result["total_tests"], result["passed"], result["failed"], result["skipped"]) == (3, 1, 1, 1)
    assert result["execution_time"] == 1234.5
    (failed,) = result["failed_tests"]
    assert (failed["name"], failed["error"]) == ("total", "expected: 3 but was: 2")
    assert (failed["file"], failed["line"]) == ("CartTest.java", 21)


def test_go():
    result = read_junit(GO)
    assert (result["total_tests"], result["failed"], result["execution_time"]) == (2, 1, 0.5)
    assert result["timestamp"] == datetime(2026, 11, 20, 9, tzinfo=UTC)
    (failed,) = result["failed_tests"]
    assert (failed["file"], failed["line"], failed["error"]) == ("cart_test.go", 17, "cart_test.go:17: got 2, want 3")


def test_coverage_of_both_formats_agrees(python_run):
    (cobertura,) = read_cobertura((python_run / "coverage.xml").read_bytes())
    (own,) = read_coverage_json((python_run / "coverage.json").read_bytes())
    for row in (cobertura, own):
        assert (row["lines_covered"], row["lines_total"], row["coverage_percent"]) == (4, 6, 66.67)
        assert (row["branches_covered"], row["branches_total"]) == (1, 2)
    assert own["component"] == cobertura["component"] == "shop"
    assert cobertura["metadata"]["format"] == "cobertura"


def test_istanbul():
    (row,) = read_cobertura((REPORTS / "istanbul-cobertura.xml").read_bytes())
    assert (row["component"], row["lines_covered"], row["lines_total"]) == ("main", 3, 3)
    assert (row["branches_covered"], row["branches_total"]) == (1, 2)


def test_cobertura_with_a_doctype_and_two_packages():
    def package(name, hits):
        lines = "".join(f'<line number="{number}" hits="{hit}"/>' for number, hit in enumerate(hits))
        return (
            f'<package name="{name}" complexity="3.2"><classes><class filename="{name}/a.js"><methods><method><lines>'
            f"{lines}</lines></method></methods><lines>{lines}</lines></class></classes></package>"
        )

    report = (
        '<?xml version="1.0" ?><!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">'
        f'<coverage line-rate="0.1"><packages>{package("src", [1, 0, 2, 0])}{package("lib", [1])}'
        '<package name="empty"><classes/></package></packages></coverage>'
    )
    src, lib = read_cobertura(report.encode())
    assert (src["component"], src["coverage_percent"], src["lines_total"], src["branches_total"]) == (
        "src",
        50,
        4,
        None,
    )
    assert (lib["component"], lib["coverage_percent"]) == ("lib", 100)
    assert src["metadata"]["complexity_avg"] == 3.2


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>'
FILE = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&f;"/></testsuite>'


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("1\u202f234,5", 1234.5), ("1 234,5", 1234.5), ("12.5s", 12.5), ("250 ms", 0.25), ("s", 0.0), ("ms", 0.0)],
)
def test_thousands_apart_and_units(time: str, seconds: float) -> None:
    report = f'<testsuite time="{time}"><testcase name="a"/></testsuite>'
    assert read_junit(report.encode())["execution_time"] == pytest.approx(seconds)


def test_an_error_beside_all_suites_is_a_failed_test() -> None:
    report = (
        b'<testsuites name="shop"><error message="no set-up"/><testsuite><testcase name="a"/></testsuite></testsuites>'
    )
    result = read_junit(report)
    assert (result["total_tests"], result["passed"], result["failed"]) == (2, 1, 1)
    assert result["failed_tests"] == [{"name": "shop", "error": "no set-up"}]


def test_the_numbers_of_a_suite_that_lists_no_tests_count() -> None:
    report = b'<testsuites tests="9"><testsuite name="a" tests="5" failures="2" errors="1" skipped="1"/></testsuites>'
    result = read_junit(report)
    assert [result[name] for name in ("total_tests", "passed", "failed", "skipped")] == [5, 1, 3, 1]
    assert result["failed_tests"] == [{"name": "a", "error": "3 of 5 tests failed; the report does not name them"}]
    many = read_junit(b"<testsuites>" + b'<testsuite tests="1000000"/>' * 2_200 + b"</testsuites>")
    assert many["total_tests"] == 10**9
    absurd = read_junit(b'<testsuite tests="5000000000" failures="-1" errors="x"/>')
    assert (absurd["total_tests"], absurd["failed"]) == (0, 0)


@pytest.mark.parametrize("content", [b"", b"<testsuite", b"<html/>", b"\xff\xfe\x00", BOMB, FILE])
def test_hostile_and_broken_xml_is_refused(content):
    for read in (read_junit, read_cobertura):
        with pytest.raises(ReportRefused):
            read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": {"a": {}}}',
        b'{"files": {}}',
        b"[" * 200_000,
        b'{"files": {"a": {"summary": {"covered_lines": -1, "num_statements": 1}}}}',
        b'{"files": {"a": {"summary": {"covered_lines": 2, "num_statements": 1}}}}',
    ],
)
def test_broken_coverage_json_is_refused(content):
    with pytest.raises(ReportRefused):
        read_coverage_json(content)


def test_absurd_numbers_are_ignored():
    result = read_junit(
        b'<testsuites><testsuite time="NaN" timestamp="9999-12-31T23:59:59-12:00"><testcase line="x"><failure/>'
        b"</testcase></testsuite></testsuites>"
    )
    assert (result["execution_time"], result["failed"]) == (0, 1)
    assert result["failed_tests"] == [{"name": "unnamed", "error": "failure"}]
    assert result["timestamp"] <= datetime.now(UTC)


def test_a_run_with_many_failures_is_bounded():
    case = b'<testcase name="a"><failure message="m">' + b"t.py:1: no\n" * 2_000 + b"</failure></testcase>"
    result = read_junit(b"<testsuite>" + case * 1_500 + b"</testsuite>")
    assert (result["failed"], len(result["failed_tests"])) == (1_500, 1_000)
    assert len(json.dumps(result["failed_tests"])) < 500_000
    assert "stack_trace" in result["failed_tests"][0]
    assert result["failed_tests"][-1] == {"name": "a", "error": "m", "file": "t.py", "line": 1}


def test_a_start_time_in_the_future_is_ignored():
    local = (datetime.now(UTC) + timedelta(hours=10)).strftime("%Y-%m-%dT%H:%M:%S")  # a local time without its zone
    result = read_junit(f'<testsuite timestamp="{local}"><testcase name="a"/></testsuite>'.encode())
    assert result["timestamp"] <= datetime.now(UTC)
