// Stock ShareDB with its in-memory backend, as its README sets it up; prints its port.
import { createRequire } from 'node:module'
import { Duplex } from 'node:stream'

const require = createRequire(new URL('../../tests/js/package.json', import.meta.url))
const Backend = require('sharedb')
const { WebSocketServer } = require('ws')
Backend.types.register(require('ot-text-unicode').type)

// What websocket-json-stream does, and as it does: the next message does not wait until the socket
// has taken the one before, which would make ShareDB slower.
class JsonStream extends Duplex {
  constructor (socket) {
    super({ objectMode: true, allowHalfOpen: false })
    this.socket = socket
    socket.on('message', data => this.push(JSON.parse(data)))
    socket.on('close', () => this.destroy())
    socket.on('error', error => this.destroy(error))
  }

  _read () {}

  _write (message, _, done) {
    this.socket.send(JSON.stringify(message))
    done()
  }
}

const backend = new Backend()
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
server.on('connection', socket => backend.listen(new JsonStream(socket)))
server.on('listening', () => console.log(server.address().port))
