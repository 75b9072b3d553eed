"""``simslm list``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.units import bytes_

if TYPE_CHECKING:
    from simslm.catalog.architecture import Architecture

HERE = Path("scenarios")

CHECKOUT = Path(__file__).parents[2]
"""The scenarios beside the package, where it was not installed from a wheel."""


def show(what: str, as_json: bool) -> None:
    """Prints one part of the catalogue."""
    parts = {"models": _models, "devices": _devices, "policies": _policies, "transforms": _transforms}
    rows = (parts | {"workloads": _workloads, "scenarios": _scenarios})[what]()
    if as_json:
        screen.show_json(rows)
    elif rows:
        left = [i for i, value in enumerate(rows[0].values()) if isinstance(value, str)]
        screen.show_table(list(rows[0]), [list(row.values()) for row in rows], left=left)
    else:
        screen.note(
            "no scenarios: neither here, below scenarios/, nor beside the installed simslm, which is no checkout; "
            "the README shows how to write one, and `simslm schema` prints what it may hold"
        )


def _models() -> list[dict[str, Any]]:
    from simslm.catalog.models import load_model, model_names

    architectures = [load_model(name) for name in model_names()]
    return [
        {
            "model": model.name,
            "parameters": _parameters(model),
            "layers": model.num_layers,
            "context": model.max_position_embeddings,
            "weights (bf16)": bytes_(model.weight_bytes("bf16")),
            "KV per token (bf16)": bytes_(model.kv_bytes_per_token("bf16")),
        }
        for model in architectures
    ]


def _parameters(model: Architecture) -> str:
    """How many there are, and of a mixture of experts how many a token passes."""
    total, active = (f"{count / 1e9:.3f} B" for count in (model.parameters(), model.active_parameters()))
    return total if model.num_experts == 1 else f"{total}, {active} active"


def _devices() -> list[dict[str, Any]]:
    from simslm.catalog.devices import device_names, load_device

    return [
        {
            "device": device.name,
            "memory": bytes_(device.memory_bytes),
            "bandwidth": f"{device.memory_bandwidth_bytes_per_s / 1e9:,.0f} GB/s",
            "bf16": f"{device.flops_per_s('bf16') / 1e12:,.1f} TFLOP/s",
            "power": f"{device.idle_w:.0f}-{device.max_w:.0f} W",
        }
        for device in map(load_device, device_names())
    ]


def _policies() -> list[dict[str, Any]]:
    import simslm.policies  # noqa: F401  (fills the register)
    from simslm.policies.registry import registered

    return [
        {"kind": entry.kind, "policy": entry.name, "what it does": entry.summary} for entry in registered()
    ]


def _transforms() -> list[dict[str, Any]]:
    import simslm.transforms  # noqa: F401  (fills the register)
    from simslm.transforms.registry import registered, summary

    return [{"transform": key, "what it does": summary(cls)} for key, cls in registered().items()]


def _workloads() -> list[dict[str, Any]]:
    from simslm.catalog.presets import load_preset, preset_names

    return [
        {
            "workload": preset.name,
            "whose requests": preset.what,
            "requests": preset.workload["num_requests"],
            "rate": preset.workload.get("arrivals", {}).get("rate_rps", "none"),
            "from": preset.source.get("cite", preset.source.get("file", "")),
            "licence": preset.source.get("licence", ""),
        }
        for preset in map(load_preset, preset_names())
    ]


def _scenarios() -> list[dict[str, Any]]:
    """Those below ``scenarios/`` here, else those of the checkout that simslm runs from."""
    root = next((root for root in (HERE, CHECKOUT / HERE) if root.is_dir()), HERE)
    return [
        {"scenario": str(path), "what it asks": _first_comment(path)} for path in sorted(root.rglob("*.yaml"))
    ]


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""
