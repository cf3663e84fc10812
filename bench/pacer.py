# A process on the load core that asks several servers in turn at a low, fixed rate, and says how long each answer took.
"""One JSON line in, one out: {"ports": [P, …], "each": N, "rate": R} → {"seconds": [[…], …]}.

`rate` is requests a second to each server, `each` how many each is asked. One TLS connection to each is kept; requests are
due at fixed times, at one server after the other, in another order every round, and are asked when they are due whether or
not anything was slow before (one at a time: what is late begins as soon as it can, and is timed from when it was sent).
The first `SKIPPED` of each are not counted.
"""

from __future__ import annotations

import json
import random
import sys
import time

from bench.holder import QUESTION, Holder, Wrong, read_answer

SKIPPED = 20


def pace(ports: list[int], each: int, rate: float) -> list[list[float]]:
    """Seconds from sending a request to the end of its answer, by server.

    Raises: OSError, Wrong (an answer that is no 200).
    """
    holder = Holder()
    socks = [holder.connect(port) for port in ports]
    took: list[list[float]] = [[] for _ in ports]
    order, step = list(range(len(ports))), 1 / (rate * len(ports))
    due = time.monotonic()
    try:
        for number in range(each + SKIPPED):
            random.shuffle(order)
            for place in order:
                due += step
                time.sleep(max(0.0, due - time.monotonic()))
                began = time.perf_counter()
                socks[place].sendall(QUESTION)
                read_answer(socks[place])
                if number >= SKIPPED:
                    took[place].append(time.perf_counter() - began)
    finally:
        for sock in socks:
            sock.close()
    return took


def main() -> None:
    order = json.loads(sys.stdin.readline())
    try:
        print(json.dumps({"seconds": pace(order["ports"], order["each"], order["rate"])}), flush=True)
    except (OSError, Wrong, ValueError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
