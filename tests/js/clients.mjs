// Stock Yjs clients with the stock y-websocket provider, for tests/system: any number of them in
// this process, each moved by the test.  One JSON value a line:
//
//   in   {"call": 7, "client": "ana", "verb": "insert", "with": [0, "hello"]}
//   out  {"call": 7, "value": …}   or   {"call": 7, "error": "…"}
//
// Every client holds the roots text "text", map "map" and array "array".
import { createInterface } from 'node:readline'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const clients = new Map()

const open = (name, url, room, params = {}) => {
  const doc = new Y.Doc()
  const provider = new WebsocketProvider(url, room, doc, {
    WebSocketPolyfill: WebSocket, disableBc: true, params, maxBackoffTime: 400
  })
  const closes = []
  provider.on('connection-close', event => { if (event) closes.push([event.code, event.reason]) })
  clients.set(name, { doc, provider, closes })
  return doc.clientID
}

// Somewhere in a text, `share` of it from its front, between two characters: [index, character].
const somewhere = (text, share, inside = 0) => {
  const all = text.toDelta().flatMap(({ insert }) => typeof insert === 'string' ? [...insert] : [insert])
  const index = Math.floor(share * (all.length + 1 - inside))
  const before = all.slice(0, index).reduce((sum, each) => sum + (each.length ?? 1), 0)
  return [before, all[index] ?? null]
}

const verbs = {
  insert: ({ doc }, index, text) => doc.getText('text').insert(index, text),
  delete: ({ doc }, index, count) => doc.getText('text').delete(index, count),
  format: ({ doc }, index, count, attributes) => doc.getText('text').format(index, count, attributes),
  embed: ({ doc }, index, what) => doc.getText('text').insertEmbed(index, what),
  delta: ({ doc }) => doc.getText('text').toDelta(),
  write: ({ doc }, share, content) => {
    const text = doc.getText('text')
    const [index] = somewhere(text, share)
    if (typeof content === 'string') text.insert(index, content)
    else text.insertEmbed(index, content)
  },
  erase: ({ doc }, share) => {
    const text = doc.getText('text')
    const [index, character] = somewhere(text, share, 1)
    if (character) text.delete(index, character.length ?? 1)
    return character
  },
  // Delete up to `count` and insert `text` at `where` (0 to 1), between whole characters.
  scribble: ({ doc }, where, count, content) => doc.transact(() => {
    const text = doc.getText('text')
    const shown = text.toString()
    const uncut = at => at > 0 && /^[\uDC00-\uDFFF]/.test(shown.slice(at)) ? at - 1 : at
    const at = uncut(Math.floor(where * shown.length))
    const end = uncut(Math.min(at + count, shown.length))
    if (end > at) text.delete(at, end - at)
    if (content) text.insert(at, content)
  }),
  put: ({ doc }, key, value) => doc.getMap('map').set(key, value),
  push: ({ doc }, values) => doc.getArray('array').push(values),
  presence: ({ provider }, state) => provider.awareness.setLocalState(state),
  disconnect: ({ provider }) => provider.disconnect(),
  connect: ({ provider }) => provider.connect(),
  // As a tab that is gone: no farewell, the socket just ends.
  vanish: ({ provider }) => { provider.shouldConnect = false; provider.ws?.terminate() },
  present: ({ provider }) => Object.fromEntries(provider.awareness.getStates()),
  link: ({ provider, closes }) => ({
    connected: provider.wsconnected, synced: provider.synced, closes
  }),
  show: ({ doc }) => ({
    text: doc.getText('text').toString(),
    map: doc.getMap('map').toJSON(),
    array: doc.getArray('array').toJSON()
  })
}

process.setMaxListeners(0) // each provider says goodbye at the exit

// Permission denied is what some tests are about; the library prints it.
console.warn = () => {}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, client, verb, with: operands } = JSON.parse(line)
  let answer
  try {
    const value = verb === 'open'
      ? open(client, ...operands)
      : verbs[verb](clients.get(client), ...operands)
    answer = { call, value: value ?? null }
  } catch (error) {
    answer = { call, error: String(error.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
process.exit(0)
