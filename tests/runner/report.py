# SPDX-License-Identifier: GPL-2.0
"""What the run prints: KTAP, one numbered line per test, and the last line with the sums."""

import sys
import threading
import time


class Report:
    """Counts results and prints them as they come. For one thread; others have a Part each."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = 0
        self.failed = 0
        self.skipped = 0
        self.failures = []
        self.begin = time.monotonic()
        self.line("KTAP version 1")

    @staticmethod
    def line(text):
        """One line."""
        print(text, flush=True)

    def note(self, text):
        """Lines that are not results."""
        for line in str(text).splitlines() or [""]:
            self.line(f"# {line}")

    def heading(self, text):
        """Says what comes, and when."""
        self.note(f"--- {text} (after {time.monotonic() - self.begin:.0f} s)")

    def _result(self, outcome, name, rest):
        number = self.passed + self.failed + self.skipped
        self.line(f"{outcome} {number} {name}{rest}")

    def ok(self, name, seconds=None):
        """A test passed."""
        self.passed += 1
        self._result("ok", name, "" if seconds is None else f" # {seconds:.2f} s")

    def not_ok(self, name, seconds=None, why=None):
        """A test failed; why has the diagnostics, unless they have been printed."""
        if why:
            self.note(why)
        self.failed += 1
        self.failures.append(name)
        self._result("not ok", name, "" if seconds is None else f" # {seconds:.2f} s")

    def skip(self, name, reason):
        """A test was not made."""
        self.skipped += 1
        self._result("ok", name, f" # SKIP {reason}")

    def end(self):
        """The plan and the sums; returns the exit status."""
        total = self.passed + self.failed + self.skipped
        self.line(f"1..{total}")
        if self.failures:
            self.note("failed:")
            for name in self.failures:
                self.note(f"  {name}")
        if not total:
            self.note("no test was chosen")
        self.note(f"{time.monotonic() - self.begin:.0f} s in all")
        sums = f"{self.passed} passed, {self.failed} failed"
        if self.skipped:
            sums += f", {self.skipped} skipped"
        self.line(sums)
        sys.stdout.flush()
        return 1 if self.failed or not total else 0


class Part:
    """What one of several threads has to report: kept, and printed as a whole, so that the lines of a file stay together."""

    def __init__(self, report):
        self.report = report
        self.kept = []

    def __getattr__(self, name):
        """Any method of the report."""
        return lambda *arguments: self.kept.append((name, arguments))

    def heading(self, text):
        """Says what comes, and when; that is not kept back."""
        with self.report.lock:
            self.report.heading(text)

    def print(self):
        """Passes on what was kept."""
        with self.report.lock:
            for name, arguments in self.kept:
                getattr(self.report, name)(*arguments)
        self.kept.clear()
