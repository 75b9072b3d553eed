"""The example pages of ``reports/`` and the pictures of the README, made by ``make reports``.

A page of each kind, each by the command that the table in ``reports/README.md`` names; the same inputs give the same
bytes. The pages are not kept in the repository, the pictures are. The page of predictions against measured runs needs
those runs, which do not ship, and the pictures need Chromium: where either is missing, what is there already stays.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cli.transcript import furnish
from playwright.sync_api import sync_playwright
from support.browser import CHROMIUM, DRAWN, FLAGS

ROOT = Path(__file__).parents[2]
SIMSLM = (sys.executable, "-c", "from simslm.cli import main; main()")
SIZE = {"width": 1280, "height": 1000}
MOST_BYTES = 200_000
"""Of a picture."""


@dataclass(frozen=True)
class Example:
    """One page.

    Attributes:
        name: of the file in ``reports/``.
        shows: what is on it.
        commands: typed one after another where ``scenarios`` and ``traces`` are, and the study's runs in ``measured``.
        made: the page that they leave.
        picture: whether the README shows it.
    """

    name: str
    shows: str
    commands: tuple[str, ...]
    made: str
    picture: bool = False


EXAMPLES = (
    Example(
        "run",
        "one run: OPT-2.7B on an H100 at 50 requests/s, batch limit 64",
        (
            "init chat.yaml --model opt-2.7b --device h100-64gb --arrivals poisson:50 --name chat",
            "simulate chat.yaml --set deployment.engine.max_num_seqs=64 --set workload.num_requests=600 -o run",
        ),
        "run/report.html",
        picture=True,
    ),
    Example(
        "search",
        "a search: replicas and batch limits of OPT-2.7B on an H100, for throughput, latency and energy",
        ("search scenarios/search.yaml -o search",),
        "search/report.html",
        picture=True,
    ),
    Example(
        "comparison",
        "two runs on the same requests: batch limit 64 against 256",
        (
            "init chat.yaml --model opt-2.7b --device h100-64gb --arrivals poisson:50 --name chat --force",
            "simulate chat.yaml --set deployment.engine.max_num_seqs=64 -o max_num_seqs-64",
            "simulate chat.yaml --set deployment.engine.max_num_seqs=256 -o max_num_seqs-256",
            "compare max_num_seqs-64 max_num_seqs-256 -o comparison.html",
        ),
        "comparison.html",
    ),
    Example(
        "profile",
        "a trace: OPT-125M as measured on a CPU",
        ("report traces/cpu/opt-125m-bf16 -o profile.html",),
        "profile.html",
    ),
    Example(
        "fidelity",
        "predictions against measured runs of OPT-2.7B under vLLM 0.6.3 on an H100, six of which it was calibrated on",
        (
            "validate recorded measured/runs.csv --trace traces/h100-64gb/opt-2.7b-fp16 -o fidelity "
            "--where \"model == 'opt-2.7b' and sm_clock_mhz == 1980 and workload == 'fixed' and replicas == 1\"",
        ),
        "fidelity/report.html",
    ),
)


def make(example: Example, place: Path, target: Path) -> Path | None:
    """The page of an example, or None where it needs measured runs and there are none."""
    if example.name == "fidelity" and not (place / "measured").exists():
        sys.stderr.write("fidelity: stays as it is: there are no measured runs\n")
        return None
    for command in example.commands:
        subprocess.run((*SIMSLM, *shlex.split(command)), cwd=place, check=True, stdout=subprocess.DEVNULL)
    page = target / f"{example.name}.html"
    shutil.copyfile(place / example.made, page)
    return page


def photograph(pages: list[Path]) -> None:
    """A picture of the top of each page, beside it."""
    if CHROMIUM is None:
        sys.stderr.write("the pictures stay as they are: no Chromium on the PATH\n")
        return
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for page in pages:
            tab = chromium.new_page(viewport=SIZE, color_scheme="light")
            tab.goto(page.resolve().as_uri())
            tab.wait_for_function(DRAWN)
            tab.wait_for_function(
                "!document.getElementById('explorer') || document.documentElement.dataset.explored"
            )
            picture = page.with_suffix(".png")
            tab.screenshot(path=picture)
            assert picture.stat().st_size < MOST_BYTES, f"{picture} is larger than {MOST_BYTES:,} bytes"
        chromium.close()


def index() -> str:
    """``reports/README.md``: what is there, and the commands that make it."""
    rows = [
        f"| `{example.name}.html` | {example.shows} | "
        + "<br>".join(f"`simslm {command}`" for command in example.commands)
        + " |"
        for example in EXAMPLES
    ]
    return "\n".join(
        [
            "# Examples and claims",
            "",
            "`make reports` writes a page of each kind here; open them in a browser, they load nothing from anywhere.",
            "They are not kept in the repository, only the two pictures of the README are. `measured/runs.csv` is the",
            "table of a study's measured runs, which do not ship.",
            "",
            "| page | shows | made by |",
            "|---|---|---|",
            *rows,
            "",
            "What is claimed: [fidelity.md](fidelity.md) (`make fidelity`), [paper.md](paper.md) (`make paper`),",
            "[systems.md](systems.md) (`make systems`), [intervals.md](intervals.md) (`make intervals`),",
            "[benchmark.md](benchmark.md) (`make bench`).",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="directory of the study's runs.csv")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports")
    parser.add_argument("--only", choices=[example.name for example in EXAMPLES], action="append")
    options = parser.parse_args()
    photographed = []
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        if options.runs.is_dir():
            (Path(folder) / "measured").symlink_to(options.runs.resolve())
        for example in EXAMPLES:
            if options.only and example.name not in options.only:
                continue
            page = make(example, Path(folder), options.output)
            if page is not None and example.picture:
                photographed.append(page)
    photograph(photographed)
    (options.output / "README.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
