// The Live set's tempo, meter, root note and scale. ES5, for Max's js object; the Live API is available only there,
// and only after live.thisdevice has reported that the device is ready.

var NOTES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];
var PROPERTIES = ["tempo", "signature_numerator", "signature_denominator", "root_note", "scale_name", "scale_mode"];

/** `changed` is called after each change of a property. Older versions of Live have no scale; it is "" there. */
function Song(LiveAPI, changed) {
    var song = this;
    this.values = {};
    this.watching = [];
    this.set = new LiveAPI(null, "live_set");
    PROPERTIES.forEach(function (property) {
        song.values[property] = song.read(property);
        if (song.values[property] !== null) song.watch(LiveAPI, property, changed);
    });
}

Song.prototype.read = function (property) {
    if (!has(this.set, property)) return null;
    var value = this.set.get(property);
    return Array.isArray(value) ? value[0] : value;
};

Song.prototype.watch = function (LiveAPI, property, changed) {
    var song = this;
    var watcher = new LiveAPI(function (list) {
        if (list[0] !== property) return;
        song.values[property] = list[1];
        changed();
    }, "live_set");
    watcher.property = property;
    this.watching.push(watcher);
};

/** Quarter notes per minute. */
Song.prototype.tempo = function () {
    return this.values.tempo;
};

/** Quarter notes per bar: Live's tempo counts quarter notes in every meter. */
Song.prototype.beatsPerBar = function () {
    return this.values.signature_numerator * 4 / this.values.signature_denominator;
};

/** "A minor", or "" if Live has no scale. */
Song.prototype.key = function () {
    if (this.values.root_note === null || !this.values.scale_name) return "";
    return NOTES[this.values.root_note] + " " + String(this.values.scale_name).toLowerCase();
};

/** "124 bpm", with at most two decimals. */
Song.prototype.speed = function () {
    return Math.round(this.values.tempo * 100) / 100 + " bpm";
};

/** One line for the device. */
Song.prototype.line = function () {
    var meter = this.values.signature_numerator + "/" + this.values.signature_denominator;
    return [this.speed(), meter].concat(this.key() || []).join("  ·  ");
};

/** True if an object of the Live API has this property, which depends on Live's version. */
function has(api, property) {
    return api.info.indexOf("property " + property + " ") >= 0;
}

exports.Song = Song;
