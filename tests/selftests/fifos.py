# SPDX-License-Identifier: GPL-2.0
"""FIFOs: what fifo(7) and pipe(7) say holds between the machines, whoever is where."""

import errno
import fcntl
import hashlib
import os
import random
import select
import signal
import struct
import termios
import time
from errno import EACCES, EAGAIN, EBADF, EINTR, EINVAL, EIO, ENXIO, EPIPE, ESPIPE

from qtest import ROOT, USER, case, counters, eq, eventually, files, fails, filesystems, host, lab, on_host, process, run, spawn, true
from qtest.detour import Detour
from qtest.sides import Here, There

NEEDS = "qtfs"


# --- Programs on either machine. ---

class Fifo:
    """A FIFO, and programs that use it from either machine."""

    def __init__(self, t, name="p"):
        self.here, self.there = t.path(name), t.there(name)
        os.mkfifo(name)

    def start(self, where, function, *arguments):
        """Starts a function on the FIFO."""
        return where(function, self.here if where is Here else self.there, *arguments)


# Who reads, and who writes.
SIDES = ((Here, Here), (Here, There), (There, Here), (There, There))


def read_all(path):
    """Opens, reads to the end; what there was."""
    with open(path, "rb") as file:
        return file.read()


def write_all(path, data):
    """Opens, writes."""
    with open(path, "wb", buffering=0) as file:
        while data:
            data = data[file.write(data):]


@on_host
def holds(path, flags):
    """The agent of the host has it open from now on."""
    return host.background.open_file(path, flags)


@on_host
def can_write(path):
    """Whether somebody reads, as the host says."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as e:
        eq(e.errno, ENXIO)
        return False
    return True


# --- open(2) ---

@case("open waits for the other end, whoever comes first", who=[ROOT], needs=NEEDS, limit=120)
def open_waits(t):
    for number, (reader, writer) in enumerate(SIDES):
        for reader_first in (True, False):
            fifo = Fifo(t, f"p{number}{reader_first}")
            starts = [lambda: fifo.start(reader, read_all), lambda: fifo.start(writer, write_all, b"data")]
            first = starts[not reader_first]()
            true(first.sleeps() and first.alive(), "the first waits")
            second = starts[reader_first]()
            programs = [first, second] if reader_first else [second, first]
            eq(programs[0].result(), b"data")
            programs[1].result()


@case("O_NONBLOCK: reading opens at once, writing is ENXIO without a reader; O_RDWR never waits", who=[ROOT], needs=NEEDS)
def open_nonblock(t):
    fifo = Fifo(t)
    fails(ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    reader = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("p", os.O_WRONLY | os.O_NONBLOCK)
    eq(can_write(fifo.there), True)
    os.close(writer)
    os.close(reader)
    eventually(lambda: not can_write(fifo.there), 10, "the host knows that nobody reads any more")
    there = holds(fifo.there, os.O_RDONLY | os.O_NONBLOCK)
    os.close(os.open("p", os.O_WRONLY | os.O_NONBLOCK))
    host.background.close_file(there)
    fails(ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    both = os.open("p", os.O_RDWR)
    os.write(both, b"echo")
    eq(os.read(both, 100), b"echo")
    os.close(both)


@case("a writer that waits in open is one for readers, and no reader for other writers", who=[ROOT], needs=NEEDS)
def waiting_writer(t):
    for where in (Here, There):
        fifo = Fifo(t, f"p-{where.__name__}")
        first = fifo.start(where, write_all, b"1")
        true(first.sleeps(), "it waits")
        second = fifo.start(Here, write_all, b"2")
        true(second.sleeps(), "it waits too")
        eventually(lambda: counters.in_flight(t.fs.mnt) == 0, 20, "the host knows of both")
        eq((first.alive(), can_write(fifo.there)), (True, False))
        eq(sorted(fifo.start(There, read_all).result()), sorted(b"12"))
        first.result()
        second.result()


@case("who waits in open or read is interrupted by a signal, and can be killed, and HOST knows", who=[ROOT], needs=NEEDS)
def interrupted(t):
    fifo = Fifo(t)

    def alarmed(flags):
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        libc = process.syscalls.libc
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
        fd = libc.open(os.fsencode(fifo.here), flags)
        if fd >= 0:
            libc.read(fd, bytes(10), 10)
        return process.syscalls.ctypes.get_errno()

    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        eq(errno.errorcode[spawn(alarmed, flags).result(20)], "EINTR")
    for function, arguments in ((read_all, ()), (write_all, (b"x",))):
        program = fifo.start(Here, function, *arguments)
        true(program.sleeps(), "it waits")
        program.kill()
    eventually(lambda: not can_write(fifo.there), 10, "nobody reads")
    writer = fifo.start(There, write_all, b"data")
    true(writer.sleeps(), "nobody is left who reads")
    eq(fifo.start(Here, read_all).result(), b"data")
    writer.result()


@on_host
def writes_nowhere(path, seconds):
    """Opens for writing again and again while nobody reads; how often it could."""
    end, found = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        found += can_write(path)
    return found


def finds_no_reader(path, count):
    """As many times as it is told to."""
    for _ in range(count):
        fails(ENXIO, os.open, path, os.O_WRONLY | os.O_NONBLOCK)


def waits_in_vain(path, count):
    """Waits in open for a moment, as many times as it is told to."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    libc, get_errno = process.syscalls.libc, process.syscalls.ctypes.get_errno
    for _ in range(count):
        eq((libc.open(os.fsencode(path), os.O_WRONLY), get_errno()), (-1, EINTR))


