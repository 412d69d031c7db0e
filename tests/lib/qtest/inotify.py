# SPDX-License-Identifier: GPL-2.0
"""inotify(7) and fanotify(7), which Python's library does not have."""

import ctypes
import os
import struct

from .checks import eq, eventually, true

LIBC = ctypes.CDLL(None, use_errno=True)
BITS = {"ACCESS": 1, "MODIFY": 2, "ATTRIB": 4, "CLOSE_WRITE": 8, "CLOSE_NOWRITE": 0x10, "OPEN": 0x20, "MOVED_FROM": 0x40, "MOVED_TO": 0x80, "CREATE": 0x100,
        "DELETE": 0x200, "DELETE_SELF": 0x400, "MOVE_SELF": 0x800, "UNMOUNT": 0x2000, "Q_OVERFLOW": 0x4000, "IGNORED": 0x8000, "ISDIR": 0x40000000}
CHANGES = BITS["MODIFY"] | BITS["ATTRIB"] | BITS["CLOSE_WRITE"] | BITS["MOVED_FROM"] | BITS["MOVED_TO"] | BITS["CREATE"] | BITS["DELETE"] | \
    BITS["DELETE_SELF"] | BITS["MOVE_SELF"]


class Inotify:
    """An inotify(7) descriptor."""

    def __init__(self):
        self.fd = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.names = {}

    def add(self, path, mask=CHANGES):
        """Watches; events are told with the path's last component."""
        watch = LIBC.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
        self.names[watch] = os.path.basename(path)
        return watch

    def remove(self, watch):
        """Watches no more."""
        eq(LIBC.inotify_rm_watch(self.fd, watch), 0)

    def read(self):
        """What there is: (watched, bits, cookie, name)."""
        found = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return found
            while data:
                watch, mask, cookie, length = struct.unpack_from("iIII", data)
                name = data[16:16 + length].rstrip(b"\0").decode()
                data = data[16 + length:]
                bits = " ".join(bit for bit, value in BITS.items() if mask & value)
                found.append((self.names.get(watch, str(watch)), bits, cookie, name))

    def close(self):
        """The end."""
        os.close(self.fd)


class Told:
    """What was told, collected until something is there."""

    def __init__(self, *paths, mask=CHANGES):
        self.inotify = Inotify()
        self.events = []
        for path in paths:
            self.inotify.add(path, mask)

    def more(self):
        """Everything so far, without cookies."""
        self.events += self.inotify.read()
        return [(watched, bits, name) for watched, bits, _, name in self.events]

    def until(self, *last):
        """Waits for an event; takes and returns all up to it."""
        eventually(lambda: last in self.more(), 20, f"{last} is told")
        found = self.more()
        end = found.index(last) + 1
        self.events = self.events[end:]
        return found[:end]

    def close(self):
        """The end."""
        self.inotify.close()


class Fanotify:
    """A fanotify(7) descriptor that reports directories and names."""

    def __init__(self, path, mask):
        # FAN_REPORT_DIR_FID, FAN_REPORT_NAME and FAN_NONBLOCK
        self.fd = LIBC.fanotify_init(0xc00 | 2, os.O_RDONLY)
        true(self.fd >= 0, os.strerror(ctypes.get_errno()))
        # FAN_MARK_ADD; FAN_ONDIR and FAN_EVENT_ON_CHILD
        done = LIBC.fanotify_mark(self.fd, 1, ctypes.c_uint64(mask | 0x40000000 | 0x08000000), -100, os.fsencode(path))
        true(done == 0, os.strerror(ctypes.get_errno()))

    def read(self):
        """What there is: (bits, name)."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        found = []
        while data:
            length, _, _, start, mask, _, _ = struct.unpack_from("IBBHQii", data)
            handle, = struct.unpack_from("I", data, start + 12)
            name = data[start + 20 + handle:length].split(b"\0")[0].decode()
            found.append((" ".join(bit for bit, value in BITS.items() if mask & value), name))
            data = data[length:]
        return found
