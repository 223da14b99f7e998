"use strict";
// Encoder and decoder of OSC 1.0 messages. timbred answers with i, f and s only; the other types are decoded so that
// messages of other programs are read correctly.

const PAD = 4;

function text(value) {
  const bytes = Buffer.from(String(value).replace(/\0/g, ""), "utf8");
  return Buffer.concat([bytes, Buffer.alloc(PAD - (bytes.length % PAD))]);
}

function number(value) {
  if (!Number.isFinite(value)) throw new Error("OSC has no number " + value);
  const whole = Number.isInteger(value) && Math.abs(value) <= 2147483647;
  const bytes = Buffer.alloc(whole ? 4 : 8);
  if (whole) bytes.writeInt32BE(value);
  else bytes.writeDoubleBE(value);
  return [whole ? "i" : "d", bytes];
}

function argument(value) {
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return [value ? "T" : "F", Buffer.alloc(0)];
  return ["s", text(value)];
}

/** Encode a message: integers within 32 bits as i, other numbers as d, everything else as text. */
function encode(address, values) {
  const pairs = values.map(argument);
  const tags = "," + pairs.map((pair) => pair[0]).join("");
  return Buffer.concat([text(address), text(tags)].concat(pairs.map((pair) => pair[1])));
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    if (this.at + count > this.bytes.length) throw new Error("the packet ends in the middle of a value");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  text() {
    const end = this.bytes.indexOf(0, this.at);
    if (end < 0) throw new Error("a text isn't terminated");
    const content = this.bytes.toString("utf8", this.at, end);
    this.take(end - this.at + PAD - ((end - this.at) % PAD));
    return content;
  }

  value(tag) {
    switch (tag) {
      case "i": return this.take(4).readInt32BE();
      case "f": return this.take(4).readFloatBE();
      case "d": return this.take(8).readDoubleBE();
      case "h": return Number(this.take(8).readBigInt64BE());
      case "s": case "S": return this.text();
      case "T": return true;
      case "F": return false;
      case "N": case "I": return null;
      case "b": return this.blob();
      default: throw new Error("unknown type tag " + JSON.stringify(tag));
    }
  }

  blob() {
    const size = this.take(4).readUInt32BE();
    const content = Buffer.from(this.take(size));
    this.take((PAD - (size % PAD)) % PAD);
    return content;
  }
}

/** Decode a packet to `{address, values}`. Throws an Error if it is invalid. */
function decode(packet) {
  const reader = new Reader(packet);
  const address = reader.text();
  if (!address.startsWith("/")) throw new Error("not an OSC message: it begins with " + JSON.stringify(address.slice(0, 20)));
  const tags = reader.text();
  if (!tags.startsWith(",")) throw new Error(address + " has no type tags");
  return { address, values: Array.from(tags.slice(1), (tag) => reader.value(tag)) };
}

exports.encode = encode;
exports.decode = decode;
