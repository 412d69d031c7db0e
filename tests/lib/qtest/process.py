# SPDX-License-Identifier: GPL-2.0
"""Processes: commands, identities, functions in children, and what hangs where."""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import time
import traceback

from . import syscalls
from .checks import Skip, eventually, patience as scaled


class Who:
    """An identity to run as."""

    def __init__(self, name, uid, gid, groups=()):
        self.name = name
        self.uid = uid
        self.gid = gid
        self.groups = list(groups)

    def become(self):
        """Makes the calling process this user, for good."""
        # A case that runs as an ordinary user has kept the way back, see visit().
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        if os.geteuid() == self.uid:
            return
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def visit(self):
        """The same, but a child can become another user from there.

        To the file system there is no difference: it looks at the effective
        ids and capabilities, and programs that are executed lose the way back.
        """
        if self.uid:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, 0)
            # Else /proc/self would belong to root, as after set-user-id.
            syscalls.libc.prctl(4, 1, 0, 0, 0)

    def __repr__(self):
        return self.name


ROOT = Who("root", 0, 0)
# An ordinary user with two supplementary groups, and one who has nothing in common with them.
USER = Who("user", 1001, 1001, [2001, 2002])
OTHER = Who("other", 1002, 1002)
EVERYBODY = (ROOT, USER)


class Run:
    """What a command did: its exit status and its output as bytes."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    @property
    def text(self):
        """Standard output as text, without the last newline."""
        return self.out.decode(errors="replace").rstrip("\n")

    @property
    def complaint(self):
        """Standard error as text, without the last newline."""
        return self.err.decode(errors="replace").rstrip("\n")

    def __repr__(self):
        return f"Run(status={self.status}, out={self.out[-2000:]!r}, err={self.err[-2000:]!r})"


class ChildFailed(Exception):
    """A child process ended without a result."""


class Child:
    """A function that runs in a child process."""

    def __init__(self, pid, pipe):
        self.pid = pid
        self.pipe = pipe
        self.status = None
        self.data = b""

    def alive(self):
        """Whether it still runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is None

    def finished(self, seconds):
        """Waits until it has ended; whether it has."""
        deadline = time.monotonic() + scaled(seconds)
        while self.alive():
            if time.monotonic() > deadline:
                return False
            self._drain(0.005)
        return True

    def result(self, seconds=30):
        """What the function returned or raised; fails when it is not done in time."""
        if not self.finished(seconds):
            report = stacks([self.pid])
            self.kill()
            raise ChildFailed(f"a child still ran after {scaled(seconds)} s\n{report}")
        while self._drain(0):
            pass
        if not self.data:
            raise ChildFailed(f"a child ended without a result, wait status {self.status:#x}")
        kind, value = pickle.loads(self.data)
        if kind == "raise":
            raise value
        return value

    def died_of(self):
        """The signal that ended it, or 0."""
        return self.status & 0x7F

    def kill(self, number=signal.SIGKILL):
        """Sends a signal."""
        if self.alive():
            os.kill(self.pid, number)

    def state(self):
        """The letter that /proc shows: R, S, D, Z ..."""
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()

    def sleeps(self, seconds=10):
        """Waits until it has been asleep, seen several times in a row; whether it is."""
        deadline = time.monotonic() + scaled(seconds)
        seen = 0
        while self.alive() and time.monotonic() < deadline:
            seen = seen + 1 if self.state() in "SD" else 0
            if seen >= 10:
                return True
            time.sleep(0.01)
        return False

    def _drain(self, seconds):
        if self.pipe is None:
            return False
        if not select.select([self.pipe], [], [], seconds)[0]:
            return False
        data = os.read(self.pipe, 1 << 16)
        if not data:
            os.close(self.pipe)
            self.pipe = None
            return False
        self.data += data
        return True


