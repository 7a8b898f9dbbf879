"""``scripts/bench``: proxies side by side on this machine, everything on loopback; prints a Markdown table.

In each round every server is started anew, and each scenario visits them in turn, so that whatever else the
machine does hits all alike. The figures are medians over the rounds; compare rows, for the absolute values
belong to the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import lab
import limits
import tables
from scenarios import SCENARIOS, Bench, Figures
from variants import (
    DIRECT,
    EARLIER,
    LITELLM,
    OURS,
    PEERS,
    PROJECT,
    RIVALS,
    Variant,
    earlier,
    launch,
    obstacle,
)

Row = Tuple[str, bool]  # name of the variant, TLS to the provider
Samples = Dict[Row, Dict[str, List[float]]]
TLS_SERVERS = ("rproxy", "naive", EARLIER)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(scenario: str, benches: List[Bench], samples: Samples, seconds: float) -> None:
    """One visit of a scenario to all that take part."""
    run, _, servers, forms, tls = SCENARIOS[scenario]
    for bench in benches:
        secure = bench.provider.ca is not None
        server = bench.variant.like or bench.variant.server or "direct"
        known = server in servers.split() and bench.variant.form in forms.split()
        if not known or secure and not tls:
            continue
        figures: Figures = {}
        try:
            figures = run(bench, seconds)
        except RuntimeError as error:
            bench.errors.append(f"{bench.variant.name}, {scenario}: {error}")
        for name, value in figures.items():
            samples.setdefault((bench.variant.name, secure), {}).setdefault(name, []).append(value)


def play(
    variants: List[Variant],
    providers: List[lab.Provider],
    folder: Path,
    names: List[str],
    smoke: bool,
    samples: Samples,
    errors: List[str],
) -> None:
    """One round."""
    running: Dict[Tuple[str, int], lab.Process] = {}
    benches: List[Bench] = []
    try:
        for provider in providers:
            for variant in variants:
                if provider.ca and variant.server not in TLS_SERVERS:
                    continue
                key = (variant.server, provider.port)
                if variant.server and key not in running:
                    try:
                        process = running[key] = launch(variant, provider, folder)
                    except RuntimeError as error:
                        errors.append(str(error))
                        continue
                    found = samples.setdefault((variant.name, provider.ca is not None), {})
                    found.setdefault("start", []).append(process.started)
                    found.setdefault("rss", []).append(process.rss())
                benches.append(Bench(variant, running[key] if variant.server else provider, provider, errors))
        for bench in benches:
            bench.load(model="bench-n20", workers=4)
        for name in names:
            say("  " + name)
            measure(name, benches, samples, 0.5 if smoke else SCENARIOS[name].seconds)
    finally:
        for process in running.values():
            process.stop()


def medians(samples: Samples, variants: List[Variant]) -> Dict[str, Dict[str, float]]:
    """Variant -> figure -> median over the rounds, in the order of the variants."""
    names = [variant.name for variant in variants]
    ordered = sorted(samples.items(), key=lambda sample: names.index(sample[0][0]))
    return {
        name + ", TLS" if tls else name: {
            figure: statistics.median(values) for figure, values in figures.items()
        }
        for (name, tls), figures in ordered
    }


def choose(args: argparse.Namespace) -> List[Variant]:
    """The variants that can run here."""
    few = args.no_peers or args.smoke
    before = earlier(args.against.resolve()) if args.against else []
    wanted = [DIRECT, *OURS, *before, *RIVALS, *([] if few else PEERS), *([LITELLM] if args.litellm else [])]
    able = []
    for variant in wanted:
        reason = obstacle(variant, install=not few)
        if reason is None:
            able.append(variant)
        else:
            say(f"left out: {variant.name}: {reason}")
    return able


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Compare rproxy with other proxies on this machine."
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="every variant and scenario for a moment: does it work? No time counts",
    )
    parser.add_argument(
        "--limits",
        action="store_true",
        help="instead: many streams, long answers, clients that leave or do not read",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only",
        default="",
        help="scenarios, such as live,burst; default: all ({})".format(",".join(SCENARIOS)),
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="without the packages that pip would have to install"
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="also with the commit that is checked out in DIR"
    )
    parser.add_argument("--litellm", action="store_true", help="with litellm[proxy], which is large")
    parser.add_argument(
        "--readme", action="store_true", help="also put the tables into README.md and docs/performance.md"
    )
    args = parser.parse_args(argv)
    names = [name for name in SCENARIOS if not args.only or name in args.only.split(",")]
    errors: List[str] = []
    with tempfile.TemporaryDirectory(prefix="rproxy-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        providers = [lab.Provider(folder), lab.Provider(folder, lab.make_certificate(folder))]
        try:
            if args.limits:
                return limits.run(providers[0], folder)
            variants = choose(args)
            samples: Samples = {}
            rounds = 1 if args.smoke else args.rounds
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                play(variants, providers, folder, names, args.smoke, samples, errors)
        finally:
            for provider in providers:
                provider.stop()
    for text in sorted(set(errors)):
        say("error: " + text)
    if args.smoke:
        say("every variant works" if not errors else "something does not work")
        return 1 if errors else 0
    peers = [variant.name for variant in [*PEERS, LITELLM] if "Rust" not in variant.name]
    about = {variant.name: variant.about for variant in variants}
    middle = medians(samples, variants)
    found = tables.blocks(middle, peers, about, lab.machine(), rounds)
    print(found["figures"], end="")
    if args.against:
        print("", *tables.comparison(middle, "rproxy", EARLIER), sep="\n")
    if args.readme:
        ours = {name: figures for name, figures in middle.items() if not name.startswith(EARLIER)}
        tables.update_documents(PROJECT, tables.blocks(ours, peers, about, lab.machine(), rounds))
    return 1 if any(error.startswith("rproxy") for error in errors) else 0


if __name__ == "__main__":
    sys.exit(main())
