# SPDX-License-Identifier: GPL-2.0
"""What tests say about what they see."""

import errno
import os
import time


# How many times longer everything may take: a debug kernel is slow. Set by the runner for the whole lab.
SLOWNESS = float(os.environ.get("QTEST_SLOWNESS", "1"))


def patience(seconds):
    """How long to wait for what takes so many seconds on a stock kernel at the most."""
    return seconds * SLOWNESS


class Skip(Exception):
    """The test can't be made here; the text says why."""


def skip(reason):
    """Ends the test as skipped."""
    raise Skip(reason)


def show(value):
    """A value for people, not too long."""
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} ... {text[-150:]} ({len(text)} characters)"


def eq(got, want, what="value"):
    """The value must be the one that is wanted."""
    if got != want:
        raise AssertionError(f"{what}: got {show(got)}, want {show(want)}")


def within(got, low, high, what="value"):
    """The number must lie in a range."""
    if not low <= got <= high:
        raise AssertionError(f"{what}: got {got!r}, want {low!r} to {high!r}")


def true(condition, what):
    """The condition must hold; what says which one."""
    if not condition:
        raise AssertionError(f"not so: {what}")


def fails(number, function, *args, **kwargs):
    """The call must fail with that errno (or one of several); returns the exception."""
    wanted = number if isinstance(number, tuple) else (number,)
    names = " or ".join(errno.errorcode[one] for one in wanted)
    call = f"{getattr(function, '__name__', function)}({', '.join([show(arg) for arg in args])})"
    try:
        value = function(*args, **kwargs)
    except OSError as error:
        if error.errno in wanted:
            return error
        raise AssertionError(f"{call}: got {errno.errorcode.get(error.errno, error.errno)}, want {names}") from error
    raise AssertionError(f"{call}: succeeded with {show(value)}, want {names}")


def same_bytes(got, want, what="contents"):
    """The bytes must be equal; says where they differ first."""
    if got == want:
        return
    for at, (one, other) in enumerate(zip(got, want)):
        if one != other:
            raise AssertionError(f"{what}: differ at byte {at} ({len(got)} and {len(want)} bytes): "
                                 f"got {got[at:at + 32]!r}, want {want[at:at + 32]!r}")
    raise AssertionError(f"{what}: {len(got)} bytes, want {len(want)}")


def eventually(condition, seconds=30, what=None):
    """Waits until condition() is true, and returns what it said. What else there is to say may be known only in the end."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {seconds} s: {said or getattr(condition, '__name__', condition)}")
        time.sleep(0.01)


def missing(path):
    """The name must not exist."""
    fails(errno.ENOENT, os.lstat, path)


class took:
    """How long a block took, in seconds:  with took() as time: ...; time.seconds"""

    def __enter__(self):
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.start
