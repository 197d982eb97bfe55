#!/usr/bin/python3
"""200 clients on 5 backends, disturbed by cancels and kills: every answer is the asker's own.

    ./test_mixup.py --seconds 60 [--seed N]

All use the same names (of statements, tables, cursors, settings) for things of their own, so that whatever is mixed up
shows. See harness/crowd.py for what is checked in every answer.
"""

import asyncio
import concurrent.futures
import random
import socket
import struct

from harness import libpq, runner, wire
from harness.crowd import LOST, Crowd, Gone, Life, Lost, quoted
from harness.wire import COPY_DONE, SYNC, bind, close, copy_data, copy_fail, describe, execute, parse, query

CLIENTS = 200
BY_LIBPQ = 8  # Of these,
CALLERS = 2  # and those that only notify the others.
BACKENDS = 5
SECONDS = float(runner.option("--seconds") or max(3.0, 6 * runner.load()))
SEED = int(runner.option("--seed") or random.randrange(1 << 30))
SILENCE = 60
HEARING = 40  # Seconds for a notification to come.
ZONES = ("UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "Pacific/Auckland")
STYLES = ("ISO, MDY", "ISO, DMY", "German, DMY", "SQL, DMY", "Postgres, MDY")
NAMES = ("s", "S_2", "a b")
ROLES = ("mix_a", "mix_b", "mix_c")
USER = "mixer"  # May SET SESSION AUTHORIZATION.
INT4_PLUS = 177

SETUP = f"""
drop table if exists mixup, mine;
create table mixup (owner text, n int);
create index on mixup (owner);
create table mine (owner text);
insert into mine values ('everybody');
grant all on mixup, mine to public;
drop role if exists {USER}, {", ".join(ROLES)};
create role {USER} superuser login;
{"".join(f"create role {role};" for role in ROLES)}
"""


# What clients do. Each leaves the connection outside of a transaction.


async def ask_simple(life):
    count = life.chance.randrange(1, 4)
    size = life.chance.choice((0, 10, 3000, 40000))
    found = await life.ask(
        *(lambda s, i=i: query(f"select '{s.word(i)}', repeat('q', {size})") for i in range(count)), count=count
    )
    if found:
        life.expect_rows(found, [[life.word(i), "q" * size] for i in range(count)])


async def ask_several(life):
    found = await life.ask(lambda s: query(f"select '{s.word(1)}'; select '{s.word(2)}'; select '{s.word(3)}'"))
    if found:
        life.expect_rows(found, [[life.word(i)] for i in (1, 2, 3)])


async def ask_extended(life):
    filler = "z" * life.chance.choice((0, 5, 1000, 30000))
    found = await life.ask(
        parse("select $1::text, $2::text"), lambda s: bind([s.word(), filler]), describe(), execute(), SYNC
    )
    if found:
        life.expect_rows(found, [[life.word(), filler]])


async def ask_own(life):
    """What is the client's own, or everybody's, under a name that all have."""
    found = await life.ask(lambda s: query(f"select '{s.word()}', owner from mine"))
    if found and life.table_at is None:
        life.expect_rows(found, [[life.word(), "everybody"]])
    elif found and life.table_at == life.losses:
        life.expect_rows(found, [[life.word(), life.tag]])


async def ask_process(life):
    """Where it is served: clients come around."""
    found = await life.ask(lambda s: query(f"select '{s.word()}', pg_backend_pid()"))
    if found:
        pid = found[1].row[1]
        life.crowd.counts["changes of backend"] += pid != life.served_by
        life.served_by = pid
        life.crowd.processes.add(pid)


async def ask_named(life):
    """Statements whose names all clients use, with texts of their own, and some that are the same for all."""
    for _ in range(life.chance.randrange(1, 5)):
        name = life.chance.choice(NAMES)
        kind = life.chance.random()
        if name not in life.statements:
            await parse_named(life, name)
        elif kind < 0.1:
            found = await life.ask(parse("select 'taken'", name), SYNC)
            if found:
                life.expect([f["C"] for f in wire.errors(found)] == ["42P05"], found)
        elif kind < 0.25:
            await forget_statement(life, name)
        else:
            await use_named(life, name, describe("S", name) if kind < 0.5 else b"")


async def parse_named(life, name):
    label = life.chance.choice((life.tag, f"{life.tag} {name}", "shared 1", "shared 2"))
    text = f"select $1::text, '{label}', $2::int"
    if life.chance.random() < 0.2:
        # Skipped behind an error: it is not there afterwards.
        found = await life.ask(parse("select 1 / 0 from no_such"), parse(text, name), SYNC)
        if found is None:
            return await forget_statement(life, name)
        life.expect_kinds(found, "EZ")
        found = await life.ask(bind(["", 0], name), SYNC)
        if found:
            life.expect([f["C"] for f in wire.errors(found)] == ["26000"], found)
        return
    life.statements[name] = label
    await use_named(life, name, parse(text, name))


async def use_named(life, name, before=b""):
    found = await life.ask(before, lambda s: bind([s.word(), s.turn], name), execute(), SYNC)
    if found is None:
        # The Parse may have been done or not.
        return await forget_statement(life, name) if before[:1] == b"P" else None
    life.expect_kinds(found, {b"P": "1", b"D": "tT", b"": ""}[before[:1]] + "2DCZ")
    life.expect_rows(found, [[life.word(), life.statements[name], str(life.turn)]])


async def forget_statement(life, name):
    if life.chance.random() < 0.7:
        await life.ask_surely(close("S", name), SYNC)
    else:
        # An error if it is not there.
        await life.ask_surely(query(f'deallocate "{name}"'))
    life.statements.pop(name, None)


async def ask_unnamed(life):
    """The unnamed statement, parsed in one batch and bound by the next ones."""
    found = await life.ask(parse(f"select $1::text, '{life.tag}'"), SYNC)
    losses = life.losses
    for _ in range(life.chance.randrange(1, 4)):
        if found is None or life.losses != losses:
            return
        found = await life.ask(lambda s: bind([s.word()]), execute(), SYNC)
        if found and life.losses == losses:
            life.expect_rows(found, [[life.word(), life.tag]])


def draw_settings(life):
    drawn = {
        "application_name": life.tag + life.chance.choice(("", " X", "'s", " long" * 9)),
        "timezone": life.chance.choice(ZONES),
        "datestyle": life.chance.choice(STYLES),
        "work_mem": f"{life.chance.randrange(1, 9)}MB",
        "search_path": f'"{life.tag}", public',
        "bytea_output": life.chance.choice(("hex", "escape")),
        "mix.tag": life.tag,
        "mix.note": life.chance.choice((f"{life.tag}'s", life.tag.upper(), f"{life.tag} \\ " * 30)),
    }
    names = life.chance.sample(list(drawn), life.chance.randrange(1, 5))
    return {name: drawn[name] for name in names}


async def ask_settings(life):
    """Settings follow the client, whether the server reports them or not; what is rolled back, or local, does not."""
    if life.chance.random() < 0.6:
        settings = draw_settings(life)
        way = life.chance.choice(WAYS_TO_SET)
        life.is_settled = False
        changed = await way(life, settings)
        if changed is None:
            # It is not known what was set.
            await life.establish(settings)
        else:
            life.settings.update(changed)
            life.is_settled = True
    await life.check_settings()


async def set_at_once(life, settings):
    found = await life.ask(*(query(life.set_text(n, v)) for n, v in settings.items()), count=len(settings))
    return found and settings


async def set_in_block(life, settings):
    sets = [query(life.set_text(n, v)) for n, v in settings.items()]
    end = life.chance.choice(("commit", "rollback"))
    found = await life.ask(query("begin"), *sets, query(end), count=len(sets) + 2)
    return found and (settings if end == "commit" else {})


async def set_locally(life, settings):
    name, value = next(iter(settings.items()))
    show = lambda s: query(f"select '{s.word()}', current_setting('{name}')")
    found = await life.ask(query("begin"), query(life.set_text(name, value, "local ")), show, query("commit"), count=4)
    if found:
        life.expect_rows(found, [[life.word(), value]])
    return found and {}


async def set_to_savepoint(life, settings):
    (name, value), *others = settings.items()
    steps = ["begin", life.set_text(name, value), "savepoint here", *(life.set_text(*o) for o in others)]
    steps += ["set local work_mem = '99MB'", "rollback to here", "commit"]
    found = await life.ask(*map(query, steps), count=len(steps))
    return found and {name: value}


async def set_by_function(life, settings):
    calls = ", ".join(f"set_config('{n}', {quoted(v)}, false)" for n, v in settings.items())
    if life.chance.random() < 0.5:
        found = await life.ask(lambda s: query(f"select '{s.word()}', {calls}"))
    else:
        found = await life.ask(parse(f"select $1::text, {calls}"), lambda s: bind([s.word()]), execute(), SYNC)
    if found:
        life.expect_rows(found, [[life.word(), *settings.values()]])
    return found and settings


async def set_by_do(life, settings):
    # Custom parameters that a DO sets do not follow.
    settings = {n: v for n, v in settings.items() if "." not in n} or {"work_mem": "7MB"}
    calls = "".join(f"perform set_config('{n}', {quoted(v)}, false);" for n, v in settings.items())
    found = await life.ask(query(f"do $do$ begin {calls} end $do$"))
    return found and settings


async def reset(life, settings):
    found = await life.ask(*(query(f"reset {name}") for name in settings), count=len(settings))
    return found and {name: life.defaults[name] for name in settings}


WAYS_TO_SET = (set_at_once, set_in_block, set_locally, set_to_savepoint, set_by_function, set_by_do, reset)


async def ask_discard(life):
    """DISCARD ALL: as it came, and without statements."""
    life.is_settled = False
    await life.ask_surely(query("discard all"))
    life.settings = dict(life.defaults)
    life.is_settled = True
    for name in list(life.statements):
        found = await life.ask(bind(["", 0], name), SYNC)
        if found:
            life.expect([f["C"] for f in wire.errors(found)] == ["26000"], found)
        del life.statements[name]
    await life.check_settings()


# What lasts, while the client does other things.


async def mingle(life):
    for _ in range(life.chance.randrange(4)):
        await life.chance.choice(LIGHT)(life)


async def ask_as_other(life):
    """A role, or the whole identity, follows its client."""
    role = life.chance.choice(ROLES)
    is_role = life.chance.random() < 0.6
    kind, none = ("role", "none") if is_role else ("session authorization", "default")
    life.is_settled = False
    if await life.ask(query("begin"), query(f"set {kind} {role}"), query("rollback"), count=3) is not None:
        life.is_settled = True
        await life.check_settings()
    life.is_settled = False
    await life.ask_surely(query(f"set {kind} {role}"))
    life.role, life.authorization = (role, "") if is_role else ("", role)
    life.is_settled = True
    await mingle(life)
    await life.check_settings()
    life.is_settled = False
    await life.ask_surely(query(life.chance.choice((f"set {kind} {none}", f"reset {kind}"))))
    life.role, life.authorization = "", ""
    life.is_settled = True
    await life.check_settings()


async def ask_temporary(life):
    """A table of the session, under a name that all clients use, and which hides everybody's."""
    if await life.ask(query(f"create temporary table mine as select '{life.tag}' as owner")) is not None:
        life.table_at = life.losses
        await mingle(life)
        await ask_own(life)
    await life.ask_surely(query("drop table if exists pg_temp.mine"))
    life.table_at = None
    await ask_own(life)


async def ask_prepare(life):
    """PREPARE in SQL, under a name that all clients use."""
    found = await life.ask(query(f"prepare q(text) as select $1, '{life.tag}'"))
    if found is not None:
        life.expect_kinds(found, "CZ")
        losses = life.losses
        for _ in range(life.chance.randrange(1, 4)):
            await mingle(life)
            found = await life.ask(lambda s: query(f"execute q('{s.word()}')"))
            if found and (life.losses == losses or not wire.errors(found)):
                life.expect_rows(found, [[life.word(), life.tag]])
    # An error if it is not there.
    await life.ask_surely(query("deallocate q"))
    found = await life.ask(lambda s: query(f"execute q('{s.word()}')"))
    if found:
        life.expect([f["C"] for f in wire.errors(found)] == ["26000"], found)


async def ask_cursor(life):
    """A cursor WITH HOLD goes on where it was."""
    rows = f"select '{life.tag}:0:' || g from generate_series(1, 60) g"
    life.held = f"{life.tag}:0:"
    losses = life.losses
    if await life.ask(query(f"declare held cursor with hold for {rows}")) is not None:
        at = 1
        for _ in range(life.chance.randrange(1, 4)):
            await mingle(life)
            found = await life.ask(query("fetch 7 from held"))
            if found is None or life.losses != losses:
                break
            life.expect_rows(found, [[f"{life.held}{at + i}"] for i in range(7)])
            at += 7
    # An error if it is not there.
    await life.ask_surely(query("close held"))
    life.held = "\0"


async def ask_lock(life):
    """An advisory lock of the session is held until it is given back."""
    losses = life.losses
    if await life.ask(lambda s: query(f"select '{s.word()}', pg_advisory_lock({s.number})")) is not None:
        await mingle(life)
        if life.losses == losses:
            found = await life.ask(lambda s: query(f"select '{s.word()}', pg_advisory_unlock({s.number})"))
            if found:
                life.expect_rows(found, [[life.word(), "t"]])
                return
    await life.ask_surely(lambda s: query(f"select '{s.word()}' from pg_advisory_unlock_all()"))


async def ask_listen(life):
    """Notifications go to who listens, once each, and to nobody behind UNLISTEN. Who may have missed one is ended."""
    crowd = life.crowd
    channel = f"of_{life.tag.replace('.', '_')}"

    life.channel, life.heard, life.heard_of_others, life.sent = channel, [], 0, {}
    if await life.ask(query(f"listen {channel}")) is not None:
        crowd.listeners[channel] = life
        await mingle(life)
        payload = f"{life.tag} from {life.tag} {life.turn}"
        found = await life.ask(query(f"notify {channel}, '{payload}'"))
        if found is not None:
            life.expect_kinds(found, "CZ")
            life.expect(payload in life.heard, f"its own comes before the end of its statement: {life.heard}")
            # Not too many: who listens may keep a backend, and who notifies needs one.
            if len(crowd.waiting) < BACKENDS // 2 and not crowd.is_over:
                crowd.waiting[channel] = life
                life.expect(await life.hear(lambda: life.heard_of_others, HEARING), "nobody is heard")
        crowd.forget_listener(life)
        # However many backends were terminated: all that others were told is done.
        sent = {payload for payload, is_done in life.sent.items() if await is_done}
        await life.hear(lambda: sent <= set(life.heard), HEARING)
        life.expect(sent <= set(life.heard), f"not heard: {sent - set(life.heard)}, only {life.heard}")
        crowd.counts["to be heard"] += len(sent)
    await life.ask_surely(query(life.chance.choice((f"unlisten {channel}", "unlisten *"))))
    crowd.counts["heard"] += len(life.heard)
    crowd.counts["heard of others"] += life.heard_of_others
    life.channel = None


async def ask_notify(life):
    """Notifies somebody who listens, and lets it know whether that was done."""
    listeners = list((life.crowd.waiting or life.crowd.listeners).items())
    if not listeners:
        return await asyncio.sleep(life.chance.random() / 50)
    channel, listener = life.chance.choice(listeners)
    payload = f"{listener.tag} from {life.tag} {life.turn}"
    is_done = listener.sent[payload] = asyncio.get_running_loop().create_future()
    found = None
    try:
        found = await life.ask(query(f"notify {channel}, '{payload}'"))
    finally:
        is_done.set_result(found is not None)
    if found is not None:
        life.expect_kinds(found, "CZ")


# Each leaves nothing behind that lasts.


async def ask_block(life):
    """A transaction in several steps: only what it commits stays."""
    if await life.ask(query("begin")) is None:
        return
    count = life.chance.randrange(1, 4)
    for number in range(count):
        if await life.ask(query(f"insert into mixup values ('{life.tag}', {number})")) is None:
            return
    end = life.chance.choice(("commit", "rollback", "fail"))
    if end == "fail":
        found = await life.ask(query("select 1 / 0"))
        if found is None:
            return
        life.expect_kinds(found, "EZ")
    found = await life.ask(query("commit" if end == "commit" else "rollback"))
    if found is None:
        return
    life.rows += count if end == "commit" else 0
    found = await life.count_rows()
    life.expect(found == life.rows, f"{found} rows instead of {life.rows}")


async def ask_copy_in(life):
    count = life.chance.randrange(1, 300)
    rows = [copy_data(f"{life.tag}\t{i}\n".encode()) for i in range(count)]
    way = life.chance.choice(("done", "fail", "bad row"))
    if way == "bad row":
        rows.insert(life.chance.randrange(count), copy_data(b"bad\trow\n"))
    end = copy_fail() if way == "fail" else COPY_DONE
    if life.chance.random() < 0.5:
        start = [query("copy mixup from stdin")]
        tail = [end]
    else:
        start = [parse("copy mixup from stdin"), bind(), execute()]
        tail = [end, SYNC]
    found = await life.ask(*start, *rows, *tail)
    if found:
        kinds = wire.kinds(found).lstrip("12")
        life.expect(kinds == ("GCZ" if way == "done" else "GEZ"), found)
        life.rows += count if way == "done" else 0
    if life.chance.random() < 0.3:
        found = await life.count_rows()
        life.expect(found == life.rows, f"{found} rows instead of {life.rows}")


async def ask_copy_out(life):
    count = life.chance.choice((0, 1, 50, 1000))
    found = await life.ask(
        lambda s: query(f"copy (select '{s.word()}' || g from generate_series(1, {count}) g) to stdout")
    )
    if found:
        got = [m.body for m in found if m.kind == "d"]
        life.expect(got == [f"{life.word(i)}\n".encode() for i in range(1, count + 1)], got[:3])


async def ask_pipeline(life):
    """Batches that follow each other without waiting; some fail."""
    parts, wanted = [], []
    for number in range(life.chance.randrange(2, 12)):
        kind = life.chance.randrange(4)
        if kind == 0:
            parts.append(lambda s, i=number: query(f"select '{s.word(i)}'"))
            wanted.append(number)
        elif kind < 3:
            batch = lambda s, i=number: parse("select $1::text") + bind([s.word(i)]) + execute() + SYNC
            parts.append(batch)
            wanted.append(number)
        else:
            parts.append(parse("select 1 / $1::int") + bind([0]) + execute() + parse("skipped") + SYNC)
    found = await life.ask(*parts, count=len(parts))
    if found:
        life.expect_rows(found, [[life.word(i)] for i in wanted])
        errors = [f["C"] for f in wire.errors(found)]
        life.expect(errors == ["22012"] * (len(parts) - len(wanted)), errors)


async def ask_call(life):
    left, right = life.chance.randrange(1 << 20), life.chance.randrange(1 << 20)
    found = await life.ask(wire.function_call(INT4_PLUS, [struct.pack("!i", left), struct.pack("!i", right)]))
    if found:
        life.expect(found[0].kind == "V" and found[0].body[4:] == struct.pack("!i", left + right), found)


async def ask_notice(life):
    found = await life.ask(lambda s: query(f"do $$ begin raise notice '{s.word()}'; end $$"))
    if found:
        life.expect(found[0].kind == "N" and found[0].fields["M"] == life.word(), found)


async def ask_slowly(life):
    found = await life.ask(lambda s: query(f"select '{s.word()}', pg_sleep({s.chance.random() / 50})"))
    if found:
        life.expect_rows(found, [[life.word(), ""]])


async def vanish(life):
    """Ends at any point of what the others do."""
    life.turn += 1
    begun = life.chance.choice(
        (
            query(f"select '{life.word()}', pg_sleep(0.01)"),
            query("begin") + query(f"insert into mixup values ('{life.tag}', 0)"),
            query("copy mixup from stdin") + copy_data(b"lost\t1\n" * 100),
            query("select repeat('x', 1000) from generate_series(1, 3000)"),
            parse("select 1", "s") + bind([], "s") + execute() + SYNC,
            parse("select 1") + bind() + execute(),
            query("set timezone = 'Africa/Cairo'; set mix.tag = 'gone'; set role mix_a"),
            query("create temporary table mine as select 'gone' as owner"),
            query("prepare q(text) as select 'gone', $1"),
            query("declare held cursor with hold for select 'gone'"),
            query("listen gone"),
        )
    )
    if life.chance.random() < 0.7:
        begun = begun[: life.chance.randrange(len(begun) + 1)]
    life.writer.write(begun)
    if life.chance.random() < 0.5:
        await life.writer.drain()
        await asyncio.sleep(life.chance.random() / 50)
    if life.chance.random() < 0.5:
        sock = life.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if life.chance.random() < 0.2:
        life.writer.write(wire.TERMINATE)
    raise Gone


def live_by_libpq(crowd, proxy, number):
    """A client in a thread that sends pipelines by libpq."""
    chance = random.Random(SEED + number)
    while not crowd.is_over:
        tag = f"p{number}.{chance.randrange(1 << 40):x}"
        try:
            with libpq.Conn(proxy.dsn(user=USER), SILENCE) as conn:
                conn.enter_pipeline()
                has_statement = False
                for turn in range(chance.randrange(5, 50)):
                    if crowd.is_over:
                        return
                    has_statement = ask_by_libpq(conn, chance, f"{tag}:{turn}", has_statement)
                    crowd.done["pipelines of libpq"]["done"] += 1
        except Lost:
            crowd.done["pipelines of libpq"]["lost"] += 1


def ask_by_libpq(conn, chance, word, has_statement):
    """One pipeline of several batches, some with errors. Whether there is a statement then."""
    tag = word.partition(":")[0]
    wanted = []
    fails = False
    for number in range(chance.randrange(1, 15)):
        kind = chance.randrange(8)
        if kind == 0:
            conn.send_params("select 1 / $1::int", [0])
            wanted.append((libpq.PIPELINE_ABORTED if fails else libpq.FATAL_ERROR, []))
            fails = True
        elif kind < 4 and not has_statement:
            conn.send_prepare("s", f"select $1::text, '{tag}'")
            wanted.append((libpq.PIPELINE_ABORTED if fails else libpq.COMMAND_OK, []))
            has_statement = not fails
        elif kind < 4:
            conn.send_prepared("s", [f"{word}:{number}"])
            wanted.append((libpq.PIPELINE_ABORTED, []) if fails else (libpq.TUPLES_OK, [[f"{word}:{number}", tag]]))
        elif kind < 7:
            conn.send_params("select $1::text, $2::int", [f"{word}:{number}", number])
            row = [f"{word}:{number}", str(number)]
            wanted.append((libpq.PIPELINE_ABORTED, []) if fails else (libpq.TUPLES_OK, [row]))
        if kind == 7 or number % 5 == 4:
            conn.pipeline_sync()
            wanted.append((libpq.PIPELINE_SYNC, []))
            fails = False
    conn.pipeline_sync()
    wanted.append((libpq.PIPELINE_SYNC, []))
    found = results_of_libpq(conn, len(wanted))
    # What was prepared before an error of the same batch stays: a statement belongs to no transaction.
    assert found == wanted, f"{word}: {found} instead of {wanted}"
    return has_statement


def results_of_libpq(conn, count):
    found, silent = [], 0
    while len(found) < count:
        result = conn.get_result(SILENCE)
        silent = silent + 1 if result is None else 0
        if silent > 2 or result is not None and result.code in LOST:
            raise Lost
        if result is not None:
            found.append((result.status, result.rows))
    return found


# For what lasts to be used among.
LIGHT = (ask_simple, ask_extended, ask_named, ask_settings, ask_own, ask_own, ask_copy_out, ask_pipeline, ask_process)
# Here is the place for what the pooler learns to carry along: each as one more function, with its weight.
ACTIONS = {
    ask_simple: 15,
    ask_several: 5,
    ask_extended: 15,
    ask_named: 12,
    ask_unnamed: 3,
    ask_own: 4,
    ask_process: 8,
    ask_settings: 15,
    ask_as_other: 3,
    ask_block: 12,
    ask_temporary: 3,
    ask_prepare: 3,
    ask_cursor: 3,
    ask_lock: 3,
    ask_listen: 3,
    ask_discard: 2,
    ask_copy_in: 5,
    ask_copy_out: 5,
    ask_pipeline: 10,
    ask_call: 5,
    ask_notice: 5,
    ask_slowly: 5,
    vanish: 1,
}


def is_done(crowd, number):
    """Who calls others stays while one waits for it."""
    return crowd.is_over and not (number < CALLERS and crowd.waiting)


async def live(crowd, number):
    """One client: connections after each other, until the time is over."""
    while not is_done(crowd, number):
        reader, writer = await asyncio.open_connection(*crowd.address, limit=1 << 20)
        life = Life(crowd, number, reader, writer)
        try:
            await life.login()
            crowd.lives[number] = life
            for _ in range(crowd.chance.randrange(20, 200)):
                if is_done(crowd, number):
                    break
                action = crowd.chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
                action = ask_notify if number < CALLERS else action
                life.doing = action.__name__
                await action(life)
                crowd.done[life.doing]["done"] += 1
            writer.write(wire.TERMINATE)
        except Gone:
            crowd.done[life.doing]["done"] += 1
        except Lost:
            crowd.done[life.doing]["lost"] += 1
        finally:
            crowd.lives.pop(number, None)
            crowd.forget_listener(life)
            writer.close()


def is_cancelled(number):
    """Some clients are cancelled now and then; the others must never hear of it."""
    return number % 4 == 0


async def cancel_some(crowd):
    while not crowd.is_over:
        await asyncio.sleep(crowd.chance.random() / 30)
        numbers = [n for n in crowd.lives if is_cancelled(n)]
        if not numbers:
            continue
        life = crowd.lives[crowd.chance.choice(numbers)]
        life.cancels += 1
        crowd.counts["cancel requests"] += 1
        reader, writer = await asyncio.open_connection(*crowd.address)
        writer.write(wire.cancel_request(life.pid, life.key))
        if crowd.chance.random() < 0.8:
            assert await asyncio.wait_for(reader.read(), SILENCE) == b""
        writer.close()


async def terminate_some(crowd):
    """Takes backends away, as an administrator would."""
    # Not one that logs in just now: its end would be the answer to all who wait for it.
    sql = (
        f"select pg_terminate_backend(pid) from (select pid from pg_stat_activity where usename = '{USER}'"
        " and backend_start < clock_timestamp() - interval '200 ms' order by random() limit 1) b"
    )
    while not crowd.is_over:
        await asyncio.sleep(0.2 + crowd.chance.random() / 2)
        crowd.kills += len(await asyncio.to_thread(runner.cluster().run, sql, "postgres"))


async def run_crowd(crowd, proxy):
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(BY_LIBPQ + 4))
    tasks = [asyncio.create_task(live(crowd, number)) for number in range(CLIENTS - BY_LIBPQ)]
    tasks += [asyncio.create_task(asyncio.to_thread(live_by_libpq, crowd, proxy, n)) for n in range(BY_LIBPQ)]
    tasks += [asyncio.create_task(cancel_some(crowd)), asyncio.create_task(terminate_some(crowd))]
    done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    crowd.is_over = True
    for task in done:
        task.result()
    await asyncio.wait_for(asyncio.gather(*tasks), SILENCE)


