#!/usr/bin/python3
"""Limits on clients and on waiting: who is let in, who may wait, and what those who wait are told."""

import time

from harness import runner, wire
from harness.cluster import LimitWatch
from harness.wire import query


def refusal(proxy, user, database, password=""):
    """The fields of the error that a login ends with; None when it succeeds."""
    with proxy.open() as conn:
        try:
            conn.login(user, database, password)
        except wire.ServerError as error:
            return error.fields
    return None


def try_client(proxy, user, database):
    """A client, or None when it is refused."""
    try:
        return proxy.client(user, database)
    except wire.ServerError:
        return None


def check_refused(fields, words):
    assert fields is not None, "the client was let in"
    assert fields["C"] == "53300" and fields["S"] == fields["V"] == "FATAL", fields
    assert words in fields["M"], fields


# max_clients.


@runner.cases(1, 2)
def test_max_clients_of_database_and_user(cores):
    """Clients above max_clients of their database or user are refused, and let in when others have gone."""
    database = [
        {"name": "app", "node": "main", "max_clients": 3},
        {"name": "*", "node": "main", "max_clients": 2},
    ]
    user = [
        {"name": "app", "password": "app-secret"},
        {"name": "alice", "auth": "trust"},
        {"name": "bob", "auth": "trust", "max_clients": 1},
    ]
    with runner.fresh_proxy(cores=cores, database=database, user=user) as proxy:
        clients = [proxy.client("alice", "app") for _ in range(2)]
        clients.append(proxy.client("bob", "app"))
        check_refused(refusal(proxy, "alice", "app"), 'database "app" (max_clients in [[database]])')
        check_refused(refusal(proxy, "bob", "other"), 'user "bob" (max_clients in [[user]])')
        # All names of "*" together. Bob's refusal has left no trace.
        clients += [proxy.client("alice", "other"), proxy.client("alice", "postgres")]
        check_refused(refusal(proxy, "alice", "other"), 'database "other" (max_clients')
        # Who has not proved who it is learns nothing of it.
        assert refusal(proxy, "app", "app", "wrong")["C"] == "28P01"
        check_refused(refusal(proxy, "app", "app", "app-secret"), "max_clients in [[database]]")
        for client in clients:
            assert client.value("select 1") == "1"
        # However they leave, their place is free.
        for end in ("close", "reset", "terminate"):
            getattr(clients.pop(0), end)()
            clients.append(
                runner.eventually(lambda: try_client(proxy, "alice", "app"), what="a free place")
            )
        for client in clients:
            client.close()


@runner.timeout(120)
def test_many_at_once_never_exceed_max_clients_on_two_cores():
    """Of 60 clients that come at once exactly as many as max_clients are let in."""
    database = [{"name": "*", "node": "main", "max_clients": 7}]
    with runner.fresh_proxy(cores=2, database=database) as proxy:
        with proxy.client():
            pass
        for _ in range(runner.scaled(10, 3)):
            conns = [proxy.open() for _ in range(60)]
            for conn in conns:
                conn.start("bench", "app")
            ends = [conn.recv_until("ZE")[-1] for conn in conns]
            welcome = [end for end in ends if end.kind == "Z"]
            refused = [end for end in ends if end.kind == "E"]
            assert len(welcome) <= 7, len(welcome)
            for end in refused:
                check_refused(end.fields, "max_clients")
            # Those of the round before may have been counted still.
            assert len(welcome) + len(refused) == 60
            for conn in conns:
                conn.close()
            runner.eventually(lambda: refusal(proxy, "bench", "app") is None, what="room again")


# Those who leave.


@runner.cases(1, 2)
def test_a_waiter_that_says_goodbye_leaves_the_queue(cores):
    """Behind Terminate nobody waits on, though the connection stays open; its query is never run."""
    pool = {"max_waiters": 1, "wait_notice": "10ms"}
    with runner.fresh_proxy(cores=cores, max_connections=1, pool=pool) as proxy:
        with proxy.client() as holder:
            holder.query("create temporary table seen (what int)")
            holder.query("begin")
            for _ in range(4):
                leaver = proxy.client()
                leaver.send(query("insert into seen values (1)"))
                # It is told that it waits: there was room in the queue, which has one place.
                leaver.recv_until("N")
                leaver.send(wire.message("X"))
                assert leaver.recv_to_end() == b""
            holder.query("commit")
            assert holder.value("select count(*) from seen") == "0"


# max_waiters.


