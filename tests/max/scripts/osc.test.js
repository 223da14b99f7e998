"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const path = require("node:path");
const { encode, decode } = require(path.join(process.env.TIMBRED_SCRIPTS, "timbred-osc.js"));

test("a message as OSC 1.0 has it", () => {
  const bytes = encode("/timbred/ping", ["ab", 1, 0.5, true]);
  assert.equal(bytes.toString("latin1"), "/timbred/ping\0\0\0,sidT\0\0\0ab\0\0\0\0\0\x01?\xe0\0\0\0\0\0\0");
  assert.equal(bytes.length % 4, 0);
});

test("text beyond ASCII, and a text that fills its four bytes", () => {
  for (const text of ["grün", "日本", "abcd", "", "a b,c;d\\e"]) assert.deepEqual(decode(encode("/x", [text])).values, [text]);
});

test("whole numbers that OSC's i can't hold go as d", () => {
  assert.deepEqual(decode(encode("/x", [2147483647, 2147483648, -2147483647])).values, [2147483647, 2147483648, -2147483647]);
});

test("all kinds are read", () => {
  const bytes = Buffer.concat([Buffer.from("/x\0\0,ihfdsTFNIb\0"), Buffer.from([0, 0, 0, 7]), Buffer.from([0, 0, 0, 0, 0, 0, 0, 8]),
    Buffer.from([0x3f, 0, 0, 0]), Buffer.from([0x3f, 0xe0, 0, 0, 0, 0, 0, 0]), Buffer.from("s\0\0\0"), Buffer.from([0, 0, 0, 1, 9, 0, 0, 0])]);
  assert.deepEqual(decode(bytes).values, [7, 8, 0.5, 0.5, "s", true, false, null, null, Buffer.from([9])]);
});

test("what is no message says why", () => {
  assert.throws(() => decode(Buffer.from("#bundle\0")), /not an OSC message/);
  assert.throws(() => decode(Buffer.from("/x\0\0")), /terminated/);
  assert.throws(() => decode(Buffer.from("/x\0\0,i\0\0\0\0")), /middle of a value/);
  assert.throws(() => decode(Buffer.from("/x\0\0,q\0\0")), /unknown type tag "q"/);
  assert.throws(() => decode(Buffer.from("/x\0\0abc\0")), /no type tags/);
  assert.throws(() => decode(Buffer.alloc(0)), /terminated/);
  assert.throws(() => encode("/x", [NaN]), /no number/);
});
