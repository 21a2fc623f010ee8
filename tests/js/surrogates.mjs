// Stock Yjs for tests/model/test_surrogates.py: what it shows of given updates, and clients that
// edit between the two halves of a surrogate pair, as editors that count UTF-16 units do.
//
// One JSON value on standard input, one on standard output; updates are hexadecimal.
//   {"show": [[update …] …]}      → [{"text", "reloaded", "state"} …] of the root text "t"
//   {"edit": [{"base": [update …], "client", "insert" | "delete" | "format": [index, …]} …]}
//                                 → [update …]
//   {"random": [seed …]}          → [{"updates": […], "text"} …], three clients, half of it offline
import { readFileSync } from 'node:fs'
import * as Y from 'yjs'

const bytes = hex => Uint8Array.from(Buffer.from(hex, 'hex'))
const hex = update => Buffer.from(update).toString('hex')

const load = updates => {
  const doc = new Y.Doc()
  updates.forEach(update => Y.applyUpdate(doc, bytes(update)))
  return doc
}

const show = updates => {
  const doc = load(updates)
  const state = Y.encodeStateAsUpdate(doc)
  return {
    text: doc.getText('t').toString(),
    reloaded: load([hex(state)]).getText('t').toString(),
    state: hex(state)
  }
}

const edit = ({ base, client, ...operation }) => {
  const doc = load(base)
  doc.clientID = client
  let update
  doc.on('update', made => { update = made })
  const [[verb, operands]] = Object.entries(operation)
  doc.getText('t')[verb](...operands)
  return hex(update)
}

// A small generator with a seed (Park and Miller's), since Math.random has none.
const dice = seed => {
  let state = seed % 2147483646 + 1
  return below => {
    state = state * 48271 % 2147483647
    return state % below
  }
}

const WORDS = ['a😀b', '😀😀', 'x', '𝄞é', 'yz', '👩‍👩‍👧']

const random = seed => {
  const roll = dice(seed)
  const updates = []
  const clients = [11, 22, 33].map(id => {
    const doc = new Y.Doc()
    doc.clientID = id
    doc.on('update', (update, origin) => { if (origin !== 'remote') updates.push(hex(update)) })
    return doc
  })
  clients[0].getText('t').insert(0, '😀a😀😀b𝄞c😀')
  let delivered = clients.map(() => 0)
  for (let step = 0; step < 24; step++) {
    const index = roll(clients.length)
    if (roll(3) === 0 || delivered[index] === 0) {
      updates.slice(delivered[index]).forEach(
        update => Y.applyUpdate(clients[index], bytes(update), 'remote'))
      delivered[index] = updates.length
    }
    const text = clients[index].getText('t')
    const at = roll(text.length + 1)
    if (roll(3) === 0 && at < text.length) {
      text.delete(at, 1 + roll(Math.min(3, text.length - at)))
    } else {
      text.insert(at, WORDS[roll(WORDS.length)])
    }
  }
  return { updates, text: load(updates).getText('t').toString() }
}

const jobs = { show, edit, random }
const [[job, inputs]] = Object.entries(JSON.parse(readFileSync(0, 'utf8')))
process.stdout.write(JSON.stringify(inputs.map(jobs[job])))
