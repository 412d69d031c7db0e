# SPDX-License-Identifier: GPL-2.0
"""Reading, writing and the size of files."""

import hashlib
import os
import random
import resource
import signal
from errno import EACCES, EFBIG, EINVAL, EISDIR, ENOENT, ESPIPE

from qtest import ROOT, USER, case, eq, fails, files, host, on_host, run, same_bytes, spawn, true

CREATE = os.O_CREAT | os.O_RDWR


@on_host
def host_bytes(path, offset, count):
    return files.read(path, offset, count)


@case("what was written is read back, in pieces of every size")
def read_write(t):
    data = files.pattern(200_000)
    fd = os.open("f", CREATE)
    at = 0
    for size in (1, 2, 7, 511, 512, 513, 4095, 4096, 4097, 8192, 65535, 100_000):
        eq(os.write(fd, data[at:at + size]), min(size, len(data) - at))
        at += size
    at = min(at, len(data))
    for size in (1, 3, 512, 4095, 4096, 4097, 65536):
        os.lseek(fd, 0, os.SEEK_SET)
        back = b""
        while part := os.read(fd, size if size > 100 else 30_000):
            back += part
        same_bytes(back, data[:at])
    os.close(fd)
    eq(host.files.digest(t.there("f")), files.digest("f"))
    same_bytes(files.read("f"), data[:at])


@case("pread and pwrite leave the offset alone, readv and writev take several buffers")
def positional(t):
    fd = os.open("f", CREATE)
    os.write(fd, b"0123456789")
    eq(os.pwrite(fd, b"AB", 2), 2)
    eq(os.pread(fd, 4, 1), b"1AB4")
    eq(os.lseek(fd, 0, os.SEEK_CUR), 10)
    eq(os.writev(fd, [b"one", b"", b"two", b"three" * 1000]), 5006)
    os.lseek(fd, 8, os.SEEK_SET)
    first, second = bytearray(3), bytearray(6)
    eq(os.readv(fd, [first, second]), 9)
    eq((bytes(first), bytes(second)), (b"89o", b"netwot"))
    eq(os.pwritev(fd, [b"x", b"y"], 0), 2)
    back = [bytearray(1), bytearray(2)]
    os.preadv(fd, back, 0)
    eq(b"".join(back), b"xyA")
    fails(EINVAL, os.pread, fd, 1, -1)
    os.close(fd)


@case("reading at and after the end gives nothing, across the end what there is")
def end_of_file(t):
    files.write("f", b"x" * 5000)
    fd = os.open("f", os.O_RDONLY)
    eq(len(os.pread(fd, 10000, 0)), 5000)
    eq(len(os.pread(fd, 10000, 4999)), 1)
    eq(os.pread(fd, 10, 5000), b"")
    eq(os.pread(fd, 10, 1 << 40), b"")
    eq(os.pread(fd, 0, 0), b"")
    os.close(fd)


@case("a write far behind the end leaves zeros in between")
def gap(t):
    fd = os.open("f", CREATE)
    os.pwrite(fd, b"start", 0)
    os.pwrite(fd, b"end", 1_000_000)
    eq(os.fstat(fd).st_size, 1_000_003)
    eq(os.pread(fd, 10, 0), b"start" + bytes(5))
    eq(os.pread(fd, 8, 999_995), bytes(5) + b"end")
    os.close(fd)
    eq(host_bytes(t.there("f"), 999_995, 8), bytes(5) + b"end")
    true(host.os.stat(t.there("f")).st_blocks < 200, "sparse on the host")


@case("offsets beyond 4 GiB and the end of 32 bits", who=[ROOT])
def large_offsets(t):
    fd = os.open("f", CREATE)
    places = [(1 << 32) - 3, (1 << 31) - 3, (1 << 32) + 4096, (1 << 40) + 1]
    for number, place in enumerate(places):
        eq(os.pwrite(fd, f"place{number}".encode(), place), 6)
    eq(os.fstat(fd).st_size, (1 << 40) + 7)
    for number, place in enumerate(places):
        eq(os.pread(fd, 6, place), f"place{number}".encode())
    eq(os.lseek(fd, 0, os.SEEK_END), (1 << 40) + 7)
    os.close(fd)
    for number, place in enumerate(places):
        eq(host_bytes(t.there("f"), place, 6), f"place{number}".encode())
    host.files.write_at(t.there("f"), (1 << 33) + 1, b"from host")
    fd = os.open("f", os.O_RDONLY)
    eq(os.pread(fd, 9, (1 << 33) + 1), b"from host")
    os.close(fd)


