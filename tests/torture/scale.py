# SPDX-License-Identifier: GPL-2.0
"""Many of everything: mounts, open files, inodes, processes, names in one directory."""

import os
import resource
import subprocess

from qtest import ROOT, case, counters, eq, eventually, files, filesystems, host, on_host, process, run, spawn, syscalls
from qtest.checks import SLOWNESS

PATIENCE = 7200
MOUNTS = "/mnt/scale"


def slab_kib():
    """Memory of the kernel that it could give back."""
    found = dict(line.split()[:2] for line in files.read("/proc/meminfo").decode().splitlines())
    return int(found["SReclaimable:"])


def free_caches():
    """Gives back what can be given back."""
    files.write("/proc/sys/vm/drop_caches", b"3")


@case("mounts of as many directories", who=[ROOT], needs="qtfs", limit=240, full=PATIENCE)
def mounts(t):
    count = t.amount(20, 200)
    for number in range(count):
        host.os.mkdir(t.there(f"d{number}"))
        host.files.write(t.there(f"d{number}", "f"), b"%d" % number)
        os.makedirs(f"{MOUNTS}/{number}", exist_ok=True)
    before = process.lasting()
    made = 0
    try:
        for number in range(count):
            filesystems.mount(t.there(f"d{number}"), f"{MOUNTS}/{number}")
            made += 1
        eq([files.read(f"{MOUNTS}/{number}/f") for number in range(count)], [b"%d" % number for number in range(count)])
        for number in range(count):
            files.write(f"{MOUNTS}/{number}/g", b"x" * 5000)
        eq({host.os.stat(t.there(f"d{number}", "g")).st_size for number in range(0, count, 7)}, {5000})
        t.note(f"{count} mounts, {process.lasting() - before} more threads")
    finally:
        for number in range(made):
            filesystems.umount(f"{MOUNTS}/{number}")
    eventually(lambda: process.lasting() <= before + 5, 20, "their threads are gone")


def hold(count):
    """Opens files, and reads and writes each of them later."""
    opened = [os.open(f"f{number}", os.O_RDWR | os.O_CREAT, 0o600) for number in range(count)]
    for number, fd in enumerate(opened):
        os.write(fd, b"%d" % number)
    for number, fd in enumerate(opened):
        eq(os.pread(fd, 20, 0), b"%d" % number)
    for fd in opened[::2]:
        os.fsync(fd)
    return opened


