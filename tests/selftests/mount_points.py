# SPDX-License-Identifier: GPL-2.0
"""Mount points of the host: programs say of them on the dpu what they say on the host, from the next system call on."""

import json
import mmap
import os
from errno import EBUSY, ENOENT, ESTALE, EXDEV

from qtest import ROOT, case, counters, eq, eventually, fails, files, filesystems, host, on_host, run, server, spawn, syscalls, true
from qtest.kernelfs import EXPORTS, SYS
from qtest.syscalls import RESOLVE_NO_XDEV, STATX_ATTR_MOUNT_ROOT, openat2



def crossing(path, flags):
    """What openat2 says that is not to cross mount points: 0 or its errno."""
    try:
        os.close(openat2(path, flags, RESOLVE_NO_XDEV))
    except OSError as e:
        return e.errno
    return 0


def seen(top, names, programs):
    """What is taken for mount points below a directory, by programs too if they are asked: they take their time."""
    old = os.getcwd()
    os.chdir(top)
    try:
        found = {}
        for name in names:
            directory = os.path.isdir(name)
            stat, parent = os.stat(name), os.stat(os.path.dirname(name) or ".")
            found[name] = {
                "python": os.path.ismount(name),
                "device": stat.st_dev == parent.st_dev,
                "statx": bool(syscalls.statx(name).attributes & STATX_ATTR_MOUNT_ROOT),
                "O_PATH": crossing(name, os.O_PATH),
                "O_RDONLY": crossing(name, os.O_RDONLY),
                "inside": crossing(f"{name}/.", os.O_PATH) if directory else None,
            }
        if programs:
            seen_by_programs(names, found)
        return found
    finally:
        os.chdir(old)


def seen_by_programs(names, found):
    """What programs say."""
    for name in names:
        last = os.path.basename(name)
        found[name]["stat -c %m"] = os.path.basename(run(["stat", "-c", "%m", name]).text) == last
        found[name]["mountpoint"] = run(["mountpoint", "-q", name], check=False).status
        found[name]["findmnt"] = os.path.basename(run(["findmnt", "-n", "-o", "TARGET", "--target", name]).text) == last
    # What Docker and containerd look with, see tests/go.
    command = filesystems.build_directory() + "/tools/mountpoints"
    answers = [json.loads(line) for line in run([command, *map(os.path.realpath, names)]).text.splitlines()]
    for name, answer in zip(names, answers, strict=True):
        answer["Lookup"] = os.path.basename(answer["Lookup"]) == os.path.basename(name)
        found[name]["moby"] = answer
    for command in (["find", ".", "-xdev"], ["du", "-axb", "--exclude=kernel", "."]):
        done = run(command)
        found[command[0]] = sorted(line.split("\t")[-1] for line in done.text.splitlines())


@on_host
def seen_there(top, names, programs):
    """The same on the host."""
    return seen(top, names, programs)


@on_host
def mount_there(*command):
    """mount(8) on the host."""
    run(["mount", *command])


@on_host
def server_is_loaded_anew():
    """The module forgets all."""
    server.stop_engine()
    server.unload()
    server.start()


@on_host
def umount_there(*paths):
    """umount(8) on the host."""
    for path in paths:
        server.umount(path)


NAMES = ("dir", "dir/inner", "other", "file", "bound-file", "bound-dir")


class Tree:
    """Directories and files to mount on, and whether both machines agree on them."""

    def __init__(self, t):
        self.t = t
        for name in ("dir/inner", "other", "bound-dir"):
            os.makedirs(name)
        for name in ("file", "bound-file", "other/content"):
            files.write(name, b"data")

    def agree(self, *roots, programs=False):
        """Compares, and checks that these and no others are mount points."""
        here = seen(".", NAMES, programs)
        eq(here, seen_there(self.t.host_dir, NAMES, programs))
        eq([name for name in NAMES if here[name]["statx"]], list(roots), "mount points")
        # Names in a mounted directory cannot be reached without crossing it.
        eq([name for name in NAMES if here[name]["O_PATH"] == EXDEV], [name for name in NAMES if {name, os.path.dirname(name)} & {*roots}])


