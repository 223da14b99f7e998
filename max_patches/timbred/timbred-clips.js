// Creation of clips in Live from takes. ES5, for Max's js object. `create_audio_clip` of the Live API exists since Live
// 12.0.5; the clip refers to the file in its place. Only empty slots are used, so no clip is overwritten.

var SINCE = [12, 0, 5];
var ELSEWHERE = ": move the device to an audio track, or select a slot of one";

function first(value) {
    return Array.isArray(value) ? value[0] : value;
}

function Clips(LiveAPI) {
    this.LiveAPI = LiveAPI;
}

Clips.prototype.at = function (path) {
    return new this.LiveAPI(null, path);
};

/** Live's version as three numbers. */
Clips.prototype.version = function () {
    var application = this.at("live_app");
    return ["get_major_version", "get_minor_version", "get_bugfix_version"].map(function (name) {
        return Number(first(application.call(name)));
    });
};

/** The reason why this version of Live can't create clips, or "". */
Clips.prototype.refusal = function () {
    var version = this.version();
    for (var index = 0; index < SINCE.length; index++) {
        if (version[index] > SINCE[index]) return "";
        if (version[index] < SINCE[index]) {
            return "Live " + version.join(".") + " can't create clips from a device (12.0.5 and newer can): " +
                "click Folder and drag the file into a slot";
        }
    }
    return "";
};

/** The track that the device is on, also from inside a rack. */
Clips.prototype.track = function () {
    var object = this.at("this_device canonical_parent");
    while (object.type !== "Track" && Number(object.id) !== 0) object = this.at("id " + ids(object, "canonical_parent")[0]);
    return object;
};

/** Create a clip: `free`: in the next free slot of the device's track; `selected`: in the selected slot or the next free
 * one below it; `arrangement`: at the song's position. Returns `{done, message}`. */
Clips.prototype.write = function (take, where) {
    var refusal = this.refusal();
    if (refusal) return { done: false, message: refusal };
    if (where === "arrangement") return this.intoArrangement(take);
    var place = where === "selected" ? this.selected() : { track: this.track(), from: 0 };
    return this.intoSlot(take, place);
};

Clips.prototype.selected = function () {
    var slot = this.at("live_set view highlighted_clip_slot");
    var track = this.at("live_set view selected_track");
    var from = ids(track, "clip_slots").indexOf(Number(slot.id));
    return { track: track, from: Math.max(from, 0) };
};

Clips.prototype.intoSlot = function (take, place) {
    var fault = unfit(place.track);
    if (fault) return { done: false, message: fault };
    var slots = ids(place.track, "clip_slots");
    if (!slots.length) return { done: false, message: nameOf(place.track) + " has no clip slots" + ELSEWHERE };
    var free = this.freeSlot(slots, place.from);
    if (free < 0) {
        this.at("live_set").call("create_scene", -1);
        slots = ids(place.track, "clip_slots");
        free = this.freeSlot(slots, place.from);
    }
    if (free < 0) return { done: false, message: "no free slot on " + nameOf(place.track) + ", and Live can't create a scene" };
    var slot = this.at("id " + slots[free]);
    slot.call("create_audio_clip", take.path);
    if (!Number(first(slot.get("has_clip")))) return { done: false, message: "Live refused " + take.path + ": is the track frozen?" };
    this.dress(this.at("id " + ids(slot, "clip")[0]), take);
    return { done: true, message: "in slot " + (free + 1) + " of " + nameOf(place.track) };
};

Clips.prototype.freeSlot = function (slots, from) {
    for (var index = from; index < slots.length; index++) {
        if (!Number(first(this.at("id " + slots[index]).get("has_clip")))) return index;
    }
    return -1;
};

Clips.prototype.intoArrangement = function (take) {
    var track = this.track();
    var fault = unfit(track);
    if (fault) return { done: false, message: fault };
    var before = ids(track, "arrangement_clips");
    var beat = Number(first(this.at("live_set").get("current_song_time")));
    track.call("create_audio_clip", take.path, beat);
    var created = ids(track, "arrangement_clips").filter(function (id) { return before.indexOf(id) < 0; });
    if (!created.length) return { done: false, message: "Live refused " + take.path + " into the arrangement" };
    this.dress(this.at("id " + created[0]), take);
    return { done: true, message: "in the arrangement of " + nameOf(track) + ", beat " + Math.round(beat * 100) / 100 };
};

/** Set the clip's name and, for a loop, warping and looping; the file contains its tempo. */
Clips.prototype.dress = function (clip, take) {
    clip.set("name", take.prompt);
    if (take.loop) {
        clip.set("warping", 1);
        clip.set("looping", 1);
    }
};

function unfit(track) {
    if (Number(track.id) === 0) return "there is no track for the clip";
    if (!Number(first(track.get("has_audio_input"))) || Number(first(track.get("is_foldable")))) {
        return nameOf(track) + " isn't an audio track" + ELSEWHERE;
    }
    return "";
}

function nameOf(api) {
    return String(first(api.get("name")));
}

/** The ids in the Live API's value of a child or a list of children: "id", 3, "id", 4. */
function ids(api, child) {
    var value = api.get(child);
    var list = Array.isArray(value) ? value : String(value).split(" ");
    return list.filter(function (_, index) { return index % 2 === 1; }).map(Number);
}

exports.Clips = Clips;
