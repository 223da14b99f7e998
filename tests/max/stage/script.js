"use strict";
// Max's js object: a script in a world of its own, with Max's globals and nothing of Node's.

const fs = require("fs");
const path = require("path");
const vm = require("vm");

class Task {
  constructor(run, owner) {
    this.run = () => run.call(owner);
    this.interval = 500;
  }

  repeat() {
    this.timer = setInterval(this.run, this.interval);
  }

  cancel() {
    clearInterval(this.timer);
  }
}

/** Starts `file` with these arguments. Returns `receive(list)` and `close()`. */
function start(folder, file, given, { outlet, post, error, LiveAPI }) {
  const loaded = new Map();
  const world = vm.createContext({
    jsarguments: [file, ...given],
    outlet: (number, ...list) => outlet(number, list.flat()),
    post,
    error,
    Task,
    arrayfromargs: (list) => Array.from(list),
    ...(LiveAPI ? { LiveAPI } : {}),
  });
  world.require = (name) => {
    if (!loaded.has(name)) {
      const source = fs.readFileSync(path.join(folder, `${name}.js`), "utf8");
      const exported = vm.runInContext("({})", world);
      loaded.set(name, exported);
      vm.runInContext(`(function (exports) {${source}\n})`, world, { filename: `${name}.js` })(exported);
    }
    return loaded.get(name);
  };
  vm.runInContext(fs.readFileSync(path.join(folder, file), "utf8"), world, { filename: file });
  return {
    outlets: world.outlets,
    receive([selector, ...values]) {
      const named = typeof selector === "string" ? selector : "list";
      const list = typeof selector === "string" ? values : [selector, ...values];
      world.messagename = named;
      const handler = typeof world[named] === "function" ? world[named] : world.anything;
      handler.apply(world, list);
    },
    close: () => world.notifydeleted && world.notifydeleted(),
  };
}

exports.start = start;
