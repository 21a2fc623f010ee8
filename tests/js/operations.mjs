// Stock quill-delta, rich-text and ot-text-unicode, asked in one batch.
// Input: a list of [type, verb, operand, ...]; output: a list of answers in the same order.
import { readFileSync } from 'node:fs'
import Delta from 'quill-delta'
import richText from 'rich-text'
import textUnicode from 'ot-text-unicode'

const text = textUnicode.type
const delta = ({ ops }) => new Delta(ops)

const verbs = {
  'quill-delta': {
    compose: (a, b) => delta(a).compose(delta(b)),
    transform: (history, incoming, priority) => delta(history).transform(delta(incoming), priority),
    invert: (operation, base) => delta(operation).invert(delta(base)),
    diff: (before, after) => delta(before).diff(delta(after)),
    position: (operation, index, priority) => delta(operation).transformPosition(index, priority)
  },
  'rich-text': {
    transform: (a, b, side) => richText.type.transform(a, b, side)
  },
  'text-unicode': {
    apply: (before, operation) => text.apply(before, operation),
    compose: (a, b) => text.compose(a, b),
    transform: (a, b, side) => text.transform(a, b, side),
    invert: (operation, before) => text.invertWithDoc(operation, before),
    position: (operation, index) => text.transformPosition(index, operation)
  }
}

const asked = JSON.parse(readFileSync(0, 'utf8'))
const answers = asked.map(([type, verb, ...operands]) => verbs[type][verb](...operands))
process.stdout.write(JSON.stringify(answers))
