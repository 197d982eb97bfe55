// postgres (postgres.js): statements prepared by name, queries that follow each other without waiting.
'use strict'

const assert = require('node:assert/strict')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const postgres = require('postgres')
const { rows, news, start, exchangeNews, mustFail } = require('./common.js')

async function withClient(work, options = {}) {
  // By the environment: PGHOST and its like.
  const sql = postgres({ max: 1, onnotice: () => {}, ...options })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

const makeTable = (table) =>
  withClient((sql) =>
    sql.unsafe(`drop table if exists ${table}; create table ${table} (id int primary key, name text)`))

const simple = () =>
  withClient(async (sql) => {
    for (let turn = 0; turn < 20; ++turn) {
      const [first, second] = await sql.unsafe(`select ${turn} as n; select 'second' as s`)
      assert.deepEqual([first[0].n, second[0].s], [turn, 'second'])
    }
  })

const prepared = () =>
  withClient(async (sql) => {
    for (let turn = 0; turn < 20; ++turn) {
      const [row] = await sql`select ${turn}::int as a, ${"it's"}::text as b, ${null}::text as c`
      assert.deepEqual({ ...row }, { a: turn, b: "it's", c: null })
    }
  })

const parameters = () =>
  withClient(
    async (sql) => {
      for (let turn = 0; turn < 20; ++turn) assert.equal((await sql`select ${turn}::int as n`)[0].n, turn)
    },
    { prepare: false },
  )

const batch = (table) =>
  withClient(async (sql) => {
    await sql`insert into ${sql(table)} ${sql(rows.slice(0, 100))}`
    await Promise.all(rows.slice(100).map((row) => sql`insert into ${sql(table)} ${sql(row)}`))
    assert.deepEqual([...(await sql`select * from ${sql(table)} order by id`)].map((r) => ({ ...r })), rows)
  })

const pipelined = () =>
  withClient(async (sql) => {
    const work = Array.from({ length: 50 }, (_, i) => (i % 5 ? sql`select ${i}::int as n` : sql`select 1 / ${0}::int`))
    const done = await Promise.allSettled(work)
    done.forEach((result, i) => {
      if (i % 5) assert.equal(result.value[0].n, i)
      else assert.equal(result.reason.code, '22012')
    })
  })

const cursors = (table) =>
  withClient(async (sql) => {
    const found = []
    await sql.begin((t) => t`select * from ${t(table)} order by id`.cursor(30, (part) => void found.push(...part)))
    assert.equal(found.length, 200)
  })

const copy = (table) =>
  withClient(async (sql) => {
    await sql`truncate ${sql(table)}`
    const data = rows.map(({ id, name }) => `${id}\t${name}\n`).join('')
    const target = await sql`copy ${sql(table)} from stdin`.writable()
    await pipeline(Readable.from([data.slice(0, 777), data.slice(777)]), target)
    let out = ''
    const source = await sql`copy (select * from ${sql(table)} order by id) to stdout`.readable()
    for await (const piece of source) out += piece
    assert.equal(out, data)
  })

const errors = (table) =>
  withClient(async (sql) => {
    await sql.begin(async (t) => {
      await t`insert into ${t(table)} values (500, 'kept')`
      await mustFail(
        t.savepoint(async (s) => {
          await s`insert into ${s(table)} values (501, 'lost')`
          await s`select 1 / ${0}::int`
        }),
        '22012',
      )
    })
    const found = await sql`select id from ${sql(table)} where id >= 500`
    assert.deepEqual(found.map((r) => r.id), [500])
  })

// It listens on a connection of its own, and tells nothing but payloads.
const notify = (table) =>
  withClient((sql) =>
    withClient(async (other) => {
      const heard = []
      const listen = (channel) => sql.listen(channel, (payload) => heard.push({ channel, payload }))
      const listening = [await listen(table), await listen(news)]
      await exchangeNews({
        table,
        say: (channel, payload) => other.notify(channel, payload),
        sayOneself: (channel, payload) => sql.notify(channel, payload),
        heard,
      })
      for (const { unlisten } of listening) await unlisten()
    }))

// This driver sends one cancel request for a query, so it must not come too early: the node itself is asked.
const cancel = (table) =>
  withClient(async (sql) => {
    const node = postgres({ max: 1, port: Number(process.env.DRIVER_NODE_PORT) })
    const query = sql.unsafe(`select pg_sleep(30) /* ${table} */`)
    const error = query.execute().then(
      () => assert.fail('no error from a cancelled query'),
      (reason) => reason,
    )
    const isRunning = () =>
      node`select from pg_stat_activity where query like ${`%pg_sleep% ${table} %`} and wait_event = 'PgSleep'`
    while ((await isRunning()).length === 0);
    query.cancel()
    assert.equal((await error).code, '57014')
    await node.end()
    assert.equal((await sql`select 'after' as s`)[0].s, 'after')
  })

async function reconnect() {
  for (let turn = 0; turn < 10; ++turn)
    await withClient(async (sql) => assert.equal((await sql`select ${turn}::int as n`)[0].n, turn))
}

start(makeTable, [simple, parameters, prepared, batch, pipelined, cursors, copy, errors, notify, cancel, reconnect])
