#!/usr/bin/python3
"""LISTEN and NOTIFY: a client that listens gives its backend back, and hears what it would hear with one of its own."""

import contextlib
import random
import select
import signal
import struct
import threading

from harness import proxy as proxy_module
from harness import runner, wire
from harness.cluster import LimitWatch
from harness.proxy import CLIENTS
from harness.wire import SYNC, query

PID = "select pg_backend_pid()"
HUBS = "application_name = 'heliosproxy hub'"
# Of those that are ready: all that a hub does is to listen.
LISTENING = "query like 'LISTEN \"heliosproxy%' and state = 'idle'"


def notified(got):
    """(process id, channel, payload) of a NotificationResponse."""
    assert got.kind == "A", got
    channel, payload = got.body[4:].split(b"\0")[:2]
    return struct.unpack_from("!I", got.body)[0], channel.decode(), payload.decode()


def heard(messages):
    return [notified(m) for m in messages if m.kind == "A"]


def ask(client, sql):
    """What is notified up to the end of a simple query's answer; it may not fail."""
    client.send(query(sql))
    found = client.recv_until("Z")
    assert not wire.errors(found), found
    return heard(found)


def notify(client, channel, payload):
    """Notifies; the process id of the server where that was done. The client itself may hear nothing."""
    client.send(query(f"{PID}; notify {channel}, '{payload}'"))
    found = client.recv_until("Z")
    assert wire.kinds(found) == "TDCCZ" and not heard(found), found
    return int(wire.rows(found)[0][0])


def next_payload(client, timeout=20):
    """That of the next notification, which comes without being asked for."""
    return notified(client.recv(timeout))[2]


def wait_shared(count=1):
    """Until so many hubs listen and no client's backend does: the clients that listen have none."""
    runner.eventually(lambda: len(runner.cluster().backends(LISTENING)) == count, what=f"{count} hubs")


@runner.cases(1, 2)
def test_listener_shares_a_pool_of_one(cores):
    """Who listens has no backend: others use the only one, and what they notify arrives at once."""
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as one, proxy.client() as two:
            one.query("listen news")
            for i in range(20):
                pid = notify(two, "news", f"word {i}")
                assert notified(one.recv()) == (pid, "news", f"word {i}")
                assert one.value("select 1") == "1"
            one.recv_quiet()
            assert runner.cluster().backends(HUBS) != []
        runner.eventually(lambda: runner.cluster().backends(HUBS) == [], what="the hub's end")


def test_listen_takes_effect_at_commit():
    """In a block, with a rollback, with savepoints, in a function: as PostgreSQL has it."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as one, proxy.client() as two:
        one.query("begin; listen a")
        ask(two, "notify a, 'too early'")
        assert ask(one, "commit") == []
        ask(two, "notify a, 'first'")
        assert next_payload(one) == "first"
        one.query("begin; listen b; rollback")
        one.query("begin; savepoint s; listen c; rollback to s; listen d; commit")
        one.query("create temp table t (x int); drop table t")
        one.query("do $$ begin execute 'listen e'; end $$")
        assert one.query("select * from pg_listening_channels() order by 1") == [["a"], ["d"], ["e"]]
        for channel in "abcde":
            ask(two, f"notify {channel}, 'to {channel}'")
        assert [next_payload(one) for _ in range(3)] == ["to a", "to d", "to e"]
        # Unlisten, in a block that is rolled back and in one that is not.
        one.query("begin; unlisten a; rollback")
        one.query("unlisten d")
        ask(two, "notify d, 'nobody'")
        ask(two, "notify a, 'still'")
        assert next_payload(one) == "still"
        one.query("unlisten *")
        assert one.query("select * from pg_listening_channels()") == []
        ask(two, "notify a, 'nobody'")
        one.query("select 1")
        one.recv_quiet()


def test_own_notifications():
    """They come before the end of their statement, with the process id that the client was told."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        assert ask(one, "listen mine; notify mine, 'together'") == [(one.pid, "mine", "together")]
        for i in range(5):
            two.query("select 1")
            assert ask(one, f"notify mine, '{i}'") == [(one.pid, "mine", str(i))]
        assert ask(one, "begin; notify mine, 'x'; rollback") == []
        one.send(query("begin"), query("notify mine, 'in a block'"), query("commit"))
        found = [m for _ in range(3) for m in one.recv_until("Z")]
        assert heard(found) == [(one.pid, "mine", "in a block")]
        assert [m.kind for m in found[-3:]] == ["C", "A", "Z"]
        one.recv_quiet()


