"""Damaged copies of every public slice: one clear error with file and line, or the same requests."""

import json
import re

import numpy as np
import pytest
from workload.test_readers import SLICES

from simslm.errors import ScenarioError
from simslm.workload.readers import read_trace

pytestmark = pytest.mark.parametrize("name", SLICES)
HUGE = b"9" * 30


@pytest.fixture
def lines(name, workloads):
    """The lines of a slice, without their ends; no more than some hundred."""
    return (workloads / name).read_bytes().splitlines()[:300]


def is_json(name):
    return name.endswith(".jsonl")


def middle(lines):
    return len(lines) // 2


def refused(path, format_="auto"):
    """The line that the one clear error of a file names."""
    with pytest.raises(ScenarioError) as caught:
        read_trace(path, format_)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.remedy
    place = re.fullmatch(re.escape(str(path)) + r":(\d+)", caught.value.where)
    assert place, caught.value.where
    return int(place[1])


def written(tmp_path, lines, end=b"\n", last=b"\n"):
    path = tmp_path / "damaged"
    path.write_bytes(end.join(lines) + last)
    return path


def tokens(line, name):
    """Where the prompt's or the output's tokens stand in a line."""
    if is_json(name):
        return re.search(rb'"(?:input_length|input_toks)": ?(\d+)', line).span(1)
    column = {"azure": -1, "burst": -3, "vidur_a": 0, "vidur_s": -1, "splitw": -1}
    index = next(at for start, at in column.items() if name.startswith(start))
    fields = line.split(b",")
    begin = sum(len(field) + 1 for field in fields[: index % len(fields)])
    return begin, begin + len(fields[index])


def with_tokens(line, name, text):
    begin, end = tokens(line, name)
    return line[:begin] + text + line[end:]


def test_a_line_cut_short_is_named(name, lines, tmp_path):
    cut = middle(lines)
    half = lines[cut][: len(lines[cut]) // 2] if is_json(name) else lines[cut].rpartition(b",")[0]
    assert refused(written(tmp_path, [*lines[:cut], half, *lines[cut + 1 :]])) == cut + 1
    assert refused(written(tmp_path, [*lines[:cut], half], last=b"")) == cut + 1


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"1\x002", HUGE, b"-3", b"1e4", b"twelve", b""])
def test_tokens_that_are_none_are_named(name, text, lines, tmp_path):
    at = middle(lines)
    damaged = [*lines[:at], with_tokens(lines[at], name, text), *lines[at + 1 :]]
    assert refused(written(tmp_path, damaged)) == at + 1


def test_a_huge_time_is_named(name, lines, tmp_path):
    if name == "vidur_arxiv_summarization.csv":
        pytest.skip("it has no times")
    at = middle(lines)
    first = re.compile(rb'("(?:timestamp|arrival_time_ns)": ?"?)(\d+)' if is_json(name) else rb"(^)([^,]+)")
    if name.startswith("splitwise"):
        first = re.compile(rb"(^\d+,\d+,\d+,)(\d+)")
    damaged = [*lines[:at], first.sub(rb"\g<1>" + HUGE, lines[at], count=1), *lines[at + 1 :]]
    assert damaged[at] != lines[at]
    assert refused(written(tmp_path, damaged)) == at + 1


def test_a_row_with_one_field_more_is_named(name, lines, tmp_path):
    at = middle(lines)
    more = b"[" + lines[at] + b"]" if is_json(name) else lines[at] + b",7"
    assert refused(written(tmp_path, [*lines[:at], more, *lines[at + 1 :]])) == at + 1


def test_other_columns_are_no_known_format(name, lines, tmp_path):
    if is_json(name):
        odd = [
            json.dumps({f"{key}_x": value for key, value in json.loads(line).items()}).encode()
            for line in lines
        ]
    else:
        odd = [b",".join(field + b"_x" for field in lines[0].split(b",")), *lines[1:]]
    path = written(tmp_path, odd)
    assert refused(path) == 1
    assert refused(path, SLICES[name]) == 1


def test_mixed_line_ends_change_nothing(name, lines, workloads, tmp_path):
    plain, _ = read_trace(written(tmp_path, lines))
    path = tmp_path / "mixed"
    path.write_bytes(b"".join(line + (b"\r\n" if i % 3 else b"\n") for i, line in enumerate(lines)))
    mixed, format_ = read_trace(path)
    assert format_ == SLICES[name]
    for column in ("ticks", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(plain, column), getattr(mixed, column))
    assert plain.dropped == mixed.dropped


def test_an_empty_file_says_so(name, tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    for format_ in ("auto", SLICES[name]):
        with pytest.raises(ScenarioError, match="the file is empty"):
            read_trace(path, format_)


def test_rows_without_tokens_are_dropped_and_counted(name, lines, tmp_path):
    whole, _ = read_trace(written(tmp_path, lines))
    at = middle(lines)
    zero = re.compile(rb'("(?:output_length|output_toks)": ?)\d+') if is_json(name) else None
    damaged = zero.sub(rb"\g<1>0", lines[at]) if zero else with_output(lines[at], name, b"0")
    found, _ = read_trace(written(tmp_path, [*lines[:at], damaged, *lines[at + 1 :]]))
    assert sum(found.dropped.values()) == sum(whole.dropped.values()) + 1
    assert len(found) == len(whole) - 1


def with_output(line, name, text):
    fields = line.split(b",")
    fields[-3 if name.startswith("burst") else 1 if name.startswith("vidur_a") else -1] = text
    return b",".join(fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\x00", b"\x00" * 40, b'"', b"\n,,,,\n", b"\r\r\n\r1", b"{", b"\\"]
)
def test_bytes_anywhere_never_end_in_a_traceback(name, damage, lines, tmp_path):
    content = b"\n".join(lines[:60])
    for cut in (3, len(content) // 3, len(content) // 2, len(content) - 5):
        path = tmp_path / "fuzzed"
        path.write_bytes(content[:cut] + damage + content[cut:])
        assert outcome(path) in (str(path), *range(1, content.count(b"\n") + 4))


def outcome(path):
    """How many requests a file gives, or the file that its one clear error names."""
    try:
        return len(read_trace(path)[0])
    except ScenarioError as error:
        return error.where.partition(":")[0]
