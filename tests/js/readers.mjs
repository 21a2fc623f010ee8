// Reads documents with fresh stock clients: one Y.Doc and one y-websocket provider each.
//
// Standard input: {"url": "ws://…", "rooms": ["…" …], "at_once": 40}.  Standard output: one line
// a room, as they come: {"room", "text", "map", "array"} of the roots of these names.
import { readFileSync } from 'node:fs'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

process.setMaxListeners(0) // each provider says goodbye at the exit
const { url, rooms, at_once: atOnce } = JSON.parse(readFileSync(0, 'utf8'))

const read = room => new Promise(resolve => {
  const doc = new Y.Doc()
  const provider = new WebsocketProvider(url, room, doc, {
    WebSocketPolyfill: WebSocket, disableBc: true
  })
  provider.once('sync', () => {
    const line = {
      room,
      text: doc.getText('text').toString(),
      map: doc.getMap('map').toJSON(),
      array: doc.getArray('array').toJSON()
    }
    provider.destroy()
    doc.destroy()
    resolve(line)
  })
})

const waiting = rooms.slice()
const work = async () => {
  while (waiting.length) {
    const line = JSON.stringify(await read(waiting.pop())) + '\n'
    if (!process.stdout.write(line)) await new Promise(resolve => process.stdout.once('drain', resolve))
  }
}
await Promise.all(Array.from({ length: atOnce }, work))
process.stdout.write('', () => process.exit(0))
