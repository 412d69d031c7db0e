# SPDX-License-Identifier: GPL-2.0
"""Faults on the link between the two machines."""

import remote
from state import Failure

# Large enough for what a fast link holds during the longest delay.
QUEUE = 10000


def describe(faults):
    words = ["down: packets vanish" if faults["down"] else "up"]
    if faults["delay"]:
        words.append(f"delay {faults['delay']:g} ms in each direction")
    if faults["loss"]:
        words.append(f"loss {faults['loss']:g} % in each direction")
    return ", ".join(words)


def change(lab, machines, **changes):
    """Changes what is named and keeps the rest; also for machines that boot later."""
    faults = {**lab.faults, **changes}
    lab.faults = faults
    for machine in machines:
        if machine.running:
            if "down" in changes:
                machine.set_link(not faults["down"])
            if changes.keys() & {"delay", "loss"}:
                shape(machine, faults)


def shape(machine, faults):
    """Sets delay and loss of what the machine sends."""
    rule = ["del", "dev", "eth0", "root"]
    if faults["delay"] or faults["loss"]:
        rule = ["replace", "dev", "eth0", "root", "netem", "limit", str(QUEUE),
                "delay", f"{faults['delay']}ms", "loss", f"{faults['loss']}%"]
    status, text = remote.output(machine, ["tc", "qdisc", *rule])
    # There is nothing to delete when nothing was set.
    if status and rule[0] != "del":
        raise Failure(f"{machine.name} cannot shape what it sends.", "tc in the guest says:", text.strip())


def number(text, what, most):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise Failure(f"\"{text}\" is no {what}.", f"It is a number from 0 to {most}.", status=2)
    return value
