// Which buffer~ holds which file. A file goes into the buffer that was used longest ago and whose file no pad or take
// needs now: what sounds is never read over. ES5, for Max's js object.

function Buffers(count) {
    this.order = [];
    this.paths = {};
    for (var number = 1; number <= count; number++) this.order.push(number);
}

Buffers.prototype.touch = function (number) {
    this.order.splice(this.order.indexOf(number), 1);
    this.order.push(number);
};

/** The buffer that has this file already, or 0. */
Buffers.prototype.holding = function (path) {
    for (var index = 0; index < this.order.length; index++) {
        if (this.paths[this.order[index]] === path) return this.order[index];
    }
    return 0;
};

/** A buffer for this file: `{number, fresh}`; fresh ones must be read. `needed` are paths that stay. */
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
