// Prints, one in hex a line, the updates of a Yjs program that uses every content there is:
// formats, embeds, values of every kind, subdocuments, nested and XML types, undo.
import * as Y from 'yjs'

const VALUES = [undefined, null, true, false, 0, -0, -1, 63, 64, 2 ** 31, -(2 ** 31), 2 ** 53 - 1,
  1 - 2 ** 53, 1.5, 1e300, NaN, Infinity, 10n, '', 'x', [], {}, [[[1]]], { a: { b: [null, undefined] } },
  new Uint8Array([1, 2])]

const updates = []
for (const clientID of [0, 5, 4_000_000_000]) {
  const doc = new Y.Doc()
  doc.clientID = clientID
  doc.on('update', update => updates.push(update))
  const text = doc.getText('text')
  text.insert(0, 'hello world')
  text.format(0, 5, { bold: true, link: { href: 'http://x/é' }, none: null, size: 1.5 })
  text.insertEmbed(3, { image: 'a' })
  text.insertEmbed(2, new Y.Map())
  text.delete(1, 3)
  text.insert(2, 'é日本😀')
  const map = doc.getMap('map')
  VALUES.forEach((value, number) => map.set(`key ${number}`, value))
  map.set('', 1)
  map.set('subdocument', new Y.Doc({ autoLoad: true, meta: { a: 1 } }))
  map.delete('key 3')
  const array = doc.getArray('array')
  array.insert(0, [1, 'a', { x: 1 }, null])
  array.push([new Y.Array(), new Y.Text('inner'), new Uint8Array(3)])
  array.delete(1, 2)
  const element = new Y.XmlElement('p')
  doc.getXmlFragment('xml').insert(0, [element, new Y.XmlText('x')])
  element.setAttribute('class', 'c')
  element.insert(0, [new Y.XmlElement('b')])
  const undo = new Y.UndoManager(text)
  text.insert(0, 'undone')
  undo.undo()
  undo.redo()
  doc.get('', Y.Text).insert(0, 'in the root without a name')
  updates.push(Y.encodeStateAsUpdate(doc))
}
updates.push(Y.mergeUpdates([updates[0], updates[4], updates[6]]))
for (const update of updates) console.log(Buffer.from(update).toString('hex'))
