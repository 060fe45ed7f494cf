// What postgres.js's tests/index.js expects of ./test.js: t(name, [options], fn) registers a test
// that returns [expected, got]. Every test runs, one after another, and says how it went in a line
// that starts with "@@ ".
import util from 'node:util'

const DEFAULT_TIMEOUT_S = 5
const waiting = []
const seen = new Map()

export function t(name, options, fn) {
  if (typeof options === 'function') [options, fn] = [{}, options]
  const times = (seen.get(name) ?? 0) + 1
  seen.set(name, times)
  waiting.push({ name: times > 1 ? `${name} (${times})` : name, options, fn })
}
t.timeout = DEFAULT_TIMEOUT_S
export const nt = name => say(name, 'skipped', '')
export const ot = t

function say(name, result, words) {
  process.stdout.write(`\n@@ ${JSON.stringify([name, result, words])}\n`)
}

async function outcome({ fn }) {
  const answer = await fn()
  if (!Array.isArray(answer)) throw new Error('the test returned no array')
  const [expected, got] = await Promise.all(answer)
  if (expected !== got) throw new Error(`${util.inspect(expected)} != ${util.inspect(got)}`)
}

async function within(seconds, work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('timed out')), seconds * 1000)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

process.on('unhandledRejection', error => process.stdout.write(`\nunhandled: ${util.inspect(error)}\n`))
process.on('uncaughtException', error => process.stdout.write(`\nuncaught: ${util.inspect(error)}\n`))

// The tests are registered while index.js is evaluated.
setImmediate(async() => {
  let failed = 0
  for (const test of waiting) {
    try {
      await within(test.options.timeout ?? t.timeout, outcome(test))
      say(test.name, 'passed', '')
    } catch (error) {
      failed++
      say(test.name, 'failed', error instanceof Error ? error.message : util.inspect(error))
    }
  }
  process.exit(failed > 0 ? 1 : 0)
})
