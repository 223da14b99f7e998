"use strict";
// Max's objects, as far as the patches lean on them. A message is a list; one that begins with a word is that message,
// ["bang"] a bang. `out(outlet, list)` sends on, `seen(list)` records what an object that ends a chain was told.

const fs = require("fs");

const isBang = (list) => list.length === 1 && list[0] === "bang";

/** What Max makes of a text in a message box or after an object's name. */
function atoms(text) {
  return text.split(/\s+/).filter(Boolean).map((word) => (/^-?\d+(\.\d*)?$/.test(word) ? Number(word) : word));
}

class Thing {
  constructor(box, stage) {
    this.box = box;
    this.stage = stage;
    this.arguments = atoms(box.text || "").slice(1);
    const attributes = this.arguments.findIndex((word) => String(word).startsWith("@"));
    if (attributes >= 0) this.arguments = this.arguments.slice(0, attributes);
  }

  out(outlet, list) {
    this.stage.emit(this.box.id, outlet, list);
  }

  seen(list) {
    this.stage.record({ box: this.box.id, name: this.box.name, message: list });
  }

  /** Objects whose doing isn't played here: they say what they were told. */
  receive(inlet, list) {
    this.seen(inlet ? [`inlet ${inlet}`, ...list] : list);
  }

  /** What Live stores; undefined where nothing. */
  get stored() {
    return undefined;
  }

  load() {}
  close() {}
}

class Prepend extends Thing {
  receive(_, list) {
    this.out(0, [...this.arguments, ...list]);
  }
}

class Route extends Thing {
  receive(_, list) {
    const index = this.arguments.findIndex((word) => word === list[0]);
    if (index < 0) return this.out(this.arguments.length, list);
    this.out(index, list.length > 1 ? list.slice(1) : ["bang"]);
  }
}

class Trigger extends Thing {
  receive(_, list) {
    for (let index = this.arguments.length - 1; index >= 0; index--) {
      this.out(index, this.arguments[index] === "b" ? ["bang"] : list);
    }
  }
}

class Unpack extends Thing {
  receive(_, list) {
    for (let index = Math.min(list.length, this.arguments.length) - 1; index >= 0; index--) {
      const number = typeof this.arguments[index] === "number";
      if (number && typeof list[index] !== "number") throw new Error(`unpack: no number: ${list[index]}`);
      this.out(index, [list[index]]);
    }
  }
}

class Sprintf extends Thing {
  receive(_, list) {
    const words = this.arguments.map((word) => String(word).replace("%ld", list[0]).replace("---", "042"));
    this.out(0, words);
  }
}

class Delay extends Thing {
  receive(_, list) {
    clearTimeout(this.timer);
    const wait = typeof list[0] === "number" ? list[0] : this.arguments[0];
    this.timer = setTimeout(() => this.stage.event(() => this.out(0, ["bang"])), wait);
  }

  close() {
    clearTimeout(this.timer);
  }
}

class Message extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.text = box.text;
  }

  receive(inlet, list) {
    if (inlet === 1) {
      this.text = list.join(" ");
      return;
    }
    if (this.text.startsWith(";")) {
      return this.seen([...atoms(this.text.slice(1).replace("$1", "\u0001")).map((word) => (word === "\u0001" ? list[0] : word))]);
    }
    for (const part of this.text.split(",")) {
      this.out(0, atoms(part).map((word) => (/^\$\d$/.test(word) ? list[Number(word[1]) - 1] : word)));
    }
  }
}

class Pattr extends Thing {
  receive(_, list) {
    this.value = list;
    this.out(0, list);
  }

  get stored() {
    return this.value;
  }

  restore(value) {
    this.value = value;
  }

  load() {
    if (this.value) this.out(0, this.value);
  }
}

/** live.dial, live.numbox, live.menu, live.tab, live.text that stays down: a number that Live stores. */
class Knob extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.kept = box.saved_attribute_attributes.valueof;
    this.value = (this.kept.parameter_initial || [0])[0];
  }

  receive(_, list) {
    if (list[0] === "set") {
      this.value = list[1];
      this.seen(list);
    } else {
      this.value = list[0];
      this.load();
    }
  }

  get stored() {
    return this.value;
  }

  restore(value) {
    this.value = value;
  }

  load() {
    const words = this.kept.parameter_enum;
    if (words) this.out(1, [words[this.value]]);
    this.out(0, [this.value]);
  }
}

class Text extends Knob {
  click() {
    if (this.box.mode === 0) this.out(0, ["bang"]);
    else this.receive(0, [this.value ? 0 : 1]);
  }

  load() {
    if (this.box.mode === 1) super.load();
  }
}

class TextEdit extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.words = "";
  }

  receive(_, list) {
    if (isBang(list)) return this.out(0, this.words ? ["text", this.words] : ["text"]);
    if (list[0] !== "set") throw new Error(`textedit: ${list}`);
    this.words = list.slice(1).join(" ");
    this.seen(list);
  }

  /** What the performer types, without Return. */
  type(words) {
    this.words = words;
    this.out(3, ["textchanged"]);
  }
}