def check_counts(crowd):
    """Nobody may believe in a test that does nothing."""
    for what in [action.__name__ for action in ACTIONS] + ["pipelines of libpq"]:
        assert crowd.done[what], f"no {what}"
    assert crowd.kills and sum(count["cancelled"] for count in crowd.done.values()), "nobody was disturbed"
    # One connection may listen for many clients.
    others = [count for what, count in crowd.done.items() if what != "ask_listen"]
    lost = sum(count["lost"] + count["lost, went on"] for count in others)
    assert lost <= crowd.kills, f"{lost} clients lost {crowd.kills} backends"
    assert crowd.counts["to be heard"] and crowd.counts["heard of others"], crowd.counts
    assert crowd.counts["changes of backend"] > BACKENDS, crowd.counts
    assert len(crowd.processes) >= BACKENDS, crowd.processes


@runner.cases(1, 2)
@runner.timeout(150 + int(SECONDS))
def test_nobody_gets_anothers_answer(cores):
    """200 clients on 5 backends: every answer is the asker's own, whatever happens to the others."""
    runner.cluster().run(SETUP)
    users = [{"name": "*", "auth": "trust"}]
    with runner.fresh_proxy(cores=cores, max_connections=BACKENDS, user=users) as proxy:
        crowd = Crowd(proxy.address, USER, SEED)
        try:
            asyncio.run(run_crowd(crowd, proxy))
            check_counts(crowd)
        finally:
            print(f"    seed {SEED}, {SECONDS:.0f} seconds\n{crowd.table()}")
        with proxy.client(USER) as client:
            assert client.value("show timezone") == "UTC"
            assert client.value("select owner from mine") == "everybody"
            assert client.value("select pg_current_xact_id_if_assigned()") is None


if __name__ == "__main__":
    runner.main()
