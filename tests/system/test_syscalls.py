#!/usr/bin/python3
"""How often the proxy enters the kernel: many clients share one io_uring_enter."""

import contextlib
import os
import re

from harness import proxy as proxy_module, runner
from harness.backend import Backend

TRANSACTIONS = 40000


@contextlib.contextmanager
def one_cpu():
    """Children share one CPU, and none of them preempts another when it wakes up: what the proxy finds at each look is
    what gathered while the others ran. So the count depends on how many clients there are, not on the machine's speed."""
    cpus, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    os.sched_setaffinity(0, {min(cpus)})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        os.sched_setaffinity(0, cpus)


def counters(log, name):
    """The numbers of a counters line at the end of a core's log: what -> how many."""
    line = re.search(rf"\b{name}: (\d.*)", log)
    assert line, f"no line of {name} in the log:\n{log}"
    return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", line.group(1))}


# Undisturbed, it is 0.26 with 16 clients and 0.13 with 64; where other processes compete for the same CPU, the time
# slices are shorter, and 0.34 and 0.19 have been seen. A single client costs 2: there is nothing to share.
@runner.timeout(120)
@runner.cases((16, 0.4), (64, 0.25))
def test_enters(clients, most):
    """With `clients` clients on 20 server connections a transaction costs at most `most` enters."""
    with one_cpu(), Backend() as backend:
        proxy = proxy_module.Proxy(
            proxy_module.config(None, node={"port": backend.port}, max_connections=20)
        )
        with proxy:
            each = runner.scaled(TRANSACTIONS // clients)
            arguments = ["-S", "-c", str(clients), "-j", "1", "-t", str(each)]
            _, _, count = proxy_module.pgbench(proxy, arguments)
            proxy.signal(15)
            code = proxy.wait()
            ring = counters(proxy.log(), "ring")
            proxy.finish(code)
    assert count == clients * each, count
    assert ring["turns"] >= ring["sleeps"] > 0, ring
    assert ring["sends"] >= 2 * count, ring
    share = ring["enters"] / count
    print(f"    {clients} clients: {share:.3f} enters per transaction, {ring}")
    assert share <= most, f"{share:.3f} enters per transaction, {ring}"


if __name__ == "__main__":
    runner.main()
