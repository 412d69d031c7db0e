# SPDX-License-Identifier: GPL-2.0
"""Functions that run on the host in the background while the test goes on.

    job = host.background.start(__file__, "add_and_remove", path)
    ...
    result = host.background.finish(job)
"""

import fcntl
import os
import struct
import termios

from . import agent
from . import process

jobs = {}


def start(where, name, *args):
    """Starts a function of a file or module in a child of the agent; returns its number."""
    function = agent.find(where, name)
    child = process.spawn(getattr(function, "local", function), *args)
    jobs[child.pid] = child
    return child.pid


def finish(job, seconds=60):
    """Waits for its end and returns its result."""
    return jobs.pop(job).result(seconds)


def alive(job):
    """Whether it still runs."""
    return jobs[job].alive()


def finished(job, seconds):
    """Waits until it has ended, and takes what it says meanwhile; whether it has."""
    return jobs[job].finished(seconds)


def sleeps(job, seconds=10):
    """Waits until it sleeps."""
    return jobs[job].sleeps(seconds)


def stop(job, number=9):
    """Ends it by a signal."""
    child = jobs.pop(job)
    child.kill(number)
    child.finished(10)


def stop_all():
    """Ends what a case left behind."""
    for job in list(jobs):
        stop(job)


# --- Open files and locks that the agent itself holds. ---

held = {}


def open_file(path, flags=os.O_RDWR, mode=0o644):
    """Opens a file and keeps it open; returns the descriptor."""
    fd = os.open(path, flags, mode)
    held[fd] = path
    return fd


def readable(fd):
    """How many bytes it has to read."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]


def close_file(fd):
    """Closes it."""
    held.pop(fd, None)
    os.close(fd)


def close_all():
    """Closes what a case left open."""
    for fd in list(held):
        try:
            close_file(fd)
        except OSError:
            pass