def test_session_mode_tells_the_same_process_id():
    """There, too, the process id of an own notification is the one that the client was told."""
    proxy = runner.proxy(mode="session", max_connections=1)
    with proxy.client() as one:
        assert ask(one, "listen mine; notify mine, 'x'") == [(one.pid, "mine", "x")]


def test_odd_names_and_payloads():
    """Names with quotes, blanks and letters beyond ASCII; payloads up to their limit."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        for name in ['with "quotes"', "two words", "Größe", "back\\slash", "x" * 63, "semi;colon", "'"]:
            quoted = '"' + name.replace('"', '""') + '"'
            one.query(f"listen {quoted}")
            payload = "é'\\;" * 1000
            literal = payload.replace("'", "''")
            ask(two, f"notify {quoted}, '{literal}'")
            got = notified(one.recv())
            assert got[1:] == (name, payload), got
            one.query(f"unlisten {quoted}")


class Sender(threading.Thread):
    """Notifies numbers, some in transactions of several, some from a backend's end; each says who and which."""

    def __init__(self, proxy, name, count):
        super().__init__(daemon=True)
        self.proxy, self.label, self.count, self.failure = proxy, name, count, None

    def run(self):
        try:
            dice = random.Random(self.label)
            with self.proxy.client() as client:
                sent = 0
                while sent < self.count:
                    block = min(dice.choice((1, 1, 1, 5)), self.count - sent)
                    words = [f"notify numbers, '{self.label} {sent + i}'" for i in range(block)]
                    # The order of commits, for all to see.
                    values = f"values ('{self.label}', {sent}, {block}, pg_backend_pid())"
                    log = f"insert into commits (sender, first, size, pid) {values}"
                    client.query("begin; lock table commits; " + "; ".join(words) + f"; {log}; commit")
                    sent += block
        except BaseException as failure:  # pylint: disable=broad-except
            self.failure = failure


@runner.timeout(240)
@runner.cases((1, 1), (1, 3), (2, 2))
def test_nothing_is_lost_doubled_or_disordered(cores, size):
    """Listeners that run transactions all the time hear every notification once, in the order of commits."""
    count, senders_count, listeners_count = runner.scaled(300, 40), 4, 3
    runner.cluster().run("drop table if exists commits")
    runner.cluster().run("create table commits (id serial, sender text, first int, size int, pid int)")
    runner.cluster().run("grant all on commits to public; grant all on commits_id_seq to public")
    with runner.fresh_proxy(cores=cores, max_connections=size) as proxy:
        senders = [Sender(proxy, f"s{i}", count) for i in range(senders_count)]
        got = [[] for _ in range(listeners_count)]
        ready = threading.Barrier(listeners_count + 1)
        total = count * senders_count

        def listen(index):
            dice = random.Random(index)
            with proxy.client() as client:
                client.query("listen numbers")
                ready.wait(30)
                turns = 0
                while len(got[index]) < total:
                    turns += 1
                    kind = dice.randrange(4)
                    if kind == 0:
                        got[index].append(notified(client.recv(60)))
                    elif kind == 1:
                        got[index] += ask(client, "select 1")
                    elif kind == 2:
                        got[index] += ask(client, "begin; select 1; listen numbers; commit")
                    else:
                        got[index] += ask(client, f"listen other_{turns}; unlisten other_{turns}")
                client.recv_quiet()
                return turns

        threads = [lambda i=i: listen(i) for i in range(listeners_count)]

        def send():
            ready.wait(30)
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join(200)
                if sender.failure is not None:
                    raise sender.failure

        runner.in_threads([send, *threads], 220)
        order = runner.cluster().run("select pid, sender, first, size from commits order by id")
        expected = [
            (int(pid), "numbers", f"{s} {int(first) + i}") for pid, s, first, size in order for i in range(int(size))
        ]
        for each in got:
            assert sorted(each) == sorted(expected)
            assert each == expected


