# SPDX-License-Identifier: GPL-2.0
"""Cases: the sentences that a test file consists of.

    @case("mkdir of a name that exists fails with EEXIST")
    def exists(t):
        os.mkdir("d")
        fails(EEXIST, os.mkdir, "d")

A case runs in a process of its own, whose current directory is an empty
directory of the file system under test. By default it runs twice: as root and
as an ordinary user who owns that directory.
"""

import os

from .process import EVERYBODY

cases = []


class Case:
    """One sentence, its function and what it needs."""

    def __init__(self, name, function, who, limit, full, needs, loses, only_full):
        self.name = name
        self.function = function
        self.who = who
        self.limit = limit
        self.full = full
        self.needs = needs
        self.loses = loses
        self.only_full = only_full


def case(name, who=EVERYBODY, limit=60, full=None, needs=(), loses=False, only_full=False):
    """Registers a function as a case.

    who    the identities that it runs as
    limit  after how many seconds it counts as hung
    full   the same for its full form, if it has one
    needs  "qtfs" (this file system only), "two" (two machines), "lab" (drives the link or power),
           "posix" (what NFS can't do, for the sake of the comparison)
    loses  whether qtfs may say in the log that data or an answer is lost
    only_full  whether there is no short form: it would take too long for every change
    """
    def register(function):
        needed = {needs} if isinstance(needs, str) else set(needs)
        cases.append(Case(name, function, tuple(who), limit, full, needed, loses, only_full))
        return function
    return register


class Test:
    """What a case is given."""

    def __init__(self, filesystem, name, who, options):
        self.fs = filesystem
        self.who = who
        self.name = name
        self.full = options.full
        self.first_seed = options.seed

    def amount(self, short, full):
        """How much of something: less in the short form of a case."""
        return full if self.full else short

    def seed(self, number=0):
        """A seed for a random case, or one of several; it is printed, so that the case can be repeated."""
        seed = self.first_seed + number
        self.note(f"seed {seed}; to repeat it: --seed {seed}")
        return seed

    @property
    def dir(self):
        """The case's directory as an absolute path on this machine."""
        return os.path.join(self.fs.mnt, self.name)

    @property
    def host_dir(self):
        """The same directory on the host."""
        return os.path.join(self.fs.export, self.name)

    def path(self, *names):
        """A path below the case's directory."""
        return os.path.join(self.dir, *names)

    def there(self, *names):
        """The same path on the host."""
        return os.path.join(self.host_dir, *names)

    @staticmethod
    def note(text):
        """Prints a line for people."""
        for line in str(text).splitlines():
            print(f"# {line}", flush=True)
