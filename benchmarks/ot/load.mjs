// Clients of the ShareDB wire that edit texts of text-unicode as fast as a server lets them.
//
// In, a line for each run:  {"url", "collection", "documents", "clients", "type", "warm", "seconds"}
// Out:  {"begun"} and {"ended"} when the measured time begins and ends, then what was measured; or {"error"}.
//
// Of each document there are so many clients, each on a connection of its own.  All have subscribed;
// each has one operation in flight, as the stock client has, and submits the next when that has been
// acknowledged.  The operation inserts a character at the front, which is valid at every version, so
// a client keeps no text and transforms nothing.  It keeps its version, and reads no more of a message
// than it needs for that.
//
// When the time is over, what is in flight is waited for.  Then every client has to be at the version
// that all acknowledged operations make together, told of each in order: a server that forgets somebody,
// or loses an operation, is not measured but named.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { performance } from 'node:perf_hooks'

const require = createRequire(new URL('../../tests/js/package.json', import.meta.url))
const WebSocket = require('ws')

const WAIT_MILLISECONDS_MAX = 30_000

const say = message => process.stdout.write(JSON.stringify(message) + '\n')
const after = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

const numberAfter = (text, key) => {
  const at = text.indexOf(key)
  if (at < 0) throw new Error(`no ${key} in ${text}`)
  return parseInt(text.slice(at + key.length, at + key.length + 17), 10)
}

// What all clients of one run have in common.
class Run {
  constructor ({ url, collection, type }) {
    Object.assign(this, { url, collection, type })
    this.isSubmitting = false
    this.isMeasured = false
    this.latencies = []
    this.told = 0
    this.failed = new Promise((resolve, reject) => { this.fail = reject })
    this.failed.catch(() => {})
  }

  // What is waited for, or the first failure, or that it took too long.
  async wait (promise, what) {
    let timer
    const late = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.url}: waited too long for ${what}`)), WAIT_MILLISECONDS_MAX)
    })
    try {
      return await Promise.race([promise, this.failed, late])
    } finally {
      clearTimeout(timer)
    }
  }

  async until (isSo, what) {
    const begun = performance.now()
    while (!isSo()) {
      if (performance.now() - begun > WAIT_MILLISECONDS_MAX) throw new Error(`${this.url}: waited too long for ${what}`)
      await this.wait(after(5), what)
    }
  }
}

class Client {
  constructor (run, document) {
    this.run = run
    this.document = document
    this.acknowledged = 0
    this.seq = 1
    this.version = null
    this.isWaiting = false
    this.asked = null
  }

  // Connect and shake hands.
  async open () {
    this.socket = new WebSocket(this.run.url, { perMessageDeflate: false, skipUTF8Validation: true })
    const opened = new Promise(resolve => this.socket.on('open', resolve))
    const another = how => this.run.fail(new Error(`${this.run.url} ${how}: nobody speaks ShareDB's wire there`))
    this.socket.on('unexpected-response', (_, response) => another(`answered ${response.statusCode}`))
    this.socket.on('error', error => this.run.fail(new Error(`${this.run.url}: ${error.message}`)))
    this.socket.on('close', (code, reason) => this.run.fail(new Error(`${this.run.url} closed with ${code} ${reason}`)))
    this.socket.on('message', (data, isBinary) => isBinary ? another('sent bytes') : this.receive(data.latin1Slice()))
    await this.run.wait(opened, 'a connection')
    const { id } = await this.ask('hs', { id: null, protocol: 1, protocolMinor: 2 })
    this.own = `"${id}"`
    this.before = JSON.stringify({ a: 'op', c: this.run.collection, d: this.document }).slice(0, -1) + ',"v":'
    this.between = `,"src":${this.own},"seq":`
  }

  create () {
    const create = { type: this.run.type, data: '' }
    return this.ask('op', { c: this.run.collection, d: this.document, v: null, src: JSON.parse(this.own), seq: this.seq, x: {}, create })
  }

  async subscribe () {
    const { data } = await this.ask('s', { c: this.run.collection, d: this.document, v: null })
    if (data.type !== this.run.type) throw new Error(`${this.document} was created as ${this.run.type}, and is ${data.type}`)
    this.began = this.version = data.v
  }

  // The answer to a message, which the first message of the same action is.
  async ask (action, message) {
    const answered = new Promise(resolve => { this.asked = { action, resolve } })
    this.socket.send(JSON.stringify({ a: action, ...message }))
    const answer = await this.run.wait(answered, `the answer to "${action}"`)
    if (answer.error) throw new Error(`"${action}" was refused: ${JSON.stringify(answer.error)}`)
    return answer
  }

  submit () {
    this.isWaiting = true
    this.seq += 1
    this.submitted = performance.now()
    this.socket.send(this.before + this.version + this.between + this.seq + ',"x":{},"op":["x"]}')
  }

  receive (text) {
    try {
      if (this.asked !== null) this.takeAnswer(text)
      // Before a client has subscribed, such as the greeting of older clients, "init".
      else if (this.version === null) return
      else if (text.includes(this.own)) this.takeAcknowledgement(text)
      else this.takeOperation(text)
    } catch (error) {
      this.run.fail(error)
    }
  }

  takeAnswer (text) {
    const message = JSON.parse(text)
    if (message.a !== this.asked.action) return
    this.asked.resolve(message)
    this.asked = null
  }

  takeOperation (text) {
    this.run.told += 1
    const version = numberAfter(text, '"v":')
    // ShareDB tells some twice, beside an acknowledgement and in their turn; clients pass over them.
    if (version < this.version) return
    this.advance(version, text)
  }

  takeAcknowledgement (text) {
    if (text.includes('"error":')) throw new Error(`refused: ${text}`)
    if (numberAfter(text, '"seq":') !== this.seq) throw new Error(`acknowledged another than what is in flight: ${text}`)
    this.advance(numberAfter(text, '"v":'), text)
    this.acknowledged += 1
    this.isWaiting = false
    if (this.run.isMeasured) this.run.latencies.push(performance.now() - this.submitted)
    if (this.run.isSubmitting) this.submit()
  }

  advance (version, text) {
    if (version !== this.version) throw new Error(`at version ${this.version}, and was told ${text}`)
    this.version += 1
  }

  close () {
    this.socket?.removeAllListeners('close')
    this.socket?.terminate()
  }
}