def test_slow_reader_is_ended():
    """Who does not read is told why it ends; the others hear everything."""
    limit = {"max_client_notifications_size": "64KiB"}
    with runner.fresh_proxy(max_connections=1, pool=limit) as proxy:
        with proxy.client(receive_buffer=4096) as slow, proxy.client() as fast, proxy.client() as two:
            slow.query("listen news")
            fast.query("listen news")
            count = 0
            filler = "x" * 7000
            while "does not read its notifications" not in proxy.log():
                assert count < 5000
                ask(two, f"notify news, '{count} {filler}'")
                assert next_payload(fast).startswith(f"{count} ")
                count += 1
            # What it gets is whole, in order, and ends with the reason.
            found = slow.recv_until("E")
            said = [n[2].split(" ")[0] for n in heard(found)]
            assert said == [str(i) for i in range(len(found) - 1)]
            fields = found[-1].fields
            assert (fields["S"], fields["C"]) == ("FATAL", "53200"), fields
            assert "max_client_notifications_size" in fields["M"], fields
            assert slow.recv_to_end() == b""
            ask(two, "notify news, 'last'")
            assert next_payload(fast) == "last"
        proxy.forget_log()


def test_lost_hub():
    """Idle listeners are told that they may have missed something; who has a backend goes on."""
    with runner.fresh_proxy(max_connections=3) as proxy:
        with proxy.client() as idle, proxy.client() as busy, proxy.client() as two:
            idle.query("listen news")
            busy.query("listen news")
            busy.query("begin")
            wait_shared()
            runner.cluster().run(
                f"select pg_terminate_backend(pid) from pg_stat_activity where {HUBS}", "postgres"
            )
            error = idle.recv()
            assert error.kind == "E" and error.fields["S"] == "FATAL", error
            assert error.fields["C"] == "08006" and "notifications" in error.fields["M"], error.fields
            ask(two, "notify news, 'one'")
            busy.query("select 1")
            assert [n[1:] for n in ask(busy, "commit")] == [("news", "one")]
            wait_shared()
            ask(two, "notify news, 'two'")
            assert next_payload(busy) == "two"
        proxy.forget_log()


def test_hub_may_be_idle():
    """The server ends sessions that are idle for long (idle_session_timeout): not the hub."""
    cluster = runner.cluster()
    cluster.run("alter role bench set idle_session_timeout = '300ms'")
    try:
        with runner.fresh_proxy(max_connections=1) as proxy:
            with proxy.client() as one:
                one.query("listen news")
                pid = one.value(PID)
                runner.eventually(
                    lambda: not cluster.backends(f"pid = {pid}"), what="the end of the idle backend"
                )
                assert len(cluster.backends(HUBS)) == 1
                with proxy.client() as two:
                    ask(two, "notify news, 'x'")
                assert next_payload(one) == "x"
            proxy.forget_log()
    finally:
        cluster.run("alter role bench reset idle_session_timeout")


def test_own_backend_lost():
    """The client hears of it, as it would without a pooler."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as one:
            one.query("listen news")
            one.query("begin")
            pid = one.value(PID)
            runner.cluster().run(f"select pg_terminate_backend({pid})", "postgres")
            assert [m.kind for m in wire.split(one.recv_to_end())[0]] == ["E"]
        runner.eventually(lambda: runner.cluster().backends(HUBS) == [], what="the hub's end")
        proxy.forget_log()


def test_reload_moves_listeners():
    """A new configuration of the pool: nobody misses anything, and one hub is left."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as one, proxy.client() as two:
            one.query("listen news")
            wait_shared()
            for size in (1, 3):
                proxy.configuration["pool"]["max_connections"] = size
                reload(proxy)
                ask(two, f"notify news, 'before {size}'")
                assert next_payload(one) == f"before {size}"
                one.query("select 1")
                ask(two, f"notify news, 'behind {size}'")
                assert next_payload(one) == f"behind {size}"
                wait_shared()