@case("tmpfs, bind mounts of directories and of files come and go", who=[ROOT], needs="qtfs", limit=120)
def come_and_go(t):
    tree = Tree(t)
    there = t.there
    tree.agree()
    try:
        mount_there("-t", "tmpfs", "none", there("dir"))
        host.os.mkdir(there("dir/inner"))
        tree.agree("dir")
        mount_there("--bind", there("other"), there("bound-dir"))
        tree.agree("dir", "bound-dir")
        eq(files.read("bound-dir/content"), b"data")
        mount_there("--bind", there("file"), there("bound-file"))
        tree.agree("dir", "bound-file", "bound-dir")
        mount_there("-t", "tmpfs", "none", there("dir/inner"))
        tree.agree("dir", "dir/inner", "bound-file", "bound-dir", programs=True)
        umount_there(there("dir/inner"), there("bound-file"))
        tree.agree("dir", "bound-dir", programs=True)
        # A second one over the first.
        mount_there("-t", "tmpfs", "none", there("dir"))
        host.os.mkdir(there("dir/inner"))
        host.files.write(there("dir/upper"), b"")
        tree.agree("dir", "bound-dir")
        true(os.path.exists("dir/upper"), "the upper one is seen")
        umount_there(there("dir"))
        tree.agree("dir", "bound-dir")
        eq(os.path.exists("dir/upper"), False)
    finally:
        for name in ("dir", "dir", "bound-dir", "bound-file"):
            host.run(["umount", "-R", there(name)], check=False)
    tree.agree()


