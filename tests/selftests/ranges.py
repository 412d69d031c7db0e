# SPDX-License-Identifier: GPL-2.0
"""fallocate, holes, copy_file_range, clones, sendfile and splice."""

import fcntl
import os
import socket
from errno import EBADF, EINVAL, ENODEV, ENXIO, EOPNOTSUPP, EPERM, ETXTBSY, EXDEV

from qtest import ROOT, case, eq, fails, files, host, on_host, run, same_bytes, skip, syscalls, true
from qtest.syscalls import (FALLOC_COLLAPSE_RANGE, FALLOC_INSERT_RANGE, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE,
                            FALLOC_ZERO_RANGE, fallocate)

CREATE = os.O_CREAT | os.O_RDWR
BLOCK = 4096


def opened(data=b"", name="f"):
    """A new file with contents, open."""
    fd = os.open(name, CREATE | os.O_TRUNC)
    files.write_all(fd, data)
    return fd


@on_host
def can(path, mode):
    """Whether the host's file system has this kind of fallocate."""
    fd = os.open(path, CREATE)
    try:
        os.ftruncate(fd, 8 * BLOCK)
        fallocate(fd, mode, BLOCK, BLOCK)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
        os.unlink(path)


@case("fallocate extends a file, and allocates")
def allocate(t):
    fd = opened(b"data")
    fallocate(fd, 0, 0, 1 << 20)
    eq(os.fstat(fd).st_size, 1 << 20)
    eq(os.pread(fd, 8, 0), b"data" + bytes(4))
    eq(os.pread(fd, 8, (1 << 20) - 8), bytes(8))
    there = host.os.stat(t.there("f"))
    eq(there.st_size, 1 << 20)
    true(there.st_blocks * 512 >= 1 << 20, "allocated on the host")
    os.posix_fallocate(fd, 2 << 20, 100)
    eq(os.fstat(fd).st_size, (2 << 20) + 100)
    os.close(fd)


@case("FALLOC_FL_KEEP_SIZE allocates behind the end and keeps the size")
def keep_size(t):
    fd = opened(b"data")
    fallocate(fd, FALLOC_KEEP_SIZE, 0, 1 << 20)
    eq(os.fstat(fd).st_size, 4)
    true(host.os.stat(t.there("f")).st_blocks * 512 >= 1 << 20, "allocated on the host")
    eq(os.read(fd, 10), b"")
    os.close(fd)


@case("FALLOC_FL_PUNCH_HOLE makes zeros, of whole and of parts of blocks, also of what was just written")
def punch(t):
    data = b"x" * (10 * BLOCK)
    for start, length in ((2 * BLOCK, 3 * BLOCK), (100, 50), (BLOCK - 10, 20), (BLOCK + 1, 2 * BLOCK), (9 * BLOCK, 5 * BLOCK)):
        for sync in (False, True):
            fd = opened(data)
            if sync:
                os.fsync(fd)
            fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, start, length)
            end = min(start + length, len(data))
            want = data[:start] + bytes(end - start) + data[end:]
            same_bytes(os.pread(fd, 1 << 20, 0), want, f"{start} {length} {sync}")
            os.close(fd)
            same_bytes(host.files.read(t.there("f")), want, "on the host")
    fd = opened(data)
    fails(EOPNOTSUPP, fallocate, fd, FALLOC_PUNCH_HOLE, 0, BLOCK)
    os.close(fd)


@case("FALLOC_FL_ZERO_RANGE makes zeros, and extends unless told to keep the size")
def zero(t):
    if not can(t.there("probe"), FALLOC_ZERO_RANGE):
        skip("the host's file system has no FALLOC_FL_ZERO_RANGE")
    fd = opened(b"x" * 10000)
    fallocate(fd, FALLOC_ZERO_RANGE, 100, 5000)
    same_bytes(os.pread(fd, 20000, 0), b"x" * 100 + bytes(5000) + b"x" * 4900)
    fallocate(fd, FALLOC_ZERO_RANGE, 9000, 5000)
    eq(os.fstat(fd).st_size, 14000)
    fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 13000, 5000)
    eq(os.fstat(fd).st_size, 14000)
    os.close(fd)
    same_bytes(host.files.read(t.there("f")), b"x" * 100 + bytes(5000) + b"x" * 3900 + bytes(5000))


