# SPDX-License-Identifier: GPL-2.0
"""tests/run: the command line, and the order of things."""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

from runner import debug
from runner import labs
from runner import machines
from runner import phases
from runner.report import Report

# Cases that say what qtfs does, and cases that try to break it; these have a short and a full form.
FOLDERS = [machines.TOP / "tests/selftests", machines.TOP / "tests/torture"]
TORTURE = FOLDERS[1]

USAGE = """\
Runs the tests of qtfs and prints KTAP; the last line is `N passed, N failed`.

Without FILE everything runs: build, lint, cargo tests, the tests of the lab,
and all files of tests/selftests and tests/torture in two virtual machines. FILE
is one of them (`costs`, `costs.py` or its path), or one of the phases build,
lint, cargo, tools. What is in tests/torture runs in a short form; with --torture
it runs in full, which takes hours, and nothing else does."""


def options_of(arguments):
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="tests/run", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="PATTERN", help="only selftests whose line matches this regular expression")
    parser.add_argument("--fs", choices=("qtfs", "nfs", "local"), default="qtfs",
                        help="what the selftests run on; the others are for checking the tests themselves")
    parser.add_argument("--keep", action="store_true", help="leave the machines up")
    parser.add_argument("--lab", metavar="NAME", help="use the lab of this name; one that is up stays up")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many labs to use at once (default: 2 when everything runs, else 1)")
    parser.add_argument("--no-build", action="store_true", help="take what was built before")
    parser.add_argument("--torture", action="store_true", help="the files of tests/torture, in full")
    parser.add_argument("--debug", action="store_true", help="on the debug kernel: selftests only, and leaks are looked for after each file")
    parser.add_argument("--seed", type=int, help="of random tests (default: 1, with --torture a new one)")
    parser.add_argument("--limit", type=int, metavar="SECONDS", help="for the whole run (default 4500, with --torture or --debug 36000)")
    parser.add_argument("--list", action="store_true", help="print the selftest files and end")
    parser.add_argument("files", nargs="*", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.limit is None:
        options.limit = 36000 if options.torture or options.debug else 4500
    if options.jobs is None:
        options.jobs = 1 if options.files or options.k or options.lab or options.torture or options.debug else 2
    if options.jobs < 1 or options.lab and options.jobs > 1:
        parser.error("--jobs: at least 1, and 1 with --lab")
    if options.seed is None:
        options.seed = random.randrange(1, 1 << 31) if options.torture else 1
    return options


def choose(options):
    """The phases and selftest files to run."""
    everything = [file for folder in FOLDERS for file in sorted(folder.glob("*.py"))]
    every_phase = [*phases.PHASES, *labs.WITH_LAB]
    if options.torture and not options.files:
        return ["build", *labs.ONLY_FULL], sorted(TORTURE.glob("*.py"))
    if options.debug and not options.files:
        return ["build"], everything
    if not options.files:
        short = [name for name in every_phase if name not in labs.ONLY_FULL]
        return short if not options.k else ["build"], everything
    chosen_phases, chosen = [], []
    for name in options.files:
        files = [file for file in everything if file.stem == Path(name).stem]
        if name in every_phase:
            chosen_phases.append(name)
        elif files:
            chosen.extend(files)
        else:
            known = ", ".join([*every_phase, *(file.stem for file in everything)])
            sys.exit(f"tests/run: there is no test {name}. There are: {known}")
    if chosen and "build" not in chosen_phases:
        chosen_phases.insert(0, "build")
    return chosen_phases, chosen


def main(arguments):
    """The command."""
    options = options_of(arguments)
    if options.debug:
        debug.choose()
        phases.PHASES["build"] = phases.build_debug
    chosen_phases, files = choose(options)
    if options.list:
        for file in files:
            print(file.relative_to(machines.TOP))
        return 0
    # So that the lab goes down and the sums are printed however the run ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.chdir(machines.TOP)
    report = Report()
    deadline = time.monotonic() + options.limit
    try:
        with_lab = [name for name in chosen_phases if name in labs.WITH_LAB]
        for name in chosen_phases:
            if name in labs.WITH_LAB or name == "build" and options.no_build:
                continue
            report.heading(name)
            if phases.PHASES[name](report) is False:
                report.note("without a build there is nothing to test")
                files = []
        if with_lab or files:
            labs.run(with_lab, files, options, report, deadline)
    except KeyboardInterrupt:
        report.not_ok("run: was interrupted")
    return report.end()
