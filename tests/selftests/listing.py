# SPDX-License-Identifier: GPL-2.0
"""Listing directories: everything once, also when they are large and change meanwhile."""

import os
import time
from errno import ENOTDIR

from qtest import ROOT, case, eq, eventually, fails, files, host, on_host, run, syscalls, true

LARGE = 100_000


@case("a directory lists . and .. and every name once, with the inode numbers of stat")
def simple(t):
    for number in range(20):
        files.write(f"f{number}")
    os.mkdir("d")
    stream = syscalls.Dir(".")
    entries = {}
    for name, inode, _ in stream.rest():
        true(name not in entries, f"{name} is listed once")
        entries[name] = inode
    stream.close()
    eq(sorted(entries), sorted([b".", b"..", b"d"] + [f"f{number}".encode() for number in range(20)]))
    for name in (b".", b"d", b"f0", b"f19"):
        eq(entries[name], os.lstat(name).st_ino)
    eq(entries[b".."], os.lstat("..").st_ino)


@case("an empty directory has . and .. only")
def empty(t):
    os.mkdir("d")
    eq(os.listdir("d"), [])
    stream = syscalls.Dir("d")
    eq(sorted(name for name, _, _ in stream.rest()), [b".", b".."])
    stream.close()


@case("telldir and seekdir come back to the same entry")
def seek(t):
    files.make_many(".", 300)
    stream = syscalls.Dir(".")
    places, entries = [], []
    while True:
        places.append(stream.tell())
        entry = stream.next()
        if entry is None:
            break
        entries.append(entry[0])
    eq(len(entries), 302)
    for index in (250, 3, 301, 0, 100, 101, 99):
        stream.seek(places[index])
        eq(stream.next()[0], entries[index], f"entry {index}")
    stream.seek(places[200])
    eq([entry[0] for entry in stream.rest()], entries[200:])
    stream.seek(places[-1])
    eq(stream.next(), None)
    stream.close()


@case("a place told stays right when other names come and go", who=[ROOT])
def seek_after_changes(t):
    files.make_many(".", 500)
    stream = syscalls.Dir(".")
    for _ in range(200):
        stream.next()
    place = stream.tell()
    rest = [entry[0] for entry in stream.rest()]
    for number in range(500, 600):
        host.files.write(t.there(f"f{number}"), b"")
    gone = rest[10]
    host.os.unlink(os.path.join(os.fsencode(t.host_dir), gone))
    stream.seek(place)
    again = [entry[0] for entry in stream.rest()]
    missed = set(rest) - {gone} - set(again)
    eq(missed, set(), "names that were there all the time")
    eq(len(again), len(set(again)), "no name twice")
    stream.close()


@case("rewinddir shows what was made and removed since")
def rewind(t):
    files.write("a")
    stream = syscalls.Dir(".")
    eq(sorted(name for name, _, _ in stream.rest()), [b".", b"..", b"a"])
    files.write("b")
    host.files.write(t.there("c"), b"")
    os.unlink("a")
    stream.rewind()
    eq(sorted(name for name, _, _ in stream.rest()), [b".", b"..", b"b", b"c"])
    stream.close()


@case("a new listing shows what the host did before it began")
def fresh(t):
    for number in range(5):
        host.files.write(t.there(f"f{number}"), b"")
        eq(len(os.listdir(".")), number + 1)
    for number in range(5):
        host.os.unlink(t.there(f"f{number}"))
        eq(len(os.listdir(".")), 4 - number)


@case("small and large buffers list the same")
def buffers(t):
    files.make_many(".", 200, "name-of-some-length-")
    wanted = sorted([b".", b".."] + [f"name-of-some-length-{number}".encode() for number in range(200)])
    for size in (64, 280, 1000, 4096, 32768, 1 << 20):
        fd = os.open(".", os.O_RDONLY)
        found = []
        while entries := syscalls.getdents(fd, size):
            found += [name for name, _, _, _ in entries]
        eq(sorted(found), wanted, f"buffer of {size}")
        os.close(fd)


