# SPDX-License-Identifier: GPL-2.0
"""What is known about a lab between two calls of scripts/lab: its directories and files."""

import contextlib
import fcntl
import json
import os
import re
import zlib
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("QTFS_CACHE")
             or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtfs").absolute()
NAMES = ("host", "dpu")
# What a machine has unless it was told otherwise: processors, MiB of memory, the link's MTU.
SIZES = {"cpus": 2, "mem": 1536, "mtu": 9000}


class Failure(Exception):
    """A refusal: what, then why and what to do, one line each."""

    def __init__(self, what, *lines, status=1):
        super().__init__(what)
        self.lines = (what, *lines)
        self.status = status


def runtime():
    """The directory of all labs of this user."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"qtfs-lab-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.lstat()
    if path.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise Failure(f"{path} is not a private directory of yours.",
                      "Whoever can write there could give commands to the lab's machines.",
                      "Delete it, or set XDG_RUNTIME_DIR to a directory of your own.")
    return path


def write(path, text):
    """Replaces a file as a whole: readers see the old or the new contents."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def read_json(path, default):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return default


class Process:
    """A process that the lab started, told from a later one with the same pid by its start time."""

    def __init__(self, path):
        self.path = path

    @staticmethod
    def _started(pid):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *fields = stat.rpartition(")")[2].split()
        # A zombie holds nothing any more.
        return None if state in "ZX" else int(fields[18])

    def record(self, pid):
        write(self.path, json.dumps([pid, self._started(pid)]))

    @property
    def pid(self):
        """The pid while the process lives, else None."""
        pid, started = read_json(self.path, [None, None])
        return pid if pid and started and self._started(pid) == started else None

    def age(self):
        """How many seconds ago it started."""
        _, started = read_json(self.path, [None, 0])
        now = float(Path("/proc/uptime").read_text().split()[0])
        return now - started / os.sysconf("SC_CLK_TCK")


class Lab:
    """One lab: two machines and the link between them."""

    def __init__(self, name):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", name):
            raise Failure(f"\"{name}\" cannot be the name of a lab.",
                          "It becomes the name of a directory.",
                          "Use letters, digits, dots, dashes and underscores, at most 32.", status=2)
        self.name = name
        self.dir = runtime() / name
        # Disks grow, and the runtime directory is often in memory.
        self.disks = CACHE / "lab" / f"{name}-{zlib.crc32(bytes(self.dir)):08x}"
        self.share = self.disks / "share"

    @property
    def exists(self):
        return (self.dir / "config.json").exists()

    @property
    def config(self):
        config = read_json(self.dir / "config.json", None)
        if config is None:
            raise self.missing()
        return config

    @config.setter
    def config(self, value):
        write(self.dir / "config.json", json.dumps(value))

    def missing(self, status=1):
        """Refuses when there is no lab."""
        return Failure(f"there is no lab \"{self.name}\".", "It was not started, or \"lab down\" removed it.",
                       f"Start it with: scripts/lab{self.option} up", status=status)

    @property
    def option(self):
        """What a command line needs to name this lab, for messages."""
        return "" if self.name == "default" else f" -n {self.name}"

    @property
    def faults(self):
        return read_json(self.dir / "link.json", {"down": False, "delay": 0.0, "loss": 0.0})

    @faults.setter
    def faults(self, value):
        write(self.dir / "link.json", json.dumps(value))

    @contextlib.contextmanager
    def locked(self):
        """One at a time starts, stops and rewires machines."""
        self.dir.mkdir(mode=0o700, exist_ok=True)
        with open(self.dir / "lock", "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