@case("FALLOC_FL_COLLAPSE_RANGE and INSERT_RANGE move what is behind, where the host can")
def collapse(t):
    if not can(t.there("probe"), FALLOC_COLLAPSE_RANGE):
        skip("the host's file system has no FALLOC_FL_COLLAPSE_RANGE")
    data = b"".join(bytes([65 + number]) * BLOCK for number in range(6))
    fd = opened(data)
    eq(os.pread(fd, 1, 5 * BLOCK), b"F")
    fallocate(fd, FALLOC_COLLAPSE_RANGE, BLOCK, 2 * BLOCK)
    want = data[:BLOCK] + data[3 * BLOCK:]
    eq(os.fstat(fd).st_size, 4 * BLOCK)
    same_bytes(os.pread(fd, 1 << 20, 0), want)
    fallocate(fd, FALLOC_INSERT_RANGE, BLOCK, BLOCK)
    want = want[:BLOCK] + bytes(BLOCK) + want[BLOCK:]
    same_bytes(os.pread(fd, 1 << 20, 0), want)
    fails(EINVAL, fallocate, fd, FALLOC_COLLAPSE_RANGE, 100, BLOCK)
    os.close(fd)
    same_bytes(host.files.read(t.there("f")), want)


@case("fallocate's errors: empty range, no such mode, read-only file, no file")
def allocate_errors(t):
    fd = opened(b"data")
    fails(EINVAL, fallocate, fd, 0, 0, 0)
    fails(EINVAL, fallocate, fd, 0, -1, 10)
    fails(EOPNOTSUPP, fallocate, fd, 0x4000, 0, 10)
    os.close(fd)
    fd = os.open("f", os.O_RDONLY)
    fails(EBADF, fallocate, fd, 0, 0, 10)
    os.close(fd)
    fd = os.open("f", os.O_RDWR | os.O_APPEND)
    fallocate(fd, 0, 0, 100)
    os.close(fd)
    os.mkfifo("p")
    fd = os.open("p", os.O_RDWR) if t.fs.name == "local" else -1
    if fd >= 0:
        fails((ENODEV, 29), fallocate, fd, 0, 0, 10)
        os.close(fd)


@case("SEEK_DATA and SEEK_HOLE find what the host finds")
def holes(t):
    fd = os.open("f", CREATE)
    os.ftruncate(fd, 4 << 20)
    os.pwrite(fd, b"x" * BLOCK, 1 << 20)
    os.pwrite(fd, b"y" * BLOCK, 3 << 20)
    os.fsync(fd)
    for place in (0, 1 << 20, (1 << 20) + 1, (1 << 20) + BLOCK, (3 << 20) - 1, 3 << 20):
        eq(os.lseek(fd, place, os.SEEK_DATA), seek_there(t.there("f"), place, os.SEEK_DATA), f"data from {place}")
        eq(os.lseek(fd, place, os.SEEK_HOLE), seek_there(t.there("f"), place, os.SEEK_HOLE), f"hole from {place}")
    fails(ENXIO, os.lseek, fd, 4 << 20, os.SEEK_DATA)
    fails(ENXIO, os.lseek, fd, 4 << 20, os.SEEK_HOLE)
    fails(ENXIO, os.lseek, fd, (3 << 20) + BLOCK, os.SEEK_DATA)
    os.close(fd)


@on_host
def seek_there(path, place, whence):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, place, whence)
    finally:
        os.close(fd)


@case("SEEK_DATA finds data that is not written back yet")
def holes_dirty(t):
    fd = os.open("f", CREATE)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * BLOCK, 512 << 10)
    eq(os.lseek(fd, 0, os.SEEK_DATA), 512 << 10)
    eq(os.lseek(fd, 512 << 10, os.SEEK_HOLE), (512 << 10) + BLOCK)
    os.close(fd)


@case("cp --sparse and tar -S keep holes", who=[ROOT])
def sparse_tools(t):
    run("truncate -s 8M a && printf data | dd of=a bs=1 seek=4194304 conv=notrunc status=none")
    run("cp --sparse=auto a b && cmp a b && tar -Scf t.tar a && mkdir d && tar -C d -Sxf t.tar && cmp a d/a")
    for name in ("a", "b", "d/a"):
        true(os.stat(name).st_blocks < 2048, f"{name} is sparse")


@case("copy_file_range copies within and between files, on the host")
def copy_range(t):
    data = files.pattern(300_000)
    source, dest = opened(data, "a"), opened(b"-" * 10, "b")
    eq(os.copy_file_range(source, dest, 100_000, offset_src=50_000, offset_dst=5), 100_000)
    want = b"-" * 5 + data[50_000:150_000]
    same_bytes(os.pread(dest, 1 << 20, 0), want)
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(dest, 0, os.SEEK_END)
    eq(os.copy_file_range(source, dest, 1000), 1000)
    eq((os.lseek(source, 0, os.SEEK_CUR), os.lseek(dest, 0, os.SEEK_CUR)), (1000, len(want) + 1000))
    eq(os.copy_file_range(source, dest, 1000, offset_src=300_000, offset_dst=0), 0)
    fails(EINVAL, os.copy_file_range, source, source, 1000, offset_src=0, offset_dst=500)
    os.copy_file_range(source, source, 1000, offset_src=0, offset_dst=5000)
    same_bytes(os.pread(source, 1000, 5000), data[:1000])
    os.close(source)
    os.close(dest)
    same_bytes(host.files.read(t.there("b")), want + data[:1000])