@case("writers take no other writer for a reader, however many come at the same moment: all wait, with O_NONBLOCK it is ENXIO, and so on the host",
      who=[ROOT], needs=NEEDS, limit=120)
def writers_only(t):
    # The pipe is there only while somebody has the FIFO open, or always, since somebody of the host waits.
    for waits_there in (False, True):
        fifo = Fifo(t, f"p{waits_there}")
        writers = [fifo.start(There, write_all, b".")] if waits_there else []
        true(all(writer.sleeps() for writer in writers), "it waits")
        other = host.background.start(__file__, "writes_nowhere", fifo.there, 4)
        programs = [fifo.start(Here, waits_in_vain, 50) for _ in range(4)] + [fifo.start(Here, finds_no_reader, 200)]
        for program in programs:
            program.result()
        eq(host.background.finish(other), 0, "the host found a reader")
        writers += [fifo.start(Here, write_all, b".") for _ in range(4)]
        true(all(writer.sleeps() for writer in writers), "all wait")
        eventually(lambda: counters.in_flight(t.fs.mnt) == 0, 20, "the host knows of all")
        eq(([writer.alive() for writer in writers], can_write(fifo.there)), ([True] * len(writers), False))
        eq(fifo.start(There, read_all).result(), b"." * len(writers))
        for writer in writers:
            writer.result()


@case("a writer that nobody waits for any more is none, also where it made the pipe, and a reader that comes then waits for another", who=[ROOT], needs=NEEDS)
def writer_leaves(t):
    fifo = Fifo(t)
    for where in (Here, There):
        writer = fifo.start(Here, write_all, b"gone")
        true(writer.sleeps(), "it waits")
        eventually(lambda: counters.in_flight(t.fs.mnt) == 0, 20, "the host knows of it")
        writer.kill()
        reader = fifo.start(where, read_all)
        true(reader.sleeps() and reader.alive(), "nobody writes")
        fifo.start(There, write_all, b"data").result()
        eq(reader.result(), b"data")


@case("who waits for a slot to read is interrupted by a signal, and goes on reading with SA_RESTART", who=[ROOT], needs=NEEDS)
def restarted(t):
    def alarmed(path, go, interrupts):
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, interrupts)
        libc = process.syscalls.libc
        fd = os.open(path, os.O_RDWR)
        files.write(go + ".open")
        eventually(lambda: os.path.exists(go), 60)
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        return libc.read(fd, bytes(10), 10), process.syscalls.ctypes.get_errno()

    os.mkfifo("p")
    with Detour(t.host_dir, f"/mnt/detour-{os.getpid()}") as detour:
        readers = [spawn(alarmed, f"{detour.top}/p", t.path(f"go{n}"), n == 0) for n in range(2)]
        eventually(lambda: all(os.path.exists(f"go{n}.open") for n in range(2)), 30, "both have it open")
        detour.stand_still()
        for number in range(2):
            files.write(f"go{number}")
        eq(readers[0].result(20), (-1, EINTR))
        true(readers[1].sleeps(), "the other one goes on")
        time.sleep(1)
        true(readers[1].alive(), "it waits")
        detour.go_on()
        files.write("p", b"data")
        eq(readers[1].result(20)[0], 4)


