// What the programs of the Node drivers share: clients at the same time, each going through every check.
'use strict'

const clientsCount = Number(process.env.DRIVER_CLIENTS)
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

// Cancels again and again until `work` has failed: a request that comes too early finds nothing to cancel. The error.
async function cancelUntilDone(cancel, work) {
  const began = Date.now()
  const timer = setInterval(cancel, 50)
  try {
    await work
  } catch (error) {
    if (Date.now() - began > 25000) throw new Error('not cancelled')
    return error
  } finally {
    clearInterval(timer)
  }
  throw new Error('no error from a cancelled query')
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

module.exports = { rows, start, cancelUntilDone, mustFail }
