# SPDX-License-Identifier: GPL-2.0
"""Every file of the host's /proc and /sys is there what it is on the host.

In the short form only a part of those directories is entered of which there are many alike, another
part for each seed; in the full form all are.

The host is surveyed before and after the dpu. What both surveys of the host agree on (which names
there are, attributes, links' texts, errors, contents in the same pieces) the dpu must have seen too.
What differs, or has changed meanwhile, is surveyed again, more quickly.
"""

import hashlib
import os
import pickle
import re
import stat
import time
import zlib

from qtest import ROOT, case, eq, host, kernelfs, on_host, spawn, true
from qtest.kernelfs import EXPORTS, PROC, SYS, mount_both, set_up, tear_down  # pylint: disable=unused-import

# The cases mount what they need.
MANUAL = True
WORKERS = 4
ROUNDS = 8
# How much of each file is read, in which pieces.
PIECE = 65536
MOST = 4 * PIECE
# What a survey knows of an entry; the first two come from the listing of its directory.
FIELDS = ("type", "number", "status", "text", "contents", "identity")

# --- Surveys: the same on both machines. ---


def text_of(name, directory):
    """What a link says, or the errno."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as e:
        return e.errno


def contents_of(name, directory):
    """How opening and reading a file goes: the lengths of the pieces, a digest, the errno at the end."""
    lengths, digest = [], hashlib.blake2b(digest_size=12)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
    except OSError as e:
        return "open", e.errno
    try:
        while sum(lengths) < MOST and (data := os.read(fd, PIECE)):
            lengths.append(len(data))
            digest.update(data)
        end = 0
    except OSError as e:
        end = e.errno
    finally:
        os.close(fd)
    return tuple(lengths), digest.digest(), end


def look(name, directory, kind, number):
    """All about an entry of an open directory; None if it is gone."""
    try:
        found = os.lstat(name, dir_fd=directory)
    except OSError as e:
        return kind, number, e.errno, None, None, None
    status = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_rdev)
    text = text_of(name, directory) if stat.S_ISLNK(found.st_mode) else None
    # procfs makes these anew with its inodes, which come and go.
    return kind, number, status, text, None, (found.st_ino, found.st_mtime_ns)


def is_entered(below, share):
    """Whether a directory is looked into: one of `share` where there are many alike, by chance."""
    level, of, seed = share
    alike = below.count("/") == level and (level > 1 or below[1:].isdigit())
    return not alike or zlib.crc32(below.encode()) % of == seed % of


def survey_directory(path, found, top, share, only=None):
    """Adds a directory's entries to what was found; returns the directories among them."""
    below = path[len(top):]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    except OSError as e:
        found[below + "/"] = ("open", e.errno)
        return []
    directories = []
    try:
        with os.scandir(fd) as entries:
            listed = [(entry.name, (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink()),
                       entry.inode()) for entry in entries if only is None or entry.name in only]
        # All of them first, as who lists does.
        listed = [(name, look(name, fd, kind, number)) for name, kind, number in listed]
        for name, entry in listed:
            mode = entry[2][0] if isinstance(entry[2], tuple) else 0
            if stat.S_ISDIR(mode):
                if is_entered(f"{below}/{name}", share):
                    directories.append(f"{path}/{name}")
            elif stat.S_ISREG(mode):
                entry = (*entry[:4], contents_of(name, fd), entry[5])
            found[f"{below}/{name}"] = entry
    except OSError as e:
        found[below + "/"] = ("list", e.errno)
    finally:
        os.close(fd)
    return directories


def survey_units(top, units, queue, share):
    """Surveys the trees whose numbers come out of a pipe."""
    found = {}
    while number := os.read(queue, 4):
        todo = [units[int.from_bytes(number, "little")]]
        while todo:
            todo += survey_directory(todo.pop(), found, top, share)
    return found, os.getpid()


def survey(top, depth, workers, share):
    """Surveys a tree by some processes; what was found, and their numbers."""
    found, units = {}, [top]
    for _ in range(depth):
        units = [path for unit in units for path in survey_directory(unit, found, top, share)]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.write(write_end, b"".join(number.to_bytes(4, "little") for number in range(len(units))))
    os.close(write_end)
    children = [spawn(survey_units, top, units, read_end, share) for _ in range(workers)]
    os.close(read_end)
    pids = [os.getpid()]
    for child in children:
        more, pid = child.result(1100)
        found.update(more)
        pids.append(pid)
    return found, pids