@case("permission is asked for as everywhere", who=[USER], needs=NEEDS)
def permission(t):
    os.mkfifo("p", 0o200)
    fails(EACCES, os.open, "p", os.O_RDONLY | os.O_NONBLOCK)
    fails(ENXIO, os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    program = spawn(write_all, t.path("p"), b"x")
    true(program.sleeps(10), "who may only write waits")
    eq(There(read_all, t.there("p")).result(), b"x")
    program.result()


# --- Data. ---

def back_pressure(path, digest_wanted):
    """Reads slowly at first, then all; whether it is what was written."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(random.choice((1, 4096, 70000, 200000))):
            digest.update(chunk)
    return digest.hexdigest() == digest_wanted


@case("four megabytes pass unchanged, the writer waits for the reader", who=[ROOT], needs=NEEDS, limit=180)
def large(t):
    data = random.Random(1).randbytes(4 << 20)
    for number, (reader, writer) in enumerate(SIDES):
        fifo = Fifo(t, f"p{number}")
        sends = fifo.start(writer, write_all, data) if writer is Here else fifo.start(writer, write_pattern, 1, len(data))
        true(sends.sleeps(), "it waits")
        eq(fifo.start(reader, back_pressure, hashlib.sha256(data).hexdigest()).result(120), True)
        sends.result()


def write_pattern(path, seed, size):
    """As write_all, with bytes that need not be sent to the host first."""
    write_all(path, random.Random(seed).randbytes(size))


@case("end of file at once while nobody has ever written, with O_NONBLOCK taken back too", who=[ROOT], needs=NEEDS)
def never_written(t):
    os.mkfifo("p")
    fd = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    eq(os.read(fd, 10), b"")
    os.set_blocking(fd, True)
    eq(os.read(fd, 10), b"")
    os.close(fd)


@case("end of file when the last writer has closed; a new writer begins anew", who=[ROOT], needs=NEEDS)
def end_of_file(t):
    fifo = Fifo(t)
    reader = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    eq(os.read(reader, 10), b"")
    for flags in (os.O_WRONLY, os.O_RDWR):
        there, here = holds(fifo.there, flags), os.open("p", flags)
        fails(EAGAIN, os.read, reader, 10)
        os.write(here, b"one")
        eq(os.read(reader, 2), b"on")
        eq(os.read(reader, 10), b"e")
        os.close(here)
        fails(EAGAIN, os.read, reader, 10)
        host.os.write(there, b"two")
        host.background.close_file(there)
        eq(os.read(reader, 10), b"two")
        eq(os.read(reader, 10), b"")
    os.close(reader)


@case("a blocked reader gets what comes, and the end", who=[ROOT], needs=NEEDS)
def blocked_reader(t):
    fifo = Fifo(t)
    for where in (Here, There):
        child = fifo.start(Here, read_all)
        true(child.sleeps(), "it waits for a writer")
        fifo.start(where, write_all, b"data").result()
        eq(child.result(), b"data")
    # Others who read take their share, and nobody else's.
    both = os.open("p", os.O_RDWR)
    readers = [spawn(os.read, both, 1) for _ in range(4)]
    true(all(reader.sleeps(10) for reader in readers), "all wait")
    there = holds(fifo.there, os.O_WRONLY)
    host.os.write(there, b"abcd")
    eq(b"".join(sorted(reader.result(20) for reader in readers)), b"abcd")
    host.background.close_file(there)
    os.close(both)


@case("who waits to read holds no thread of engine, nothing is sent meanwhile, and more wait than requests can be on their way", who=[ROOT], needs=NEEDS,
      limit=180)
def many_readers(t):
    count = 140
    both = []
    for number in range(count):
        Fifo(t, f"p{number}")
        both.append(os.open(f"p{number}", os.O_RDWR))
    before = host.server.engine_threads()
    readers = [spawn(os.read, fd, 10) for fd in both]
    true(all(reader.sleeps(60) for reader in readers), "all wait")
    files.write("other", b"data")
    eq(host.files.read(t.there("other")), b"data", "others go on")
    eventually(lambda: host.server.engine_threads() <= before + 2, 60, "no thread of engine waits")
    sent = counters.read(t.fs.mnt)
    for number in range(0, count, 2):
        host.files.append(t.there(f"p{number}"), b"%d" % number)
        eq(readers[number].result(30), b"%d" % number)
    spent = counters.read(t.fs.mnt) - sent
    true(spent.count("POLL") <= count and spent.count("RECEIVE") <= count, spent)
    for reader in readers[1::2]:
        reader.kill()
        true(reader.finished(20), "it can be killed")
    # What comes afterwards is not lost with those.
    for number in (1, 99, count - 1):
        host.files.append(t.there(f"p{number}"), b"later")
        eq(os.read(both[number], 10), b"later")
    for fd in both:
        os.close(fd)


def write_unheard(path, default):
    """Writes where nobody reads any more; its errno."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL if default else signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR)
    writer = os.open(path, os.O_WRONLY)
    os.close(fd)
    try:
        os.write(writer, b"x")
    except OSError as e:
        return e.errno
    return 0


@case("writing without a reader is EPIPE, and SIGPIPE for who does not ignore it", who=[ROOT], needs=NEEDS)
def broken(t):
    fifo = Fifo(t)
    eq(fifo.start(Here, write_unheard, False).result(), EPIPE)
    child = spawn(write_unheard, fifo.here, True)
    true(child.finished(20), "it has ended")
    eq(child.died_of(), signal.SIGPIPE)
    # The engine, whose thread wrote, is none the worse for it.
    eq(host.run(["pgrep", "-c", "-x", "engine"]).text, "1")
    # Who waits for room is told too.
    reader = holds(fifo.there, os.O_RDONLY | os.O_NONBLOCK)
    writer = fifo.start(Here, write_all, bytes(1 << 20))
    true(writer.sleeps(), "it waits")
    eventually(lambda: host.background.readable(reader) == 65536, 20, "the pipe is full")
    host.background.close_file(reader)
    fails(EPIPE, writer.result)


@case("O_NONBLOCK by fcntl holds from then on", who=[ROOT], needs=NEEDS)
def set_nonblock(t):
    Fifo(t)
    fd = os.open("p", os.O_RDWR)
    os.set_blocking(fd, False)
    fails(EAGAIN, os.read, fd, 1)
    total = 0
    try:
        while True:
            total += os.write(fd, bytes(4096))
    except BlockingIOError:
        pass
    eq(total, 65536)
    fails(EAGAIN, os.write, fd, b"x")
    os.set_blocking(fd, True)
    child = spawn(os.write, fd, b"x")
    true(child.sleeps(10), "it waits for room")
    os.read(fd, 4096)
    eq(child.result(20), 1)
    os.close(fd)


def write_records(path, mark, count):
    """Writes records of one letter, of lengths up to PIPE_BUF."""
    lengths = random.Random(mark)
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            body = mark * lengths.randrange(1, 4094)
            record = struct.pack("<H", len(body)) + body.encode()
            eq(file.write(record), len(record))


@case("writes of up to PIPE_BUF bytes are never torn", who=[ROOT], needs=NEEDS, limit=180)
def atomic(t):
    count = 60
    for reader in (Here, There):
        fifo = Fifo(t, f"p-{reader.__name__}")
        writers = [fifo.start(where, write_records, mark, count) for mark, where in zip("abcd", (Here, There, Here, There))]
        true(all(writer.sleeps() for writer in writers), "all wait in open")
        eventually(lambda: counters.in_flight(t.fs.mnt) == 0, 20, "the host knows of all")
        eq(fifo.start(reader, read_records).result(120), {mark: count for mark in "abcd"})
        for writer in writers:
            writer.result()


def read_records(path):
    """Reads what write_records writes; how many of each letter."""
    found = {}
    with open(path, "rb") as file:
        while head := file.read(2):
            body = file.read(struct.unpack("<H", head)[0])
            eq(len(set(body)), 1, "letters of one record")
            found[chr(body[0])] = found.get(chr(body[0]), 0) + 1
    return found


@case("what else a descriptor of a FIFO can: FIONREAD, no place, no size to set", who=[ROOT], needs=NEEDS)
def descriptor(t):
    fifo = Fifo(t)
    fd = os.open("p", os.O_RDWR)

    def queued():
        return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]

    eq(queued(), 0)
    os.write(fd, b"12345")
    there = holds(fifo.there, os.O_WRONLY)
    host.os.write(there, b"67")
    eq(queued(), 7)
    os.read(fd, 3)
    eq(queued(), 4)
    fails(ESPIPE, os.lseek, fd, 0, os.SEEK_CUR)
    fails(ESPIPE, os.pread, fd, 1, 0)
    fails(EBADF, fcntl.fcntl, fd, fcntl.F_GETPIPE_SZ)
    fails(EINVAL, os.fsync, fd)
    host.background.close_file(there)
    os.close(fd)


