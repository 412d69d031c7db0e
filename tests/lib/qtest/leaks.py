# SPDX-License-Identifier: GPL-2.0
"""What a debug kernel knows only when it is asked: memory that nobody points to any more, and whether it still looks.

    python3 -m qtest.leaks

Unloads what of qtfs this machine has loaded and prints what is wrong; nothing when all is well.
"""

import re
import sys
import time

from . import filesystems
from . import server

KMEMLEAK = "/sys/kernel/debug/kmemleak"
# kmemleak does not tell of objects that are younger than 5 seconds.
YOUNG = 6


def tell(path, text):
    """Writes to a file of the kernel."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def lines_of(path):
    """The lines of a file of the kernel."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def symbols():
    """Addresses and names of what the modules have, as long as they are loaded: the kernel forgets them afterwards."""
    found = []
    for line in lines_of("/proc/kallsyms"):
        words = line.split()
        if words[-1].startswith("[qtfs"):
            found.append((int(words[0], 16), f"{words[2]} {words[-1]}"))
    return sorted(found)


def named(line, known):
    """A line of a backtrace with the name of what was unloaded, which alone has none: all else is built in."""
    address = re.fullmatch(r"\s*(0x[0-9a-f]+)", line)
    if not address:
        return line
    value = int(address[1], 16)
    before = [one for one in known if one[0] <= value]
    return f"    {before[-1][1]}+{value - before[-1][0]:#x}" if before else f"{line} [qtfs?]"


def reports(known):
    """What kmemleak has found, one text each."""
    texts = []
    for line in lines_of(KMEMLEAK):
        if line.startswith("unreferenced object"):
            texts.append([])
        if texts:
            texts[-1].append(named(line, known))
    return ["\n".join(text) for text in texts]


def check():
    """Unloads and returns what is wrong, as texts."""
    known = symbols()
    filesystems.unload_module()
    server.stop()
    unloaded = time.monotonic()
    while time.monotonic() < unloaded + YOUNG:
        time.sleep(0.1)
    problems = []
    try:
        # An object counts when two scans in a row did not find it; writing returns when the scan is over.
        tell(KMEMLEAK, "scan")
        tell(KMEMLEAK, "scan")
        problems += [text for text in reports(known) if "[qtfs" in text]
        tell(KMEMLEAK, "clear")
    except OSError as error:
        problems.append(f"kmemleak does not look any more: {error}")
    if "debug_locks: 1" not in [" ".join(line.split()) for line in lines_of("/proc/lockdep_stats")]:
        problems.append("lockdep does not look any more")
    return problems


if __name__ == "__main__":
    wrong = check()
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)
