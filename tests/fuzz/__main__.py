"""``scripts/fuzz``: mutated input for every parser, and mutated requests for a running rproxy.

Every round is drawn from ``SEED/NAME/NUMBER``, so ``--seed SEED --only NAME --round NUMBER`` plays it again.
What fails is made smaller and kept in ``tests/corpus/NAME``: ``test_corpus.py`` plays it for ever after, and
new mutations start from it.

Exit status 0: nothing failed; 1: something did.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, List, Optional

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from mutate import mutated, mutated_json, smaller  # noqa: E402
from targets import CORPUS, TARGETS, Target, seeds  # noqa: E402
from whole_requests import NAME, play  # noqa: E402

CPU = 20.0  # seconds of processor time that one input may take
SHARE = 0.4  # of the time, for these


class Endless(BaseException):
    """An input that takes too long; nothing that is fuzzed may catch it."""


def out_of_time(*_: Any) -> None:
    raise Endless(f"it takes more than {CPU:g} s of processor time")


def draw(name: str, target: Target, seed: str, number: int) -> bytes:
    """The input of one round."""
    rng = random.Random(f"{seed}/{name}/{number}")
    good = seeds(name)
    data = rng.choice(good)
    if target.json and rng.random() < 0.5:
        try:
            value, other = json.loads(data), json.loads(rng.choice(good))
        except ValueError:
            pass
        else:
            return json.dumps(mutated_json(rng, value, [other, value])).encode()
    return mutated(rng, data, good)


def problem(target: Target, data: bytes) -> Optional[str]:
    """What is wrong, None if nothing is."""
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU)
    try:
        target.run(data)
    except (Exception, Endless) as error:
        return f"{type(error).__name__}: {str(error)[:600]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def fails_alike(target: Target, found: str, data: bytes) -> bool:
    """Is there the same kind of error?"""
    return (problem(target, data) or "").partition(":")[0] == found.partition(":")[0]


def keep(name: str, data: bytes) -> Path:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def fuzz(name: str, seed: str, seconds: float, only_round: Optional[int]) -> bool:
    """Play rounds of one target, up to its first failure. :returns: was there none?"""
    target, began, number = TARGETS[name], time.monotonic(), only_round or 0
    while True:
        data = draw(name, target, seed, number)
        found = problem(target, data)
        if found is not None:
            least = smaller(data, partial(fails_alike, target, found))
            print(f"WRONG {name}: --seed {seed} --only {name} --round {number}\n  {found}")
            print(
                f"  kept as {keep(name, least).relative_to(CORPUS.parent.parent)}: {least[:300]!r}",
                flush=True,
            )
            return False
        number += 1
        if only_round is not None or time.monotonic() - began > seconds:
            print(f"{name}: {number - (only_round or 0)} rounds", flush=True)
            return True


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Mutated input for every parser.")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long, in all (default: 180)")
    parser.add_argument("--seed", help="play the same rounds again")
    parser.add_argument("--only", default="", help="a regular expression for the names of what is fuzzed")
    parser.add_argument("--round", type=int, help="only this one")
    args = parser.parse_args(argv)
    seed = args.seed or str(random.SystemRandom().randrange(1 << 32))
    names = [name for name in TARGETS if re.search(args.only, name)]
    sockets = re.search(args.only, NAME) is not None
    print(f"--seed {seed}; {', '.join(names + [NAME] * sockets)}", flush=True)
    signal.signal(signal.SIGVTALRM, out_of_time)
    share = args.seconds * (1 - SHARE * sockets) / max(1, len(names))
    good = [fuzz(name, seed, share, args.round) for name in names]
    if sockets:
        with tempfile.TemporaryDirectory(prefix="rproxy-fuzz-") as folder:
            seconds = args.seconds * (SHARE if names else 1)
            good.append(asyncio.run(play(seed, seconds, args.round, Path(folder))))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
