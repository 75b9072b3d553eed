"""The price table: every entry is a device with a date and a source; wrong tables are refused with their file."""

from __future__ import annotations

import re

import pytest

from simslm.catalog.devices import device_names
from simslm.catalog.files import read_mapping
from simslm.catalog.prices import TABLE, device_price
from simslm.errors import ScenarioError


@pytest.mark.parametrize("device", read_mapping(TABLE))
def test_every_price_has_a_device_a_date_and_a_source(device):
    assert device in device_names()
    price = device_price(device)
    assert price is not None
    assert price.usd_per_device_hour > 0
    assert re.fullmatch(r"20\d\d-\d\d", price.date)
    assert "listed by" in price.source


def test_a_device_that_nobody_rents_has_none():
    assert device_price("cpu") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("h200: 3", "h200: expected a mapping"),
        ("h200: {usd_per_hour: 3}", r"h200: unknown key 'usd_per_hour' \(did you mean 'usd_per_device_hour'\?\)"),
        ("h200: {usd_per_device_hour: cheap}", "h200.usd_per_device_hour: expected a number from 0 on, found 'cheap'"),
        ("h200: {usd_per_device_hour: -1}", "found -1"),
        ("h200: {usd_per_device_hour: .nan}", "found nan"),
        ("h200: {source: me}", "found None"),
        ("[1]", "expected a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(tmp_path, text, words):
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=words) as caught:
        device_price("h200", path)
    assert "prices.yaml" in str(caught.value)
