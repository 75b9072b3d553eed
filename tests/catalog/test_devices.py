"""Devices of the catalogue, and inline ones."""

import pytest

from simslm.catalog.devices import device_from_mapping, device_names, load_device
from simslm.errors import ScenarioError, UsageError

CONTRACT_DEVICES = [
    "h200",
    "h100-80gb",
    "h100-64gb",
    "a100-40gb",
    "a100-80gb",
    "l40s",
    "l4",
    "a10g",
    "rtx-a6000",
    "rtx-4090",
    "cpu",
]


def test_the_catalogue_holds_the_contract_s_devices():
    assert device_names() == sorted(CONTRACT_DEVICES)


@pytest.mark.parametrize("name", CONTRACT_DEVICES)
def test_every_figure_is_plausible_and_has_a_source(name):
    device = load_device(name)
    figures = set(vars(device)) - {"name", "sources"}
    assert set(device.sources) == figures
    assert all(device.sources.values())
    assert 0 < device.idle_w < device.max_w <= 700
    assert 16 * 2**30 < device.memory_bytes < 151e9
    assert 1e11 <= device.memory_bandwidth_bytes_per_s <= 4.8e12
    assert {"fp32", "bf16", "fp16", "int8"} <= set(device.compute_flops)
    assert device.compute_flops["fp32"] <= device.compute_flops["bf16"] <= device.compute_flops["int8"]
    assert device.host_link_bytes_per_s <= device.memory_bandwidth_bytes_per_s


def test_figures_of_the_paper_s_board_and_of_a_datasheet():
    assert load_device("h100-64gb").memory_bytes == pytest.approx(63.4 * 2**30)
    h100 = load_device("h100-80gb")
    assert (h100.memory_bandwidth_bytes_per_s, h100.sm_count, h100.max_w) == (3.35e12, 132, 700)
    assert h100.flops_per_s("bf16") == pytest.approx(989.4e12)


def test_idle_power_says_that_it_is_no_datasheet_figure():
    for name in CONTRACT_DEVICES:
        source = load_device(name).sources["idle_w"]
        assert "not from a datasheet" in source or "assumed" in source or "published raw results" in source


def test_a_type_without_units_runs_on_wider_ones():
    a100 = load_device("a100-80gb")
    assert "fp8" not in a100.compute_flops
    assert a100.flops_per_s("fp8") == a100.flops_per_s("bf16") == 312e12
    with pytest.raises(UsageError, match="no arithmetic peak for dtype 'fp64'"):
        a100.flops_per_s("fp64")


def test_an_inline_device_may_change_a_catalogue_one():
    device = device_from_mapping({"like": "cpu", "sm_count": 4, "compute_flops": {"fp32": 1e11}})
    generic = load_device("cpu")
    assert device.name == "cpu (changed)"
    assert (device.sm_count, device.flops_per_s("fp32")) == (4, 1e11)
    assert device.flops_per_s("int8") == generic.flops_per_s("int8")
    assert device.memory_bytes == generic.memory_bytes
    assert device.sources["sm_count"] == "the scenario"


def test_an_inline_device_may_stand_alone_and_is_hashable():
    spec = {
        "name": "mine",
        "memory_bytes": 8 * 2**30,
        "memory_bandwidth_bytes_per_s": 1e11,
        "compute_flops": {"bf16": 1e13},
        "idle_w": 0,
        "max_w": 60,
        "sm_count": 20,
        "sm_clock_mhz": 1500,
        "host_link_bytes_per_s": 1.6e10,
        "peer_link_bytes_per_s": 1.6e10,
    }
    device = device_from_mapping(spec)
    assert device.name == "mine"
    assert hash(device) == hash(device_from_mapping(spec))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"like": "h200", "memory": 1}, "unknown key 'memory'"),
        ({"like": "h200", "max_w": -1}, "device.max_w: expected a positive number, found -1"),
        ({"like": "h200", "max_w": float("nan")}, "device.max_w: expected a positive number"),
        ({"like": "h200", "sm_count": True}, "device.sm_count: expected a positive number, found True"),
        ({"like": "h200", "compute_flops": 3}, "compute_flops: expected FLOP/s by data type"),
        ({"like": "h200", "compute_flops": {"bf16": "x"}}, "compute_flops.bf16: expected a positive number"),
        ({"name": "x"}, "is missing; add it, or `like:"),
    ],
)
def test_a_wrong_inline_device_is_one_clear_error(mapping, message):
    with pytest.raises(ScenarioError, match=message):
        device_from_mapping(mapping)


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'h100-80gb'"):
        load_device("H100-80G")
    with pytest.raises(UsageError, match="did you mean 'rtx-4090'"):
        device_from_mapping({"like": "rtx4090"})
