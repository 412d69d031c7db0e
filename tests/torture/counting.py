# SPDX-License-Identifier: GPL-2.0
"""Both machines count in one file, each number under a lock: none is missing, none comes twice."""

import fcntl
import os
import struct

from qtest import ROOT, case, eq, files, host, lab, spawn, syscalls

LIMITS = {"limit": 120, "full": 3600}
PATIENCE = 3600
KINDS = ("flock", "posix", "ofd")


class locked:
    """The lock of one of the kinds on the whole file, for a block."""

    def __init__(self, fd, kind):
        self.fd, self.kind = fd, kind

    def set(self, flock, record):
        """Takes or gives back."""
        if self.kind == "flock":
            fcntl.flock(self.fd, flock)
        else:
            syscalls.lock(self.fd, record, wait=True, ofd=self.kind == "ofd")

    def __enter__(self):
        self.set(fcntl.LOCK_EX, fcntl.F_WRLCK)

    def __exit__(self, *_):
        self.set(fcntl.LOCK_UN, fcntl.F_UNLCK)


def count(path, kind, who, times):
    """Adds the next number to the end, so often; runs on either machine."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(times):
        with locked(fd, kind):
            end = os.lseek(fd, 0, os.SEEK_END)
            last = struct.unpack("<QQ", os.pread(fd, 16, end - 16))[0] if end else 0
            os.write(fd, struct.pack("<QQ", last + 1, who))
    os.close(fd)


def append(path, who, times):
    """Adds records to the end without any lock."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(times):
        os.write(fd, struct.pack("<QQ", who, number))
    os.close(fd)


def records(data):
    """Pairs of numbers."""
    return list(struct.iter_unpack("<QQ", data))


def both(t, kind, times, while_it_runs=lambda: None):
    """Two processes on each machine count; the file must have each number once, in order."""
    path = f"{kind}-log"
    files.write(path)
    jobs = [host.background.start(__file__, "count", t.there(path), kind, who, times) for who in (1, 2)]
    children = [spawn(count, path, kind, who, times) for who in (3, 4)]
    while any(child.alive() for child in children):
        while_it_runs()
        children[0].finished(0.2)
    for child in children:
        child.result(PATIENCE)
    for job in jobs:
        host.background.finish(job, PATIENCE, patience=PATIENCE)
    seen = records(host.files.read(t.there(path)))
    eq([number for number, _ in seen], list(range(1, 4 * times + 1)), "numbers on the host")
    eq(records(files.read(path)), seen, "what the dpu sees")
    turns = sum(one[1] != other[1] for one, other in zip(seen, seen[1:]))
    t.note(f"{kind}: {len(seen)} numbers, {turns} times another process than before")


@case("two processes on each machine count under a lock of each kind", who=[ROOT], **LIMITS)
def counting(t):
    for kind in KINDS:
        both(t, kind, t.amount(25, 2500))


@case("the same while the link comes and goes", who=[ROOT], needs="qtfs", **LIMITS)
def counting_disturbed(t):
    def disturb():
        lab.link("down")
        lab.link("up")

    try:
        both(t, "flock", t.amount(25, 1000), disturb)
    finally:
        lab.link("up")


@case("both machines append without a lock: no record is lost or torn, each writer's come in order", who=[ROOT], needs="qtfs", **LIMITS)
def appending(t):
    times = t.amount(100, 10_000)
    files.write("log")
    jobs = [host.background.start(__file__, "append", t.there("log"), who, times) for who in (1, 2)]
    children = [spawn(append, "log", who, times) for who in (3, 4)]
    for child in children:
        child.result(PATIENCE)
    for job in jobs:
        host.background.finish(job, PATIENCE, patience=PATIENCE)
    seen = records(host.files.read(t.there("log")))
    eq(len(seen), 4 * times)
    for who in (1, 2, 3, 4):
        eq([number for writer, number in seen if writer == who], list(range(times)), f"records of {who}")
