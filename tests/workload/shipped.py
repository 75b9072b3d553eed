"""The presets of the catalogue, fitted to slices of public traces: what each is, and the program that makes them.

``PYTHONPATH=tests python -m workload.shipped DIR`` writes them anew from the slices in ``DIR``, which do not ship.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from simslm.catalog.files import CATALOGUE
from simslm.catalog.presets import KIND

AZURE = {
    "url": "https://github.com/Azure/AzurePublicDataset",
    "licence": "CC-BY-4.0",
    "cite": "Patel et al., Splitwise, ISCA 2024",
}
MOONCAKE = {
    "url": "https://github.com/kvcache-ai/Mooncake",
    "licence": "Apache-2.0",
    "cite": "Qin et al., Mooncake, FAST 2025",
}


@dataclass(frozen=True)
class Shipped:
    """A preset of the catalogue: the slice it is fitted to, what it is, and where the slice is from."""

    slice: str
    what: str
    source: dict[str, str]


PRESETS = {
    "azure-2023-conv": Shipped(
        "azure2023_conv.csv",
        "Conversations of a production LLM service, half an hour of November 2023",
        AZURE | {"origin": "data/AzureLLMInferenceTrace_conv.csv, the first 9754 of 19366 rows"},
    ),
    "azure-2023-code": Shipped(
        "azure2023_code.csv",
        "Code completion of a production LLM service, half an hour of November 2023",
        AZURE | {"origin": "data/AzureLLMInferenceTrace_code.csv, the first 5100 of 8819 rows"},
    ),
    "burstgpt-1": Shipped(
        "burstgpt1.csv",
        "ChatGPT and GPT-4 on a campus, nine hours; few requests",
        {
            "url": "https://github.com/HPMLL/BurstGPT",
            "licence": "CC-BY-4.0",
            "cite": "Wang et al., BurstGPT, arXiv:2401.17644",
            "origin": "data/BurstGPT_1.csv, the first 203 rows",
        },
    ),
    "mooncake-conversation": Shipped(
        "mooncake_conversation.jsonl",
        "Long-context conversations of Kimi, a quarter of an hour; prefixes are not fitted",
        MOONCAKE | {"origin": "FAST25-release/traces/conversation_trace.jsonl, the first 2500 of 12031 rows"},
    ),
    "mooncake-synthetic": Shipped(
        "mooncake_synthetic.jsonl",
        "Mooncake's mix of public data sets with Poisson arrivals; prefixes are not fitted",
        MOONCAKE | {"origin": "FAST25-release/traces/synthetic_trace.jsonl, the first 2000 of 3993 rows"},
    ),
    "ragpulse": Shipped(
        "ragpulse_trace.jsonl",
        "A campus assistant with retrieval, a week; sessions are not fitted",
        {
            "url": "https://github.com/flashserve/RAGPulse",
            "licence": "MIT",
            "cite": "RAGPulse, 2025",
            "origin": "data/0_trace.jsonl, rows 2500 to 5499",
        },
    ),
    "arxiv-summarization": Shipped(
        "vidur_arxiv_summarization.csv",
        "Summaries of papers: lengths alone, arrivals are the scenario's own",
        {
            "url": "https://github.com/microsoft/vidur",
            "licence": "MIT",
            "cite": "Agrawal et al., Vidur, MLSys 2024",
            "origin": "data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv, the first "
            "10000 of 28257 rows",
        },
    ),
}


def place(name: str) -> Path:
    """The file of a preset."""
    return CATALOGUE / KIND / f"{name}.yaml"


def arguments(name: str, slices: Path) -> list[str]:
    """Those of the command that makes a preset, but for ``-o``."""
    shipped = PRESETS[name]
    said = [f"{key}={value}" for key, value in shipped.source.items()]
    options = [word for text in said for word in ("--source", text)]
    return ["workload", "fit", str(slices / shipped.slice), "--what", shipped.what, *options]


def main() -> None:
    from simslm.cli import main as simslm

    slices = Path(sys.argv[1])
    for name in PRESETS:
        sys.argv = ["simslm", *arguments(name, slices), "-o", str(place(name))]
        try:
            simslm()
        except SystemExit as ended:
            if ended.code:
                raise
        place(name).with_suffix(".html").unlink()


if __name__ == "__main__":
    main()