@case("a file bound over itself is a mount point too", who=[ROOT], needs="qtfs")
def over_itself(t):
    files.write("file", b"data")
    for _ in range(2):
        eq(crossing("file", os.O_RDONLY), 0)
        mount_there("--bind", t.there("file"), t.there("file"))
        try:
            for flags in (os.O_PATH, os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
                eq(crossing("file", flags), EXDEV)
            eq(files.read("file"), b"data")
        finally:
            umount_there(t.there("file"))


@case("a mount below a directory that is open, or a working directory, is seen by the next system call", who=[ROOT], needs="qtfs")
def below_open(t):
    os.makedirs("top/dir")
    files.write("top/dir/below", b"")
    fd = os.open("top", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir("top")
    for _ in range(3):
        eq(os.listdir("dir"), ["below"])
        eq(sorted(os.listdir(fd)), ["dir"])
        mount_there("-t", "tmpfs", "none", t.there("top/dir"))
        try:
            eq(os.listdir("dir"), [])
            true(os.path.ismount("dir"), "by the working directory")
            true(os.stat("dir", dir_fd=fd).st_dev != os.fstat(fd).st_dev, "by the open directory")
            files.write("dir/above", b"")
            eq(host.os.listdir(t.there("top/dir")), ["above"])
        finally:
            umount_there(t.there("top/dir"))
        eq(os.path.ismount("dir"), False)
        eq(os.stat("dir", dir_fd=fd).st_dev, os.fstat(fd).st_dev)
    os.close(fd)
    # What the host has covered is out of reach, as its policy is about names; until it is uncovered.
    # What is open goes on working.
    opened = [os.open("dir", os.O_RDONLY | os.O_DIRECTORY), os.open("dir/below", os.O_RDWR)]
    numbers = [os.fstat(one).st_ino for one in opened]
    os.chdir("dir")
    mount_there("-t", "tmpfs", "none", t.there("top/dir"))
    try:
        fails(ESTALE, os.listdir, ".")
        eq(os.listdir("../dir"), [])
        eq(os.listdir(opened[0]), ["below"])
        eq([os.fstat(one).st_ino for one in opened], numbers)
    finally:
        umount_there(t.there("top/dir"))
    eq(os.listdir("."), ["below"])
    for one in opened:
        os.close(one)


def table(below):
    """The mounts of this machine below a directory, by their paths from there."""
    lines = files.read("/proc/self/mountinfo").decode().splitlines()
    return sorted(os.path.relpath(line.split()[4], below) for line in lines if line.split()[4].startswith(f"{below}/"))


@case("mount points of the host are mounts of the dpu once they were looked at, and go with the mount that they are in", who=[ROOT], needs="qtfs")
def mounts(t):
    os.makedirs("dir")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    host.os.mkdir(t.there("dir/inner"))
    mount_there("-t", "tmpfs", "none", t.there("dir/inner"))
    try:
        top = "/mnt/mount_points_other"
        os.makedirs(top, exist_ok=True)
        filesystems.mount(t.host_dir, top)
        eq(table(top), [])
        os.stat(f"{top}/dir/inner")
        eq(table(top), ["dir", "dir/inner"])
        # As with any mount point.
        fails(EBUSY, os.rmdir, f"{top}/dir")
        fails(EBUSY, os.rename, f"{top}/dir", f"{top}/other")
        fails(EXDEV, os.rename, f"{top}/dir/inner", f"{top}/other")
        # Another mount namespace has its own.
        script = f"umount {top}/dir/inner && umount {top}/dir && ! grep {top}/ /proc/self/mountinfo && ls {top}/dir && grep -c {top}/ /proc/self/mountinfo"
        eq(run(["unshare", "-m", "sh", "-c", script]).text.split(), ["inner", "1"])
        eq(table(top), ["dir", "dir/inner"])
        os.chdir(f"{top}/dir/inner")
        true("busy" in run(["umount", top], check=False).complaint, "it is in use")
        os.chdir("/")
        filesystems.umount(top)
        eq(table(top), [])
        filesystems.mount(t.host_dir, top)
        fd = os.open(f"{top}/dir/inner", os.O_RDONLY | os.O_DIRECTORY)
        run(["umount", "-l", top])
        eq(os.listdir(fd), [])
        # Nothing can be mounted in what is no longer mounted itself.
        fd_top = os.open("..", os.O_PATH, dir_fd=fd)
        eq(os.stat(fd).st_dev == os.stat(fd_top).st_dev, True)
        os.close(fd_top)
        os.close(fd)
        os.rmdir(top)
    finally:
        umount_there(t.there("dir/inner"), t.there("dir"))


@case("what is open below mount points outlives the server's memory", who=[ROOT], needs="qtfs", limit=120)
def outlives(t):
    os.makedirs("dir")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        os.makedirs("dir/sub/inner")
        files.write("file", b"")
        mount_there("-t", "tmpfs", "none", t.there("dir/sub/inner"))
        files.write("dir/sub/inner/f", b"data")
        mount_there("--bind", t.there("dir/sub/inner/f"), t.there("file"))
        opens = [os.open(name, os.O_RDWR) for name in ("dir/sub/inner/f", "file")]
        os.chdir("dir/sub/inner")
        server_is_loaded_anew()
        for fd in opens:
            eq(os.pread(fd, 4, 0), b"data")
            os.close(fd)
        eq(os.listdir("."), ["f"])
        eq(os.listdir(".."), ["inner"])
        eq(files.read(t.path("file")), b"data")
        os.chdir("/")
        umount_there(t.there("dir/sub/inner"), t.there("file"), t.there("dir"))
    finally:
        for name in ("file", "dir"):
            host.run(["umount", "-Rl", t.there(name)], check=False)


STATES = ([], ["above"], ["below"])
WALKERS = 8


def walk(top, rounds, number, opens):
    """Looks at a mount point that comes and goes until it is told to end; how often its files were there."""
    found = {"above": 0, "below": 0}
    while rounds[WALKERS] == 0:
        os.stat(f"{top}/dir")
        os.stat(f"{top}/dir/.")
        if opens:
            names = os.listdir(f"{top}/dir")
            true(names in STATES, names)
            for name in found:
                try:
                    eq(files.read(f"{top}/dir/{name}"), name.encode())
                    found[name] += 1
                except OSError as e:
                    true(e.errno == ENOENT, e)
        rounds[number] = (rounds[number] + 1) % 256
    return found


@case("eight walkers see a mount point come and go, and nothing else", who=[ROOT], needs="qtfs", limit=180)
def walkers(t):
    os.makedirs("dir")
    files.write("dir/below", b"below")
    rounds = mmap.mmap(-1, 4096)
    # Opening keeps the host from umounting.
    children = [spawn(walk, t.path("."), rounds, number, number == 0) for number in range(WALKERS)]

    def all_have_looked():
        """Nobody's system call lasts over two changes: that may be ESTALE."""
        before = rounds[:WALKERS]
        for number in range(WALKERS):
            eventually(lambda: not children[number].alive() or (rounds[number] - before[number]) % 256 >= 2, 30, f"walker {number} goes on")

    try:
        for _ in range(8):
            mount_there("-t", "tmpfs", "none", t.there("dir"))
            host.files.write(t.there("dir/above"), b"above")
            all_have_looked()
            eventually(lambda: host.run(["umount", t.there("dir")], check=False).status == 0, 30, "the host can umount it")
            all_have_looked()
    finally:
        rounds[WALKERS] = 1
        found = [child.result(30) for child in children]
        host.run(["umount", t.there("dir")], check=False)
    true(found[0]["above"] > 0 and found[0]["below"] > 0, found)
    eq(os.listdir("dir"), ["below"])
    eq(table(os.path.realpath("dir")), [])


@case("device numbers stay the same while a file system of the host is mounted", who=[ROOT], needs="qtfs")
def stable(t):
    os.makedirs("dir")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        host.os.mkdir(t.there("dir/sub"))
        device = os.stat("dir").st_dev
        run("echo 2 > /proc/sys/vm/drop_caches")
        eq(os.stat("dir/sub").st_dev, device)
        eq(os.stat("dir").st_dev, device)
    finally:
        umount_there(t.there("dir"))


@case("/sys contains what the host has mounted there, with its mount points", who=[ROOT], needs="qtfs")
def sysfs(t):
    host.server.start(EXPORTS)
    os.makedirs(SYS, exist_ok=True)
    filesystems.mount("/sys", SYS, "sys")
    names = [line.split()[1] for line in host.files.read("/proc/mounts").decode().splitlines()]
    names = [name.removeprefix("/sys/") for name in names if name.startswith("/sys/")]
    true("fs/cgroup" in names and "kernel/debug" in names, names)
    here = {name: seen_one(f"{SYS}/{name}") for name in names}
    eq(here, {name: seen_one_there(f"/sys/{name}") for name in names})
    true(all(found == (True, EXDEV) for found in here.values()), here)
    # A mount that comes later.
    mount_there("-t", "tmpfs", "none", "/sys/fs/bpf")
    try:
        host.files.write("/sys/fs/bpf/new", b"")
        eq(seen_one(f"{SYS}/fs/bpf"), (True, EXDEV))
        eq(os.listdir(f"{SYS}/fs/bpf"), ["new"])
    finally:
        umount_there("/sys/fs/bpf")
    eq(seen_one(f"{SYS}/fs/bpf"), seen_one_there("/sys/fs/bpf"))
    filesystems.umount(SYS)
    host.server.start()


def seen_one(path):
    """Whether a directory is a mount point, and what openat2 says."""
    return os.path.ismount(path), crossing(path, os.O_PATH)


@on_host
def seen_one_there(path):
    """The same on the host."""
    return seen_one(path)


@case("looking at a mount point costs no more than looking at a directory", who=[ROOT], needs="qtfs")
def costs(t):
    os.makedirs("dir")
    os.makedirs("plain")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        for name in ("plain", "dir"):
            os.stat(name)
            before = counters.read(t.fs.mnt)
            os.stat(name)
            eq((counters.read(t.fs.mnt) - before).waits, 1, name)
    finally:
        umount_there(t.there("dir"))


IMAGE = "/data/below.img"
WRITE_BACK = "/proc/sys/vm/dirty_writeback_centisecs"


@on_host
def mount_disk(point):
    """Mounts a disk of its own; nothing is written to it before somebody asks for that."""
    files.write(WRITE_BACK, b"0")
    run(["truncate", "-s", "64M", IMAGE])
    run(["mkfs.ext4", "-q", "-F", IMAGE])
    os.mkdir(point)
    run(["mount", "-o", "loop,commit=1000", IMAGE, point])


@on_host
def unmount_disk(point, before):
    files.write(WRITE_BACK, before)
    if os.path.ismount(point):
        server.umount(point)
    os.unlink(IMAGE)


@on_host
def on_disk(text):
    """Whether it is on that disk."""
    return run(["grep", "-q", text, IMAGE], check=False).status == 0


@case("fsync, syncfs and sync put on its disk what lies on a disk that the host has mounted below", who=[ROOT], needs="qtfs", limit=120)
def synced_below(t):
    before = host.files.read(WRITE_BACK)
    try:
        mount_disk(t.there("disk"))
        for name, sync in (("fsync", os.fsync), ("syncfs", syscalls.syncfs), ("sync", lambda fd: os.sync())):
            text = f"before {name}!"
            fd = os.open(f"disk/{name}", os.O_RDWR | os.O_CREAT)
            os.write(fd, text.encode())
            eq(on_disk(text), False, f"before {name}")
            sync(fd)
            eq(on_disk(text), True, f"after {name}")
            os.close(fd)
    finally:
        unmount_disk(t.there("disk"), before)