@case("removing everything that is listed, while listing, empties the directory")
def remove_while_listing(t):
    files.make_many(".", 700)
    fd = os.open(".", os.O_RDONLY)
    while entries := syscalls.getdents(fd, 2000):
        for name, _, _, _ in entries:
            if name not in (b".", b".."):
                os.unlink(name)
    os.close(fd)
    eq(os.listdir("."), [])


@case("rm -r, find, ls -R and du agree on a tree", who=[ROOT])
def tools(t):
    host.call(__file__, "grow", t.host_dir, 6, 3)
    count = int(run("find . | wc -l").text)
    eq(count, int(host.run(f"cd {t.host_dir} && find . | wc -l").text))
    eq(run("find . -type f | sort").text, host.run(f"cd {t.host_dir} && find . -type f | sort").text)
    eq(run("ls -lR --time-style=full-iso . | md5sum").text, host.run(f"cd {t.host_dir} && ls -lR --time-style=full-iso . | md5sum").text)
    eq(run("du -s --apparent-size .").text, host.run(f"cd {t.host_dir} && du -s --apparent-size .").text)
    run("rm -r *")
    eq(host.os.listdir(t.host_dir), [])


def grow(path, width, depth):
    for number in range(width):
        files.write(os.path.join(path, f"f{number}"), b"x" * number)
        if depth:
            deeper = os.path.join(path, f"d{number}")
            os.mkdir(deeper)
            grow(deeper, width - 2, depth - 1)


@case("listing what is no directory is ENOTDIR")
def no_directory(t):
    files.write("f")
    fails(ENOTDIR, os.listdir, "f")
    fd = os.open("f", os.O_RDONLY)
    fails(ENOTDIR, syscalls.getdents, fd)
    os.close(fd)


def large_directory(t):
    """A directory with very many entries; made once, because that takes long."""
    path = os.path.join(t.fs.export, "listing/large")
    if not host.files.exists(path):
        host.os.mkdir(path)
        host.files.make_many(path, LARGE, "stay")
    return os.path.join(t.fs.mnt, "listing/large"), path


def list_large(path, size):
    """How many names that start with "stay" are listed, and how many different ones."""
    fd = os.open(path, os.O_RDONLY)
    seen = []
    while entries := syscalls.getdents(fd, size):
        seen += [name for name, _, _, _ in entries if name.startswith(b"stay")]
    os.close(fd)
    return len(seen), len(set(seen))


@case("100,000 entries are listed whole", who=[ROOT], limit=200)
def large(t):
    here, there = large_directory(t)
    eq(list_large(here, 1 << 18), (LARGE, LARGE))
    eq(host.os.stat(f"{there}/stay{LARGE - 1}").st_ino, os.stat(f"{here}/stay{LARGE - 1}").st_ino)


@case("100,000 entries are listed while the host adds and removes others: those that stay appear exactly once",
      who=[ROOT], limit=200)
def large_changing(t):
    here, there = large_directory(t)
    job = host.background.start(__file__, "churn", there, 180)
    eventually(lambda: host.files.exists(f"{there}/come0"))
    eq(list_large(here, 1 << 15), (LARGE, LARGE))
    true(host.background.alive(job), "the host changed the directory all the time")
    host.background.stop(job)


@on_host
def churn(path, seconds):
    """Adds and removes names, of which the first stays."""
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        for step in range(200):
            os.close(os.open(f"{path}/come{number + step}", os.O_CREAT | os.O_WRONLY))
        for step in range(200):
            if number + step:
                os.unlink(f"{path}/come{number + step}")
        number += 200


@case("a directory with 2,000 entries is removed by rm -rf", who=[ROOT], limit=180)
def large_removed(t):
    host.os.mkdir(t.there("big"))
    host.files.make_many(t.there("big"), 2000)
    run(["rm", "-rf", "big"], patience=150)
    eq(host.os.listdir(t.host_dir), [])
