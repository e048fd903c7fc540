"""A process that spends from an account, on many threads, and writes down each call that it really makes.

Arguments: the account, the file of calls, and a JSON object with caps, threads, attempts, seed and pause_seconds.
The file of calls shares nothing with the account: one line for a call, appended at the moment the call would be made.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

from trimtab.decision.llm.prices import Price
from trimtab.errors import CapReached
from trimtab.runtime.budget import Account, Caps

INPUT_USD = Fraction("0.15") / 1_000_000
OUTPUT_USD = Fraction("0.6") / 1_000_000
MOST_INPUT, MOST_OUTPUT = 900, 300


PRICE = Price(0.15, 0.6, "a test")


def spend(account: Account, calls: int, chance: random.Random, attempts: int, pause_seconds: float) -> None:
    for _ in range(attempts):
        try:
            reservation = account.reserve(MOST_INPUT, MOST_OUTPUT)
        except CapReached:
            continue
        # Most calls use less than the most they could; one in four uses all of it.
        used = (MOST_INPUT, MOST_OUTPUT) if chance.random() < 0.25 else (chance.randint(0, 900), chance.randint(0, 300))
        os.write(calls, b"%d %d\n" % used)
        time.sleep(chance.uniform(0.0, pause_seconds))
        fate = chance.random()
        if fate < 0.7:
            account.settle(reservation, *used)
        elif fate < 0.8:  # a server that counts nonsense
            nonsense: Any = chance.choice([-1, True, float("nan")])
            account.settle(reservation, nonsense, -5)
        # else: the call never came back


def main() -> None:
    path, calls_path, told = sys.argv[1:4]
    setup: dict[str, Any] = json.loads(told)
    account = Account(Path(path), Caps(**setup["caps"]), PRICE, busy_seconds=60.0)
    calls = os.open(calls_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(1, b"ready\n")
    seeds = [f"{setup['seed']}/{number}" for number in range(setup["threads"])]
    arguments = [(account, calls, random.Random(seed), setup["attempts"], setup["pause_seconds"]) for seed in seeds]
    threads = [Thread(target=spend, args=one) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
