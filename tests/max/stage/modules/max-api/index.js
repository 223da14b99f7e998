"use strict";
// A stand-in for the module that Node for Max gives its scripts. What leaves the script goes to the stage that started
// this process; what the patch sends comes from there.

const handlers = new Map();

exports.POST_LEVELS = { ERROR: "error", INFO: "info", WARN: "warn" };
exports.addHandler = (name, handler) => {
  if (handlers.has(name)) throw new Error(`two handlers for ${name}`);
  handlers.set(name, handler);
};
exports.outlet = async (...list) => {
  for (const atom of list) {
    if (!["string", "number"].includes(typeof atom)) throw new TypeError(`Max has no ${typeof atom}: ${JSON.stringify(list)}`);
  }
  process.send({ outlet: list });
};
exports.post = async (text, level = exports.POST_LEVELS.INFO) => process.send({ post: text, level });

process.on("message", (list) => {
  const [name, ...values] = list;
  if (!handlers.has(name)) return exports.post(`no handler for ${name}`, exports.POST_LEVELS.ERROR);
  handlers.get(name)(...values);
});
process.on("disconnect", () => process.exit(0));