@case("copy_file_range takes what was just written and not yet sent, and does not leave stale pages")
def copy_dirty(t):
    source, dest = opened(b"s" * 20_000, "a"), opened(b"d" * 20_000, "b")
    eq(os.pread(dest, 1, 10_000), b"d")
    os.pwrite(source, b"NEW" * 1000, 8192)
    eq(os.copy_file_range(source, dest, 20_000, offset_src=0, offset_dst=0), 20_000)
    same_bytes(os.pread(dest, 20_000, 0), os.pread(source, 20_000, 0))
    os.close(source)
    os.close(dest)
    eq(host.files.digest(t.there("a")), host.files.digest(t.there("b")))


@case("copy_file_range to or from another file system works or says EXDEV, cp always works", who=[ROOT])
def copy_across(t):
    data = files.pattern(100_000)
    source = opened(data, "a")
    dest = os.open("/dev/shm/qtest-copy", CREATE | os.O_TRUNC)
    try:
        os.copy_file_range(source, dest, 1000)
    except OSError as error:
        eq(error.errno, EXDEV)
    run(["cp", "a", "/dev/shm/qtest-copy"])
    same_bytes(files.read("/dev/shm/qtest-copy"), data)
    run(["cp", "/dev/shm/qtest-copy", "b"])
    same_bytes(files.read("b"), data)
    os.unlink("/dev/shm/qtest-copy")


@case("FICLONE gives what the host's file system gives")
def clone(t):
    source, dest = opened(b"data" * 1024, "a"), opened(b"", "b")
    want = clone_there(t.there("a"), t.there("c"))
    if want:
        fails(want, syscalls.ioctl_clone, dest, source)
    else:
        syscalls.ioctl_clone(dest, source)
        eq(os.pread(dest, 8, 0), b"datadata")
    run(["cp", "--reflink=auto", "a", "d"])
    eq(files.read("d"), files.read("a"))


@on_host
def clone_there(source, dest):
    one, two = os.open(source, os.O_RDONLY), os.open(dest, CREATE)
    try:
        syscalls.ioctl_clone(two, one)
        return 0
    except OSError as error:
        return error.errno


@case("an ioctl that nobody knows is ENOTTY", who=[ROOT])
def unknown_ioctl(t):
    fd = opened(b"data")
    fails(25, fcntl.ioctl, fd, 0x12345678)
    os.close(fd)


@case("sendfile sends a file to a socket and to another file")
def sendfile(t):
    data = files.pattern(60_000)
    source = opened(data, "a")
    one, two = socket.socketpair()
    eq(os.sendfile(one.fileno(), source, 1000, 50_000) > 0, True)
    same_bytes(two.recv(50_000)[:10], data[1000:1010])
    dest = opened(b"", "b")
    sent = 0
    while sent < len(data):
        sent += os.sendfile(dest, source, sent, len(data) - sent)
    os.close(dest)
    same_bytes(host.files.read(t.there("b")), data)


@case("splice and tee move pages through a pipe, in both directions")
def splice(t):
    data = files.pattern(50_000)
    source, dest = opened(data, "a"), opened(b"", "b")
    read_end, write_end = os.pipe()
    at = 0
    while at < len(data):
        count = os.splice(source, write_end, 30_000, offset_src=at)
        moved = 0
        while moved < count:
            moved += os.splice(read_end, dest, count - moved, offset_dst=at + moved)
        at += count
    os.close(dest)
    same_bytes(files.read("b"), data)
    same_bytes(host.files.read(t.there("b")), data)


@case("posix_fadvise and readahead are accepted, and change nothing", who=[ROOT])
def advice(t):
    fd = opened(files.pattern(200_000))
    os.fsync(fd)
    for advice_number in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_RANDOM, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED):
        os.posix_fadvise(fd, 0, 0, advice_number)
        same_bytes(os.pread(fd, 200_000, 0), files.pattern(200_000))
    syscalls.libc.readahead(fd, 0, 100_000)
    same_bytes(os.pread(fd, 200_000, 0), files.pattern(200_000))
    os.close(fd)


@case("a swap file is refused", who=[ROOT], needs="two")
def swap(t):
    run("dd if=/dev/zero of=swap bs=64k count=16 status=none && chmod 600 swap && mkswap swap")
    refused = run(["swapon", "swap"], check=False)
    true(refused.status != 0, "swapon fails")


@case("an immutable file refuses fallocate: EPERM", who=[ROOT])
def immutable(t):
    fd = opened(b"data")
    os.fsync(fd)
    host.run(["chattr", "+i", t.there("f")])
    try:
        fails((EPERM, ETXTBSY), fallocate, fd, 0, 0, 100)
    finally:
        host.run(["chattr", "-i", t.there("f")])
    os.close(fd)
