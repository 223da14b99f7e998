// Assignment of files to buffer~ objects. A file is loaded into the least recently used buffer whose file is not needed
// by a pad or take, so that a playing buffer is never overwritten. ES5, for Max's js object.

function Buffers(count) {
    this.order = [];
    this.paths = {};
    for (var number = 1; number <= count; number++) this.order.push(number);
}

Buffers.prototype.touch = function (number) {
    this.order.splice(this.order.indexOf(number), 1);
    this.order.push(number);
};

/** The buffer that holds this file, or 0. */
Buffers.prototype.holding = function (path) {
    for (var index = 0; index < this.order.length; index++) {
        if (this.paths[this.order[index]] === path) return this.order[index];
    }
    return 0;
};

/** A buffer for this file: `{number, fresh}`; if fresh, the file must be loaded. Buffers with `needed` paths are kept. */
Buffers.prototype.claim = function (path, needed) {
    var number = this.holding(path);
    var fresh = !number;
    if (fresh) number = this.spare(needed);
    this.paths[number] = path;
    this.touch(number);
    return { number: number, fresh: fresh };
};

Buffers.prototype.spare = function (needed) {
    for (var index = 0; index < this.order.length; index++) {
        var path = this.paths[this.order[index]];
        if (path === undefined || needed.indexOf(path) < 0) return this.order[index];
    }
    return this.order[0];
};

exports.Buffers = Buffers;
