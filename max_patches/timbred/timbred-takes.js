// The state of a device that is stored with the Live set: prompts, takes, selected takes, and history.
// ES5, for Max's js object. It is stored as one list that begins with a number, each part percent-encoded: symbols
// without spaces, commas and backslashes pass through pattr and Live unchanged.

var VERSION = 1;
var HISTORY = 24;

function emptySlot() {
    return { prompt: "", takes: [], current: 0, seed: 0 };
}

/** The state of a new device with this number of slots. */
function empty(slots) {
    var state = { slots: [], history: [], keys: "", model: "", port: 0, start: "" };
    for (var index = 0; index < slots; index++) state.slots.push(emptySlot());
    return state;
}

function packed(value) {
    return encodeURIComponent(JSON.stringify(value));
}

/** The state as a list for pattr: the device, then each slot with its number of takes and the takes, then the history.
 * Each take is one symbol, so that no symbol exceeds Max's limit. */
function pack(state) {
    var device = { keys: state.keys, model: state.model, port: state.port, start: state.start };
    var list = [VERSION, packed(device), state.slots.length];
    state.slots.forEach(function (slot) {
        list.push(packed({ prompt: slot.prompt, current: slot.current, seed: slot.seed }), slot.takes.length);
        list = list.concat(slot.takes.map(packed));
    });
    return list.concat(state.history.map(packed));
}

function unpacked(text) {
    return JSON.parse(decodeURIComponent(String(text)));
}

/** The state in a list, for a device with this number of slots; null if the list isn't valid. */
function unpack(list, slots) {
    if (list.length < 3 || list[0] !== VERSION) return null;
    try {
        var state = empty(slots);
        var device = unpacked(list[1]);
        for (var key in device) if (key in state) state[key] = device[key];
        var at = 3;
        for (var index = 0; index < list[2]; index++) {
            var slot = unpacked(list[at]);
            slot.takes = list.slice(at + 2, at + 2 + list[at + 1]).map(unpacked);
            at += 2 + slot.takes.length;
            if (index < slots) state.slots[index] = slot;
        }
        state.history = list.slice(at).map(unpacked);
        return state;
    } catch (error) {
        return null;
    }
}

/** The history with this take first. */
function remember(history, take) {
    var others = history.filter(function (one) { return one.takeId !== take.takeId; });
    return [take].concat(others).slice(0, HISTORY);
}

/** The selected take of a slot, or null. */
function current(slot) {
    return slot.takes.length ? slot.takes[slot.current] : null;
}

/** A path for Max's objects: with slashes on every system. */
function maxPath(path) {
    return String(path).replace(/\\/g, "/");
}

/** A path for timbred, from Max's "Disk:/folder/file". A drive letter is kept. */
function systemPath(path) {
    var match = /^([^\/:]{2,}):(\/.*)$/.exec(String(path));
    return match ? "/Volumes/" + match[1] + match[2] : String(path);
}

/** The last part of a path. */
function fileName(path) {
    return String(path).replace(/^.*[\/\\]/, "");
}

exports.empty = empty;
exports.emptySlot = emptySlot;
exports.pack = pack;
exports.unpack = unpack;
exports.remember = remember;
exports.current = current;
exports.maxPath = maxPath;
exports.systemPath = systemPath;
exports.fileName = fileName;
