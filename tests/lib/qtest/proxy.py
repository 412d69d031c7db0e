# SPDX-License-Identifier: GPL-2.0
"""udsproxyd, the daemon of the dpu. Runs where it is called."""

import os
import signal
import time

from . import process
from .checks import patience
from .filesystems import build_directory

LOG = "/run/qtfs-udsproxyd.log"
# What it says when sockets are relayed.
READY = "relays unix sockets"


def daemons():
    """The ids of the processes."""
    return [pid for pid, line in process.processes() if os.path.basename(line.split(" ")[0]) == "udsproxyd"]


def log():
    """What it has said."""
    try:
        with open(LOG, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def start():
    """Starts it unless it runs."""
    if daemons():
        return
    begun = log().count(READY)
    target = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(target, 1)
            os.dup2(target, 2)
            os.closerange(3, 1024)
            os.chdir("/")
            # A grandchild, so that nobody has to collect it.
            if os.fork():
                os._exit(0)
            path = build_directory() + "/bin/udsproxyd"
            os.execv(path, [path])
        finally:
            os._exit(127)
    os.close(target)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + patience(60)
    while log().count(READY) == begun:
        if time.monotonic() > deadline:
            raise RuntimeError("udsproxyd does not run: " + log()[-500:])
        time.sleep(0.02)


def stop(number=signal.SIGTERM):
    """Ends it and waits until it is gone."""
    process.end_all(daemons(), number)


def descriptors(name):
    """How many descriptors processes of a name have, and how many threads."""
    pids = [pid for pid, line in process.processes() if os.path.basename(line.split(" ")[0]) == name]
    return tuple(sum(len(os.listdir(f"/proc/{pid}/{what}")) for pid in pids) for what in ("fd", "task"))
