// What the programs of the Node drivers share: clients at the same time, each going through every check.
'use strict'

const assert = require('node:assert/strict')
const { setTimeout: sleep } = require('node:timers/promises')

const clientsCount = Number(process.env.DRIVER_CLIENTS)
// How often each client notifies, and the channel that all of them listen to.
const newsCount = 5
const news = 'news'
const rows = Array.from({ length: 200 }, (_, i) => ({ id: i, name: `name ${i}` }))

async function run(makeTable, checks) {
  const client = async (number) => {
    const table = `driver_${process.env.DRIVER}_${number}`
    await makeTable(table)
    for (const check of checks) await check(table)
  }
  await Promise.all(Array.from({ length: clientsCount }, (_, number) => client(number)))
  for (const check of checks) console.log('ok', check.name)
}

// Cancels again and again until `work` has failed: a request that comes too early finds nothing to cancel. The error,
// when no request is under way any more: it would hit the next query.
async function cancelUntilDone(cancel, work) {
  const began = Date.now()
  let isDone = false
  const keepCancelling = async () => {
    while (!isDone) {
      await cancel()
      await sleep(50)
    }
  }
  const cancelling = keepCancelling()
  try {
    await work
  } catch (error) {
    if (Date.now() - began > 25000) throw new Error('not cancelled')
    return error
  } finally {
    isDone = true
    await cancelling
  }
  throw new Error('no error from a cancelled query')
}

// A client that listens to the channel of its table and to `news`: `say` has another one notify, `sayOneself` this one,
// and what it hears, or its driver tells of it, comes into `heard`: { channel, payload }, with the processId of who
// notified, where the driver tells that; then `processId` is its own.
async function exchangeNews({ table, processId, say, sayOneself, heard }) {
  const count = (channel, payload) => heard.filter((h) => h.channel === channel && h.payload === payload).length
  const waitFor = async (channel, payload) => {
    for (const began = Date.now(); count(channel, payload) === 0; await sleep(1))
      assert(Date.now() - began < 60000, `not heard within a minute: ${channel} ${payload}`)
  }
  for (let turn = 0; turn < newsCount; ++turn) {
    await say(table, `${table} ${turn}`)
    await waitFor(table, `${table} ${turn}`)
    await sayOneself(news, `${table} ${turn}`)
    await waitFor(news, `${table} ${turn}`)
  }
  const wanted = Array.from({ length: newsCount }, (_, turn) => `${table} ${turn}`)
  const ofOneself = heard.filter((h) => h.channel === news && h.payload.startsWith(`${table} `))
  const ofOthers = heard.filter((h) => !ofOneself.includes(h))
  const onTable = ofOthers.filter((h) => h.channel === table)
  assert.deepEqual(onTable.map((h) => h.payload), wanted)
  assert.deepEqual(ofOneself.map((h) => h.payload), wanted)
  assert(ofOthers.every((h) => onTable.includes(h) || (h.channel === news && h.payload.startsWith('driver_'))))
  if (processId === undefined) return
  assert(ofOneself.every((h) => h.processId === processId), 'its own process id')
  assert(ofOthers.every((h) => h.processId !== processId), 'the process id of others')
}

async function mustFail(promise, code) {
  try {
    await promise
  } catch (error) {
    if (error.code !== code) throw error
    return
  }
  throw new Error(`no error ${code}`)
}

function start(makeTable, checks) {
  run(makeTable, checks).then(
    () => process.exit(0),
    (error) => {
      console.error(error)
      process.exit(1)
    },
  )
}

module.exports = { rows, news, start, cancelUntilDone, exchangeNews, mustFail }
