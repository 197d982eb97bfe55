// pg (node-postgres): simple queries, unnamed and named statements.
'use strict'

const assert = require('node:assert/strict')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { Client, Query } = require('pg')
const { rows, news, start, cancelUntilDone, exchangeNews, mustFail } = require('./common.js')

let copyStreams = null
try {
  copyStreams = require('pg-copy-streams')
} catch {
  // Another package, which is not everywhere.
}

async function withClient(work, options = {}) {
  const client = new Client(options) // By the environment: PGHOST and its like.
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

const makeTable = (table) =>
  withClient((c) => c.query(`drop table if exists ${table}; create table ${table} (id int primary key, name text)`))

const simple = () =>
  withClient(async (c) => {
    for (let turn = 0; turn < 20; ++turn) {
      const [first, second] = await c.query(`select ${turn} as n; select 'second' as s`)
      assert.deepEqual([first.rows, second.rows], [[{ n: turn }], [{ s: 'second' }]])
    }
  })

const parameters = () =>
  withClient(async (c) => {
    const found = await c.query('select $1::int as a, $2::text as b, $3::bytea as c, $4::text as d', [
      1, "it's", Buffer.from([0, 255]), null])
    assert.deepEqual(found.rows, [{ a: 1, b: "it's", c: Buffer.from([0, 255]), d: null }])
  })

const prepared = () =>
  withClient(async (c) => {
    for (let turn = 0; turn < 20; ++turn) {
      const found = await c.query({ name: 'by name', text: 'select $1::int + 1 as n', values: [turn] })
      assert.equal(found.rows[0].n, turn + 1)
      const other = await c.query({ name: 'another', text: 'select $1::text as s', values: [`${turn}`] })
      assert.equal(other.rows[0].s, `${turn}`)
    }
  })

// The driver hands them over as texts, of which its own parsers of types make little.
const binary = () =>
  withClient(
    async (c) => {
      for (let turn = 0; turn < 20; ++turn) {
        const text = 'select $1::text as s, $2::int as n, null::int as x'
        const found = await c.query({ text, values: ['wörter', turn], ...(turn % 2 ? { name: 'binary' } : {}) })
        assert.deepEqual(found.rows, [{ s: 'wörter', n: `\0\0\0${String.fromCharCode(turn)}`, x: null }])
        assert.deepEqual((await c.query(`select ${turn} as n`)).rows, [{ n: `${turn}` }])
      }
    },
    { binary: true, types: { getTypeParser: () => (value) => value } },
  )

const batch = (table) =>
  withClient(async (c) => {
    await Promise.all(rows.map(({ id, name }) => c.query(`insert into ${table} values ($1, $2)`, [id, name])))
    assert.deepEqual((await c.query(`select * from ${table} order by id`)).rows, rows)
  })

const copy = (table) =>
  withClient(async (c) => {
    await c.query(`truncate ${table}`)
    const data = rows.map(({ id, name }) => `${id}\t${name}\n`).join('')
    const copyIn = (pieces) => pipeline(Readable.from(pieces), c.query(copyStreams.from(`copy ${table} from stdin`)))
    await copyIn([data.slice(0, 777), data.slice(777)])
    let out = ''
    const source = c.query(copyStreams.to(`copy (select * from ${table} order by id) to stdout`))
    for await (const piece of source) out += piece
    assert.equal(out, data)
    await mustFail(copyIn(['no number\tx\n', ...Array(500).fill('2000\tnever read\n'.repeat(10))]), '22P02')
    assert.equal((await c.query(`select count(*)::int as n from ${table}`)).rows[0].n, 200)
  })

const errors = (table) =>
  withClient(async (c) => {
    await c.query('begin')
    await c.query(`insert into ${table} values ($1, 'lost')`, [500])
    await mustFail(c.query('select 1 / $1::int', [0]), '22012')
    await mustFail(c.query('select 1'), '25P02')
    await c.query('rollback')
    const found = await c.query(`select count(*)::int as n from ${table} where id = 500`)
    assert.equal(found.rows[0].n, 0)
    await mustFail(c.query({ name: 'bad', text: 'select from where' }), '42601')
    assert.equal((await c.query({ name: 'bad', text: 'select 5 as n' })).rows[0].n, 5)
  })

const notices = () =>
  withClient(async (c) => {
    const heard = []
    c.on('notice', (notice) => heard.push(notice.message))
    await c.query("do $$ begin raise notice 'hello'; end $$")
    assert.deepEqual(heard, ['hello'])
  })

const notify = (table) =>
  withClient((c) =>
    withClient(async (other) => {
      const heard = []
      c.on('notification', (notification) => heard.push(notification))
      await c.query(`listen ${table}; listen ${news}`)
      await exchangeNews({
        table,
        processId: c.processID,
        say: (channel, payload) => other.query(`notify ${channel}, '${payload}'`),
        sayOneself: (channel, payload) => c.query('select pg_notify($1, $2)', [channel, payload]),
        heard,
      })
      await c.query('unlisten *')
      heard.length = 0
      await other.query(`notify ${table}, 'to nobody'`)
      await c.query('select 1')
      assert.deepEqual(heard, [])
    }))

// One request; it is over when the server has closed the connection that it came by.
const cancelOnce = (client, query) =>
  new Promise((resolve, reject) => {
    if (client.activeQuery !== query) return resolve()
    const canceller = new Client()
    canceller.connection.once('end', resolve)
    canceller.connection.once('error', reject)
    canceller.cancel(client, query)
  })

const cancel = () =>
  withClient(async (c) => {
    const query = new Query('select pg_sleep(30)')
    const work = new Promise((resolve, reject) => {
      query.on('error', reject)
      query.on('end', resolve)
    })
    c.query(query)
    const error = await cancelUntilDone(() => cancelOnce(c, query), work)
    assert.equal(error.code, '57014')
    assert.equal((await c.query("select 'after' as s")).rows[0].s, 'after')
  })

async function reconnect() {
  for (let turn = 0; turn < 10; ++turn)
    await withClient(async (c) => assert.equal((await c.query('select $1::int as n', [turn])).rows[0].n, turn))
}

const copies = copyStreams ? [copy] : []
start(makeTable, [
  simple, parameters, prepared, binary, batch, ...copies, errors, notices, notify, cancel, reconnect])
