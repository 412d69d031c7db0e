# SPDX-License-Identifier: GPL-2.0
"""The agent on the host: does what the test on the dpu asks it to do.

Started by the runner, it reads requests from stdin and answers on stdout, one
at a time (see wire.py). State of a test that has to stay (open files, locks,
background processes) lives in this process until the case ends.
"""

import importlib
import importlib.util
import os
import sys
import warnings

from . import wire

# Whether this process is the agent: functions marked on_host then run right here.
active = False


def load(path):
    """The module in a test file; the same object for every call."""
    name = "selftest_" + os.path.basename(path).removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def find(where, name):
    """A function by the file or module it is in and its dotted name."""
    if where.endswith(".py"):
        found = load(where)
    else:
        found = importlib.import_module(where)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def answer(line):
    """Executes one request and returns the reply."""
    try:
        where, name, args, kwargs = wire.from_line(line)
        return wire.to_line(("ok", find(where, name)(*args, **kwargs)))
    except BaseException as error:  # pylint: disable=broad-except
        return wire.to_line(wire.failure(error))


def main():
    """Serves until stdin ends."""
    global active
    active = True
    warnings.simplefilter("ignore", DeprecationWarning)
    requests = os.fdopen(os.dup(0), "r", encoding="ascii", newline="\n")
    replies = os.dup(1)
    # What commands print must not end up between the replies.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.chdir("/")
    os.umask(0o022)
    for line in requests:
        number, _, payload = line.rstrip("\n").partition(" ")
        reply = f"{number} {answer(payload)}\n".encode("ascii")
        while reply:
            reply = reply[os.write(replies, reply):]

