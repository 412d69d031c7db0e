# SPDX-License-Identifier: GPL-2.0
"""The work that nfs-compare measures; runs on the dpu, on one file system at a time.

    python3 workload.py nfs4|qtfs SOURCE MOUNTPOINT OPTIONS

prints one Python literal per line: (operation, how often, seconds, round trips,
requests, megabytes received). The tree below SOURCE was made by prepare() on
the host.
"""

import os
import subprocess
import sys
import time

from qtest import counters
from qtest import files

MIB = 1 << 20
COUNT = 100
LISTED = 1000
LARGE = 64


def prepare(top):
    """What the work needs, made on the host."""
    files.fresh_directory(top)
    for directory in ("stat", "read", "change"):
        os.mkdir(f"{top}/{directory}")
        for number in range(COUNT):
            files.write(f"{top}/{directory}/f{number}", files.pattern(4096, number))
    os.mkdir(f"{top}/list")
    for number in range(LISTED):
        files.write(f"{top}/list/entry-{number:04}", b"x" * (number % 10))
    block = files.pattern(MIB)
    with open(f"{top}/large", "wb") as file:
        for _ in range(LARGE):
            file.write(block)
    subprocess.run(["sync"], check=True)


def make_archive(path):
    """A tree of 30 directories and 240 small files, as a tar file of this machine."""
    top = path + ".d"
    files.fresh_directory(top)
    for number in range(30):
        directory = f"{top}/tree/dir{number}"
        os.makedirs(directory)
        for inner in range(8):
            files.write(f"{directory}/file{inner}", files.pattern(100 + 700 * inner, number))
    subprocess.run(["tar", "-C", top, "-cf", path, "tree"], check=True)
    files.remove_tree(top)


class Bench:
    """Mounts, measures, prints."""

    def __init__(self, kind, source, target, options):
        self.kind, self.source, self.target, self.options = kind, source, target, options
        os.makedirs(target, exist_ok=True)

    def mount(self):
        """A mount that knows nothing yet."""
        self.umount()
        files.write("/proc/sys/vm/drop_caches", b"3")
        options = ["-o", self.options] if self.options else []
        subprocess.run(["mount", "-t", self.kind, *options, self.source, self.target], check=True)

    def umount(self):
        """Without looking at what is there."""
        os.chdir("/")
        if os.path.ismount(self.target):
            subprocess.run(["umount", self.target], check=True)

    def measure(self, label, count, action, known=(), cold=True):
        """Measures one kind of operation; known are the directories that have been looked at before."""
        if cold:
            self.mount()
        os.chdir(self.target)
        for path in known:
            os.listdir(path)
        before = counters.read(self.target)
        begin = time.monotonic()
        action()
        seconds = time.monotonic() - begin
        spent = counters.read(self.target) - before
        print(repr((label, count, seconds, spent.waits, spent.total("requests"), spent.total("bytes_received"), repr(spent))), flush=True)

    def run(self):
        """Everything, in the order of the table."""
        names = [f"f{number}" for number in range(COUNT)]

        def each(action):
            def loop():
                for number, name in enumerate(names):
                    action(number, name)
            return loop

        os.umask(0o022)
        self.measure("stat, cold", COUNT, each(lambda _, name: os.stat(f"stat/{name}")), ["."])
        self.measure("open+read 4 KiB+close, cold", COUNT, each(lambda _, name: read_whole(f"read/{name}")), ["."])
        self.measure("create+write 4 KiB+close", COUNT, each(lambda _, name: create(f"new-{name}")), ["."])
        self.measure("mkdir", COUNT, each(lambda _, name: os.mkdir(f"dir-{name}")), ["."])
        self.measure("symlink", COUNT, each(lambda _, name: os.symlink("text", f"link-{name}")), ["."])
        for name in names:
            os.stat(f"change/{name}")
        self.measure("chmod", COUNT, each(lambda _, name: os.chmod(f"change/{name}", 0o600)), cold=False)
        self.measure("link", COUNT, each(lambda _, name: os.link(f"change/{name}", f"change/hard-{name}")), cold=False)
        self.measure("rename", COUNT, each(lambda _, name: os.rename(f"change/{name}", f"change/moved-{name}")), cold=False)
        self.measure("unlink", COUNT, each(lambda _, name: os.unlink(f"change/moved-{name}")), cold=False)
        self.measure("ls -l of 1000 entries", 1, lambda: subprocess.run(["ls", "-ln", "list"], stdout=subprocess.DEVNULL, check=True), cold=True)
        self.measure("write 64 MiB + fsync", 1, lambda: write_large("written"))
        self.measure("read 64 MiB, cold", 1, lambda: read_whole("large"))
        self.measure("untar 240 files", 1, lambda: subprocess.run(["tar", "-xf", "/tmp/bench.tar"], check=True))
        self.measure("rm -r of them", 1, lambda: subprocess.run(["rm", "-r", "tree"], check=True))
        self.umount()


def read_whole(path):
    fd = os.open(path, os.O_RDONLY)
    count = 0
    while data := os.read(fd, MIB if count else 4096):
        count += len(data)
        if len(data) < 4096:
            break
    os.close(fd)
    return count


def create(path):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, b"x" * 4096)
    os.close(fd)


def write_large(path):
    block = files.pattern(MIB)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(LARGE):
        os.write(fd, block)
    os.fsync(fd)
    os.close(fd)


if __name__ == "__main__":
    make_archive("/tmp/bench.tar")
    Bench(*sys.argv[1:5]).run()