@runner.cases(1, 2)
def test_max_waiters(cores):
    """One waiter more than max_waiters has its own error at once; the others are served."""
    pool = {"max_waiters": 3}
    with runner.fresh_proxy(cores=cores, max_connections=1, pool=pool) as proxy:
        with proxy.client() as holder:
            clients = [proxy.client() for _ in range(8)]
            holder.query("begin")
            for client in clients:
                client.send(query("select 'mine'"))
                time.sleep(0.02)
            began = time.monotonic()
            for client in clients[3:]:
                fields = client.recv_last_error()
                check_refused(fields, "too many clients wait")
                assert "max_waiters = 3" in fields["M"], fields
            assert time.monotonic() - began < 30, "not at once, but at a time-out"
            holder.query("commit")
            for client in clients[:3]:
                assert client.result() == [["mine"]]
                client.close()
            # Their places are free again.
            with proxy.client() as client:
                holder.query("begin")
                client.send(query("select 'next'"))
                holder.query("commit")
                assert client.result() == [["next"]]


# A waiter that is not read from.


@runner.cases(1, 2)
def test_waiter_that_has_sent_much_and_leaves(cores):
    """A waiter that has sent more than is kept and goes away is noticed at once; its query is never run."""
    runner.cluster().run("drop table if exists visits")
    runner.cluster().run("create table visits (x text)")
    runner.cluster().run("grant all on visits to public")
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as holder, proxy.client() as patient:
            leavers = {end: proxy.client() for end in ("close", "reset")}
            holder.query("begin")
            before = proxy.fds() - len(leavers)
            for end, gone in leavers.items():
                gone.send(query("insert into visits values ('" + "x" * 200_000 + "')"))
                time.sleep(0.05)
                getattr(gone, end)()
            patient.send(query("select count(*) from visits"))
            runner.eventually(lambda: proxy.fds() <= before, what="the waiters' descriptors closed")
            holder.query("commit")
            assert patient.result() == [["0"]]
            # One that stays is read to its end.
            holder.query("begin")
            patient.send(query("select length('" + "y" * 300_000 + "')"))
            time.sleep(0.05)
            holder.query("commit")
            assert patient.result() == [["300000"]]


# The reserve.


@runner.cases(1, 2)
@runner.timeout(120)
def test_reserve(cores):
    """Who waits for longer than reserve_after is served by the reserve, which is closed again behind."""
    pool = {"reserve_connections": 2, "reserve_after": "300ms"}
    with runner.fresh_proxy(cores=cores, max_connections=2, pool=pool) as proxy:
        with LimitWatch(runner.cluster()) as watch:
            holders = [proxy.client() for _ in range(2)]
            clients = [proxy.client() for _ in range(20)]
            for _ in range(runner.scaled(5, 2)):
                for holder in holders:
                    holder.query("begin")
                for client in clients:
                    client.send(query("select pg_sleep(0.001)"))
                for client in clients:
                    assert client.result() == [[""]]
                runner.eventually(
                    lambda: len(runner.cluster().backends()) <= 2, what="the end of the reserve"
                )
                for holder in holders:
                    holder.query("commit")
        watch.check(4)
        assert watch.most > 2, "the reserve was not used"
        for client in holders + clients:
            client.close()


@runner.timeout(120)
def test_reserve_under_load_on_two_cores():
    """With a reserve that opens at once the pool never exceeds both together."""
    pool = {"reserve_connections": 3, "reserve_after": "1ms"}
    with runner.fresh_proxy(cores=2, max_connections=3, pool=pool) as proxy:

        def work():
            with proxy.client() as client:
                for number in range(runner.scaled(100, 20)):
                    assert client.value(f"select {number} from pg_sleep(0.002)") == str(number)

        with LimitWatch(runner.cluster()) as watch:
            runner.in_threads([work for _ in range(16)])
        watch.check(6)
        runner.eventually(
            lambda: len(runner.cluster().backends()) <= 3, what="the end of the reserve"
        )


# wait_notice.


def test_wait_notice():
    """A client that waits is told once, by a NOTICE, and is served as if nothing had been."""
    with runner.fresh_proxy(max_connections=1, pool={"wait_notice": "200ms"}) as proxy:
        with proxy.client() as holder, proxy.client() as client:
            holder.query("begin")
            client.send(query("select 'mine'"))
            got = client.recv()
            assert got.kind == "N", got
            assert got.fields["S"] == got.fields["V"] == "NOTICE", got.fields
            assert got.fields["C"] == "00000", got.fields
            assert 'user "bench" to database "app": 1 of 1' in got.fields["M"], got.fields
            client.recv_quiet(0.5)
            holder.query("commit")
            assert client.result() == [["mine"]]
            assert client.value("select 'next'") == "next"
            assert len(client.notices) == 1


if __name__ == "__main__":
    runner.main()
