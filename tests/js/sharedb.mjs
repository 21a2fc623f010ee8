// Stock ShareDB clients in one process, moved line by line.
// In:  {"reset"}  {"client", "open"}  {"client", "frame"}  {"client", "close"}  {"call", "client", "verb", "with"}
// A call of `dial` connects a client to a real server, and then there are no frames to be carried.
// Out: {"client", "frame"} for each message of a client, and {"call", "value" or "error"}.
// A call is answered when nothing is left to do that does not wait for a frame.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import richText from 'rich-text'
import textUnicode from 'ot-text-unicode'
import WebSocket from 'ws'

const require = createRequire(import.meta.url)
const { Connection, logger, types } = require('sharedb/lib/client')
types.register(richText.type)
types.register(textUnicode.type)

const say = message => process.stdout.write(JSON.stringify(message) + '\n')

class Socket {
  constructor (name) {
    this.name = name
    this.readyState = 0
  }

  open () {
    this.readyState = 1
    this.onopen?.()
  }

  send (frame) {
    say({ client: this.name, frame })
  }

  receive (data) {
    this.onmessage?.({ data })
  }

  close () {
    if (this.readyState === 3) return
    this.readyState = 3
    this.onclose?.('lost')
  }
}

class Client {
  constructor (name) {
    this.name = name
    this.events = []
    this.socket = new Socket(name)
    this.connection = new Connection(this.socket)
    this.connection.on('error', error => this.note('connection error', error))
    this.connection.on('pong', () => this.note('pong'))
    this.docs = new Map()
    this.shown = new Map()
    this.closes = []
  }

  note (event, error, ...more) {
    this.events.push([event, error ? error.code ?? error.message : null, ...more])
  }

  told (what) {
    return (error, ...more) => this.note(what, error, ...more)
  }

  async dial (url) {
    await this.cut() // a connection goes from 'disconnected' to 'connecting', and from nowhere else
    this.socket = new WebSocket(url)
    this.socket.on('error', () => {})
    this.socket.on('close', (code, reason) => {
      this.closes.push([code, String(reason)])
      this.events.push(['closed', code, String(reason)])
    })
    this.connection.bindToSocket(this.socket)
  }

  async cut () {
    const { socket } = this
    if (!(socket instanceof WebSocket) || socket.readyState === WebSocket.CLOSED) return
    const gone = new Promise(resolve => socket.once('close', resolve))
    socket.terminate()
    await gone
  }

  open () {
    if (this.socket.readyState === 3) {
      this.socket = new Socket(this.name)
      this.connection.bindToSocket(this.socket)
    }
    this.socket.open()
  }

  doc (collection, id) {
    const doc = this.connection.get(collection, id)
    if (!this.docs.has(doc)) {
      this.docs.set(doc, id)
      for (const event of ['create', 'del', 'load']) doc.on(event, () => this.note(`${id} ${event}`))
      doc.on('error', error => this.note(`${id} error`, error))
    }
    return doc
  }

  presence (collection, id) {
    const presence = this.connection.getDocPresence(collection, id)
    if (!this.shown.has(presence)) {
      this.shown.set(presence, true)
      presence.on('error', error => this.note('presence error', error))
    }
    return presence
  }

  local (collection, id, name) {
    const presence = this.presence(collection, id)
    const local = presence.localPresences[name] ?? presence.create(name)
    if (!local.listenerCount('error')) local.on('error', error => this.note('presence error', error))
    return local
  }
}

// A document in characters, whatever its type; each embed is one.
const characters = doc => doc.type.name === 'text-unicode'
  ? [...doc.data]
  : doc.data.ops.flatMap(({ insert }) => typeof insert === 'string' ? [...insert] : [insert])

// Somewhere in a document, `share` of it from its front, whatever has come in until now.
const somewhere = (doc, share, inside = 0) => {
  const all = characters(doc)
  const index = Math.floor(share * (all.length + 1 - inside))
  const before = all.slice(0, index).reduce((sum, each) => sum + (each.length ?? 1), 0)
  const skipped = doc.type.name === 'text-unicode' ? index : before
  const front = !skipped ? [] : doc.type.name === 'text-unicode' ? [skipped] : [{ retain: skipped }]
  return { front, character: all[index] ?? null }
}

// Where something may be done to a text in UTF-16 units: not between the halves of a pair.
const uncut = (text, at) => at > 0 && /^[\uDC00-\uDFFF]/.test(text.slice(at)) ? at - 1 : at

// An operation that deletes up to `count` and inserts `content` at `where` (0 to 1) of what there is.
const scribble = ({ data, type }, where, count, content, attributes) => {
  if (type === textUnicode.type) {
    const length = [...data].length
    const at = Math.floor(where * length)
    const gone = Math.min(count, length - at)
    return [...(at ? [at] : []), ...(content ? [content] : []), ...(gone ? [{ d: gone }] : [])]
  }
  const text = data.ops.map(({ insert }) => typeof insert === 'string' ? insert : '\uFFFC').join('')
  const at = uncut(text, Math.floor(where * text.length))
  const end = uncut(text, Math.min(at + count, text.length))
  return {
    ops: [
      ...(at ? [{ retain: at }] : []),
      ...(content ? [attributes ? { insert: content, attributes } : { insert: content }] : []),
      ...(end > at ? [{ delete: end - at }] : [])
    ]
  }
}