@case("open files", who=[ROOT], limit=240, full=PATIENCE)
def open_files(t):
    count = t.amount(400, 10_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    opened = hold(count)
    for name in os.listdir("."):
        os.unlink(name)
    eq(os.listdir("."), [])
    # They live on without a name.
    eq([os.pread(fd, 20, 0) for fd in opened[:: count // 100]], [b"%d" % number for number in range(0, count, count // 100)])
    for fd in opened:
        os.close(fd)
    t.note(f"{count} files were open")


def busy(number, rounds):
    """What one process of many does: all kinds of things, in a directory that all share and in one of its own."""
    own = f"own{number}"
    os.mkdir(own)
    for turn in range(rounds):
        files.write(f"{own}/{turn}", b"%d %d" % (number, turn) * 50)
        os.link(f"{own}/{turn}", f"shared-{number}-{turn}")
        os.rename(f"shared-{number}-{turn}", f"renamed-{number}-{turn}")
        eq(files.read(f"renamed-{number}-{turn}"), b"%d %d" % (number, turn) * 50)
        try:
            os.mkdir(f"once-{turn}")
            won = 1
        except FileExistsError:
            won = 0
        fd = os.open("common", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%4d %4d %d\n" % (number, turn, won))
        os.close(fd)
        os.unlink(f"renamed-{number}-{turn}")
    return len(os.listdir(own))


@case("64 processes at once on 2 processors", who=[ROOT], limit=240, full=PATIENCE)
def processes(t):
    count, rounds = 64, t.amount(3, 100)
    children = [spawn(busy, number, rounds) for number in range(count)]
    eq([child.result(t.amount(200, PATIENCE)) for child in children], [rounds] * count)
    lines = [tuple(int(word) for word in line.split()) for line in host.files.read(t.there("common")).decode().splitlines()]
    eq(sorted(line[:2] for line in lines), sorted((number, turn) for number in range(count) for turn in range(rounds)))
    for turn in range(rounds):
        eq(sum(won for _, which, won in lines if which == turn), 1, f"who made once-{turn}")
    eq([name for name in os.listdir(".") if name.startswith(("renamed", "shared"))], [])


@on_host
def many_names(path, count):
    """A directory with so many names, of a few inodes."""
    files.make_many(path, count, "name")


@case("names in one directory", who=[ROOT], limit=240, full=PATIENCE)
def names(t):
    count = t.amount(20_000, 1_000_000)
    host.os.mkdir(t.there("d"))
    many_names(t.there("d"), count, patience=PATIENCE)
    before = counters.read(t.fs.mnt) if t.fs.name == "qtfs" else None
    seen, repeated = set(), 0
    with os.scandir("d") as entries:
        for entry in entries:
            repeated += entry.name in seen
            seen.add(entry.name)
    eq((len(seen), repeated), (count, 0), "names, and names that came twice")
    eq(seen, {f"name{number}" for number in range(count)})
    if before:
        t.note(f"{count} names: {counters.read(t.fs.mnt) - before}")
    for number in (0, count // 3, count - 1):
        os.stat(f"d/name{number}")
        os.unlink(f"d/name{number}")
    eq(sum(1 for _ in os.scandir("d")), count - 3)


def inodes_here():
    """How many inodes this machine has in memory, of all file systems."""
    return int(files.read("/proc/sys/fs/inode-nr").split()[0])


@on_host
def many_inodes(path, image, count, per_directory):
    """A file system with so many files, mounted at path."""
    os.truncate(os.open(image, os.O_CREAT | os.O_RDWR), 600 << 20)
    run(["mkfs.ext4", "-q", "-F", "-I", "128", "-N", str(count + count // per_directory + 1000), "-O", "^has_journal", image], patience=600)
    os.makedirs(path, exist_ok=True)
    run(["mount", "-o", "loop", image, path])
    for first in range(0, count, per_directory):
        directory = f"{path}/{first}"
        os.mkdir(directory)
        top = os.open(directory, os.O_RDONLY)
        for number in range(first, min(first + per_directory, count)):
            os.mknod(f"{number}", 0o644, dir_fd=top)
        os.close(top)


@on_host
def remove_inodes(path, image):
    """The opposite."""
    syscalls.umount(path, syscalls.MNT_DETACH)
    if os.path.exists(image):
        os.unlink(image)


@case("inodes: all are walked, and their memory is given back", who=[ROOT], needs="qtfs", limit=240, full=PATIENCE)
def inodes(t):
    count = t.amount(10_000, 1_000_000)
    free_caches()
    before, known = slab_kib(), inodes_here()
    many_inodes(t.there("many"), "/data/many.img", count, 10_000, patience=PATIENCE)
    try:
        peak = 0
        walk = subprocess.Popen(["find", "many", "-type", "f", "-printf", "%i\n"], stdout=subprocess.PIPE)  # pylint: disable=consider-using-with
        numbers = set()
        for line in walk.stdout:
            numbers.add(int(line))
            if len(numbers) % 5000 == 0:
                peak = max(peak, slab_kib())
        eq((walk.wait(), len(numbers)), (0, count), "status, inodes")
        eventually(lambda: free_caches() or inodes_here() - known < count // 20 + 1000, 60, "inodes are forgotten")
        if SLOWNESS == 1:
            # KASAN keeps what was freed for a while.
            eventually(lambda: free_caches() or slab_kib() - before < max(peak - before, 0) // 4 + 8192, 60, "memory is given back")
        t.note(f"{count} inodes; reclaimable memory {before} KiB before, at most {peak} KiB, {slab_kib()} KiB afterwards")
        # And again while something else wants the memory.
        want = t.amount(64, 1024)
        hog = spawn(occupy, want << 20)
        again = subprocess.run(["find", "many", "-type", "f"], stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
        eq(again, count)
        hog.kill()
        hog.finished(20)
    finally:
        remove_inodes(t.there("many"), "/data/many.img")


def occupy(size):
    """Holds memory and touches it again and again until it is killed."""
    memory = bytearray(size)
    while True:
        for at in range(0, size, 4096):
            memory[at] = (memory[at] + 1) & 255
