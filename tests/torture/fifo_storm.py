# SPDX-License-Identifier: GPL-2.0
"""FIFOs: very many that wait, and processes of both machines that open, read, write, are interrupted and killed at random."""

import os
import random
import resource
import signal
import time
from errno import EAGAIN, EINTR, ENXIO, EPIPE

from qtest import ROOT, case, eq, eventually, files, host, on_host, spawn, true
from qtest.storm import storm

FLAGS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK, os.O_RDWR | os.O_NONBLOCK)
# What may come of it when the other end goes away, the program is interrupted or the link is cut.
EXPECTED = {EAGAIN, EINTR, ENXIO, EPIPE}


@on_host
def ends(path):
    """Whether somebody has a FIFO open for reading, and for writing."""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Nothing to read yet and somebody who writes is EAGAIN, nobody is the end.
        writes = False
        while not writes:
            try:
                if not os.read(reader, 1 << 16):
                    break
            except BlockingIOError:
                writes = True
    finally:
        os.close(reader)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return True, writes
    except OSError as e:
        eq(e.errno, ENXIO)
        return False, writes


def waits(path, flags):
    """Opens, and waits in it."""
    os.close(os.open(path, flags))


@case("very many wait in open", who=[ROOT], needs="qtfs", limit=240, full=3600)
def many(t):
    count = t.amount(40, 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    for number in range(count):
        os.mkfifo(f"p{number}")
    before = host.server.engine_threads()
    children = [spawn(waits, t.path(f"p{number}"), (os.O_RDONLY, os.O_WRONLY)[number % 2]) for number in range(count)]
    true(all(child.sleeps(120) for child in children), "all wait")
    files.write("other", b"data")
    eq(host.files.read(t.there("other")), b"data", "others go on")
    eventually(lambda: host.server.engine_threads() <= before + 2, 120, "no thread of engine waits")
    eq(sum(child.alive() for child in children), count)
    # Half of them get what they wait for.
    for number in range(0, count // 2):
        there = host.background.open_file(t.there(f"p{number}"), os.O_RDWR)
        children[number].result(60)
        host.background.close_file(there)
    for child in children[count // 2:]:
        child.kill()
    true(all(child.finished(120) for child in children), "all others can be killed")
    for number in range(count):
        eventually(lambda: ends(t.there(f"p{number}")) == (False, False), 60, f"nobody has p{number} open")  # pylint: disable=cell-var-from-loop


def plays(top, names, seed, seconds):
    """Opens, reads and writes at random, interrupted by signals; how often what happened."""
    choose = random.Random(seed)
    signal.signal(signal.SIGALRM, Interrupted.comes)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    found = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        what = "open"
        fd = -1
        try:
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(0.05, 0.6), 0.3)
            flags = choose.choice(FLAGS)
            fd = interruptible(os.open, os.path.join(top, choose.choice(names)), flags)
            for _ in range(choose.randrange(6)):
                what = choose.choice(("read", "write"))
                if what == "read" and flags & os.O_ACCMODE != os.O_WRONLY:
                    interruptible(os.read, fd, choose.choice((1, 100, 5000, 100_000)))
                elif what == "write" and flags & os.O_ACCMODE != os.O_RDONLY:
                    interruptible(os.write, fd, bytes(choose.choice((1, 100, 4096, 5000, 100_000))))
        except OSError as e:
            true(e.errno in EXPECTED, f"{what}: {e}")
            what = f"{what} {e.strerror}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if fd >= 0:
                os.close(fd)
        found[what] = found.get(what, 0) + 1
    return found


class Interrupted(OSError):
    """A signal came; Python would try again."""

    wanted = False

    @classmethod
    def comes(cls, *_):
        """What the signal does."""
        if cls.wanted:
            raise cls(EINTR, "interrupted")


def interruptible(function, *arguments):
    """Calls it, once."""
    Interrupted.wanted = True
    try:
        return function(*arguments)
    finally:
        Interrupted.wanted = False


@case("random opens, reads, writes, signals, kills and cuts of the link leave nothing behind", who=[ROOT], needs="qtfs", limit=240, full=3600)
def random_use(t):
    choose = random.Random(t.seed())
    names = [f"p{number}" for number in range(6)]
    for name in names:
        os.mkfifo(name)
    before = host.server.engine_threads()
    kills, cuts, here, _ = storm(t, plays, __file__, names, choose, t.amount(12, 900), 0.4)
    found = {}
    for one in here:
        for what, number in one.items():
            found[what] = found.get(what, 0) + number
    t.note(f"{kills} kills, {cuts} cuts; of those who lived: {found}")
    for name in names:
        eventually(lambda: ends(t.there(name)) == (False, False), 60, f"nobody has {name} open")  # pylint: disable=cell-var-from-loop
    eventually(lambda: host.server.engine_threads() <= before + 2, 120, "no thread of engine is left")