const verbs = {
  subscribe: (client, c, d) => client.doc(c, d).subscribe(client.told(`${d} subscribe`)),
  unsubscribe: (client, c, d) => client.doc(c, d).unsubscribe(client.told(`${d} unsubscribe`)),
  fetch: (client, c, d) => client.doc(c, d).fetch(client.told(`${d} fetch`)),
  subscribeAll: (client, c, ...ids) => {
    client.connection.startBulk()
    for (const d of ids) client.doc(c, d).subscribe(client.told(`${d} subscribe`))
    client.connection.endBulk()
  },
  fetchAll: (client, c, ...ids) => {
    client.connection.startBulk()
    for (const d of ids) client.doc(c, d).fetch(client.told(`${d} fetch`))
    client.connection.endBulk()
  },
  unsubscribeAll: (client, c, ...ids) => {
    client.connection.startBulk()
    for (const d of ids) client.doc(c, d).unsubscribe(client.told(`${d} unsubscribe`))
    client.connection.endBulk()
  },
  create: (client, c, d, data, type) => client.doc(c, d).create(data, type, client.told(`${d} created`)),
  submit: (client, c, d, op) => client.doc(c, d).submitOp(op, client.told(`${d} submitted`)),
  scribble: (client, c, d, ...what) => {
    const doc = client.doc(c, d)
    if (!doc.type) throw new Error(`${d} has no type yet`)
    doc.submitOp(scribble(doc, ...what), client.told(`${d} submitted`))
  },
  del: (client, c, d) => client.doc(c, d).del(client.told(`${d} deleted`)),
  ping: client => client.connection.ping(),
  query: client => client.connection.createFetchQuery('notes', {}, null, client.told('query')),
  follow: client => client.connection.createSubscribeQuery('notes', {}, null, client.told('follow')),
  snapshot: (client, c, d, v) => client.connection.fetchSnapshot(c, d, v, error => client.note('snapshot', error)),
  snapshotAt: (client, c, d, ts) =>
    client.connection.fetchSnapshotByTimestamp(c, d, ts, error => client.note('snapshot', error)),
  listen: (client, c, d) => client.presence(c, d).subscribe(client.told(`${d} listen`)),
  unlisten: (client, c, d) => client.presence(c, d).unsubscribe(client.told(`${d} unlisten`)),
  present: (client, c, d, name, value) =>
    client.local(c, d, name).submit(value, client.told(`${name} shown`)),
  dial: (client, url) => client.dial(url),
  cut: client => client.cut(),
  assume: (client, id) => { client.connection.id = id },
  ingest: (client, c, d, snapshot) => client.doc(c, d).ingestSnapshot(snapshot, client.told(`${d} ingested`)),
  settle: () => null
}

const asks = {
  show: (client, c, d) => {
    const { data, version, subscribed, type } = client.doc(c, d)
    return {
      data: data ?? null,
      version,
      subscribed,
      type: type?.name ?? null,
      pending: client.doc(c, d).hasWritePending()
    }
  },
  // The next three edit somewhere, and say whether there was anything to be edited.
  write: (client, c, d, share, content, attributes) => {
    const doc = client.doc(c, d)
    if (!doc.type) return false
    const { front } = somewhere(doc, share)
    const isPlain = doc.type.name === 'text-unicode'
    const insert = isPlain ? content : { insert: content, ...(attributes && { attributes }) }
    doc.submitOp([...front, insert], client.told(`${d} submitted`))
    return true
  },
  erase: (client, c, d, share) => {
    const doc = client.doc(c, d)
    const { front, character } = doc.type ? somewhere(doc, share, 1) : {}
    if (!character) return null
    const isPlain = doc.type.name === 'text-unicode'
    const what = isPlain ? { d: 1 } : { delete: character.length ?? 1 }
    doc.submitOp([...front, what], client.told(`${d} submitted`))
    return character
  },
  format: (client, c, d, share, attributes) => {
    const doc = client.doc(c, d)
    const { front, character } = doc.type ? somewhere(doc, share, 1) : {}
    if (!character) return false
    doc.submitOp([...front, { retain: character.length ?? 1, attributes }], client.told(`${d} submitted`))
    return true
  },
  events: client => client.events.splice(0),
  closes: client => client.closes,
  id: client => client.connection.id,
  state: client => client.connection.state,
  gathered: (client, c, d) => ({ ...client.presence(c, d).remotePresences }),
  channel: (client, channel) => client.connection.getPresence(channel).subscribe(client.told('channel')),
  codes: () => Object.keys(require('sharedb/lib/error').CODES),
  warnings: () => warnings.splice(0)
}

const warnings = []
logger.setMethods({ info () {}, warn: (...words) => warnings.push(String(words[0])), error () {} })

const clients = new Map()
const quiet = async () => { for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate) }

for await (const line of createInterface({ input: process.stdin })) {
  const { client: name, call, verb, with: operands = [], open, close, frame, reset } = JSON.parse(line)
  if (reset) {
    clients.clear()
    continue
  }
  if (!clients.has(name)) clients.set(name, new Client(name))
  const client = clients.get(name)
  if (open) client.open()
  else if (close) client.socket.close()
  else if (frame !== undefined) client.socket.receive(frame)
  else {
    let value = null
    try {
      await verbs[verb]?.(client, ...operands)
      await quiet()
      value = asks[verb]?.(client, ...operands) ?? null
    } catch (error) {
      say({ call, error: error.message })
      continue
    }
    say({ call, value })
  }
}