// Until nothing is in flight, and everybody has been told everything.
const settle = async (run, clients) => {
  await run.until(() => !clients.some(client => client.isWaiting), 'an acknowledgement')
  const made = new Map()
  for (const { document, acknowledged } of clients) made.set(document, (made.get(document) ?? 0) + acknowledged)
  const ahead = client => client.began + made.get(client.document) - client.version
  await run.until(() => clients.every(client => ahead(client) <= 0), 'somebody to be told of every operation')
  const beyond = clients.find(client => ahead(client) < 0)
  if (beyond) throw new Error(`${beyond.document} is at ${beyond.version}, beyond what was acknowledged`)
}

const measure = async (run, clients, { warm, seconds }) => {
  run.isSubmitting = true
  for (const client of clients) client.submit()
  await run.wait(after(warm * 1000), 'the warming up')
  say({ begun: true })
  const [begun, told, cpu] = [performance.now(), run.told, process.cpuUsage()]
  run.isMeasured = true
  await run.wait(after(seconds * 1000), 'the end')
  run.isMeasured = false
  say({ ended: true })
  const used = process.cpuUsage(cpu)
  const took = (performance.now() - begun) / 1000
  const result = {
    seconds: took,
    operations: run.latencies.length,
    told: run.told - told,
    processors: (used.user + used.system) / 1e6 / took
  }
  run.isSubmitting = false
  await settle(run, clients)
  if (!run.latencies.length) throw new Error('nothing was acknowledged in the measured time')
  const sorted = Float64Array.from(run.latencies).sort()
  const quantile = share => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] / 1000
  return { ...result, p50: quantile(0.5), p99: quantile(0.99) }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  const run = new Run(asked)
  const clients = asked.documents.flatMap(document => Array.from({ length: asked.clients }, () => new Client(run, document)))
  try {
    for (const client of clients) await client.open()
    for (let at = 0; at < clients.length; at += asked.clients) await clients[at].create()
    for (const client of clients) await client.subscribe()
    say(await measure(run, clients, asked))
  } catch (error) {
    say({ error: error.message })
  }
  for (const client of clients) client.close()
}
