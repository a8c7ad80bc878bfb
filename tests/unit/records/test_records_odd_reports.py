"""JUnit and Cobertura reports as tools of other locales and terminals write them."""

import pytest

from sandbox.records.reports.coverage import read_cobertura
from sandbox.records.reports.junit import read_junit
from sandbox.records.reports.xml import ReportRefused, number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0,5", 0.5),
        ("0,160", 0.16),
        ("00,160", 0.16),
        ("1,25", 1.25),
        ("12,3456", 12.3456),
        ("1,234", 1234.0),
        ("2,120.532", 2120.532),
        ("1,234,567", 1234567.0),
        ("1.234,5", 1234.5),
        (" 3.25 ", 3.25),
        ("", 0.0),
        (None, 0.0),
        ("-1", 0.0),
        ("nan", 0.0),
        ("1e12", 0.0),
        ("soon", 0.0),
    ],
)
def test_numbers(text: str | None, value: float) -> None:
    assert number(text) == value


COLOURED = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="web"><testsuite name="cart"><testcase classname="cart" name="adds" time="0.4"/>
<testcase classname="cart" name="takes out"><failure message="expected 2">Error: {0}32m2{0}39m\x08, got 3
    at takeOut (src/cart.test.js:14:9)</failure></testcase></testsuite></testsuites>"""


@pytest.mark.parametrize("escape", ["\x1b[", "&#27;[", "&#x1b;[", "&#x001B;["])
def test_colour_codes_are_taken_out_and_counted(escape: str) -> None:
    result = read_junit(COLOURED.format(escape).encode())
    assert (result["total_tests"], result["passed"], result["failed"]) == (2, 1, 1)
    (failed,) = result["failed_tests"]
    assert failed["error"] == "expected 2"
    assert failed["stack_trace"].startswith("Error: 2, got 3")
    assert (failed["file"], failed["line"]) == ("src/cart.test.js", 14)
    assert result["warnings"] == 1
    assert result["warning_details"] == [{"message": "3 control characters were taken out of the report"}]


@pytest.mark.parametrize("content", ["<testsuite>\x1b[0m", "<testsuite>&nothing;</testsuite>"])
def test_what_is_no_xml_without_them_either_is_refused(content: str) -> None:
    with pytest.raises(ReportRefused):
        read_junit(content.encode())


def test_utf16_is_read() -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><testsuite><testcase name="a"/></testsuite>'
    assert read_junit(text.encode("utf-16"))["total_tests"] == 1


def test_an_error_of_a_whole_suite_is_a_failed_test() -> None:
    report = b"""<testsuites><testsuite name="shop.PriceTest" tests="1"><testcase name="adds tax"/></testsuite>
<testsuite name="shop.StockTest" tests="0" errors="1"><error type="SetUpFailed" message="no connection">SetUpFailed
    at StockTest.before (StockTest.java:21)</error></testsuite></testsuites>"""
    result = read_junit(report)
    assert (result["total_tests"], result["passed"], result["failed"]) == (2, 1, 1)
    (failed,) = result["failed_tests"]
    assert (failed["name"], failed["error"], failed["line"]) == ("shop.StockTest", "no connection", 21)


def test_lines_that_ran_more_often_than_32_bits_can_count_are_covered() -> None:
    report = b"""<coverage><packages><package name="a"><classes><class filename="a.py"><lines>
<line number="1" hits="9007199254740993"/><line number="2" hits="0"/></lines></class></classes></package></packages>
</coverage>"""
    (component,) = read_cobertura(report)
    assert (component["lines_covered"], component["lines_total"]) == (1, 2)
