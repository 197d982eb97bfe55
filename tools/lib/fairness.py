#!/usr/bin/env python3
"""How evenly poolers serve clients that want more than there is: 64 clients on 4 server connections, whose transactions
take 1 ms in the server, and one of a hundred 500 ms. HeliosProxy on one core and on two, and PgBouncer where it is
installed, one after the other before the canned server of helios-bench."""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from quickstart import Failure, dies_with_us, free_port, stop, tail, unprivileged_user

# The parts of helios-bench's script "mixed", and what each takes in the server.
CLASSES = {"mixed 1 ms": 1e6, "mixed 500 ms": 500e6}
USER = "bench"
STOP = [(signal.SIGTERM, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 5)]


def start(stack, command, log, **options):
    try:
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=dies_with_us(signal.SIGTERM), **options)
    except OSError as error:
        raise Failure(f"{command[0]} cannot be started: {error.strerror}") from None
    stack.callback(stop, process, STOP)
    return process


def wait_until_open(port, process, log):
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None:
            raise Failure(f"{process.args[0]} ended with status {process.returncode}:\n{tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if time.monotonic() > deadline:
            raise Failure(f"{process.args[0]} does not listen:\n{tail(log)}")
        time.sleep(0.05)


def start_server(stack, work, arguments):
    port = free_port()
    log = work / "backend.log"
    command = [arguments.helios_bench, "backend", "--listen", f"127.0.0.1:{port}"]
    wait_until_open(port, start(stack, command, log), log)
    return port


def start_heliosproxy(stack, work, arguments, server_port, cores):
    port = free_port()
    configuration = work / f"heliosproxy-{cores}.toml"
    configuration.write_text(f"""
[proxy]
listen = ["127.0.0.1:{port}"]
cores = {cores}
[pool]
max_connections = {arguments.connections}
acquire_timeout = "0s"
[[node]]
name = "main"
host = "127.0.0.1"
port = {server_port}
[[database]]
name = "*"
node = "main"
[[user]]
name = "{USER}"
auth = "trust"
""")
    log = work / f"heliosproxy-{cores}.log"
    wait_until_open(port, start(stack, [arguments.heliosproxy, "--config", configuration], log), log)
    return port


def start_pgbouncer(stack, work, arguments, server_port):
    port = free_port()
    configuration = work / "pgbouncer.ini"
    configuration.write_text(f"""
[databases]
{USER} = host=127.0.0.1 port={server_port} user={USER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {arguments.connections}
max_client_conn = {2 * arguments.clients + 100}
query_wait_timeout = 0
""")
    log = work / "pgbouncer.log"
    # It does not run as root.
    wait_until_open(port, start(stack, [arguments.pgbouncer, configuration], log, **unprivileged_user()), log)
    return port


def run_load(arguments, port):
    command = [arguments.helios_bench, "load", "--target", f"127.0.0.1:{port}", "--user", USER, "--database", USER,
               "--clients", arguments.clients, "--script", "mixed", "--warm-up", "1s", "--duration",
               f"{arguments.seconds}s", "--json", "--quiet"]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise Failure(f"the load failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def wait_of(entry):
    """What a transaction took beyond its time in the server, in nanoseconds."""
    taken = CLASSES[entry["script"]]
    p50, p99 = (max(entry["latency"][name] - taken, 0) for name in ("p50", "p99"))
    return {"transactions": entry["latency"]["count"], "p50": p50, "p99": p99, "p99/p50": p99 / p50 if p50 else None}


def measure(name, arguments, start_pooler):
    with contextlib.ExitStack() as stack:
        port = start_pooler(stack)
        result = run_load(arguments, port)
    clients = result["clients"]
    return {"pooler": name, "transactions": result["transactions"],
            "clients": {key: clients[key] for key in ("min", "median", "max")},
            "waits": {entry["script"]: wait_of(entry) for entry in result["by_script"]}}


def measure_all(arguments):
    with tempfile.TemporaryDirectory(prefix="helios-fairness-") as directory, contextlib.ExitStack() as stack:
        work = pathlib.Path(directory)
        work.chmod(0o755)  # For pgbouncer's user.
        server_port = start_server(stack, work, arguments)
        for cores in (1, 2):
            yield measure(f"heliosproxy, {cores} core{'s' * (cores > 1)}", arguments,
                          lambda own, cores=cores: start_heliosproxy(own, work, arguments, server_port, cores))
        if arguments.pgbouncer:
            yield measure("pgbouncer", arguments, lambda own: start_pgbouncer(own, work, arguments, server_port))


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.1f} ms"


def row_of(result):
    row = [result["pooler"], *(str(result["clients"][key]) for key in ("min", "median", "max"))]
    for name in CLASSES:
        wait = result["waits"][name]
        ratio = "-" if wait["p99/p50"] is None else f"{wait['p99/p50']:.1f}"
        row += [milliseconds(wait["p50"]), milliseconds(wait["p99"]), ratio]
    return row


def print_table(arguments, results):
    print(f"{arguments.clients} clients on {arguments.connections} server connections, {arguments.seconds} s each; a "
          "transaction takes 1 ms in the server, one of a hundred 500 ms.\nTransactions of the client that got fewest, "
          "of the median client, of the one that got most; and what the\ntransactions of each kind took beyond their "
          "time in the server, which is nearly all waiting.\n")
    rows = [["", "min", "median", "max", "1 ms: p50", "p99", "p99/p50", "500 ms: p50", "p99", "p99/p50"]]
    rows += [row_of(result) for result in results]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep="  ")
    if not arguments.pgbouncer:
        print("\npgbouncer is not installed (Debian: pgbouncer)")


def number(low, high):
    def read(text):
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return read


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tools/fairness", description=__doc__,
                                     usage="tools/fairness [option ...] (tools/fairness --help shows them)")
    parser.add_argument("--heliosproxy", required=True, metavar="PROGRAM", help="tools/fairness builds and gives it")
    parser.add_argument("--helios-bench", required=True, metavar="PROGRAM", help="as well")
    parser.add_argument("--pgbouncer", metavar="PROGRAM", help="another than the installed one; empty: without it",
                        default=shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin"))
    parser.add_argument("--clients", type=number(1, 10_000), default=64)
    parser.add_argument("--connections", type=number(1, 1000), default=4, help="to the server")
    parser.add_argument("--seconds", type=number(1, 3600), default=15, help="for each pooler")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of the table; nanoseconds")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, lambda received, _: sys.exit(128 + received))
    try:
        results = list(measure_all(arguments))
    except Failure as failure:
        print(f"fairness: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(results)) if arguments.json else print_table(arguments, results)
    starved = [result["pooler"] for result in results if result["clients"]["min"] == 0]
    if starved:
        print(f"fairness: a client got nothing at all from {' and '.join(starved)}", file=sys.stderr)
    return 1 if any(name.startswith("heliosproxy") for name in starved) else 0


if __name__ == "__main__":
    sys.exit(main())
