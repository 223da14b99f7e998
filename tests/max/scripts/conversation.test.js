"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const path = require("node:path");
const { Conversation, AWAY_AFTER, ASK_AGAIN_AFTER, GIVE_UP_AFTER } = require(path.join(process.env.TIMBRED_SCRIPTS, "timbred-conversation.js"));

/** A conversation whose wire, patch and clock are lists. */
function stage() {
  const made = { sent: [], told: [], now: 1000 };
  const names = (address) => address.replace("/timbred/", "");
  made.talk = new Conversation((address, values) => made.sent.push([names(address), ...values]), (...list) => made.told.push(list), "max-1", "Max", "127.0.0.1:7770", made.now);
  made.hear = (name, ...values) => made.talk.receive({ address: "/timbred/" + name, values }, made.now);
  made.pass = (milliseconds) => {
    for (const end = made.now + milliseconds; made.now < end;) made.talk.tick(made.now += 100);
  };
  made.flush = () => [made.sent.splice(0), made.told.splice(0)];
  return made;
}

test("it knocks at once, and introduces itself when it is heard", () => {
  const one = stage();
  assert.deepEqual(one.flush(), [[["ping"]], []]);
  one.hear("pong");
  assert.deepEqual(one.flush(), [[["hello", "Max"]], []]);
  one.hear("welcome", "udp:1", "0.1.0", 7773);
  assert.deepEqual(one.flush(), [[], [["link", 1, "0.1.0"]]]);
});

test("silence is told once, before two seconds are over, with where it knocked", () => {
  assert.ok(AWAY_AFTER < 2000);
  const one = stage();
  one.pass(5000);
  assert.equal(one.told.length, 1);
  assert.deepEqual(one.told[0].slice(0, 2), ["link", 0]);
  assert.match(one.told[0][2], /127\.0\.0\.1:7770.*timbred serve/);
  assert.ok(one.sent.filter(([name]) => name === "ping").length >= 10, "it goes on knocking");
});

test("a refusal is told at once and ends what is under way", () => {
  const one = stage();
  one.hear("pong");
  one.talk.request("pad", "generate", ["warm pad"], one.now);
  one.flush();
  one.talk.refused();
  assert.deepEqual(one.told.map((list) => list.slice(0, 3)), [["link", 0, one.talk.absent()], ["fail", "pad", "timeout"]]);
});

test("answers come under the tag that was asked with; ids are never used twice", () => {
  const one = stage();
  one.hear("pong");
  one.flush();
  const ids = [one.talk.request("a", "generate", ["pad", "@steps", 2], one.now), one.talk.request("a", "vary", ["T1"], one.now)];
  assert.equal(new Set(ids).size, 2);
  assert.deepEqual(one.flush()[0], [["generate", ids[0], "pad", "@steps", 2], ["vary", ids[1], "T1"]]);
  one.hear("queued", ids[1], 0, 1.5);
  one.hear("fail", ids[0], "busy", "later");
  one.hear("done", ids[1], 1, "/x.wav");
  assert.deepEqual(one.told, [["queued", "a", 0, 1.5], ["fail", "a", "busy", "later"], ["done", "a", 1, "/x.wav"]]);
});

test("what UDP lost is asked for again under the same id, and no take is told twice", () => {
  const one = stage();
  one.hear("pong");
  const id = one.talk.request("a", "generate", ["pad"], one.now);
  one.hear("take", id, 0, "/x.wav", 1, 48000, 1, 7, 0, "T1");
  one.flush();
  for (let passed = 0; passed < ASK_AGAIN_AFTER; passed += 400) {
    one.pass(400);
    one.hear("pong");
  }
  assert.deepEqual(one.sent.filter(([name]) => name === "generate"), [["generate", id, "pad"]]);
  one.hear("take", id, 0, "/x.wav", 1, 48000, 1, 7, 0, "T1");
  one.hear("done", id, 1, "/x.wav");
  one.hear("done", id, 1, "/x.wav");
  assert.deepEqual(one.told.filter(([name]) => name !== "link").map(([name]) => name), ["done"]);
});

test("after long silence a request is given up, and what comes too late is nobody's", () => {
  const one = stage();
  one.hear("pong");
  const id = one.talk.request("a", "generate", ["pad"], one.now);
  one.pass(GIVE_UP_AFTER);
  assert.deepEqual(one.told.map((list) => list.slice(0, 3)), [["link", 0, one.talk.absent()], ["fail", "a", "timeout"]]);
  one.flush();
  one.talk.request("b", "generate", ["pad"], one.now);
  assert.deepEqual(one.flush()[1].map((list) => list.slice(0, 3)), [["fail", "b", "timeout"]], "while it is away nothing waits");
  one.hear("done", id, 1, "/x.wav");
  assert.deepEqual(one.told, []);
  assert.deepEqual(one.sent, [["hello", "Max"]], "it is there again");
});

test("a silence that ends in time goes on where it was", () => {
  const one = stage();
  one.hear("pong");
  const id = one.talk.request("a", "generate", ["pad"], one.now);
  one.pass(GIVE_UP_AFTER / 2);
  one.flush();
  one.hear("pong");
  assert.deepEqual(one.flush()[0], [["hello", "Max"], ["generate", id, "pad"]]);
  one.hear("done", id, 1, "/x.wav");
  assert.deepEqual(one.told, [["done", "a", 1, "/x.wav"]]);
});

test("cancel means what runs under the tag", () => {
  const one = stage();
  one.hear("pong");
  const ids = ["a", "b"].map((tag) => one.talk.request(tag, "generate", ["pad"], one.now));
  one.flush();
  one.talk.cancel("b");
  one.talk.cancel("*");
  one.talk.cancel("c");
  assert.deepEqual(one.flush(), [[["cancel", ids[1]], ["cancel", ids[0]], ["cancel", ids[1]]], [["fail", "c", "bad-request", "cancel: no running request has that name"]]]);
});

test("other addresses are let go", () => {
  const one = stage();
  one.flush();
  one.talk.receive({ address: "/other", values: [] }, one.now);
  assert.deepEqual(one.flush(), [[], []]);
});
