# SPDX-License-Identifier: GPL-2.0
"""The other machine and the lab, as seen by a test on the dpu.

    host.os.rename(a, b)           any function of the standard library
    host.run("touch /data/x")      a shell command
    host.files.write(path, data)   helpers of qtest.files
    @on_host                       functions of the test file that run there
    lab.link("down")               what scripts/lab can do
"""

import fcntl
import functools
import os
import select
import subprocess
import sys
import tempfile
import time

from . import agent
from . import wire
from .checks import patience as scaled

# The longest that one request may take before the machine counts as hung.
PATIENCE = 90
# The same of the start of a machine.
BOOT = 300


class Channel:
    """Requests and replies over a pair of pipes; the reply to a request has its number.

    Children of a test share it: one process at a time has a request on its way."""

    def __init__(self, read_fd, write_fd, prefix=""):
        # A record lock belongs to a process, and is gone with it.
        self.turn = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.prefix = prefix
        self.number = 0
        self.buffer = b""

    def tell(self, target, payload):
        """Sends without waiting for an answer."""
        self._send(0, target, payload)

    def ask(self, target, payload, patience):
        """Sends, waits for the answer and returns its value."""
        fcntl.lockf(self.turn, fcntl.LOCK_EX)
        try:
            # Numbers of a process that was killed must not come again.
            self.number = max(self.number + 1, time.monotonic_ns())
            self._send(self.number, target, payload)
            deadline = time.monotonic() + scaled(patience)
            while True:
                number, _, reply = self._line(deadline).partition(" ")
                if number == str(self.number):
                    return wire.result(wire.from_line(reply))
        finally:
            fcntl.lockf(self.turn, fcntl.LOCK_UN)

    def _send(self, number, target, payload):
        words = [self.prefix, str(number), target if self.prefix else "", wire.to_line(payload)]
        line = (" ".join(word for word in words if word) + "\n").encode("ascii")
        sys.stdout.flush()
        while line:
            line = line[os.write(self.write_fd, line):]

    def _line(self, deadline):
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.read_fd], [], [], left)[0]:
                raise wire.HostGone("no answer in time")
            data = os.read(self.read_fd, 1 << 20)
            if not data:
                raise wire.HostGone("the channel was closed")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode("ascii")


class LocalAgent(Channel):
    """An agent on this machine, for file systems without another one."""

    def __init__(self):
        lib = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from qtest import agent; agent.main()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=lib, PYTHONDONTWRITEBYTECODE="1"), start_new_session=True)
        super().__init__(self.process.stdout.fileno(), self.process.stdin.fileno())


class _Dotted:
    """A name on the host that can be extended by a dot or called."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, part):
        return _Dotted(self._name + (part,))

    def __call__(self, *args, **kwargs):
        module, name = self._name[0], ".".join(self._name[1:])
        if module == "os" and len(self._name) > 2 and self._name[1] == "path":
            module, name = "os.path", ".".join(self._name[2:])
        return host.call(module, name, *args, **kwargs)


class Host:
    """The host: where the shared directories are."""

    channel = None

    def call(self, where, name, *args, patience=PATIENCE, **kwargs):
        """Calls a function on the host and returns what it returns."""
        if agent.active:
            return agent.find(where, name)(*args, **kwargs)
        return self.channel.ask("host", (where, name, args, kwargs), patience)

    def run(self, command, check=True, patience=PATIENCE, **options):
        """Runs a command (a list, or a text for the shell); fails if it does, unless check is False."""
        return self.call("qtest.process", "run", command, check=check, patience=patience, **options)

    def __getattr__(self, module):
        # The project's helpers come first, so that host.files is qtest.files.
        own = ("files", "process", "background", "server", "kernellog", "syscalls", "proxy")
        return _Dotted((f"qtest.{module}" if module in own else module,))


class Lab:
    """The machines and the link between them, driven by the runner."""

    channel = None

    def __getattr__(self, command):
        def ask(*args, patience=BOOT if command == "boot" else PATIENCE):
            return self.channel.ask("lab", (command, args), patience)
        return ask


host = Host()
lab = Lab()


def on_host(function):
    """Makes a function of a test file run on the host, with arguments and results that are literals."""

    @functools.wraps(function)
    def there(*args, **kwargs):
        if agent.active:
            return function(*args, **kwargs)
        return host.call(os.path.abspath(function.__code__.co_filename), function.__name__, *args, **kwargs)

    there.local = function
    return there
