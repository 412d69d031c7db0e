# SPDX-License-Identifier: GPL-2.0
"""Processes of both machines that do something at random while some are killed and the link comes and goes."""

import time

from .checks import true
from .process import spawn
from .remote import host, lab


def storm(t, plays, file, names, choose, seconds, cut):  # pylint: disable=too-many-arguments,too-many-positional-arguments
    """Runs plays(directory, names, seed, seconds) of a test file in three processes of the host and five here.

    After a kill nothing else happens in that turn; otherwise the link is cut with the probability `cut`. How many kills
    and cuts there were, what those here returned that lived, and what those on the host did.
    """
    end = time.monotonic() + seconds
    jobs = [host.background.start(file, plays.__name__, t.there(), names, choose.randrange(1 << 30), seconds) for _ in range(3)]
    children, kills, cuts = [], 0, 0
    try:
        while time.monotonic() < end:
            while len(children) < 5:
                children.append(spawn(plays, t.path("."), names, choose.randrange(1 << 30), end - time.monotonic()))
            child = choose.choice(children)
            child.finished(choose.uniform(0.2, 1))
            if choose.random() < 0.4:
                child.kill()
                true(child.finished(60), "it can be killed")
                kills += 1
                children.remove(child)
            elif choose.random() < cut:
                lab.link("down")
                child.finished(choose.uniform(0.1, 2))
                lab.link("up")
                cuts += 1
    finally:
        lab.link("up")
    here = [child.result(120) for child in children]
    return kills, cuts, here, [host.background.finish(job, 120, patience=150) for job in jobs]
