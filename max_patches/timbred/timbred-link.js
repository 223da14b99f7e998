"use strict";
// Runs in Node for Max, a separate process, so that Max and Live never wait for the network. It needs Node only.
// Messages in: every request of timbred's protocol; `request TAG generate ...`, whose answers carry TAG; `host`, `port`;
// `check TAG PATH`. Out: every event, and `link`, `file`, `alive`.

const crypto = require("crypto");
const dgram = require("dgram");
const fs = require("fs");
const max = require("max-api");

const osc = require("./timbred-osc.js");
const vocabulary = require("./timbred-vocabulary.js");
const { Conversation } = require("./timbred-conversation.js");

const TICK = 100;
const ALIVE_EVERY = 1000;
const LOOK_AGAIN_AFTER = 2000;
const GONE = new Set(["ECONNREFUSED", "ECONNRESET"]);

const place = { host: "127.0.0.1", port: vocabulary.port };
let socket = null;
let newest = null;
let conversation = null;

function tell(name, ...values) {
  max.outlet(name, ...values);
}

/** Send a message; without a socket it is lost, as on UDP, and the request is repeated. */
function send(address, values) {
  const through = socket;
  if (through) through.send(osc.encode(address, values), (error) => error && through === socket && trouble(error));
}

function trouble(error) {
  if (GONE.has(error.code)) conversation.refused();
  else tell("link", 0, `${place.host}:${place.port} can't be reached: ${error.message}`);
}

function receive(packet) {
  let message;
  try {
    message = osc.decode(packet);
  } catch (error) {
    max.post(`timbred: an answer can't be read: ${error.message}`, max.POST_LEVELS.WARN);
    return;
  }
  conversation.receive(message, Date.now());
}

/** Open a new socket for the current address, on a free port, so that any number of devices can run. */
function connect() {
  if (socket) socket.close();
  socket = null;
  const created = dgram.createSocket("udp4");
  newest = created;
  created.on("message", (packet) => created === socket && receive(packet));
  created.on("error", (error) => created === socket && trouble(error));
  created.connect(place.port, place.host, (error) => {
    if (created !== newest || error) created.close();
    if (created !== newest) return;
    if (error) return lookAgain(error);
    socket = created;
    begin();
  });
}

/** Retry a host name that can't be resolved. */
function lookAgain(error) {
  trouble(error);
  const tried = newest;
  setTimeout(() => tried === newest && connect(), LOOK_AGAIN_AFTER);
}

function begin() {
  const where = `${place.host}:${place.port}`;
  if (!conversation) {
    const session = "max-" + crypto.randomBytes(4).toString("hex");
    conversation = new Conversation(send, tell, session, "Max", where, Date.now());
    tell("ready");
  } else {
    conversation.place = where;
    conversation.begin(Date.now());
  }
}

/** Send a request. Max passes a prompt as one or several atoms. */
function request(tag, name, ...values) {
  const entry = vocabulary.requests[name];
  if (!entry) return tell("fail", tag, "bad-request", `there is no request ${name}`);
  const invalid = values.find((value) => typeof value !== "string" && !Number.isFinite(value));
  if (invalid !== undefined) return tell("fail", tag, "bad-request", `${name}: got ${invalid}, allowed are text and numbers`);
  if (name === "cancel") return conversation.cancel(values.length ? values[0] : tag);
  if (entry.id) return conversation.request(tag, name, values, Date.now());
  if (entry.family) return conversation.say([name, values[0]].join("/"), values.slice(1));
  conversation.say(name, values);
}

let count = 0;
const handlers = {
  request,
  host: (host) => { place.host = String(host); connect(); },
  port: (port) => {
    if (!Number.isInteger(port) || port < 1 || port > 65535) return tell("fail", "port", "bad-request", `port: got ${port}, allowed is 1 to 65535`);
    if (port !== place.port) { place.port = port; connect(); }
  },
  check: (tag, path) => fs.access(String(path), fs.constants.R_OK, (error) => tell("file", tag, error ? 0 : 1, path)),
};
for (const name of Object.keys(vocabulary.requests)) {
  handlers[name] = (...values) => request(vocabulary.requests[name].id ? ++count : name, name, ...values);
}

const early = [];
for (const [name, handler] of Object.entries(handlers)) {
  max.addHandler(name, (...values) => (conversation || name === "port" || name === "host" ? handler(...values) : early.push([handler, values])));
}

connect();
setInterval(() => {
  if (!conversation) return;
  while (early.length) {
    const [handler, values] = early.shift();
    handler(...values);
  }
  conversation.tick(Date.now());
}, TICK);
setInterval(() => tell("alive"), ALIVE_EVERY);
