# SPDX-License-Identifier: GPL-2.0
"""mmap(2), shared and private."""

import mmap
import os
import random
import signal
from errno import EACCES, ENODEV

from qtest import ROOT, case, eq, fails, files, host, same_bytes, spawn, true

CREATE = os.O_CREAT | os.O_RDWR
PAGE = mmap.PAGESIZE


def opened(data, name="f"):
    """A new file with contents, open."""
    fd = os.open(name, CREATE | os.O_TRUNC)
    files.write_all(fd, data)
    return fd


@case("a mapping shows the file's contents, with zeros behind the end of the last page")
def read(t):
    data = files.pattern(3 * PAGE + 100)
    fd = opened(data)
    mapped = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    same_bytes(mapped[:], data)
    mapped.close()
    host.files.write(t.there("g"), data)
    other = os.open("g", os.O_RDONLY)
    mapped = mmap.mmap(other, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    same_bytes(mapped[:], data)


@case("what is stored in a shared mapping is read at once by read(2) and by another mapping")
def shared(t):
    fd = opened(bytes(4 * PAGE))
    one = mmap.mmap(fd, 4 * PAGE)
    other_fd = os.open("f", os.O_RDWR)
    two = mmap.mmap(other_fd, 4 * PAGE)
    one[10:14] = b"one!"
    two[PAGE:PAGE + 4] = b"two!"
    eq(two[10:14], b"one!")
    eq(one[PAGE:PAGE + 4], b"two!")
    eq(os.pread(other_fd, 4, 10), b"one!")
    os.pwrite(fd, b"written", 2 * PAGE)
    eq(two[2 * PAGE:2 * PAGE + 7], b"written")


@case("msync brings a shared mapping's stores to the host")
def msync(t):
    fd = opened(bytes(4 * PAGE))
    mapped = mmap.mmap(fd, 4 * PAGE)
    mapped[PAGE - 2:PAGE + 2] = b"abcd"
    mapped.flush()
    eq(host.files.read(t.there("f"), PAGE - 2, 4), b"abcd")
    mapped[0:3] = b"xyz"
    mapped.flush(0, PAGE)
    eq(host.files.read(t.there("f"), 0, 3), b"xyz")


@case("fsync and close do so too, also after the mapping is gone")
def written_back(t):
    fd = opened(bytes(2 * PAGE))
    mapped = mmap.mmap(fd, 2 * PAGE)
    mapped[5:8] = b"abc"
    os.fsync(fd)
    eq(host.files.read(t.there("f"), 5, 3), b"abc")
    mapped[PAGE:PAGE + 3] = b"def"
    mapped.close()
    os.close(fd)
    eq(host.files.read(t.there("f"), PAGE, 3), b"def")


@case("stores after the descriptor was closed are not lost")
def closed_descriptor(t):
    fd = opened(bytes(2 * PAGE))
    mapped = mmap.mmap(fd, 2 * PAGE)
    os.close(fd)
    mapped[0:5] = b"later"
    mapped.flush()
    eq(host.files.read(t.there("f"), 0, 5), b"later")
    mapped[PAGE:PAGE + 5] = b"still"
    mapped.close()
    eq(files.read("f", PAGE, 5), b"still")
    fd = os.open("f", os.O_RDWR)
    os.fsync(fd)
    os.close(fd)
    eq(host.files.read(t.there("f"), PAGE, 5), b"still")


@case("a process that dies with a dirty mapping loses nothing")
def died(t):
    fd = opened(bytes(PAGE))

    def store():
        mapped = mmap.mmap(fd, PAGE)
        mapped[0:5] = b"child"
        os.kill(os.getpid(), signal.SIGKILL)

    child = spawn(store)
    true(child.finished(10), "the child died")
    eq(os.pread(fd, 5, 0), b"child")
    os.fsync(fd)
    eq(host.files.read(t.there("f"), 0, 5), b"child")


@case("a private mapping keeps its stores to itself")
def private(t):
    fd = opened(b"file" * 2000)
    mapped = mmap.mmap(fd, 8000, mmap.MAP_PRIVATE)
    mapped[0:4] = b"mine"
    eq(os.pread(fd, 4, 0), b"file")
    eq(mapped[4:8], b"file")
    mapped.close()
    os.close(fd)
    eq(host.files.read(t.there("f"), 0, 8), b"filefile")


@case("a shared mapping for writing needs a file opened for both: EACCES")
def rights(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDONLY)
    fails(EACCES, mmap.mmap, fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    mmap.mmap(fd, 4, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE).close()
    os.close(fd)
    fd = os.open("f", os.O_WRONLY)
    fails(EACCES, mmap.mmap, fd, 4, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(fd)
    os.mkdir("d")
    fails((ENODEV, EACCES), mmap.mmap, os.open("d", os.O_RDONLY), PAGE, mmap.MAP_SHARED, mmap.PROT_READ)


@case("touching pages behind the end is SIGBUS, and works after the file has grown")
def behind_end(t):
    fd = opened(bytes(4 * PAGE))
    mapped = mmap.mmap(fd, 4 * PAGE)
    os.ftruncate(fd, PAGE)

    def touch():
        return mapped[2 * PAGE]

    child = spawn(touch)
    true(child.finished(10), "the child ended")
    eq(child.died_of(), signal.SIGBUS)
    os.ftruncate(fd, 4 * PAGE)
    eq(mapped[2 * PAGE], 0)
    mapped[3 * PAGE] = 7
    mapped.flush()
    eq(host.files.read(t.there("f"), 3 * PAGE, 1), b"\7")


@case("truncate cuts mapped pages off, what was behind does not come back")
def truncate_mapped(t):
    fd = opened(b"x" * (3 * PAGE))
    mapped = mmap.mmap(fd, 3 * PAGE)
    eq(mapped[2 * PAGE:2 * PAGE + 1], b"x")
    os.ftruncate(fd, PAGE + 10)
    os.ftruncate(fd, 3 * PAGE)
    eq(mapped[PAGE:PAGE + 20], b"x" * 10 + bytes(10))
    eq(mapped[2 * PAGE:2 * PAGE + 1], b"\0")


@case("stores behind the end of the last page never reach the file")
def tail(t):
    fd = opened(b"x" * 100)
    mapped = mmap.mmap(fd, 100)
    mapped[50:60] = b"0123456789"
    mapped.flush()
    os.ftruncate(fd, 200)
    eq(os.pread(fd, 100, 100), bytes(100))
    os.close(fd)
    eq(host.files.read(t.there("f"), 100, 100), bytes(100))


@case("a mapping into a hole allocates it on the host", who=[ROOT])
def hole(t):
    fd = os.open("f", CREATE)
    os.ftruncate(fd, 64 * PAGE)
    mapped = mmap.mmap(fd, 64 * PAGE)
    eq(mapped[10 * PAGE], 0)
    mapped[32 * PAGE:32 * PAGE + 4] = b"data"
    mapped.flush()
    eq(host.files.read(t.there("f"), 32 * PAGE, 4), b"data")
    true(host.os.stat(t.there("f")).st_blocks < 64, "the rest stays a hole")


@case("the modification time follows stores through a mapping", who=[ROOT])
def times(t):
    fd = opened(bytes(PAGE))
    os.close(fd)
    os.utime("f", (1000, 1000))
    fd = os.open("f", os.O_RDWR)
    mapped = mmap.mmap(fd, PAGE)
    mapped[0] = 1
    mapped.flush()
    true(os.stat("f").st_mtime > 1000, "newer")
    true(host.os.stat(t.there("f")).st_mtime > 1000, "newer on the host")


@case("a new mapping sees what the host has written", who=[ROOT])
def host_writes(t):
    fd = opened(b"old" * 2000)
    mapped = mmap.mmap(fd, 6000, mmap.MAP_SHARED, mmap.PROT_READ)
    eq(mapped[3000:3003], b"old")
    mapped.close()
    os.close(fd)
    host.files.write(t.there("f"), b"new" * 2000)
    fd = os.open("f", os.O_RDONLY)
    mapped = mmap.mmap(fd, 6000, mmap.MAP_SHARED, mmap.PROT_READ)
    eq(mapped[3000:3003], b"new")


@case("several processes count in one shared page", who=[ROOT])
def counting(t):
    fd = opened(bytes(PAGE))

    def count(place):
        mapped = mmap.mmap(os.open("f", os.O_RDWR), PAGE)
        for number in range(200):
            mapped[place:place + 4] = number.to_bytes(4, "little")
        mapped.close()

    children = [spawn(count, 8 * number) for number in range(6)]
    for child in children:
        child.result()
    for number in range(6):
        eq(int.from_bytes(os.pread(fd, 4, 8 * number), "little"), 199)
    os.fsync(fd)
    eq(host.files.digest(t.there("f")), files.digest("f"))


@case("a large random pattern of stores and reads agrees with a model", who=[ROOT])
def random_history(t):
    generator = random.Random(1234)
    size = 64 * PAGE
    fd = opened(bytes(size))
    mapped = mmap.mmap(fd, size)
    model = bytearray(size)
    for step in range(300):
        place, count = generator.randrange(size - 9000), generator.randrange(1, 9000)
        action = generator.choice(["store", "write", "load", "read", "flush"])
        data = bytes([step % 255 + 1]) * count
        if action == "store":
            mapped[place:place + count] = data
            model[place:place + count] = data
        elif action == "write":
            os.pwrite(fd, data, place)
            model[place:place + count] = data
        elif action == "load":
            same_bytes(mapped[place:place + count], bytes(model[place:place + count]), f"step {step}")
        elif action == "read":
            same_bytes(os.pread(fd, count, place), bytes(model[place:place + count]), f"step {step}")
        else:
            mapped.flush()
    mapped.flush()
    same_bytes(host.files.read(t.there("f")), bytes(model))