@case("writing beyond what the file system can hold is EFBIG, as RLIMIT_FSIZE says too", who=[ROOT])
def too_large(t):
    fd = os.open("f", CREATE)
    fails((EFBIG, EINVAL), os.pwrite, fd, b"x", (1 << 63) - 2)
    fails((EFBIG, EINVAL), os.ftruncate, fd, (1 << 63) - 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
    eq(os.pwrite(fd, b"x" * 100, 9950), 50)
    fails(EFBIG, os.pwrite, fd, b"x", 10000)
    fails(EFBIG, os.ftruncate, fd, 10001)
    fails(EFBIG, os.truncate, "f", 10001)
    fails(EFBIG, os.posix_fallocate, fd, 0, 10001)
    eq(os.fstat(fd).st_size, 10000)
    host.os.truncate(t.there("f"), 20000)
    os.ftruncate(fd, 15000)
    eq(os.fstat(fd).st_size, 15000)
    os.close(fd)


@case("truncate shortens, and extends with zeros, by name and by descriptor")
def truncate(t):
    files.write("f", b"x" * 10000)
    os.truncate("f", 5000)
    eq((os.stat("f").st_size, files.read("f")), (5000, b"x" * 5000))
    os.truncate("f", 9000)
    eq(files.read("f"), b"x" * 5000 + bytes(4000))
    fd = os.open("f", os.O_RDWR)
    os.ftruncate(fd, 0)
    eq(os.fstat(fd).st_size, 0)
    os.ftruncate(fd, 100)
    os.close(fd)
    eq(host.files.read(t.there("f")), bytes(100))
    os.mkdir("d")
    fails(EISDIR, os.truncate, "d", 0)
    fails(ENOENT, os.truncate, "n", 0)
    fails(EINVAL, os.truncate, "f", -1)


@case("bytes behind a shortened end never come back", who=[ROOT])
def truncate_zeroes(t):
    for size in (1, 100, 4095, 4096, 4097, 10000):
        files.write("f", b"secret" * 4000)
        fd = os.open("f", os.O_RDWR)
        os.pread(fd, 24000, 0)
        os.ftruncate(fd, size)
        os.ftruncate(fd, 24000)
        same_bytes(os.pread(fd, 24000, 0), (b"secret" * 4000)[:size] + bytes(24000 - size), str(size))
        os.pwrite(fd, b"tail", 23000)
        os.close(fd)
        there = host.files.read(t.there("f"))
        same_bytes(there[size:23000], bytes(23000 - size), f"on the host, {size}")


@case("dirty pages that a truncate cuts off are not written", who=[ROOT])
def truncate_dirty(t):
    fd = os.open("f", CREATE)
    os.write(fd, b"d" * 500_000)
    os.ftruncate(fd, 1000)
    os.fsync(fd)
    eq(host.os.stat(t.there("f")).st_size, 1000)
    os.close(fd)
    eq(host.files.read(t.there("f")), b"d" * 1000)


@case("truncate needs write permission: EACCES", who=[USER])
def truncate_permission(t):
    files.write("f", b"data", 0o444)
    fails(EACCES, os.truncate, "f", 0)
    fd = os.open("f", os.O_RDONLY)
    fails(EINVAL, os.ftruncate, fd, 0)
    os.close(fd)
    eq(files.read("f"), b"data")


@case("a reader with the file open sees what another open of it writes at once")
def two_opens(t):
    writer, reader = os.open("f", CREATE), os.open("f", os.O_RDONLY)
    for number in range(20):
        os.write(writer, b"%4d" % number)
        eq(os.read(reader, 100), b"%4d" % number)
    os.pwrite(writer, b"first", 0)
    eq(os.pread(reader, 5, 0), b"first")
    os.close(writer)
    os.close(reader)


@case("a long random history of reads, writes and truncates agrees with a model", who=[ROOT], limit=120)
def random_history(t):
    generator = random.Random(4711)
    model = bytearray()
    fd = os.open("f", CREATE)
    for step in range(400):
        place, count = generator.randrange(150_000), generator.randrange(1, 30_000)
        action = generator.choice(["write", "write", "read", "read", "truncate", "reopen", "fsync", "append"])
        if action == "write":
            data = bytes([step % 251 + 1]) * count
            os.pwrite(fd, data, place)
            if len(model) < place:
                model.extend(bytes(place - len(model)))
            model[place:place + count] = data
        elif action == "append":
            files.append("f", b"appended")
            model.extend(b"appended")
        elif action == "read":
            same_bytes(os.pread(fd, count, place), bytes(model[place:place + count]), f"step {step}")
        elif action == "truncate":
            os.ftruncate(fd, place)
            model = model[:place] + bytearray(max(0, place - len(model)))
        elif action == "fsync":
            os.fsync(fd)
            eq(host.os.stat(t.there("f")).st_size, len(model), f"step {step}")
        else:
            os.close(fd)
            fd = os.open("f", os.O_RDWR)
        eq(os.fstat(fd).st_size, len(model), f"size in step {step} after {action}")
    os.close(fd)
    same_bytes(files.read("f"), bytes(model))
    same_bytes(host.files.read(t.there("f")), bytes(model), "on the host")


@case("16 MiB go there and back whole", who=[ROOT], limit=120)
def large(t):
    data = files.pattern(16 << 20, 3)
    files.write("f", data)
    eq(host.files.digest(t.there("f")), hashlib.sha256(data).hexdigest())
    eq(files.digest("f"), host.files.digest(t.there("f")))
    host.run(["cp", t.there("f"), t.there("g")])
    eq(files.digest("g"), files.digest("f"))


@case("appending from here and from the host at once loses nothing and tears nothing", limit=120)
def append_from_two(t):
    files.write("log")
    os.chmod("log", 0o666)
    job = host.background.start(__file__, "append_lines", t.there("log"), b"host", 300)
    append_lines.local(t.path("log"), b"here", 300)
    host.background.finish(job)
    lines = files.read("log").split(b"\n")[:-1]
    for name in (b"host", b"here"):
        eq([line for line in lines if line.startswith(name)], [b"%s %5d %s" % (name, number, name * 20) for number in range(300)])
    eq(len(lines), 600)
    eq(files.digest("log"), host.files.digest(t.there("log")))


@on_host
def append_lines(path, name, count):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        os.write(fd, b"%s %5d %s\n" % (name, number, name * 20))
    os.close(fd)


@case("appending from several processes here loses nothing", who=[ROOT])
def append_here(t):
    files.write("log")
    children = [spawn(append_lines.local, "log", b"p%d" % number, 100) for number in range(4)]
    for child in children:
        child.result()
    lines = files.read("log").split(b"\n")[:-1]
    eq(sorted(lines), sorted(b"p%d %5d %s" % (name, number, b"p%d" % name * 20) for name in range(4) for number in range(100)))


@case("a write that a signal interrupts or a full disk stops is counted right", who=[ROOT], needs="two", loses=True)
def disk_full(t):
    os.mkdir("small")
    host.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", t.there("small")])
    try:
        fd = os.open("small/f", CREATE | os.O_SYNC)
        written, error = 0, None
        try:
            while written < 4 << 20:
                written += os.write(fd, b"x" * 65536)
        except OSError as problem:
            error = problem.errno
        os.close(fd)
        eq(error, 28, "ENOSPC")
        true(written <= 1 << 20, "no more was acknowledged than fits")
        eq(host.os.stat(t.there("small/f")).st_size >= written, True)
        os.unlink("small/f")
        fd = os.open("small/g", CREATE)
        outcome = []
        try:
            for _ in range(40):
                os.write(fd, b"y" * 65536)
            os.fsync(fd)
        except OSError as problem:
            outcome.append(problem.errno)
        try:
            os.close(fd)
        except OSError as problem:
            outcome.append(problem.errno)
        true(28 in outcome, "write, fsync or close tell that the disk is full")
    finally:
        host.run(["umount", "-l", t.there("small")])


@case("a fifo is no place to seek, a directory none to read", who=[ROOT])
def wrong_kinds(t):
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    fails(EISDIR, os.pread, fd, 10, 0)
    os.close(fd)
    read_end, _ = os.pipe()
    fails(ESPIPE, os.pread, read_end, 1, 0)


@case("dd, cp, cat, head and tail do what they should", who=[ROOT])
def tools(t):
    run("seq 1 20000 >a && cp a b && cat a b >c && head -c 1000 c >d && tail -n 1 c >e && dd if=a of=f bs=1000 status=none && cmp a f && cmp a b")
    eq(files.read("e"), b"20000\n")
    eq(os.stat("c").st_size, 2 * os.stat("a").st_size)
    eq(host.run(["md5sum", t.there("c")]).text.split()[0], run(["md5sum", "c"]).text.split()[0])


@case("tail -f sees what the host appends", who=[ROOT])
def follow(t):
    files.write("log", b"first\n")
    fd = os.open("log", os.O_RDONLY)
    eq(os.read(fd, 100), b"first\n")
    eq(os.read(fd, 100), b"")
    for number in range(10):
        host.files.append(t.there("log"), b"line %d\n" % number)
        eq(os.read(fd, 100), b"line %d\n" % number)
    os.close(fd)


@case("what was cached is not stale, however soon it is read again", who=[ROOT])
def not_stale(t):
    fd = os.open("f", CREATE)
    os.write(fd, b"a" * 8192)
    os.fsync(fd)
    for letter in b"bcd":
        host.files.write_at(t.there("f"), 0, bytes([letter]) * 8192)
        eq(os.pread(fd, 1, 5000), bytes([letter]))
    os.close(fd)