def reload(proxy):
    """SIGHUP; the new configuration is in effect on every core."""
    with open(proxy.config_path, "w", encoding="utf-8") as file:
        file.write(proxy_module.to_toml(proxy.configuration))
    word = "the new configuration is in effect on every core"
    before = proxy.log().count(word)
    proxy.signal(signal.SIGHUP)
    runner.eventually(lambda: proxy.log().count(word) > before, what="the new configuration")


# Where connections are counted: the proxies that tests share have some in the other database.
IN_OTHER = "datname = 'other'"


@contextlib.contextmanager
def clients(proxy, count, user="bench"):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(proxy.client(user, "other")) for _ in range(count)]


def limited(where, limit):
    """Keys of a proxy that may have so many server connections in all: by the limit of the node, database or user."""
    total = {"max_connections_total": limit}
    return {
        "node": {"node": {"max_connections": limit}},
        "database": {"database": [{"name": "other", "node": "main", **total}]},
        "user": {"user": [{"name": name, "auth": "trust", **total} for name in CLIENTS]},
    }[where]


@runner.cases("node", "database", "user")
def test_no_room_for_a_hub_pins(where):
    """Where only one connection is allowed, the client that listens keeps it, and the log says why."""
    with runner.fresh_proxy(max_connections=2, **limited(where, 1)) as proxy:
        with LimitWatch(runner.cluster(), IN_OTHER) as watch, proxy.client(database="other") as one:
            one.query("listen news")
            runner.eventually(lambda: "no room for the hub" in proxy.log(), what="the warning")
            pid = one.value(PID)
            assert ask(one, "notify news, 'own'") == [(one.pid, "news", "own")]
            assert one.value(PID) == pid
            with proxy.client(database="other") as two:
                two.send(query("select 1"))
                two.recv_quiet()
                assert ask(one, "unlisten *") == []
                assert two.result() == [["1"]]
                # And once more, from the other side.
                two.query("listen news")
                one.send(query("select 1"))
                one.recv_quiet()
                two.close()
                assert one.result() == [["1"]]
            watch.check(1)
        proxy.forget_log()


@runner.cases("node", "database", "user")
def test_a_hub_leaves_the_last_connection(where):
    """Where two are allowed, one is the hub's, and whoever listens or not takes turns on the other."""
    with runner.fresh_proxy(max_connections=2, **limited(where, 2)) as proxy:
        with LimitWatch(runner.cluster(), IN_OTHER) as watch, clients(proxy, 3) as (one, two, three):
            one.query("listen news")
            wait_shared()
            two.query("listen news")
            for i in range(5):
                pid = notify(three, "news", i)
                for client in (one, two):
                    assert notified(client.recv()) == (pid, "news", str(i))
                    assert client.value(PID) == str(pid)
            assert len(runner.cluster().backends(IN_OTHER)) == 2
            watch.check(2)


def test_hubs_of_two_cores():
    """Each of two cores has a hub for its clients; they share the third connection of the node."""
    with runner.fresh_proxy(cores=2, max_connections=3, node={"max_connections": 3}) as proxy:
        with LimitWatch(runner.cluster(), IN_OTHER) as watch, clients(proxy, 2) as (one, two):
            for client in (one, two):
                client.query("listen news")
            wait_shared(2)
            for i in range(10):
                for sender, other in ((one, two), (two, one)):
                    sender.send(query(f"{PID}; notify news, '{i}'"))
                    found = sender.recv_until("Z")
                    assert heard(found) == [(sender.pid, "news", str(i))]
                    assert notified(other.recv()) == (int(wire.rows(found)[0][0]), "news", str(i))
            watch.check(3)


