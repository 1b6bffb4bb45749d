// The suite's own origin server on a port of the kernel's choice; prints the port, ends with its standard input.
import http from 'node:http'
import handleConfig from 'http-cache-tests/server/handle-config.mjs'
import handleState from 'http-cache-tests/server/handle-state.mjs'
import handleTest from 'http-cache-tests/server/handle-test.mjs'

const handlers = { config: handleConfig, state: handleState, test: handleTest }

// The suite warns on standard output, which is for the port here.
console.log = console.error

const server = http.createServer((request, response) => {
  const [kind, ...rest] = new URL(request.url, 'http://suite').pathname.split('/').slice(1)
  const handle = handlers[kind]
  if (handle) return handle(rest, request, response)
  response.writeHead(404).end()
})
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`))
process.stdin.on('end', () => process.exit(0)).resume()
