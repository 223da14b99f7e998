"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const path = require("node:path");
const { Desk } = require(path.join(process.env.TIMBRED_SCRIPTS, "timbred-desk.js"));

/** A drum device with a take in two of its pads, whose host records the opened folders. */
function drums() {
  const opened = [];
  const ignored = () => {};
  const desk = new Desk("drum", { link: ignored, show: ignored, keep: ignored, play: ignored, post: ignored, warn: ignored, open: (folder) => opened.push(folder) }, 0);
  for (const pad of [0, 2]) desk.slot(pad).takes = [{ prompt: "hit", path: `/takes/pad ${pad}/hit.wav`, seconds: 1, seed: 7, takeId: `T${pad}`, loop: false }];
  return { desk, opened };
}

test("folder opens the folder of the named pad, the first one too, and without a pad that of the last used one", () => {
  const { desk, opened } = drums();
  desk.touch(2);
  desk.receive("folder", [0], 0);
  desk.receive("folder", [2], 0);
  desk.receive("folder", [], 0);
  assert.deepEqual(opened, ["/takes/pad 0", "/takes/pad 2", "/takes/pad 2"]);
});