def test_hubs_of_two_pools_on_two_cores():
    """At a limit of two, the pool that comes second has no hub: it would take the last connection of both."""
    with runner.fresh_proxy(cores=2, max_connections=2, node={"max_connections": 2}) as proxy:
        with LimitWatch(runner.cluster(), IN_OTHER) as watch:
            with clients(proxy, 1) as (one,), clients(proxy, 2, "alice") as (two, three):
                one.query("listen news")
                wait_shared()
                two.query("listen news")
                runner.eventually(lambda: "no room for the hub of alice@other" in proxy.log(), what="the warning")
                pid = int(two.value(PID))
                for i in range(5):
                    assert ask(two, f"notify news, '{i}'") == [(two.pid, "news", str(i))]
                    assert notified(one.recv()) == (pid, "news", str(i))
                waiting = (one, three)
                for client in waiting:
                    client.send(query("select 1"))
                    client.recv_quiet()
                two.query("unlisten *")
                for client in waiting:
                    assert client.result() == [["1"]]
                for i in range(10):
                    pid = notify(three, "news", i)
                    assert notified(one.recv()) == (pid, "news", str(i))
                    assert one.value("select 1") == two.value("select 1") == "1"
            watch.check(2)
        proxy.forget_log()


@runner.timeout(180)
@runner.cases(1, 2)
def test_service_goes_on_where_hubs_have_no_room(cores):
    """Clients of two users that listen, notify and ask, all at once on two connections, are all served."""
    with runner.fresh_proxy(cores=cores, max_connections=2, node={"max_connections": 2}) as proxy:
        of_hubs = f"{IN_OTHER} and {HUBS}"
        with LimitWatch(runner.cluster(), IN_OTHER) as watch, LimitWatch(runner.cluster(), of_hubs) as hubs:

            def work(number):
                dice = random.Random(number)
                with proxy.client(("bench", "alice")[number % 2], "other") as client:
                    for turn in range(runner.scaled(60, 15)):
                        channel = f"own_{number}"
                        ask(client, f"listen {channel}")
                        for _ in range(dice.randrange(3)):
                            assert client.query("select 1") == [["1"]]
                        assert ask(client, f"notify {channel}, '{turn}'") == [(client.pid, channel, str(turn))]
                        ask(client, f"unlisten {channel}")

            runner.in_threads([lambda n=n: work(n) for n in range(6)], 150)
            watch.check(2)
            hubs.check(1)
        proxy.forget_log()


def test_hubs_make_room_when_a_limit_shrinks():
    """Where hubs hold all that is left one is given up, or both; its listeners are told, and service goes on."""
    with runner.fresh_proxy(cores=2, max_connections=4, node={"max_connections": 4}) as proxy:
        with clients(proxy, 3) as (one, two, three):
            for client in (one, two):
                client.query("listen news")
            wait_shared(2)
            proxy.configuration["node"][0]["max_connections"] = 2
            reload(proxy)
            readable = runner.eventually(
                lambda: select.select([one.socket, two.socket], [], [], 0)[0], what="a listener that is told"
            )
            for client in (one, two):
                if client.socket in readable:
                    fields = client.recv_last_error()
                    assert fields["S"] == "FATAL" and fields["C"] == "08006", fields
                client.close()
            for _ in range(5):
                assert three.value("select 1") == "1"
            with proxy.client(database="other") as again:
                again.query("listen news")
                wait_shared()
                pid = notify(three, "news", "still")
                assert notified(again.recv()) == (pid, "news", "still")
            runner.eventually(lambda: len(runner.cluster().backends(IN_OTHER)) <= 2, what="two connections")
        proxy.forget_log()


def test_policy_pin_keeps_the_backend():
    """session_state = "pin": as before there were hubs."""
    proxy = runner.proxy(max_connections=2, pool={"session_state": "pin"})
    with proxy.client() as one, proxy.client() as two:
        pid = one.value(PID)
        one.query("listen news")
        ask(two, "notify news, 'x'")
        assert next_payload(one) == "x"
        assert one.value(PID) == pid
        assert runner.cluster().backends(HUBS) == []


