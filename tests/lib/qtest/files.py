# SPDX-License-Identifier: GPL-2.0
"""Small things to do with files, the same on both machines."""

import hashlib
import os
import socket
import subprocess
import time


def write(path, data=b"", mode=0o666):
    """Makes or replaces the contents of a file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def append(path, data):
    """Adds to the end of a file."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def write_at(path, offset, data):
    """Overwrites a part of an existing file."""
    fd = os.open(path, os.O_WRONLY)
    try:
        while data:
            count = os.pwrite(fd, data, offset)
            offset += count
            data = data[count:]
    finally:
        os.close(fd)


def write_all(fd, data):
    """Writes all of data, however many calls it takes."""
    data = memoryview(data.encode() if isinstance(data, str) else data)
    while data:
        data = data[os.write(fd, data):]


def read(path, offset=0, count=None):
    """The contents of a file, or count bytes from offset."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_all(fd, offset, count)
    finally:
        os.close(fd)


def read_all(fd, offset=0, count=None):
    """The bytes of an open file from offset to the end, or count of them."""
    parts = []
    while count is None or count > 0:
        part = os.pread(fd, 1 << 20 if count is None else min(count, 1 << 20), offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        if count is not None:
            count -= len(part)
    return b"".join(parts)


def digest(path):
    """SHA-256 of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pattern(size, seed=0):
    """Bytes of which every 8-byte word is different, cheap to make and to check."""
    block = b"".join((seed * 1000003 + number).to_bytes(8, "little") for number in range(min(size, 4096) // 8 + 1))
    if size <= 4096:
        return block[:size]
    parts = bytearray()
    for number in range((size + 4095) // 4096):
        parts += number.to_bytes(8, "little") + block[8:4096]
    return bytes(parts[:size])


def exists(path):
    """Whether the name itself exists, whatever it leads to."""
    return os.path.lexists(path)


def names(path="."):
    """The sorted names in a directory."""
    return sorted(os.listdir(path))


def fresh_directory(path, uid=0, gid=0, mode=0o755):
    """Makes an empty directory of that owner."""
    remove_tree(path)
    os.makedirs(path, exist_ok=True)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def remove_tree(path):
    """Removes whatever is there."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.lexists(path):
        # Much faster than shutil.rmtree where there are very many.
        subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=True)


def make_many(directory, count, prefix="f", first=0):
    """Makes names prefix0, prefix1 ... quickly: they are links to a few empty files."""
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(first, first + count):
            # A file of ext4 can have 65000 names.
            if (number - first) % 50_000 == 0:
                source = f"{prefix}{number}"
                os.mknod(source, 0o644, dir_fd=dir_fd)
            else:
                os.link(source, f"{prefix}{number}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    finally:
        os.close(dir_fd)


def edition(path):
    """What changes when a file is built anew."""
    status = os.stat(path)
    return f"{status.st_mtime_ns} {status.st_size}".encode()


def is_current(name, path):
    """Whether remember(name, path) was called since the file was built; in doubt it was."""
    try:
        return read(f"/run/qtest-{name}") == edition(path)
    except FileNotFoundError:
        return True


def remember(name, path):
    """Notes which edition of a file is in use."""
    write(f"/run/qtest-{name}", edition(path))


def snapshot(top):
    """What a tree holds: for each path its type, mode, owner, size or text, and contents' digest."""
    found = {}
    for path, dirs, files in os.walk(top):
        for name in dirs + files:
            full = os.path.join(path, name)
            status = os.lstat(full)
            entry = [oct(status.st_mode), status.st_uid, status.st_gid]
            if os.path.islink(full):
                entry.append(os.readlink(full))
            elif os.path.isfile(full):
                entry += [status.st_size, digest(full)]
            found[os.path.relpath(full, top)] = entry
    return found


def listen_for_ever(address, port):
    """Takes a TCP port, and never accepts."""
    with socket.create_server((address, port)):
        while True:
            time.sleep(1000)