@case("a FIFO that is renamed or removed while it is open goes on working", who=[ROOT], needs=NEEDS)
def moved(t):
    fifo = Fifo(t)
    handle = os.open("p", os.O_PATH)
    there, here = holds(fifo.there, os.O_RDWR), os.open("p", os.O_RDWR)
    host.os.rename(fifo.there, t.there("q"))
    os.write(here, b"1")
    eq(host.os.read(there, 10), b"1")
    # By its handle it can be opened still, as containerd does.
    again = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK)
    eq((os.fstat(again).st_ino, os.fstat(again).st_dev), (os.fstat(handle).st_ino, os.fstat(handle).st_dev))
    host.os.write(there, b"2")
    eq(os.read(again, 10), b"2")
    os.unlink("q")
    for fd in (here, again):
        host.os.write(there, b"3")
        eq(os.read(fd, 10), b"3")
        os.close(fd)
    os.close(handle)
    host.background.close_file(there)


# --- Waiting for many. ---

def ready(fd):
    """What poll says now."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return dict(poll.poll(0)).get(fd, 0)


@case("poll says what it says on the host", who=[ROOT], needs=NEEDS)
def polled(t):
    fifo = Fifo(t)
    reader = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    eq(ready(reader), 0)
    there = holds(fifo.there, os.O_WRONLY)
    eq(ready(reader), 0)
    host.os.write(there, b"x")
    eq(ready(reader), select.POLLIN)
    host.background.close_file(there)
    eq(ready(reader), select.POLLIN | select.POLLHUP)
    os.read(reader, 1)
    eq(ready(reader), select.POLLHUP)
    writer = os.open("p", os.O_WRONLY)
    eq((ready(reader), ready(writer)), (0, select.POLLOUT))
    os.write(writer, bytes(65536))
    eq(ready(writer), 0)
    os.close(reader)
    eventually(lambda: ready(writer) & select.POLLERR, 10, "nobody reads")
    os.close(writer)


@case("select and both kinds of epoll wake up when the host writes, and nothing is sent meanwhile", who=[ROOT], needs=NEEDS, limit=120)
def epolled(t):
    fifo = Fifo(t)
    fd = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    there = holds(fifo.there, os.O_RDWR)
    child = spawn(lambda: [list(found) for found in select.select([fd], [], [], 30)])
    true(child.sleeps(10), "it waits")
    host.os.write(there, b"x")
    eq(child.result(20), [[fd], [], []])
    os.read(fd, 1)
    for edge in (0, select.EPOLLET):
        epoll = select.epoll()
        epoll.register(fd, select.EPOLLIN | edge)
        eq(epoll.poll(0), [])
        for _ in range(3):
            child = spawn(lambda: epoll.poll(30))  # pylint: disable=cell-var-from-loop
            true(child.sleeps(10), "it waits")
            before = counters.read(t.fs.mnt)
            eq(child.finished(0.5), False)
            eq((counters.read(t.fs.mnt) - before).total("requests"), 0)
            host.os.write(there, b"x")
            eq(child.result(20), [(fd, select.EPOLLIN)])
            # It is ready until it is read, or told once.
            eq(bool(epoll.poll(0)), not edge)
            os.read(fd, 1)
            eq(epoll.poll(0), [])
        if edge:
            # Each write tells, though nothing was read since the one before.
            for _ in range(2):
                host.os.write(there, b"x")
                eq(epoll.poll(10), [(fd, select.EPOLLIN)])
                eq(epoll.poll(0), [])
        epoll.close()
    os.close(fd)
    host.background.close_file(there)


@case("a full FIFO wakes its writer when the host has read: poll, select, and both kinds of epoll", who=[ROOT], needs=NEEDS, limit=120)
def room(t):
    fifo = Fifo(t)
    there = holds(fifo.there, os.O_RDWR)
    fd = os.open("p", os.O_WRONLY | os.O_NONBLOCK)

    def fill():
        while True:
            try:
                os.write(fd, bytes(65536))
            except BlockingIOError:
                return

    def polls():
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return poll.poll(30000)
    for edge in (0, select.EPOLLET):
        epoll = select.epoll()
        epoll.register(fd, select.EPOLLOUT | edge)
        eq(epoll.poll(10), [(fd, select.EPOLLOUT)])
        for waits, wanted in ((lambda: epoll.poll(30), [(fd, select.EPOLLOUT)]), (polls, [(fd, select.POLLOUT)]),  # pylint: disable=cell-var-from-loop
                              (lambda: [list(found) for found in select.select([], [fd], [], 30)], [[], [fd], []])):
            fill()
            eq((epoll.poll(0), ready(fd)), ([], 0))
            child = spawn(waits)
            true(child.sleeps(10), "it waits")
            before = counters.read(t.fs.mnt)
            eq(child.finished(0.5), False)
            eq((counters.read(t.fs.mnt) - before).total("requests"), 0)
            host.os.read(there, 65536)
            eq(child.result(20), wanted)
        epoll.close()
    os.close(fd)
    host.background.close_file(there)


@case("who waits goes on when the link comes back", who=[ROOT], needs=NEEDS, limit=120)
def link(t):
    fifo = Fifo(t)
    there = holds(fifo.there, os.O_RDWR)
    reader = fifo.start(Here, read_some, 4)
    os.mkfifo("q")
    opener = Here(read_all, t.path("q"))
    true(reader.sleeps() and opener.sleeps(), "both wait")
    lab.link("down")
    host.os.write(there, b"data")
    other = holds(t.there("q"), os.O_RDWR)
    host.os.write(other, b"more")
    eq((reader.alive(), opener.alive()), (True, True))
    lab.link("up")
    eq(reader.result(60), b"data")
    host.background.close_file(there)
    host.background.close_file(other)
    opener.kill()


@case("umount -f ends who waits: EIO", who=[ROOT], needs=NEEDS)
def forced(t):
    top = "/mnt/fifos_other"
    os.makedirs(top, exist_ok=True)
    filesystems.mount(t.host_dir, top)
    for name in ("p", "q"):
        os.mkfifo(f"{top}/{name}")
    fd = os.open(f"{top}/p", os.O_RDWR)
    waiters = [spawn(os.read, fd, 1), spawn(read_all, f"{top}/q")]
    true(all(waiter.sleeps(10) for waiter in waiters), "they wait")
    run(["umount", "-f", top], check=False)
    for waiter in waiters:
        fails(EIO, waiter.result)
    os.close(fd)
    run(["umount", "-l", top])
    os.rmdir(top)


def read_some(path, size):
    """Reads so many bytes."""
    with open(path, "rb", buffering=0) as file:
        data = b""
        while len(data) < size:
            data += file.read(size - len(data))
        return data


GO = filesystems.build_directory() + "/tools/fifo"


def go(path, what, data=b"", names=("p0", "p1", "p2")):
    """containerd's package at work on FIFOs of a directory; what it printed."""
    return run([GO, what, *(os.path.join(path, name) for name in names)], stdin=data).out


