// The state of a device: turns its buttons and knobs into requests, and answers into display and playback. ES5, for
// Max's js object. It accesses Max only through `host`:
//   link(list)            a message to the node.script that communicates with timbred
//   show(list)            a message to the device's user interface
//   keep(list)            the state to store with the Live set
//   play(list)            a message to the sampler: fill N PATH, use SLOT N MILLISECONDS
//   post(text), warn(text)  Max's console
//   open(folder)          open a folder in the file manager
//   LiveAPI               the constructor, or null where there is no Live

var vocabulary = require("timbred-vocabulary");
var takes = require("timbred-takes");
var Buffers = require("timbred-buffers").Buffers;
var Song = require("timbred-song").Song;
var Clips = require("timbred-clips").Clips;

var BUFFERS = 16;
var LARGEST_SEED = vocabulary.keys.seed.high;
var SILENT_FOR = 10000;
var OWN_MODEL = "default";
var OWN_SCHEDULER = "its own";
var WORD_HEAD = "add a word";
var TARGETS = ["free", "selected", "arrangement"];

/** Differences between the devices: number of slots, whether all takes are loaded at once, unit of length. */
var KINDS = {
    instrument: { slots: 1, together: true, length: "seconds" },
    clip: { slots: 1, together: true, length: "bars" },
    drum: { slots: 8, together: false, length: "seconds" }
};

function Desk(kind, host, now) {
    if (!KINDS[kind]) throw new Error("there is no device " + kind + "; there are " + Object.keys(KINDS).join(", "));
    this.kind = KINDS[kind];
    this.host = host;
    this.buffers = new Buffers(BUFFERS);
    this.knobs = {};
    this.running = [];
    this.touched = 0;
    this.count = 0;
    this.linked = false;
    this.ready = false;
    this.waiting = [];
    this.kept = "";
    this.aliveAt = now;
    this.song = null;
    this.clips = null;
    this.reading = {};
    this.models = [];
    this.knownWords = [];
    this.lastFault = "";
    this.warned = "";
    this.state = takes.empty(this.kind.slots);
    this.state.port = vocabulary.port;
}

/** Handle a message from the patch: a command, or `event` followed by a message of timbred's link. */
Desk.prototype.receive = function (name, list, now) {
    var isEvent = name === "event";
    var table = isEvent ? EVENTS : COMMANDS;
    var word = isEvent ? list[0] : name;
    if (Object.prototype.hasOwnProperty.call(table, word)) table[word].call(this, isEvent ? list.slice(1) : list, now);
    else if (!isEvent) this.host.warn("there is no message " + word);
};

// ---- commands

