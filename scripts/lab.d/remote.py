# SPDX-License-Identifier: GPL-2.0
"""Runs a command in a machine through its agent (scripts/guest/agent tells the protocol)."""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty

from state import Failure

# So much of stdin may be on its way to the command.
WINDOW = 1 << 20
CHUNK = 1 << 16
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# A command that does not end within this many seconds of a signal that ends us is left to the agent.
PATIENCE = 3


def text(value):
    """Bytes travel in JSON as the characters of the same numbers."""
    return os.fsencode(value).decode("latin-1")


class Unread(Exception):
    """Nobody reads our output any more."""


class Connection:
    """A connection to the agent that has said hello."""

    def __init__(self, machine, timeout):
        self.machine = machine
        self.inbox = bytearray()
        self.sending = threading.Lock()
        # What a signal writes to: one that comes just before recv(2) would be seen only after it.
        self.woken = self.waker = None
        deadline = time.monotonic() + timeout
        while True:
            self.sock = None
            try:
                self.sock = socket.create_connection(("127.0.0.1", machine.port), 5)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The emulated network accepts at once; only the guest says hello.
                self.sock.settimeout(max(0.1, min(5, deadline - time.monotonic())))
                if next(self.frames())[0] == b"H":
                    self.sock.settimeout(None)
                    return
            except (OSError, StopIteration):
                pass
            if self.sock:
                self.sock.close()
            self.inbox.clear()
            machine.require_running()
            if time.monotonic() >= deadline:
                raise machine.silent(timeout)
            time.sleep(0.05)

    def send(self, kind, data=b""):
        with self.sending:
            self.sock.sendall(struct.pack("<cI", kind, len(data)) + data)

    def wake_by_signals(self):
        """Has who waits for a frame see to signals at once."""
        self.woken, self.waker = socket.socketpair()
        for end in (self.woken, self.waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)

    def _wait(self):
        """Waits until there is something to receive; Python calls handlers of signals in between."""
        while self.woken:
            ready, _, _ = select.select([self.sock, self.woken], [], [])
            if self.woken in ready:
                self.woken.recv(CHUNK)
            if self.sock in ready:
                return

    def frames(self):
        """Yields frames until the connection ends."""
        while True:
            start = 0
            while len(self.inbox) - start >= 5:
                kind, size = struct.unpack_from("<cI", self.inbox, start)
                if len(self.inbox) - start < 5 + size:
                    break
                data = bytes(memoryview(self.inbox)[start + 5:start + 5 + size])
                start += 5 + size
                yield kind, data
            del self.inbox[:start]
            self._wait()
            data = self.sock.recv(CHUNK * 8)
            if not data:
                return
            self.inbox += data


class Command:
    """One command, connected to file descriptors of this process."""

    def __init__(self, machine, argv, *, tty=False, env=None, cwd="/root", stdin=0, stdout=1, stderr=2, timeout=30):
        self.machine = machine
        self.tty = tty
        self.stdin = stdin
        self.outputs = {b"O": stdout, b"X": stderr}
        self.request = {"argv": [text(word) for word in argv], "cwd": text(cwd),
                        "env": {text(name): text(value) for name, value in (env or {}).items()},
                        "tty": self._size() if tty else None}
        self.sent = self.acknowledged = 0
        self.window = threading.Condition()
        self.connection = Connection(machine, timeout)

    def run(self):
        """Returns the exit status."""
        self.request["token"] = self.machine.token
        self.connection.send(b"R", json.dumps(self.request).encode())
        settings = None
        if self.tty and self.stdin is not None and os.isatty(self.stdin):
            settings = termios.tcgetattr(self.stdin)
            tty.setraw(self.stdin)
        try:
            self._forward_signals()
            threading.Thread(target=self._pump_stdin, daemon=True).start()
            return self._receive()
        finally:
            if settings:
                termios.tcsetattr(self.stdin, termios.TCSADRAIN, settings)

    # --- To the command. ---

    def _size(self):
        for fd in (0, 1, 2):
            try:
                rows, columns = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))[:2]
                return [rows or 24, columns or 80]
            except OSError:
                pass
        return [24, 80]

    def _pump_stdin(self):
        try:
            while self.stdin is not None:
                data = os.read(self.stdin, CHUNK)
                if not data:
                    break
                with self.window:
                    self.window.wait_for(lambda: self.sent - self.acknowledged < WINDOW)
                    self.sent += len(data)
                self.connection.send(b"I", data)
            self.connection.send(b"E")
        except OSError:
            # The connection's end is noticed by who receives.
            pass

    def _forward_signals(self):
        if threading.current_thread() is not threading.main_thread():
            return

        def forward(number, _frame):
            if number == signal.SIGALRM:
                raise Failure("the command does not end after a signal.",
                              "The agent in the machine now hangs it up and kills it.", status=143)
            self.connection.send(b"S", bytes([number]))
            if number in (signal.SIGTERM, signal.SIGHUP):
                signal.alarm(PATIENCE)

        def resize(_number, _frame):
            self.connection.send(b"W", struct.pack("<HH", *self._size()))

        self.connection.wake_by_signals()
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, forward)
        signal.signal(signal.SIGALRM, forward)
        if self.tty:
            signal.signal(signal.SIGWINCH, resize)

    # --- From the command. ---

    def _receive(self):
        try:
            for kind, data in self.connection.frames():
                if kind in self.outputs:
                    self._write(self.outputs[kind], data)
                elif kind == b"A":
                    with self.window:
                        self.acknowledged += struct.unpack("<I", data)[0]
                        self.window.notify()
                elif kind == b"R":
                    return self._result(json.loads(data))
        except ConnectionError:
            pass
        raise self.machine.lost()

    def _result(self, result):
        if "error" in result:
            print(f"lab: {self.machine.name}: {result['error']}", file=sys.stderr)
        return result.get("exit", 125)

    @staticmethod
    def _write(fd, data):
        view = memoryview(data)
        while fd is not None and view:
            try:
                view = view[os.write(fd, view):]
            except BlockingIOError:
                # Somebody else made the descriptor non-blocking.
                time.sleep(0.01)
            except BrokenPipeError as error:
                raise Unread from error


def output(machine, argv, timeout=30):
    """Runs a command and returns its status and what it wrote to stdout and stderr, as text."""
    reader, writer = os.pipe()
    pieces = []

    def collect():
        while piece := os.read(reader, CHUNK):
            pieces.append(piece)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        status = Command(machine, argv, stdin=None, stdout=writer, stderr=writer, timeout=timeout).run()
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    return status, b"".join(pieces).decode("utf-8", "replace")