@case("containerd's own package reads, writes and gives up, on both machines", who=[ROOT], needs=NEEDS, limit=120)
def containerd(t):
    for number, (reader, writer) in enumerate(SIDES):
        os.mkdir(f"d{number}")
        here, there = t.path(f"d{number}"), t.there(f"d{number}")
        data = random.Random(number).randbytes(200000)
        # It makes the FIFOs itself.
        reads = reader(go, here if reader is Here else there, "read")
        true(reads.sleeps(), "it waits")
        writer(go, here if writer is Here else there, "write", data).result()
        eq(reads.result(), data * 3)
    Here(go, t.path("."), "give-up", b"", ("q",)).result()
    eventually(lambda: not can_write(t.there("q")), 20, "nobody reads any more")


@case("a message costs one round trip of its writer, and one of a reader who finds it", who=[ROOT], needs=NEEDS)
def costs(t):
    Fifo(t)
    fd = os.open("p", os.O_RDWR)
    for function, arguments in ((os.write, (fd, b"message")), (os.read, (fd, 100))):
        before = counters.read(t.fs.mnt)
        function(*arguments)
        eq((counters.read(t.fs.mnt) - before).waits, 1, function.__name__)
    before = counters.read(t.fs.mnt)
    os.close(os.open("p", os.O_RDWR))
    spent = counters.read(t.fs.mnt) - before
    eq([spent.count(name, "waits") for name in ("LOOKUP", "OPEN", "RELEASE")], [1, 1, 1], spent)
    eq(spent.waits, 3, spent)
    os.close(fd)
