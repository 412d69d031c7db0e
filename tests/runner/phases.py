# SPDX-License-Identifier: GPL-2.0
"""What is tested without machines: that everything builds, lint, and the cargo crates' tests."""

import re
import subprocess
import time

from runner.machines import TOP


def execute(report, name, command, limit, cwd=TOP):
    """Runs a command as one test; returns its output, or None when it failed."""
    begin = time.monotonic()
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        report.not_ok(name, limit, f"{output[-6000:]}\nno end after {limit} s: {' '.join(command)}")
        return None
    seconds = time.monotonic() - begin
    if done.returncode:
        report.not_ok(name, seconds, f"{done.stdout[-12000:]}\nexit {done.returncode}: {' '.join(command)}")
        return None
    report.ok(name, seconds)
    return done.stdout


def build(report):
    """make; without it nothing else makes sense."""
    return execute(report, "build: both modules and all programs", ["make", "all"], 1800) is not None


def lint(report):
    """Formatting, clippy and shellcheck."""
    for part, name in (("lint-format", "rustfmt has nothing to change"), ("lint-modules", "clippy accepts the modules"),
                       ("lint-userspace", "clippy accepts the programs"), ("lint-scripts", "shellcheck accepts the scripts")):
        execute(report, f"lint: {name}", ["make", part], 900)


def cargo(report):
    """The tests of the crates that also build outside the kernel; each counts."""
    for crate, manifest in (("proto", "rust/proto/Cargo.toml"), ("userspace", "userspace/Cargo.toml")):
        if not (TOP / manifest).exists():
            continue
        begin = time.monotonic()
        command = ["scripts/build-root", "run", "--", "cargo", "test", "--workspace", "--manifest-path", manifest,
                   "--target-dir", "build/target", "--no-fail-fast"]
        done = subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=1800, check=False)
        found = re.findall(r"^test (.+?) \.\.\. (ok|FAILED|ignored)", done.stdout, re.MULTILINE)
        if done.returncode and not any(outcome == "FAILED" for _, outcome in found):
            report.not_ok(f"{crate}: cargo test", time.monotonic() - begin, done.stdout[-12000:])
        for name, outcome in found:
            if outcome == "ok":
                report.ok(f"{crate}: {name}")
            elif outcome == "ignored":
                report.skip(f"{crate}: {name}", "marked #[ignore]")
            else:
                told = re.search(rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^---- |^failures:)", done.stdout, re.MULTILINE | re.DOTALL)
                report.not_ok(f"{crate}: {name}", None, told[1] if told else None)


PHASES = {"build": build, "lint": lint, "cargo": cargo}
