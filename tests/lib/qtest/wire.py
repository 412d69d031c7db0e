# SPDX-License-Identifier: GPL-2.0
"""How values travel between the test process, the runner and the host's agent.

One line per message, plain ASCII: Python literals, so that bytes, tuples and
names that are not UTF-8 arrive as they were sent. This channel has nothing to
do with the network link between the machines, so that tests can cut the link.
"""

import ast
import os
import subprocess
from types import SimpleNamespace

from . import process

STAT_FIELDS = [name for name in dir(os.stat_result) if name.startswith("st_")]
STATVFS_FIELDS = [name for name in dir(os.statvfs_result) if name.startswith("f_")]


class HostGone(Exception):
    """The host's agent is not there: the machine crashed or is booting."""


class RemoteFailure(Exception):
    """A function on the other machine raised something that is not OSError."""


def pack(value):
    """Turns a value into one that is made of literals only."""
    if isinstance(value, os.stat_result):
        return {"__stat__": {name: getattr(value, name) for name in STAT_FIELDS}}
    if isinstance(value, os.statvfs_result):
        return {"__stat__": {name: getattr(value, name) for name in STATVFS_FIELDS}}
    if isinstance(value, process.Run):
        return {"__run__": (value.status, value.out, value.err)}
    if isinstance(value, subprocess.CompletedProcess):
        return {"__run__": (value.returncode, value.stdout or b"", value.stderr or b"")}
    if isinstance(value, (list, tuple)):
        return type(value)(pack(item) for item in value)
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # Signal numbers and the like are more than integers.
        return int(value)
    if value is None or isinstance(value, (bool, float, str, bytes, set)):
        return value
    raise TypeError(f"{type(value).__name__} does not travel between the machines")


def unpack(value):
    """The other direction of pack."""
    if isinstance(value, dict):
        if "__stat__" in value:
            return SimpleNamespace(**value["__stat__"])
        if "__run__" in value:
            return process.Run(*value["__run__"])
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(unpack(item) for item in value)
    return value


def to_line(value):
    """A value as one line without its end."""
    return ascii(pack(value))


def from_line(line):
    """The value of a line."""
    return unpack(ast.literal_eval(line))


def failure(error):
    """An exception as a reply."""
    if isinstance(error, OSError) and error.errno is not None:
        return ("os", error.errno, str(error.strerror), error.filename if isinstance(error.filename, (str, bytes)) else None)
    return ("error", process.story(error))


def result(reply):
    """The value of a reply, or the exception that it carries."""
    kind = reply[0]
    if kind == "ok":
        return reply[1]
    if kind == "os":
        raise OSError(reply[1], reply[2], reply[3])
    if kind == "gone":
        raise HostGone(reply[1])
    raise RemoteFailure(reply[1])