var COMMANDS = {
    /** The device is loaded, and the Live API can be used. */
    loaded: function () {
        if (this.host.LiveAPI) {
            var desk = this;
            this.song = new Song(this.host.LiveAPI, function () { desk.showSong(); });
            this.clips = new Clips(this.host.LiveAPI);
        }
        this.showAll();
    },
    prompt: function (list) {
        var slot = this.slot(list[0]);
        var words = typedWords(list.slice(1));
        if (slot.prompt === words) return;
        slot.prompt = words;
        this.keep();
    },
    generate: function (list) {
        var index = this.touch(list[0]);
        this.typed();
        var words = this.words(this.slot(index).prompt);
        if (!words) return this.tell("enter a prompt, then press Generate");
        this.start(index, ["generate", words], this.keys(index));
    },
    /** All pads with a prompt. */
    all: function () {
        var desk = this;
        this.typed();
        this.state.slots.forEach(function (slot, index) {
            if (slot.prompt) COMMANDS.generate.call(desk, [index]);
        });
    },
    more: function (list) {
        var index = this.touch(list[0]);
        this.typed();
        var take = takes.current(this.slot(index));
        if (!take) return this.tell("there is no take to vary yet: press Generate first");
        this.start(index, ["vary", take.takeId], this.keysLike(index, take));
    },
    cancel: function (list) {
        var desk = this;
        this.state.slots.forEach(function (_, index) {
            if (list.length && list[0] !== index) return;
            if (desk.running[index]) desk.ask(["cancel", desk.running[index].tag]);
        });
    },
    /** Take number `list[1]` of a slot, counted from 0. */
    choose: function (list) {
        var index = this.touch(list[0]);
        if (list[1] !== this.slot(index).current) this.select(index, list[1]);
    },
    /** Move by this number of takes, with wrap-around. */
    step: function (list) {
        var slot = this.slot(this.touch(list[0]));
        var count = slot.takes.length;
        if (count) this.select(list[0], (slot.current + list[1] + count) % count);
    },
    seed: function (list) {
        this.slot(list[0]).seed = Math.max(0, Math.min(LARGEST_SEED, Math.round(list[1])));
        this.keep();
    },
    keys: function (list) {
        var keys = typedWords(list);
        if (this.state.keys === keys) return;
        this.state.keys = keys;
        this.keep();
    },
    model: function (list) {
        this.state.model = list.join(" ") === OWN_MODEL ? "" : list.join(" ");
        this.keep();
        if (this.linked) this.askWords();
    },
    /** A word from the menu, added to the prompt of the slot that was used last. */
    word: function (list) {
        var word = list.join(" ");
        if (word === WORD_HEAD) return;
        this.typed();
        var slot = this.slot(this.touched);
        slot.prompt = (slot.prompt + " " + word).replace(/^\s+/, "");
        this.host.show(["prompt", this.touched, slot.prompt]);
        this.host.show(["words", "set", 0]);
        this.keep();
    },
    port: function (list) {
        if (this.state.port === list[0]) return;
        this.state.port = list[0];
        this.keep();
        this.ask(["port", list[0]]);
    },
    /** A number, or the text of a menu item, in one or several atoms. */
    knob: function (list) { this.knobs[list[0]] = list.length > 2 ? list.slice(1).join(" ") : list[1]; },
    /** Restore an earlier take by its index in the menu. */
    recall: function (list) {
        var take = this.state.history[list[0]];
        if (!take) return;
        var slot = this.slot(this.touched);
        slot.prompt = take.prompt;
        slot.takes = [take];
        this.host.show(["prompt", this.touched, slot.prompt]);
        this.select(this.touched, 0);
        this.check(take);
    },
    /** Set the init audio that was dropped on the device; without a path, remove it. */
    drop: function (list) {
        this.state.start = list.length ? takes.systemPath(list[0]) : "";
        this.showStart();
        this.keep();
    },
    clip: function (list) { this.write(takes.current(this.slot(list[0] || 0))); },
    folder: function (list) {
        var take = takes.current(this.slot(list.length ? list[0] : this.touched));
        if (!take) return this.tell("there is no file yet: press Generate first");
        this.host.open(takes.maxPath(take.path).replace(/\/[^\/]*$/, ""));
        this.tell("drag " + takes.fileName(take.path) + " from the folder into Live");
    },
    /** Restore the state from pattr, at loading and after each change of it. */
    restore: function (list) {
        if (list.join(" ") === this.kept) return;
        var state = takes.unpack(list, this.kind.slots);
        if (!state) return;
        this.state = state;
        this.state.port = state.port || vocabulary.port;
        this.kept = list.join(" ");
        this.showAll();
        this.readAll();
        this.ask(["port", this.state.port]);
    },
    /** A buffer~ has read its file. */
    filled: function (list) {
        var use = this.reading[list[0]];
        delete this.reading[list[0]];
        if (use) this.use(use.slot, use.take, list[0]);
    }
};

/** The text of a text field's message, which begins with `text`. */
function typedWords(list) {
    return (list[0] === "text" ? list.slice(1) : list).join(" ");
}

Desk.prototype.slot = function (index) {
    return this.state.slots[index || 0];
};

/** Make the text fields output pending input, synchronously. */
Desk.prototype.typed = function () {
    this.host.show(["typed"]);
};

Desk.prototype.touch = function (index) {
    this.touched = index || 0;
    return this.touched;
};

// ---- requests

