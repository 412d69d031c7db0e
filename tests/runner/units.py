# SPDX-License-Identifier: GPL-2.0
"""The units of systemd on both machines, which boot with it."""

from qtest.checks import eq
from runner.dpu_power import begin, end
from runner.driven import call, driven
from runner.machines import MACHINES, LabError

KEY = "u" * 32


def boots(lab):
    """The whole story."""
    for machine in MACHINES:
        call(lab, machine, "units", "install", KEY)
        lab.call("halt", machine)
    # The dpu is there first, and waits for the host.
    lab.call("boot", "dpu")
    call(lab, "dpu", "units", "waits")
    lab.call("boot", "host")
    for machine in MACHINES:
        call(lab, machine, "units", "is_active")
    pids, counted = begin(lab)
    before = call(lab, "host", "power", "processes", pids)
    call(lab, "dpu", "units", "finds_others")
    call(lab, "dpu", "units", "restart")
    eq(call(lab, "host", "power", "processes", pids), before, "the processes after a restart of the dpu's unit")
    lab.call("crash", "dpu")
    lab.call("boot", "dpu")
    call(lab, "dpu", "units", "is_active")
    end(lab, pids, counted)
    for machine in reversed(MACHINES):
        call(lab, machine, "units", "stop")


def remove(lab):
    """Lets the machines boot as others want them."""
    for machine in MACHINES:
        try:
            call(lab, machine, "units", "remove")
        except LabError:
            # It does not answer, or has never come so far.
            lab.call("crash", machine, check=False)


units = driven("units: the dpu waits for the host, and after restarts of either all is there again", boots, remove)
