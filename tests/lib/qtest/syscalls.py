# SPDX-License-Identifier: GPL-2.0
"""System calls that Python's os module does not have."""

import ctypes
import errno
import fcntl
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_COLLAPSE_RANGE = 0x08
FALLOC_ZERO_RANGE = 0x10
FALLOC_INSERT_RANGE = 0x20

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_FOLLOW = 0x400
AT_SYMLINK_NOFOLLOW = 0x100

FICLONE = 0x40049409
FICLONERANGE = 0x4020940D
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_APPEND_FL = 0x20
FS_IMMUTABLE_FL = 0x10

MNT_FORCE = 1
MNT_DETACH = 2

F_OFD_GETLK = 36
F_OFD_SETLK = 37
F_OFD_SETLKW = 38


def _call(result, path=None):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def rename2(old, new, flags, old_dir=AT_FDCWD, new_dir=AT_FDCWD):
    """renameat2(2)."""
    _call(libc.renameat2(old_dir, os.fsencode(old), new_dir, os.fsencode(new), flags), old)


def link_fd(fd, name):
    """Gives a name to an open nameless file (O_TMPFILE), in the way that open(2) shows."""
    _call(libc.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, os.fsencode(name), AT_SYMLINK_FOLLOW), name)


RESOLVE_NO_XDEV = 0x01


def openat2(path, flags, resolve=0, directory=AT_FDCWD):
    """openat2(2); returns the descriptor."""
    how = struct.pack("<QQQ", flags, 0, resolve)
    # There is no wrapper in libc.
    fd = libc.syscall(437, directory, os.fsencode(path), how, len(how))
    _call(fd, path)
    return fd


def syncfs(fd):
    """syncfs(2)."""
    _call(libc.syncfs(fd))


def fallocate(fd, mode, offset, length):
    """fallocate(2)."""
    _call(libc.fallocate64(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)))


def ioctl_clone(dest_fd, source_fd):
    """FICLONE."""
    fcntl.ioctl(dest_fd, FICLONE, source_fd)


def inode_flags(path):
    """FS_IOC_GETFLAGS."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0] & 0xFFFFFFFF
    finally:
        os.close(fd)


def set_inode_flags(path, flags):
    """FS_IOC_SETFLAGS."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags))
    finally:
        os.close(fd)


# --- statx ---

STATX_BASIC = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_ATTR_MOUNT_ROOT = 0x2000


class Statx:
    """The fields of struct statx that the tests look at."""

    def __init__(self, data):
        (self.mask, self.blksize, self.attributes, self.nlink, self.uid, self.gid, self.mode) = struct.unpack_from("<IIQIIIH", data, 0)
        (self.ino, self.size, self.blocks, self.attributes_mask) = struct.unpack_from("<QQQQ", data, 32)
        self.atime, self.btime, self.ctime, self.mtime = (
            struct.unpack_from("<qI", data, 64 + 16 * number) for number in range(4))
        self.rdev = struct.unpack_from("<II", data, 128)
        self.dev = struct.unpack_from("<II", data, 136)
        (self.mnt_id,) = struct.unpack_from("<Q", data, 144)


def statx(path, flags=AT_SYMLINK_NOFOLLOW, mask=STATX_BASIC | STATX_BTIME):
    """statx(2) of a name, or of a descriptor with AT_EMPTY_PATH."""
    data = ctypes.create_string_buffer(256)
    fd, name = (path, b"") if isinstance(path, int) else (AT_FDCWD, os.fsencode(path))
    if isinstance(path, int):
        flags |= AT_EMPTY_PATH
    _call(libc.statx(fd, name, flags, mask, data), path)
    return Statx(data.raw)


# --- Directory streams, as opendir(3) has them. ---

class _Dirent(ctypes.Structure):
    _fields_ = [("d_ino", ctypes.c_uint64), ("d_off", ctypes.c_int64), ("d_reclen", ctypes.c_ushort),
                ("d_type", ctypes.c_ubyte), ("d_name", ctypes.c_char * 256)]


libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(_Dirent)
libc.readdir.argtypes = [ctypes.c_void_p]
libc.closedir.argtypes = [ctypes.c_void_p]
libc.telldir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
libc.rewinddir.argtypes = [ctypes.c_void_p]


class Dir:
    """An open directory stream; entries are (name, inode, type)."""

    def __init__(self, path):
        self.stream = libc.opendir(os.fsencode(path))
        if not self.stream:
            _call(-1, path)

    def next(self):
        """The next entry, or None at the end."""
        ctypes.set_errno(0)
        entry = libc.readdir(self.stream)
        if not entry:
            if ctypes.get_errno():
                _call(-1)
            return None
        return entry.contents.d_name, entry.contents.d_ino, entry.contents.d_type

    def rest(self):
        """All entries from here to the end."""
        entries = []
        while (entry := self.next()) is not None:
            entries.append(entry)
        return entries

    def tell(self):
        """telldir(3)."""
        return libc.telldir(self.stream)

    def seek(self, place):
        """seekdir(3)."""
        libc.seekdir(self.stream, place)

    def rewind(self):
        """rewinddir(3)."""
        libc.rewinddir(self.stream)

    def close(self):
        """closedir(3)."""
        libc.closedir(self.stream)


def getdents(fd, size=32768):
    """One getdents64(2): a list of (name, inode, type, offset); empty at the end."""
    data = ctypes.create_string_buffer(size)
    count = _call(libc.syscall(217, fd, data, size))
    entries, at = [], 0
    while at < count:
        inode, offset, length, kind = struct.unpack_from("<QqHB", data, at)
        entries.append((data.raw[at + 19:at + length].split(b"\0", 1)[0], inode, kind, offset))
        at += length
    return entries


# --- Mounts ---

def umount(path, flags=0):
    """umount2(2)."""
    _call(libc.umount2(os.fsencode(path), flags), path)


def mount(source, target, kind, flags=0, options=""):
    """mount(2), the old interface."""
    _call(libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()), target)


# --- Locks ---

def lock(fd, kind, start=0, length=0, wait=False, ofd=False):
    """A POSIX or open-file-description range lock; kind is fcntl.F_RDLCK, F_WRLCK or F_UNLCK."""
    if ofd:
        command = F_OFD_SETLKW if wait else F_OFD_SETLK
    else:
        command = fcntl.F_SETLKW if wait else fcntl.F_SETLK
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def test_lock(fd, kind, start=0, length=0, ofd=False):
    """Who is in the way of such a lock: (type, start, length, pid), or None."""
    command = F_OFD_GETLK if ofd else fcntl.F_GETLK
    reply = fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
    found, _, start, length, pid = struct.unpack("hhqqi4x", reply)
    return None if found == fcntl.F_UNLCK else (found, start, length, pid)


def try_lock(path, kind, start=0, length=0, ofd=False):
    """Opens the file, tries to lock without waiting, closes; whether it could be had."""
    fd = os.open(path, os.O_RDWR)
    try:
        lock(fd, kind, start, length, ofd=ofd)
        return True
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    finally:
        os.close(fd)


def try_flock(path, operation):
    """The same with flock(2)."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return False
    finally:
        os.close(fd)
