// Max's js object of a device. Its argument is the kind of device: instrument, clip, drum.
// ES5. It runs at low priority and only forwards messages: the network is handled by node.script, a separate process.

autowatch = 0;
inlets = 1;
outlets = 4;

var LINK = 0, FACE = 1, STORE = 2, SAMPLER = 3;
var WATCH_EVERY = 1000;

var Desk = require("timbred-desk").Desk;

function now() {
    return new Date().getTime();
}

/** The URL of a folder; a path with a drive letter gets a leading slash. */
function address(folder) {
    return "file://" + (folder.charAt(0) === "/" ? "" : "/") + encodeURI(folder);
}

var desk = new Desk(jsarguments[1], {
    link: function (list) { outlet(LINK, list); },
    show: function (list) { outlet(FACE, list); },
    keep: function (list) { outlet(STORE, list); },
    play: function (list) { outlet(SAMPLER, list); },
    post: function (text) { post("timbred: " + text + "\n"); },
    warn: function (text) { error("timbred: " + text + "\n"); },
    open: function (folder) { outlet(FACE, ["folder", address(folder)]); },
    LiveAPI: typeof LiveAPI === "undefined" ? null : LiveAPI
}, now());

var watching = new Task(function () { desk.watch(now()); }, this);
watching.interval = WATCH_EVERY;
watching.repeat();

/** From live.thisdevice: the device and the Live API are ready. */
function bang() {
    desk.receive("loaded", [], now());
}

function anything() {
    desk.receive(messagename, arrayfromargs(arguments), now());
}

function notifydeleted() {
    watching.cancel();
}
