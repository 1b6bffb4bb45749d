// Runs the suite as a client against one address, and prints what became of each test as one line of JSON.
//
// node run.mjs BASE [--h2] [--ca FILE] [--id TEST]
//
// The tests are those of the npm package, but for those that overtaken.json amends, each for the reason that is there, and some of our own (own.mjs). All run at once: most of a test's time is its
// pauses of three seconds. One that fails is run again, alone: on a busy machine a second may be over before its second request is sent.
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Agent, fetch } from 'undici'
import * as config from 'http-cache-tests/client/config.mjs'
import { makeCacheTest, testResults } from 'http-cache-tests/client/test.mjs'
import suites from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'
import own from './own.mjs'

/** Milliseconds between the starts of two tests: they would otherwise all ask at the same moments. */
const STAGGER_MS = 10

/** Further runs of a test that fails. */
const RUNS_AGAIN_MAX = 2

const { positionals: [base], values } = parseArgs({
  allowPositionals: true,
  options: { h2: { type: 'boolean' }, ca: { type: 'string' }, id: { type: 'string' } }
})
// Standard output is for the results.
console.log = console.error

const dispatcher = new Agent({
  allowH2: values.h2 === true,
  // One connection carries many streams of h2; h1 needs one for each test that runs at a time.
  connections: values.h2 ? 4 : null,
  connect: values.ca ? { ca: fs.readFileSync(values.ca) } : {}
})
config.setFetch((url, init) => fetch(url, { ...init, dispatcher }))
config.setBaseUrl(base)
config.setUseBrowserCache(false)

const overtaken = JSON.parse(fs.readFileSync(new URL('overtaken.json', import.meta.url)))

function amend (test) {
  const { kind, last_request: change } = overtaken[test.id] ?? {}
  if (kind) test.kind = kind
  for (const [key, value] of Object.entries(change ?? {})) {
    const last = test.requests.at(-1)
    if (value === null) delete last[key]
    else last[key] = value
  }
  return test
}

const kind = test => amend(structuredClone(test)).kind ?? 'required'

const tests = [...suites, surrogate, own].flatMap(suite => suite.tests)
  .filter(test => test.browser_only !== true && (values.id === undefined || test.id === values.id))

const unknown = Object.keys(overtaken).filter(id => values.id === undefined && !tests.some(test => test.id === id))
if (unknown.length > 0) throw new Error(`overtaken.json names no tests: ${unknown}`)

// The suite writes into its tests while it runs them.
async function run (test) {
  delete testResults[test.id]
  await makeCacheTest(amend(structuredClone({ ...test, dump: values.id !== undefined })))
  return testResults[test.id]
}

await Promise.all(tests.map(async (test, index) => {
  await sleep(index * STAGGER_MS)
  await run(test)
}))
for (let again = 0; again < RUNS_AGAIN_MAX; again++) {
  for (const test of tests) {
    if (testResults[test.id] !== true && kind(test) !== 'check') await run(test)
  }
}

const outcomes = tests.map(test => ({
  id: test.id,
  kind: kind(test),
  failure: testResults[test.id] === true ? null : testResults[test.id].join(': ')
}))
process.stdout.write(`${JSON.stringify(outcomes)}\n`, () => process.exit(0))