/** The prompt, with the Live set's key and tempo appended if enabled. */
Desk.prototype.words = function (prompt) {
    var words = String(prompt).replace(/^\s+|\s+$/g, "");
    if (!words || !this.song) return words;
    if (this.knobs["key-words"] && this.song.key()) words += " in " + this.song.key();
    if (this.knobs["tempo-words"]) words += " " + this.song.speed();
    return words;
};

/** Keys and values of a new sound. */
Desk.prototype.keys = function (index) {
    var keys = this.sharedKeys();
    if (this.knobs[this.kind.length]) keys[this.kind.length] = this.knobs[this.kind.length];
    if (keys.bars && this.song) {
        keys.bpm = this.song.tempo();
        keys.beats_per_bar = this.song.beatsPerBar();
    }
    if (this.knobs.loop) keys.loop = 1;
    if (this.knobs.lock) keys.seed = this.slot(index).seed;
    if (this.state.model) keys.model = this.state.model;
    if (this.state.start) {
        keys.init = this.state.start;
        keys.strength = this.knobs.distance;
        delete keys.loop;
    }
    return keys;
};

/** Keys and values of a variation of a take. A loop can't start from init audio without losing its seamless join, so
 * its recipe is rendered with another seed. */
Desk.prototype.keysLike = function (index, take) {
    var keys = this.sharedKeys();
    keys.seed = this.knobs.lock ? this.slot(index).seed : Math.floor(Math.random() * (LARGEST_SEED + 1));
    if (!take.loop) {
        keys.init = take.takeId;
        keys.strength = this.knobs.distance;
    }
    return keys;
};

Desk.prototype.sharedKeys = function () {
    var keys = { channels: 2 };
    if (this.knobs.takes) keys.takes = this.knobs.takes;
    if (this.knobs.steps) keys.steps = this.knobs.steps;
    if (this.knobs.scheduler && this.knobs.scheduler !== OWN_SCHEDULER) keys.scheduler = this.knobs.scheduler;
    if (this.knobs.rate) keys.rate = Math.round(this.knobs.rate);
    return keys;
};

/** Send a request; the keys in the device's keys field override its knobs. */
Desk.prototype.start = function (index, request, keys) {
    var own = this.state.keys.replace(/^\s+|\s+$/g, "");
    var extra = own ? own.split(/\s+/) : [];
    var list = [];
    for (var key in keys) {
        if (keys[key] !== undefined && extra.indexOf("@" + key) < 0) list.push("@" + key, keys[key]);
    }
    COMMANDS.cancel.call(this, [index]);
    this.lastFault = "";
    this.warned = "";
    var tag = "s" + index + "-" + ++this.count;
    var loop = keys.loop || (request[0] === "vary" && !keys.init);
    this.running[index] = { tag: tag, prompt: this.slot(index).prompt, loop: Boolean(loop), takes: [] };
    this.host.show(["progress", index, 0]);
    this.tell(this.linked ? "sent" : "connecting to timbred");
    this.ask(["request", tag].concat(request, list, extra));
};

/** Send a message to the node.script, or queue it until that has started. */
Desk.prototype.ask = function (list) {
    if (this.ready) this.host.link(list);
    else this.waiting.push(list);
};

// ---- answers