def test_other_pins_stay():
    """A client that listens and has a temporary table keeps its backend, until only the first is left."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as one, proxy.client() as two:
        one.query("listen news; create temp table mine (x int)")
        pid = one.value(PID)
        two.query("select 1")
        ask(two, "notify news, 'x'")
        assert next_payload(one) == "x"
        assert one.value(PID) == pid
        one.query("drop table mine")
        wait_shared()
        ask(two, "notify news, 'y'")
        assert next_payload(one) == "y"


def test_pipelines_and_the_extended_protocol():
    """LISTEN by the extended protocol, and a client that sends on without waiting."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        one.send(wire.extended("listen news"), SYNC, *[query(f"select {i}") for i in range(10)])
        for _ in range(11):
            assert not wire.errors(one.recv_until("Z"))
        for turn in range(5):
            ask(two, f"notify news, '{turn}'")
            one.send(*[wire.extended("select $1::int", (str(i),)) + SYNC for i in range(20)])
            found = [m for _ in range(20) for m in one.recv_until("Z")]
            assert wire.rows(found) == [[str(i)] for i in range(20)]
            assert [n[2] for n in heard(found)] == [str(turn)]


@runner.cases("parsed before", "known to the servers", "used again")
def test_unlisten_by_a_prepared_statement(when):
    """Drivers prepare UNLISTEN like any other statement, also before there is anything to end."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as one, proxy.client() as two:
            prepare = wire.parse("unlisten news", "by name") + SYNC
            if when == "parsed before":
                one.send(prepare)
                assert wire.kinds(one.recv_until("Z")) == "1Z"
            elif when == "known to the servers":
                two.send(prepare)
                assert wire.kinds(two.recv_until("Z")) == "1Z"
            for turn in range(2 if when == "used again" else 1):
                one.query("listen news")
                wait_shared()
                ask(two, f"notify news, '{turn}'")
                assert next_payload(one) == str(turn)
                if when != "parsed before" and turn == 0:
                    one.send(prepare)
                    assert wire.kinds(one.recv_until("Z")) == "1Z"
                one.send(wire.bind([], "by name"), wire.execute(), SYNC)
                assert wire.kinds(one.recv_until("Z")) == "2CZ"
                assert one.query("select * from pg_listening_channels()") == []
                ask(two, "notify news, 'to nobody'")
                one.query("select 1")
                one.recv_quiet()


def test_statement_mode():
    """It is the same there."""
    proxy = runner.proxy(mode="statement", max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        one.query("listen news")
        for i in range(5):
            ask(two, f"notify news, '{i}'")
            assert next_payload(one) == str(i)
            one.query("select 1")


def test_discard_all_and_the_end():
    """DISCARD ALL ends listening; a client that leaves leaves nothing on the backend."""
    with runner.fresh_proxy(max_connections=1) as proxy:
        with proxy.client() as two:
            with proxy.client() as one:
                one.query("listen news")
                one.query("discard all")
                ask(two, "notify news, 'x'")
                one.query("select 1")
                one.recv_quiet()
                one.query("listen news")
            assert two.query("select * from pg_listening_channels()") == []
            assert ask(two, "notify news, 'x'") == []
            with proxy.client() as one:
                one.query("listen news")
                one.query("begin")
            assert two.query("select * from pg_listening_channels()") == []
        runner.eventually(lambda: runner.cluster().backends(HUBS) == [], what="the hub's end")


def test_encodings():
    """A client with another encoding than those that listen already keeps its backend, and reads its own letters."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as one, proxy.client(client_encoding="LATIN1") as latin, proxy.client() as two:
            one.query("listen news")
            wait_shared()
            latin.query("listen news")
            ask(two, "notify news, 'é'")
            assert next_payload(one) == "é"
            assert b"\xe9\0" in latin.recv().body


def test_drain():
    """The process stops: who listens is told so."""
    with runner.fresh_proxy(max_connections=1) as proxy:
        with proxy.client() as one:
            one.query("listen news")
            wait_shared()
            proxy.signal(signal.SIGTERM)
            error = one.recv()
            assert error.kind == "E" and error.fields["C"] == "57P01", error
            proxy.finish(proxy.wait())


if __name__ == "__main__":
    runner.main()