def survey_some(top, paths):
    """Surveys some paths again."""
    found, names = {}, {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        names.setdefault(parent, set()).add(name)
    for parent, only in names.items():
        survey_directory(top + parent, found, top, (0, 1, 0), only)
    return found


def packed(function, *args):
    """What a function returns in a child, packed for the way to the other machine."""
    return zlib.compress(pickle.dumps(spawn(function, *args).result(1100)), 1)


@on_host
def survey_there(top, depth, share):
    """A survey of the host."""
    return packed(survey, top, depth, 1, tuple(share))


@on_host
def survey_some_there(top, paths):
    """The same of some paths."""
    return packed(survey_some, top, pickle.loads(zlib.decompress(paths)))


# --- Comparing. ---

EVERYTHING = ("name", "listing", *FIELDS)
# Differences that are right: what a path below the top matches, in which fields, and why.
ACCEPTED = [
    (r"/\d+(/task/\d+)?/(smaps|smaps_rollup|numa_maps|pagemap|statm)", ("contents",),
     "the host's surveyor shares pages with the process while it surveys"),
    (r"/\d+(/task/\d+)?/(stack|wchan|syscall|sched|schedstat|stat|status|comm)", ("contents",),
     "kernel threads that serve the network or the survey are somewhere else at that moment"),
    (r"/(kpage\w+|kernel/slab/[^/]+/(objects|objects_partial|total_objects|partial|cpu_slabs|slabs)|sys/fs/(file-nr|dentry-state|inode-nr|inode-state)|sys/kernel/random/entropy_avail)", ("contents",),
     "they count what the kernel has in use, and the host's surveyor uses other things than the server"),
    (r"/kernel/(debug/)?tracing/events/.*", ("status", "identity"),
     "all files of tracing/events have one inode number, and so one inode here: whoever looks at two at once may see either's attributes"),
    (r"/(self|thread-self)", EVERYTHING, "they are the caller, which lives on this machine"),
]


def numbers(pids):
    """What a path of one of these processes matches."""
    return rf"/({'|'.join(map(str, pids))})(/.*)?"



def compare(before, here, after):
    """What is not as on the host: path -> what and how; and the paths that changed on the host meanwhile."""
    differ, changed = {}, set()
    for path in before.keys() | here.keys() | after.keys():
        first, seen, last = before.get(path), here.get(path), after.get(path)
        if first is None and last is None:
            differ[path] = [("name", "is only here", seen)]
        elif first is None or last is None:
            changed.add(path)
        elif seen is None:
            differ[path] = [("name", "is not here", first)]
        elif len(first) != len(FIELDS) or len(seen) != len(FIELDS):
            # A directory that could not be opened or listed.
            if first == last != seen:
                differ[path] = [("listing", seen, first)]
        else:
            found = [(field, got, want) for field, want, got, again in zip(FIELDS, first, seen, last) if want == again != got]
            if found:
                differ[path] = found
            if first[2:5] != last[2:5]:
                changed.add(path)
    return differ, changed


def not_accepted(differ, accepted):
    """The differences that have no explanation; and how many each explanation has taken away."""
    left, taken = {}, dict.fromkeys((why for _, _, why in accepted), 0)
    for path, fields in differ.items():
        for pattern, which, why in accepted:
            if re.fullmatch(pattern, path) and all(field in which for field, _, _ in fields):
                taken[why] += 1
                break
        else:
            left[path] = fields
    return left, taken


def process_of(path):
    """The process that an entry of /proc belongs to, if any."""
    first = path.split("/")[1]
    return first if first.isdigit() else None


def processes(found):
    """All of a survey."""
    return {process_of(path) for path in found}


def check(t, top, mountpoint, depth, level, of, least):  # pylint: disable=too-many-arguments,too-many-positional-arguments
    """Compares a tree here with the host's; in the short form one of so many directories of a level."""
    share = (level, t.amount(of, 1), t.seed())
    begin = time.monotonic()
    before, _ = pickle.loads(zlib.decompress(survey_there(top, depth, share)))
    middle = time.monotonic()
    here, pids = survey(mountpoint, depth, WORKERS, share)
    end = time.monotonic()
    after, _ = pickle.loads(zlib.decompress(survey_there(top, depth, share)))
    accepted = [*ACCEPTED, (numbers(pids), EVERYTHING, "the caller does not see the host's process that has its own number"),
                (numbers([host.os.getpid(), *host.server.engines()]), EVERYTHING, "engine and the tests' agent do the work")]
    differ, changed = compare(before, here, after)
    t.note(f"{top}: {len(before)} entries, surveyed in {middle - begin:.1f} s there and {end - middle:.1f} s here; "
           f"{len(differ)} differ, {len(changed)} changed")
    true(len(before) >= least and len(here) >= least, f"{len(before)} and {len(here)} entries")
    both = processes(before) & processes(after)
    lasting = [path for path in changed if process_of(path) in both]
    true(len(lasting) < len(before) / 5, f"{len(lasting)} of {len(before)} changed")
    taken = {}
    for _ in range(ROUNDS):
        differ, some = not_accepted(differ, accepted)
        taken = {why: taken.get(why, 0) + number for why, number in some.items()}
        again = differ.keys() | changed
        if not again:
            break
        paths = zlib.compress(pickle.dumps(sorted(again)))
        before = pickle.loads(zlib.decompress(survey_some_there(top, paths)))
        here = survey_some(mountpoint, sorted(again))
        after = pickle.loads(zlib.decompress(survey_some_there(top, paths)))
        differ, changed = compare(before, here, after)
    differ, _ = not_accepted(differ, accepted)
    t.note(f"{len(changed)} always change, as {sorted(changed)[:12]}; accepted: {taken}")
    lines = [f"{path}: {field}: got {got}, want {want}" for path, fields in sorted(differ.items()) for field, got, want in fields]
    eq(len(lines), 0, "differences\n" + "\n".join(lines[:60]) + "\n")


@case("every file of /proc is what it is on the host", who=[ROOT], needs="qtfs", limit=400, full=1200)
def proc(t):
    mount_both()
    check(t, "/proc", PROC, 1, 1, 16, 1500)


@case("every file of /sys is what it is on the host", who=[ROOT], needs="qtfs", limit=400, full=1800)
def sys(t):
    mount_both()
    check(t, "/sys", SYS, 2, 3, 5, 1500)