var EVENTS = {
    ready: function () {
        this.ready = true;
        if (this.state.port !== vocabulary.port) this.host.link(["port", this.state.port]);
        var waiting = this.waiting;
        this.waiting = [];
        waiting.forEach(function (list) { this.host.link(list); }, this);
    },
    alive: function (_, now) { this.aliveAt = now; },
    link: function (list) {
        this.linked = Boolean(list[0]);
        this.host.show(["link", list[0]]);
        if (!this.linked) return this.fault(list[1]);
        this.warned = "";
        this.tell("connected to timbred " + list[1]);
        this.models = [];
        this.ask(["models"]);
        this.askWords();
        this.state.slots.forEach(function (slot) { slot.takes.forEach(this.check, this); }, this);
    },
    model: function (list) {
        var fields = named("model", list);
        if (fields.state === "missing" || this.models.indexOf(fields.name) >= 0) return;
        this.models.push(fields.name);
        this.showModels();
    },
    known: function (list) {
        var fields = named("known", list);
        if (!this.knownWords.length) this.host.show(["words", "append", WORD_HEAD]);
        String(fields.words).split(", ").forEach(function (word) {
            if (this.knownWords.indexOf(word) >= 0) return;
            this.knownWords.push(word);
            this.host.show(["words", "append", word]);
        }, this);
    },
    queued: answer("queued", function (_, fields) {
        this.tell(fields.position ? "queued, " + fields.position + " before it" : "queued");
    }),
    started: answer("started", function () { this.tell("started"); }),
    progress: answer("progress", function (index, fields) {
        this.host.show(["progress", index, fields.fraction]);
        var left = Math.max(1, Math.round(fields.eta_s));
        this.tell(fields.step ? Math.round(fields.fraction * 100) + " %, " + left + " s left" : "loading the model");
    }),
    warning: answer("warning", function (_, fields) { this.tell(fields.key + ": " + fields.message); }),
    preview: function () {},
    take: answer("take", function (index, fields) {
        var job = this.running[index];
        var take = {
            prompt: job.prompt, path: fields.path, seconds: fields.seconds, seed: fields.seed, takeId: fields.take_id,
            loop: job.loop
        };
        job.takes.push(take);
        this.slot(index).takes = job.takes;
        this.state.history = takes.remember(this.state.history, take);
        if (job.takes.length === 1) this.select(index, 0);
        else if (this.kind.together) this.load(take);
        if (this.knobs.auto) this.write(take);
    }),
    done: answer("done", function (index, fields) {
        this.ended(index, fields.takes === 1 ? "1 take" : fields.takes + " takes");
        this.showTakes(index);
        this.showHistory();
        this.keep();
    }),
    cancelled: answer("cancelled", function (index) { this.ended(index, "cancelled"); }),
    fail: function (list) {
        var fields = named("fail", list);
        var index = this.runningSlot(fields.id);
        if (index >= 0) this.ended(index, "");
        this.fault(fields.code + ": " + fields.message);
    },
    file: function (list) {
        if (!list[1]) this.fault(takes.fileName(list[2]) + " is missing on the disk: lock its seed and press Generate to render it again");
    }
};

/** An event's arguments by their names. */
function named(event, list) {
    var fields = {};
    vocabulary.events[event].forEach(function (field, index) { fields[field] = list[index]; });
    return fields;
}

/** Handle an event of a running request; ignore events of cancelled ones. */
function answer(event, then) {
    return function (list) {
        var fields = named(event, list);
        var index = this.runningSlot(fields.id);
        if (index >= 0) then.call(this, index, fields);
    };
}

Desk.prototype.runningSlot = function (tag) {
    for (var index = 0; index < this.running.length; index++) {
        if (this.running[index] && this.running[index].tag === tag) return index;
    }
    return -1;
};

Desk.prototype.ended = function (index, text) {
    this.running[index] = null;
    this.host.show(["progress", index, 0]);
    if (text && !this.lastFault) this.tell(text);
};

/** Restart Node for Max if it has stopped. Called once per second. */
Desk.prototype.watch = function (now) {
    if (now - this.aliveAt < SILENT_FOR) return;
    this.aliveAt = now;
    this.ready = false;
    this.fault("Node for Max isn't running; restarting it");
    this.host.link(["script", "start"]);
};

/** Ask for the words that the model knows, for the menu; they replace those of another model. */
Desk.prototype.askWords = function () {
    this.knownWords = [];
    this.host.show(["words", "clear"]);
    this.ask(this.state.model ? ["words", this.state.model] : ["words"]);
};

Desk.prototype.check = function (take) {
    this.ask(["check", take.takeId, take.path]);
};

// ---- takes into buffers and clips

Desk.prototype.select = function (index, number) {
    var slot = this.slot(index);
    if (!slot.takes[number]) return;
    slot.current = number;
    slot.seed = slot.takes[number].seed;
    this.load(slot.takes[number], index);
    this.host.show(["seed", index, slot.seed]);
    this.showTakes(index);
    this.keep();
};

