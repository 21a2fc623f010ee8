// How a stock Yjs program reads and writes what crdt-state's counters, sets, registers and movable
// lists lie on (PROTOCOL.md, "How the document types lie on Yjs types").  Nothing here but yjs.
//
// stdin:  {"update": base64}                          a document that Python wrote
// stdout: {"read": {...}, "update": base64}           what it holds, and then our own edits

import * as Y from 'yjs'

// --- reading ------------------------------------------------------------------------------------

const text = (doc, name) => doc.getText(name).toString()
const map = (doc, name) => doc.getMap(name).toJSON()
const list = (doc, name) => doc.getArray(name).toJSON()

const counter = (doc, name) => {
  let value = 0
  for (const [increments, decrements] of doc.getMap(`${name}#counter`).values()) {
    value += increments - decrements
  }
  return value
}

// Elements are compared as JSON here, which is enough for strings and numbers.
const distinct = (values) => [...new Map(values.map((value) => [JSON.stringify(value), value])).values()]
const set = (doc, name) => distinct(doc.getArray(`${name}#set`).toArray())
const multiValueRegister = (doc, name) => distinct(doc.getArray(`${name}#multi`).toArray())

// Stamps are [time, writer, ...]; the greater one wins.
const compare = (a, b) => {
  const at = a.findIndex((number, index) => number !== b[index])
  return at < 0 ? 0 : a[at] - b[at]
}

const register = (doc, name) => {
  const rows = doc.getArray(`${name}#register`).toArray()
  return rows.reduce((a, b) => (compare(b, a) > 0 ? b : a), [-1, -1, null])[2]
}

// The elements of a movable list, in the order in which they show.
const elements = (doc, name) => {
  const found = new Map()
  doc.getArray(`${name}#movable`).toArray().forEach((row, at) => {
    const [time, writer, value] = row
    const placed = row.length === 7 ? row.slice(3, 5) : [time, writer]
    const valued = row.length === 7 ? row.slice(5, 7) : [time, writer]
    const key = `${time} ${writer}`
    const byPlace = [...placed, ...valued]
    const byValue = [...valued, ...placed]
    const one = found.get(key)
    if (one === undefined) {
      found.set(key, { time, writer, at, value, placed, valued, byPlace, byValue })
      return
    }
    if (compare(byPlace, one.byPlace) > 0) Object.assign(one, { at, placed, byPlace })
    if (compare(byValue, one.byValue) > 0) Object.assign(one, { value, valued, byValue })
  })
  return [...found.values()].sort((a, b) => a.at - b.at)
}
const movableList = (doc, name) => elements(doc, name).map((one) => one.value)

const read = (doc) => ({
  text: text(doc, 'text'),
  map: map(doc, 'map'),
  list: list(doc, 'array'),
  counter: counter(doc, 'likes'),
  set: set(doc, 'tags'),
  movableList: movableList(doc, 'todo'),
  register: register(doc, 'title'),
  multiValueRegister: multiValueRegister(doc, 'owner')
})

// --- writing ------------------------------------------------------------------------------------

// Delete the rows for which `is` holds, from the end on, so that indexes stay right.
const deleteRows = (array, is) => {
  const rows = array.toArray()
  for (let at = rows.length - 1; at >= 0; at--) if (is(rows[at])) array.delete(at, 1)
}
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)

// A program that counts keeps 16 random bytes of its own, as hex, and writes no other entry.
const add = (doc, name, incarnation, amount) => {
  const entries = doc.getMap(`${name}#counter`)
  const [increments, decrements] = entries.get(incarnation) ?? [0, 0]
  entries.set(incarnation, [increments + Math.max(amount, 0), decrements + Math.max(-amount, 0)])
}

const addElement = (doc, name, element) => {
  const rows = doc.getArray(`${name}#set`)
  deleteRows(rows, (row) => same(row, element))
  rows.push([element])
}
const removeElement = (doc, name, element) =>
  deleteRows(doc.getArray(`${name}#set`), (row) => same(row, element))

// Microseconds; more than every time seen, so that the write shows.
const stamp = (doc, now, seen) => [Math.max(now, ...seen.map((time) => time + 1)), doc.clientID]

const setRegister = (doc, name, now, value) => {
  const rows = doc.getArray(`${name}#register`)
  const written = [...stamp(doc, now, rows.toArray().map((row) => row[0])), value]
  deleteRows(rows, () => true)
  rows.push([written])
}
const setMultiValueRegister = (doc, name, value) => {
  const rows = doc.getArray(`${name}#multi`)
  deleteRows(rows, () => true)
  rows.push([value])
}

const replaceRows = (rows, one, at, row) => {
  const isOld = ([time, writer]) => time === one.time && writer === one.writer
  const before = rows.toArray().slice(0, at).filter(isOld).length
  deleteRows(rows, isOld)
  rows.insert(at - before, [row])
}
const append = (doc, name, now, value) => {
  const times = elements(doc, name).map((one) => one.time)
  doc.getArray(`${name}#movable`).push([[...stamp(doc, now, times), value]])
}
const setElement = (doc, name, now, index, value) => {
  const one = elements(doc, name)[index]
  const valued = stamp(doc, now, [one.valued[0]])
  const row = [one.time, one.writer, value, ...one.placed, ...valued]
  replaceRows(doc.getArray(`${name}#movable`), one, one.at, row)
}
const moveElement = (doc, name, now, index, to) => {
  const all = elements(doc, name)
  const one = all[index]
  const placed = stamp(doc, now, [one.placed[0]])
  const row = [one.time, one.writer, one.value, ...placed, ...one.valued]
  replaceRows(doc.getArray(`${name}#movable`), one, all[to].at + (to > index ? 1 : 0), row)
}

// --- the program --------------------------------------------------------------------------------

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const input = JSON.parse(Buffer.concat(chunks).toString())

const doc = new Y.Doc()
doc.clientID = 500
Y.applyUpdate(doc, Buffer.from(input.update, 'base64'))
const seen = read(doc)

const now = 1_600_000_000_000_000 // Behind Python's clock: what was seen must lift it.
const incarnation = 'ab'.repeat(16)
doc.transact(() => {
  doc.getText('text').insert(0, '🐝 ')
  doc.getMap('map').set('node', [1.5, null, { a: true }])
  doc.getArray('array').push(['from Node'])
  add(doc, 'likes', incarnation, 10)
  add(doc, 'likes', incarnation, -3)
  removeElement(doc, 'tags', 'old')
  addElement(doc, 'tags', 'node')
  setRegister(doc, 'title', now, { by: 'Node' })
  setMultiValueRegister(doc, 'owner', 'node')
  append(doc, 'todo', now, 'last')
  moveElement(doc, 'todo', now, 0, 2)
  setElement(doc, 'todo', now, 0, 'replaced')
})
const update = Buffer.from(Y.encodeStateAsUpdate(doc)).toString('base64')
process.stdout.write(JSON.stringify({ read: seen, update, then: read(doc) }))
