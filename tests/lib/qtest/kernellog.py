# SPDX-License-Identifier: GPL-2.0
"""The kernel's log: what was said since a case began, and whether it is bad."""

import errno
import os
import re

# Reports of KASAN, KCSAN and KFENCE begin with "BUG: "; what they say while a machine boots does not.
BAD = re.compile(
    r"WARNING: |\bBUG:|kernel BUG at|\bOops\b|general protection fault|Unable to handle kernel|"
    r"blocked for more than \d+ seconds|rcu.*detected (expedited )?stalls|self-detected stall|soft lockup|hard LOCKUP|"
    r"refcount_t:|list_(add|del) corruption|UBSAN:|possible recursive locking|"
    r"possible circular locking|inconsistent lock state|suspicious RCU|sleeping function called|scheduling while atomic|"
    r"unreferenced object|panicked at|Kernel panic|Call Trace:|double fault|stack guard page|"
    r"VFS: Busy inodes after unmount|Objects remaining|bad page state|Bad page map|EXT4-fs error|"
    r"turning off the locking correctness validator|trying to register non-static key|ODEBUG:|ref_tracker:|"
    r"kmemleak: .*disabled|Buffer I/O error|page allocation failure|module .* usage count|invoked oom-killer",
    re.IGNORECASE)
# What qtfs says when a program was told that something was done, and it is undone.
LOSS = re.compile(r"\bqtfs\w*: .*(data that .*\bis lost|\banswer\b.*\bis lost)")

_fd = None


def _open():
    global _fd
    if _fd is None:
        _fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def begin():
    """From here on records count as new."""
    _open()
    os.lseek(_fd, 0, os.SEEK_END)


def since():
    """The lines since begin() or the last call of this."""
    lines = []
    _open()
    while True:
        try:
            record = os.read(_fd, 1 << 14)
        except OSError as error:
            if error.errno == errno.EPIPE:
                lines.append("(records were lost)")
                continue
            if error.errno != errno.EAGAIN:
                raise
            return lines
        head, _, text = record.decode(errors="replace").partition(";")
        stamp = int(head.split(",")[2]) / 1e6 if head.count(",") >= 2 else 0
        # What follows the first line are the record's attributes.
        lines.append(f"[{stamp:12.6f}] {text.split(chr(10), 1)[0]}")


def bad(lines):
    """The lines that must not be there."""
    return [line for line in lines if BAD.search(line)]


def losses(lines):
    """The lines of qtfs that say that something is lost."""
    return [line for line in lines if LOSS.search(line)]


def note(text):
    """Puts a line into the log, so that both kernels' logs can be read side by side."""
    try:
        with open("/dev/kmsg", "w", encoding="utf-8") as file:
            file.write(text[:900])
    except OSError:
        pass


def blocked():
    """Has the kernel print the stacks of tasks that wait uninterruptibly; returns what it printed."""
    begin()
    try:
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as file:
            file.write("w")
    except OSError as error:
        return [f"sysrq-w: {error.strerror}"]
    return since()
