"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const path = require("node:path");
const takes = require(path.join(process.env.TIMBRED_SCRIPTS, "timbred-takes.js"));
const { Buffers } = require(path.join(process.env.TIMBRED_SCRIPTS, "timbred-buffers.js"));

const TAKE = { prompt: "a, b; \"c\" \\d $1 %20 ü", path: "C:\\Users\\ü b\\x.wav", seconds: 1.5, seed: 7, takeId: "T1", loop: true };

test("the state comes back as it was, from symbols that go through Max unharmed", () => {
  const state = takes.empty(8);
  state.slots[3] = { prompt: TAKE.prompt, takes: [TAKE], current: 0, seed: 2147483647 };
  Object.assign(state, { history: [TAKE], keys: "@negative low, hiss", model: "my model", port: 7780, start: "/x y.wav" });
  const list = takes.pack(state);
  assert.ok(Number.isInteger(list[0]), "a list, not a message");
  for (const atom of list) if (typeof atom === "string") assert.match(atom, /^[\w%.!~*'()-]+$/);
  assert.deepEqual(takes.unpack(list, 8), state);
});

test("what is no state is no state", () => {
  for (const list of [[], ["bang"], [2, "x", 1, "y"], [1, "%", 1, "%"], [1, "%7B%7D", 4, "%7B%7D"], [0]]) assert.equal(takes.unpack(list, 1), null);
});

test("the history has each take once, newest first, and an end", () => {
  let history = [];
  for (let number = 0; number < 40; number++) history = takes.remember(history, { takeId: number % 30 });
  assert.equal(history.length, 24);
  assert.deepEqual(history.slice(0, 3).map((take) => take.takeId), [9, 8, 7]);
});

test("a state of full length stays within what a list and its symbols may have", () => {
  const state = takes.empty(8);
  const long = { ...TAKE, prompt: "ü".repeat(200), path: "/" + "ü".repeat(250) };
  for (const slot of state.slots) slot.takes = Array(16).fill(long);
  state.history = Array(24).fill(long);
  const list = takes.pack(state);
  assert.ok(list.length < 256);
  for (const atom of list) assert.ok(String(atom).length < 32768, String(String(atom).length));
});

test("paths as Max has them and as the system has them", () => {
  assert.equal(takes.maxPath("C:\\a b\\c.wav"), "C:/a b/c.wav");
  assert.equal(takes.systemPath("Macintosh HD:/Users/me/c.wav"), "/Volumes/Macintosh HD/Users/me/c.wav");
  assert.equal(takes.systemPath("C:/a/c.wav"), "C:/a/c.wav");
  assert.equal(takes.systemPath("/home/me/c.wav"), "/home/me/c.wav");
  assert.equal(takes.fileName("C:\\a b\\c.wav"), "c.wav");
});

test("a file is read once, and never over one that is needed", () => {
  const buffers = new Buffers(3);
  const claim = (file, ...needed) => buffers.claim(file, needed);
  assert.deepEqual(claim("a"), { number: 1, fresh: true });
  assert.deepEqual(claim("b"), { number: 2, fresh: true });
  assert.deepEqual(claim("a"), { number: 1, fresh: false });
  assert.deepEqual(claim("c"), { number: 3, fresh: true });
  assert.deepEqual(claim("d", "b"), { number: 1, fresh: true }, "b was used longest ago, but is needed");
  assert.deepEqual(claim("e", "b", "d"), { number: 3, fresh: true });
  assert.deepEqual(claim("b"), { number: 2, fresh: false });
});