def spawn(function, *args, who=None):
    """Starts a function in a child process, perhaps as another user."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return Child(pid, read_end)
    code = 1
    try:
        os.close(read_end)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if who is not None:
            who.become()
        try:
            outcome = ("return", function(*args))
        except BaseException as error:  # pylint: disable=broad-except
            outcome = ("raise", portable(error))
        data = pickle.dumps(outcome)
        while data:
            data = data[os.write(write_end, data):]
        code = 0
    finally:
        os._exit(code)


def story(error):
    """An exception for people: the way through the test file, and what went wrong there."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/tests/selftests/" in frame.filename or "/tests/torture/" in frame.filename] or frames
    lines = [f"{os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}" for frame in own]
    lines.append("".join(traceback.format_exception_only(error)).rstrip())
    if error.__cause__ is not None:
        lines.append("because of " + story(error.__cause__))
    return "\n".join(lines)


def portable(error):
    """An exception that survives the way to another process, with the place where it happened."""
    if isinstance(error, Skip):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        copy = OSError(error.errno, error.strerror, error.filename)
        copy.add_note("in a child: " + story(error))
        return copy
    return ChildFailed(story(error))


def as_user(who, function, *args, seconds=30):
    """What a function returns or raises when another user calls it."""
    return spawn(function, *args, who=who).result(seconds)


def run(command, check=True, patience=60, who=None, stdin=b"", cwd=None, env=None):
    """Runs a command (a list, or a text for the shell) to its end."""
    def identity():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if who is not None:
            who.become()

    if isinstance(stdin, str):
        stdin = stdin.encode()
    done = subprocess.run(
        command, shell=isinstance(command, (str, bytes)), input=stdin, capture_output=True, timeout=scaled(patience),
        preexec_fn=identity, cwd=cwd, env=None if env is None else dict(os.environ, **env), check=False)
    found = Run(done.returncode, done.stdout, done.stderr)
    if check and done.returncode:
        raise RuntimeError(f"{command!r} ended with status {done.returncode}:\n{found.complaint or found.text}")
    return found


def processes():
    """All process ids with their command lines."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    yield int(name), file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue


def names():
    """The processes of this machine and what they call themselves (proc_pid_comm(5))."""
    found = []
    for pid, _ in processes():
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                found.append((pid, file.read().strip()))
        except OSError:
            continue
    return found


def end(name, seconds=60):
    """Ends all processes of a name, if there are any, and waits until they are gone."""
    def of_name():
        return [pid for pid, called in names() if called == name]
    for pid in of_name():
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not of_name(), seconds, f"{name} has ended")


def children(pid):
    """The ids of a process's descendants."""
    parents = {}
    for other, _ in processes():
        try:
            with open(f"/proc/{other}/stat", "rb") as file:
                parents.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(other)
        except OSError:
            continue
    found, todo = [], [pid]
    while todo:
        more = parents.get(todo.pop(), [])
        found += more
        todo += more
    return found


def lasting():
    """How many processes and threads of the kernel there are, but for those that work for everybody: they come and go."""
    return len([name for _, name in names() if not name.startswith("kworker/")])


def run_when_free(command, seconds):
    """Runs a command that is refused while something is in use, until it is not; fails if it does in another way."""
    def done():
        found = run(command, check=False)
        if found.status and "busy" not in found.complaint and "in use" not in found.complaint:
            raise RuntimeError(found.complaint)
        return found if found.status == 0 else None
    return eventually(done, seconds, f"{' '.join(command)}: not in use")


def is_gone(pid):
    """Whether a process has closed all that it had open: its last thread has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
        return state in b"ZX" and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_all(pids, number, seconds=20):
    """Ends processes by a signal, and waits until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + scaled(seconds)
    while not all(map(is_gone, pids)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{pids} still run {seconds} s after signal {number}\n" + stacks(pids))
        time.sleep(0.02)


def stacks(pids):
    """Where processes are: for each thread its state, what it waits for and the kernel's stack."""
    text = []
    for pid in pids:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            base = f"/proc/{pid}/task/{task}/"
            parts = {}
            for name in ("comm", "stat", "wchan", "syscall", "stack"):
                try:
                    with open(base + name, "r", errors="replace") as file:
                        parts[name] = file.read().strip()
                except OSError as error:
                    parts[name] = error.strerror
            state = parts["stat"].rpartition(")")[2].split()[:1]
            text.append(f"task {task} ({parts['comm']}) {state} in {parts['wchan']}, syscall {parts['syscall']}")
            text += ["    " + line for line in parts["stack"].splitlines()]
    return "\n".join(text)
