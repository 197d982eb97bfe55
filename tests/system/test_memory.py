#!/usr/bin/python3
"""What the proxy keeps in memory: at start, for idle clients, after they have left, after many have come and gone."""

import json
import os
import resource
import subprocess

from harness import proxy as proxy_module, runner
from harness.backend import Backend

LOGIN = ("--user", "bench", "--database", "bench")


def bench(command, proxy, *words):
    """Runs helios-bench against the proxy: what it reports."""
    target = f"127.0.0.1:{proxy.address[1]}"
    done = subprocess.run(
        [os.environ["HELIOS_BENCH"], command, "--target", target, *LOGIN, "--json", "--quiet", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def proxy_before(backend, cores, **table):
    return proxy_module.Proxy(
        proxy_module.config(None, node={"port": backend.port}, cores=cores, proxy={"max_clients": 12_000, **table})
    )


def test_start():
    """A minimal configuration on two cores starts in less than 16 MiB."""
    with Backend() as backend:
        configuration = proxy_module.config(None, node={"port": backend.port}, cores=2)
        with proxy_module.Proxy(configuration) as proxy:
            with proxy.client() as client:
                assert client.value("select 1") == "1"
            print(f"        {proxy.rss() / 2**20:.1f} MiB resident")
            assert proxy.is_sanitized() or proxy.rss() < 16 << 20


@runner.timeout(300)
@runner.cases(1, 2)
def test_idle_clients(cores):
    """An idle client costs at most 1 KiB, and when all have left the proxy is as small as before."""
    # Each client takes a descriptor here and one in the proxy, which is no child of helios-bench.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    clients = min(runner.scaled(10_000, 500), hard - 500)
    with Backend() as backend, proxy_before(backend, cores) as proxy:
        first, second = (
            bench("idle", proxy, "--clients", clients, "--settle", "4s", "--watch", proxy.pid) for _ in range(2)
        )
        for result in first, second:
            assert result["clients"] == clients and result["answered"] == [clients, clients], result
        left = first["after"]["rss"] - first["before"]["rss"]
        more = second["after"]["rss"] - first["after"]["rss"]
        print(f"        {clients} clients: {first['rss_per_client']} bytes each, {left >> 10} KiB left behind;")
        print(f"        once more: {second['rss_per_client']} bytes each, {more >> 10} KiB more left behind")
        if not proxy.is_sanitized():
            assert first["rss_per_client"] <= 1024, first
            # A page of each receive buffer, and a few chunks: what a core needed once it keeps.
            assert left < cores * 2 << 20, first
            assert more < cores * 256 << 10, second


@runner.timeout(300)
def test_clients_that_come_and_go():
    """Memory does not grow with the number of clients that have been there."""
    clients = 8
    each = runner.scaled(100_000 // clients, 500)
    with Backend() as backend, proxy_before(backend, 1) as proxy:
        words = ["--clients", clients, "--script", "connect", "--warm-up", "0", "--transactions"]
        bench("load", proxy, *words, runner.scaled(500, 100))
        before = proxy.rss()
        result = bench("load", proxy, *words, each)
        assert result["transactions"] == clients * each and result["failed"] == 0, result
        grown = proxy.rss() - before
        print(f"        {clients * each} connections: {grown >> 10} KiB more")
        assert proxy.is_sanitized() or grown < 512 << 10, f"{grown} bytes more"


if __name__ == "__main__":
    runner.main()
