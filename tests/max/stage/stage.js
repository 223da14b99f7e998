"use strict";
// Plays a generated patch: its objects, its cords in Max's order, its scripts. Orders come as lines of JSON, one each;
// what happens goes out as lines of JSON.
//   node stage.js FOLDER PATCH.json SETTINGS.json

const { fork } = require("child_process");
const fs = require("fs");
const path = require("path");
const readline = require("readline");

const { KINDS, Thing, atoms } = require("./objects.js");
const { Live } = require("./live.js");
const script = require("./script.js");

const [folder, patchFile, settingsFile] = process.argv.slice(2);

/** A patch of the folder as an object in another: messages go in by its inlets and out by its outlets. */
class Abstraction extends Thing {
  constructor(box, stage) {
    super(box, stage);
    const { patcher } = JSON.parse(fs.readFileSync(path.join(folder, `${box.name}.maxpat`), "utf8"));
    this.inner = new Stage(patcher, { rate: stage.rate });
    const ports = (name) => [...this.inner.things.values()].filter((thing) => thing.box.name === name)
      .sort((a, b) => a.box.patching_rect[0] - b.box.patching_rect[0]);
    this.inlets = ports("inlet");
    ports("outlet").forEach((port, index) => { port.seen = (list) => this.out(index, list); });
  }

  receive(inlet, list) {
    this.inlets[inlet].receive(0, list);
  }

  load() {
    this.inner.load();
  }

  close() {
    this.inner.close();
  }
}

class Stage {
  constructor(patcher, settings) {
    this.rate = settings.rate;
    this.live = settings.live ? new Live(settings.live, (what) => this.record(what)) : null;
    this.things = new Map();
    this.cords = new Map();
    for (const { box } of patcher.boxes) this.add(box);
    for (const { patchline } of patcher.lines) this.connect(patchline);
    for (const cords of this.cords.values()) cords.sort((a, b) => this.order(a) - this.order(b));
    for (const [id, value] of Object.entries(settings.stored || {})) this.things.get(id).restore(value);
  }

  add(box) {
    box.name = box.maxclass === "newobj" ? box.text.split(" ")[0] : box.maxclass;
    const Kind = { ...KINDS, js: Js, "node.script": NodeScript, timbred: Abstraction }[box.name] || Thing;
    this.things.set(box.id, new Kind(box, this));
  }

  connect({ source: [from, outlet], destination: [to, inlet] }) {
    const key = `${from} ${outlet}`;
    if (!this.cords.has(key)) this.cords.set(key, []);
    this.cords.get(key).push({ to, inlet });
  }

  /** Max sends from one outlet to the right first, and lower ones before higher ones. */
  order({ to }) {
    const [x, y] = this.things.get(to).box.patching_rect;
    return -x * 1e6 - y;
  }

  emit(id, outlet, list) {
    for (const { to, inlet } of this.cords.get(`${id} ${outlet}`) || []) this.things.get(to).receive(inlet, list);
  }

  /** Something that Max does by itself, later. */
  event(run) {
    try {
      run();
    } catch (error) {
      this.record({ fault: error.stack });
    }
  }

  record(what) {
    process.stdout.write(JSON.stringify(what) + "\n");
  }

  /** As Live does: what is stored goes out of the objects, then live.thisdevice says that the device is there. */
  load() {
    for (const thing of this.things.values()) thing.load();
    if (this.live) this.live.loaded = true;
    for (const thing of this.things.values()) if (thing.box.name === "live.thisdevice") thing.out(0, ["bang"]);
  }

  stored() {
    const found = {};
    for (const [id, thing] of this.things) if (thing.stored !== undefined) found[id] = thing.stored;
    return found;
  }

  close() {
    for (const thing of this.things.values()) thing.close();
  }

  /** One order from outside. */
  obey({ order, box, value }) {
    const thing = this.things.get(box);
    switch (order) {
      case "click": return thing.click();
      case "type": return thing.type(value);
      case "return": thing.type(value); return thing.receive(0, ["bang"]);
      case "turn": return thing.receive(0, [value]);
      case "choose": return thing.choose(value);
      case "drop": return thing.drop(value);
      case "send": return thing.receive(0, value);
      case "midi": return thing.receive(0, value);
      case "live": return this.live.change(value[0], value[1]);
      case "kill": return thing.child.kill("SIGKILL");
      case "stored": return this.record({ stored: this.stored() });
      default: throw new Error(`no order ${order}`);
    }
  }
}

class Js extends Thing {
  constructor(box, stage) {
    super(box, stage);
    const [file, ...given] = atoms(box.text).slice(1);
    this.script = script.start(folder, file, given, {
      outlet: (number, list) => this.out(number, list.length ? list : ["bang"]),
      post: (text) => stage.record({ console: "post", text: text.trim() }),
      error: (text) => stage.record({ console: "error", text: text.trim() }),
      LiveAPI: stage.live && stage.live.api(),
    });
    if (this.script.outlets !== box.numoutlets) throw new Error(`js has ${this.script.outlets} outlets, its box ${box.numoutlets}`);
  }

  receive(_, list) {
    this.script.receive(list);
  }

  close() {
    this.script.close();
  }
}

class NodeScript extends Thing {
  load() {
    const modules = path.join(__dirname, "modules");
    this.child = fork(path.join(folder, this.arguments[0]), { env: { ...process.env, NODE_PATH: modules }, stdio: ["ignore", "ignore", "inherit", "ipc"] });
    this.child.on("message", ({ outlet, post, level }) => this.stage.event(() => {
      if (outlet) this.out(0, outlet);
      else this.stage.record({ console: level, text: post });
    }));
    this.child.on("exit", (code, signal) => { this.child = null; this.stage.record({ node: "ended", code, signal }); });
  }

  receive(_, list) {
    if (list.join(" ") === "script start") return this.child || this.load();
    if (!this.child) return this.stage.record({ console: "error", text: `node.script isn't running: ${list.join(" ")}` });
    this.child.send(list);
  }

  close() {
    if (this.child) this.child.kill();
  }
}

const stage = new Stage(JSON.parse(fs.readFileSync(patchFile, "utf8")).patcher, JSON.parse(fs.readFileSync(settingsFile, "utf8")));
stage.load();
stage.record({ stage: "loaded" });
const orders = readline.createInterface({ input: process.stdin });
orders.on("line", (line) => stage.event(() => stage.obey(JSON.parse(line))));
orders.on("close", () => {
  stage.close();
  process.exit(0);
});
