# SPDX-License-Identifier: GPL-2.0
"""The same work of ctr and docker, on whatever machine it is called: one line per step, a Python literal.

    python3 containers_load.py ROUNDS
"""

import os
import sys
import time

from qtest import counters, image, process

IMAGE = "docker.io/library/bench:1"
ARCHIVE = "/srv/bench-image.tar"
STEPS = (
    ("ctr images import", ["ctr", "images", "import", ARCHIVE], ["ctr", "images", "rm", "--sync", IMAGE]),
    ("ctr run --rm", ["ctr", "run", "--rm", IMAGE, "bench", "/bin/true"], None),
    ("docker load", ["docker", "load", "-i", ARCHIVE], ["docker", "rmi", "-f", IMAGE]),
    ("docker run --rm", ["docker", "run", "--rm", "--network", "none", IMAGE, "true"], None),
)


def traffic():
    """Messages, round trips that somebody waited for, and bytes both ways, of all mounts of qtfs."""
    totals = counters.of_all()
    return [totals.get(column, 0) for column in ("requests", "waits", "bytes_sent", "bytes_received")]


def memory():
    """What the management takes of this machine's memory, in KiB (Pss)."""
    total = 0
    for pid, line in process.processes():
        if os.path.basename(line.split(" ")[0]) not in ("containerd", "dockerd", "engine", "rexec_server", "udsproxyd", "qtfs-offload"):
            continue
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += next(int(row.split()[1]) for row in file if row.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def main():
    """Prints for each step: seconds (the least of all rounds), messages, round trips, bytes to and from the host."""
    image.save(ARCHIVE, IMAGE)
    for label, command, undo in STEPS:
        best, sent = None, None
        for number in range(int(sys.argv[1])):
            if undo and number:
                process.run(undo, check=False, patience=200)
            before, begun = traffic(), time.monotonic()
            process.run(command, patience=300)
            seconds = time.monotonic() - begun
            if best is None or seconds < best:
                best, sent = seconds, [now - then for now, then in zip(traffic(), before)]
        print(repr((label, best, *sent)), flush=True)
    print(repr(("memory", memory(), 0, 0, 0, 0)), flush=True)


if __name__ == "__main__":
    main()