/** Load a take into a buffer; with a slot, select it there when it is loaded. */
Desk.prototype.load = function (take, index) {
    var claimed = this.buffers.claim(take.path, this.needed());
    var sounds = index !== undefined;
    if (claimed.fresh) {
        this.reading[claimed.number] = sounds ? { slot: index, take: take } : null;
        this.host.play(["fill", claimed.number, takes.maxPath(take.path)]);
    } else if (sounds && claimed.number in this.reading) {
        this.reading[claimed.number] = { slot: index, take: take };
    } else if (sounds) {
        this.use(index, take, claimed.number);
    }
};

Desk.prototype.use = function (index, take, number) {
    if (takes.current(this.slot(index)) !== take) return;
    this.host.play(["use", index, number, take.seconds * 1000]);
};

/** Paths that must stay in their buffers. */
Desk.prototype.needed = function () {
    var paths = [];
    this.state.slots.forEach(function (slot) {
        var wanted = this.kind.together ? slot.takes : [takes.current(slot)];
        wanted.forEach(function (take) { if (take) paths.push(take.path); });
    }, this);
    return paths;
};

Desk.prototype.readAll = function () {
    this.state.slots.forEach(function (slot, index) {
        var take = takes.current(slot);
        if (!take) return;
        this.load(take, index);
        if (this.kind.together) slot.takes.forEach(function (other) { this.load(other); }, this);
    }, this);
};

Desk.prototype.write = function (take) {
    if (!take) return this.tell("there is no take to write yet: press Generate first");
    if (!this.clips) return this.tell("clips can be written in Live only");
    var result = this.clips.write(take, TARGETS[this.knobs.target || 0]);
    if (result.done) this.tell(takes.fileName(take.path) + " is " + result.message);
    else this.fault(result.message);
};

// ---- display and storage

Desk.prototype.tell = function (text) {
    this.host.show(["status", text]);
};

/** Show an error in the device and, unless it repeats the previous one, in Max's console. */
Desk.prototype.fault = function (text) {
    this.lastFault = text;
    this.tell(text);
    if (text !== this.warned) this.host.warn(text);
    this.warned = text;
};

Desk.prototype.keep = function () {
    var list = takes.pack(this.state);
    this.kept = list.join(" ");
    this.host.keep(list);
};

Desk.prototype.showAll = function () {
    this.state.slots.forEach(function (slot, index) {
        this.host.show(["prompt", index, slot.prompt]);
        this.host.show(["seed", index, slot.seed]);
        this.showTakes(index);
    }, this);
    this.host.show(["keys", this.state.keys]);
    this.host.show(["port", this.state.port]);
    this.showModels();
    this.showHistory();
    this.showStart();
    this.showSong();
};

Desk.prototype.showTakes = function (index) {
    var slot = this.slot(index);
    var count = slot.takes.length;
    this.host.show(["takes", index, count ? slot.current : 0, count ? slot.current + 1 + "/" + count : "-"]);
};

Desk.prototype.showModels = function () {
    var shown = [OWN_MODEL].concat(this.models);
    var chosen = this.state.model || OWN_MODEL;
    if (shown.indexOf(chosen) < 0) shown.push(chosen);
    this.menu("models", shown, shown.indexOf(chosen));
};

Desk.prototype.showHistory = function () {
    this.menu("history", this.state.history.map(function (take) { return take.prompt + ", " + take.seed; }), 0);
};

Desk.prototype.menu = function (name, items, chosen) {
    this.host.show([name, "clear"]);
    items.forEach(function (item) { this.host.show([name, "append", item]); }, this);
    if (items.length) this.host.show([name, "set", chosen]);
};

Desk.prototype.showStart = function () {
    this.host.show(["start", this.state.start ? "init: " + takes.fileName(this.state.start) : "no init audio"]);
};

Desk.prototype.showSong = function () {
    if (this.song) this.host.show(["song", this.song.line()]);
};

exports.Desk = Desk;
exports.OWN_MODEL = OWN_MODEL;
exports.OWN_SCHEDULER = OWN_SCHEDULER;
