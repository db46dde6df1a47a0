"""Measure the notebook's speed; `make bench` does all of it, and takes hours on a CPU.

    python -m bench                           all parts, three rounds each
    python -m bench --parts limit start       some of them
    python -m bench --rounds 1

Each part writes its own section of bench/results.md as it goes, and leaves the others as they are,
also those that were measured on another kind of hardware.
"""

import argparse
import importlib
import sys

from bench.report import KINDS, ROOT, kind, put_section

REPORT = ROOT / "bench" / "results.md"
START = (
    "# Measured by `make bench`\n\nOn the pictures in `imgs`, all from the bundled body. Seconds on"
    " a shared machine waver: what is compared ran in turns, and the figures to read are ratios."
    " The sections on float32 are of the body before the present one, of 2 epochs of the head where"
    " there are 3 now, and of fine-tuning at `slice(1e-4, 1e-3)` with the body's batch norms kept"
    " still: their seconds for each picture or epoch hold, but that an epoch of all layers takes"
    " a little longer now; their accuracies do not. *Against the bare arithmetic* on bfloat16 is of"
    " those rates, too; the article's, of today, take just as long."
)
TITLES = {  # in this order in the report
    "peers": "Against what you would otherwise run",
    "limit": "Against the bare arithmetic",
    "seeds": "Whether it costs accuracy",
    "gains": "What each choice brings",
    "growth": "More pictures, more classes",
    "start": "Until something is on the screen",
}


def main(argv=None):
    """Measure, write bench/results.md, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=3, help="how many (3)")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    status = 0
    for part in args.parts:

        def tell(lines, part=part):
            command = f"python -m bench --parts {part} --rounds {args.rounds}"
            titles = [f"{title} ({one})" for title in TITLES.values() for one in KINDS]
            title = f"{TITLES[part]} ({kind()})"
            put_section(REPORT, START, titles, title, lines, command)

        print(f"{TITLES[part]}:", flush=True)
        try:
            importlib.import_module(f"bench.{part}").measure(args.rounds, tell)
        except KeyboardInterrupt:
            print("\nInterrupted. What was measured until here is in bench/results.md.")
            return 130
        except Exception as error:  # the other parts can be measured all the same
            print(f"{part}: {error}", file=sys.stderr, flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
