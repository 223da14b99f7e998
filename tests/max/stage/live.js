"use strict";
// A stand-in for Live: a set of tracks, slots, clips, and the LiveAPI object that reaches them. Every call is recorded.

const fs = require("fs");

const CHILDREN = { Song: ["tracks", "view"], Track: ["clip_slots", "arrangement_clips"], ClipSlot: ["clip"] };

class Live {
  constructor(description, record) {
    this.record = record;
    this.objects = new Map();
    this.watchers = [];
    this.version = description.version;
    this.next = 1;
    this.song = this.add("Song", null, { current_song_time: 0, ...description.song });
    this.application = this.add("Application", null, {});
    this.song.tracks = description.tracks.map((track) => this.track(track));
    this.track_of_device = this.song.tracks[description.device];
    let parent = this.track_of_device;
    for (let depth = 0; depth < (description.racks || 0); depth++) parent = this.add("Chain", parent, {});
    this.device = this.add("MaxDevice", parent, {});
    this.scenes = description.scenes;
    this.selected = description.selected || null;
  }

  add(type, parent, properties) {
    const made = { id: this.next++, type, parent, properties };
    this.objects.set(made.id, made);
    return made;
  }

  track({ name, audio = 1, foldable = 0, slots = 2, full = [] }) {
    const track = this.add("Track", this.song || null, { name, has_audio_input: audio, is_foldable: foldable });
    track.clip_slots = [];
    track.arrangement_clips = [];
    for (let index = 0; index < slots; index++) {
      const slot = this.slot(track);
      if (full.includes(index)) slot.clip = this.add("Clip", slot, { name: "already here" });
    }
    return track;
  }

  slot(track) {
    const slot = this.add("ClipSlot", track, {});
    track.clip_slots.push(slot);
    return slot;
  }

  find(path) {
    if (path.startsWith("id ")) return this.objects.get(Number(path.slice(3)));
    const slot = this.selected && this.song.tracks[this.selected.track].clip_slots[this.selected.slot];
    const known = {
      live_set: this.song,
      live_app: this.application,
      this_device: this.device,
      "this_device canonical_parent": this.device.parent,
      "live_set view selected_track": this.selected && this.song.tracks[this.selected.track],
      "live_set view highlighted_clip_slot": slot,
    };
    if (!(path in known)) throw new Error(`the stage has no ${path}`);
    return known[path] || undefined;
  }

  change(property, value) {
    this.song.properties[property] = value;
    for (const watcher of this.watchers) if (watcher.property === property) watcher.callback([property, value]);
  }

  create(object, list) {
    const [path, position] = list;
    if (!fs.existsSync(path)) return;
    const track = object.type === "Track" ? object : object.parent;
    if (!track.properties.has_audio_input) return;
    const clip = this.add("Clip", object, { file_path: path });
    if (object.type === "Track") {
      clip.properties.start_time = position;
      object.arrangement_clips.push(clip);
    } else if (!object.clip) {
      object.clip = clip;
    }
  }

  call(object, name, list) {
    this.record({ live: object.type, id: object.id, call: name, arguments: list });
    if (object.type === "Application") return [this.version[["get_major_version", "get_minor_version", "get_bugfix_version"].indexOf(name)]];
    if (name === "create_audio_clip") return this.create(object, list);
    if (name === "create_scene" && object === this.song) {
      for (const track of this.song.tracks) this.slot(track);
      return;
    }
    throw new Error(`the stage has no ${object.type}.${name}`);
  }

  /** What Max gives as the constructor LiveAPI; it works only once the device is loaded. */
  api() {
    const live = this;
    return class LiveAPI {
      constructor(callback, path) {
        if (!live.loaded) throw new Error("the Live API isn't there before live.thisdevice says so");
        this.object = live.find(path);
        this.callback = callback;
        this.id = this.object ? String(this.object.id) : "0";
        this.type = this.object ? this.object.type : "";
      }

      get info() {
        const names = Object.keys(this.object.properties);
        return [`id ${this.id}`, `type ${this.type}`, ...names.map((name) => `property ${name} value`), "done"].join("\n");
      }

      set property(name) {
        this.watched = name;
        live.watchers.push({ property: name, callback: this.callback });
      }

      get(name) {
        if (name === "canonical_parent") return ["id", this.object.parent ? this.object.parent.id : 0];
        if (name === "has_clip") return [this.object.clip ? 1 : 0];
        if ((CHILDREN[this.type] || []).includes(name)) {
          const found = this.object[name];
          if (!Array.isArray(found)) return ["id", found ? found.id : 0];
          return found.flatMap((one) => ["id", one.id]);
        }
        if (!(name in this.object.properties)) throw new Error(`${this.type} has no ${name}`);
        return [this.object.properties[name]];
      }

      set(name, value) {
        live.record({ live: this.type, id: this.object.id, set: name, value });
        this.object.properties[name] = value;
      }

      call(name, ...list) {
        return live.call(this.object, name, list);
      }
    };
  }
}

exports.Live = Live;
