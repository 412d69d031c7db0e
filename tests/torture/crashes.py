# SPDX-License-Identifier: GPL-2.0
"""The link, engine and the host itself go away in the middle of writes: what was acknowledged by fsync is there."""

import os
import random
import signal
import struct
from errno import EIO, ENOENT, ESTALE

from qtest import ROOT, case, counters, eq, eventually, files, host, lab, spawn, true

BLOCK, BLOCKS = 4096, 64
# What an fsync after a power cut says, once: what was not on the disk is gone.
GONE = (EIO, ESTALE)


# --- Writers: each notes on this machine what is promised to it, in a file of its own. ---

class Promises:
    """What was promised, a line each."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC)

    def note(self, *numbers):
        """After the fsync has succeeded."""
        os.write(self.fd, " ".join(str(number) for number in numbers).encode() + b"\n")

    @staticmethod
    def read(path):
        """All of them."""
        return [tuple(int(word) for word in line.split()) for line in files.read(path).decode().splitlines()]


def block(number, version):
    """The contents of a block in a version."""
    return struct.pack("<QQ", number, version) * (BLOCK // 16)


def overwrite(path, promises, seed, versions):
    """Writes blocks anew, and syncs each few."""
    choose, kept = random.Random(seed), Promises(promises)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for version in range(1, versions + 1):
        numbers = choose.sample(range(BLOCKS), 1 + choose.randrange(4))
        for _ in range(10):
            for number in numbers:
                os.pwrite(fd, block(number, version), number * BLOCK)
            try:
                os.fsync(fd)
                break
            except OSError as error:
                if error.errno not in GONE:
                    raise
                # What was written before may be lost, back to what was promised last: that is to be written anew.
        else:
            raise AssertionError(f"version {version}: fsync fails again and again")
        for number in numbers:
            kept.note(number, version)


def append(path, promises, count):
    """Adds records, each synced."""
    kept = Promises(promises)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(count):
        try:
            os.write(fd, b"record %6d\n" % number)
            os.fsync(fd)
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        kept.note(number)


def replace(directory, promises, count):
    """Puts new editions in the place of a file, as careful programs do."""
    kept = Promises(promises)
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        for _ in range(10):
            try:
                fd = os.open(f"{directory}/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                try:
                    os.write(fd, b"%d\n" % number * 500)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(f"{directory}/new", f"{directory}/current")
                os.fsync(top)
                break
            except OSError as error:
                # The new file may be gone with the power, or the name may already have been given.
                if error.errno not in (*GONE, ENOENT):
                    raise
        else:
            raise AssertionError(f"edition {number}: fails again and again")
        kept.note(number)


class Writers:
    """All of them, in the case's directory."""

    def __init__(self, t, name, seed, amount):
        self.t, self.name = t, name
        os.mkdir(name)
        # The names themselves are promised too.
        for path in (name, "."):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        for path, data in (("blocks", b"\0" * BLOCK * BLOCKS), ("log", b"")):
            files.write(f"{name}/{path}", data)
            fd = os.open(f"{name}/{path}", os.O_RDWR)
            os.fsync(fd)
            os.close(fd)
        host.run("sync")
        self.children = [spawn(overwrite, f"{name}/blocks", self.promises("blocks"), seed, amount),
                         spawn(append, f"{name}/log", self.promises("log"), amount),
                         spawn(replace, name, self.promises("current"), amount)]

    def promises(self, which):
        """Where a writer notes what it was promised."""
        return f"/tmp/promises-{self.name}-{which}"

    def working(self):
        """Whether one of them still works."""
        return any(child.alive() for child in self.children)

    def made(self):
        """How many promises there are."""
        return sum(len(Promises.read(self.promises(which))) for which in ("blocks", "log", "current") if os.path.exists(self.promises(which)))

    def wait_for_more(self, more):
        """Waits until so many more promises have been made."""
        before = self.made()
        eventually(lambda: self.made() >= before + more or not self.working(), 60, f"{more} more writes are acknowledged")

    def end(self, seconds):
        """Waits for the end of all."""
        for child in self.children:
            child.result(seconds)

    def check(self):
        """Everything that was promised must be on the host."""
        there = self.t.there(self.name)
        data = host.files.read(f"{there}/blocks")
        promised = {}
        for number, version in Promises.read(self.promises("blocks")):
            promised[number] = max(version, promised.get(number, 0))
        for number, version in promised.items():
            found = data[number * BLOCK:(number + 1) * BLOCK]
            got = struct.unpack_from("<QQ", found)
            true(got[1] >= version and found == block(number, got[1]), f"block {number} of version {version} or later, not {got}")
        # Where HOST lost a record that was not promised it may have zeros: ext4 keeps the new size of a file before the data.
        lines = host.files.read(f"{there}/log").replace(b"\0", b"").decode().splitlines()
        missing = [number for (number,) in Promises.read(self.promises("log")) if f"record {number:6}" not in lines]
        eq(missing, [], "records that were promised and are not there")
        edition = Promises.read(self.promises("current"))[-1][0]
        current = host.files.read(f"{there}/current")
        got = int(current.split(b"\n")[0])
        true(got >= edition and current == b"%d\n" % got * 500, f"edition {edition} or later, whole; not {got}, {len(current)} bytes")
        return len(promised), len(lines), edition


# --- Who goes away. ---

@case("the host loses power in the middle of writes, again and again", who=[ROOT], needs="qtfs", limit=240, full=14400, loses=True)
def power(t):
    choose = random.Random(t.seed())
    rounds = t.amount(1, 30)
    for number in range(rounds):
        writers = Writers(t, f"round{number}", choose.randrange(1 << 30), 10_000)
        writers.wait_for_more(20 + choose.randrange(40))
        lab.crash("host")
        lab.boot("host")
        host.server.start()
        writers.wait_for_more(10)
        for child in writers.children:
            child.kill()
            child.finished(20)
        t.note(f"round {number}: {writers.made()} promises; blocks, records, editions: {writers.check()}")


@case("the link is cut in the middle of writes", who=[ROOT], needs="qtfs", limit=180, full=7200)
def link(t):
    choose = random.Random(t.seed())
    writers = Writers(t, "all", t.first_seed, t.amount(40, 1500))
    cuts = 0
    try:
        while writers.working():
            lab.link("down")
            writers.children[0].finished(choose.random() * t.amount(1, 12))
            lab.link("up")
            writers.wait_for_more(5)
            cuts += 1
    finally:
        lab.link("up")
    writers.end(60)
    t.note(f"{cuts} cuts; blocks, records, editions: {writers.check()}")
    eq(len(host.files.read(t.there("all/log")).splitlines()), t.amount(40, 1500), "records")


@case("engine is killed by SIGKILL in the middle of writes", who=[ROOT], needs="qtfs", limit=180, full=7200)
def engine(t):
    writers = Writers(t, "all", t.seed(), t.amount(40, 3000))
    kills = 0
    while writers.working():
        host.server.restart_engine(signal.SIGKILL)
        kills += 1
        before = counters.read(t.fs.mnt)
        eventually(lambda: counters.went_on(t.fs.mnt, before) or not writers.working(), 30, "work goes on after a restart")
    writers.end(60)
    t.note(f"{kills} kills; blocks, records, editions: {writers.check()}")
    eq(len(host.files.read(t.there("all/log")).splitlines()), t.amount(40, 3000), "records")