class Number_ extends Thing {
  receive(_, list) {
    if (list[0] === "set") return this.seen(list);
    this.out(0, list);
  }
}

class Menu extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.items = [];
  }

  receive(_, list) {
    if (list[0] === "clear") this.items = [];
    if (list[0] === "append") this.items.push(list.slice(1).join(" "));
    this.seen(list);
  }

  choose(index) {
    this.out(1, [this.items[index]]);
    this.out(0, [index]);
  }
}

class Drop extends Thing {
  receive(_, list) {
    this.value = undefined;
    this.seen(list);
  }

  drop(file) {
    this.value = file;
    this.out(0, [file]);
  }

  get stored() {
    return this.value;
  }

  restore(value) {
    this.value = value;
  }

  load() {
    if (this.value) this.out(0, [this.value]);
  }
}

class Buffer_ extends Thing {
  receive(_, list) {
    this.seen(list);
    const [what, file] = list;
    if (what !== "replace") throw new Error(`buffer~: ${list}`);
    setImmediate(() => this.stage.event(() => this.read(file)));
  }

  read(file) {
    if (!fs.existsSync(file)) return this.stage.record({ console: "error", text: `buffer~: can't find file ${file}` });
    if (fs.readFileSync(file).toString("latin1", 0, 4) !== "RIFF") throw new Error(`${file} is no WAV`);
    this.out(1, ["bang"]);
  }
}

class MidiParse extends Thing {
  receive(_, list) {
    if (list.length !== 3) throw new Error("midiparse: three bytes at a time here");
    this.out(0, list.slice(1));
  }
}

class Through extends Thing {
  receive(_, list) {
    this.out(0, list);
  }
}

class LoadBang extends Thing {
  load() {
    this.out(0, ["bang"]);
  }
}

class State extends Thing {
  receive() {
    this.out(1, [this.stage.rate]);
  }
}

class Print extends Thing {
  receive(_, list) {
    this.stage.record({ console: "print", text: [this.arguments[0], ...list].join(" ") });
  }
}

class Inlet extends Thing {
  receive(_, list) {
    this.out(0, list);
  }
}

/** A number kept until it is asked for. */
class Kept extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.value = this.arguments[0] || 0;
  }

  receive(inlet, list) {
    if (!isBang(list)) this.value = list[0];
    if (inlet === 0) this.out(0, [this.value]);
  }
}

/** Two numbers into one; the right one is kept. */
class Sum extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.right = this.arguments[0];
    this.result = {
      "+": (a, b) => a + b, "-": (a, b) => a - b, "/": (a, b) => a / b, "==": (a, b) => Number(a === b), "maximum": Math.max,
    }[box.name];
  }

  receive(inlet, list) {
    if (inlet === 1) this.right = list[0];
    else this.out(0, [this.result(list[0], this.right)]);
  }
}

class Expression extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.result = new Function("f1", "exp", "return " + box.text.replace(/^expr /, "").replace(/\$f1/g, "f1"));
  }

  receive(_, list) {
    this.out(0, [this.result(list[0], Math.exp)]);
  }
}

class Select extends Thing {
  receive(_, list) {
    const index = this.arguments.indexOf(list[0]);
    if (index >= 0) this.out(index, ["bang"]);
    else this.out(this.arguments.length, list);
  }
}

class Reverse extends Thing {
  receive(_, list) {
    if (this.arguments[0] !== "rev") throw new Error(`zl: ${this.arguments}`);
    this.out(0, [...list].reverse());
  }
}

class Gate extends Thing {
  constructor(box, stage) {
    super(box, stage);
    this.open = Boolean(this.arguments[1]);
  }

  receive(inlet, list) {
    if (inlet === 0) this.open = Boolean(list[0]);
    else if (this.open) this.out(0, list);
  }
}

exports.Thing = Thing;
exports.atoms = atoms;
exports.KINDS = {
  "prepend": Prepend, "route": Route, "t": Trigger, "unpack": Unpack, "sprintf": Sprintf, "delay": Delay,
  "message": Message, "pattr": Pattr, "live.dial": Knob, "live.numbox": Knob, "live.menu": Knob, "live.tab": Knob,
  "live.text": Text, "textedit": TextEdit, "number": Number_, "umenu": Menu, "live.drop": Drop, "buffer~": Buffer_,
  "midiin": Through, "deferlow": Through, "midiparse": MidiParse, "loadbang": LoadBang, "dspstate~": State, "print": Print, "inlet": Inlet,
  "f": Kept, "+": Sum, "-": Sum, "/": Sum, "==": Sum, "maximum": Sum, "expr": Expression, "sel": Select, "zl": Reverse,
  "gate": Gate, "in": Through,
};
