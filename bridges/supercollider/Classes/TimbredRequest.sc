// A generate or vary request and its state.

TimbredRequest {
	var <timbred, <id, <action, <progressAction, <failAction, <server;
	var <state = \sent, <fraction = 0, <eta = 0, <takes, <buffers, <error;
	var direct = false, first, expected = 0, done;

	*new { |timbred, id, action, progress, fail, server|
		^super.newCopyArgs(timbred, id, action, progress, fail, server).init
	}

	init {
		takes = [];
		buffers = [];
		done = Condition(false)
	}

	isOver { ^#[done, cancelled, failed].includes(state) and: { expected <= 0 } }

	// with `scsynth: true` or a port, the server reads the takes itself, into reserved buffer numbers
	withBuffers { |keys|
		var wanted = keys[\scsynth], amount = keys[\takes] ? 1;
		if(wanted.isNil or: { wanted == false }) { ^keys.copy.put(\scsynth, nil) };
		direct = true;
		first = keys[\buffer];
		if(first.isNil) {
			first = server.nextBufferNumber(amount)
		};
		^keys.copy.putAll((scsynth: if(wanted == true) { server.addr.port } { wanted }, buffer: first))
	}

	handleEvent { |name, arguments|
		switch(name,
			\queued, { state = \queued },
			\started, { state = \started },
			\progress, {
				#fraction, eta = arguments[[1, 4]];
				progressAction.value(fraction, eta)
			},
			\take, { this.handleTake(arguments) },
			\buffered, { this.handleBuffered(*arguments) },
			\notBuffered, { this.handleNotBuffered(*arguments) },
			\done, { this.end(\done) },
			\cancelled, { this.end(\cancelled) },
			\warning, { timbred.warn("%: %".format(arguments[1], arguments[2])) },
			\fail, {
				expected = 0;
				timbred.report(arguments[1], arguments[2]);
				this.end(\failed, arguments[1], arguments[2])
			}
		);
		this.changed(name, *arguments)
	}

	handleTake { |arguments|
		var take = TimbredTake(timbred, *arguments.drop(1));
		takes = takes.add(take);
		if(direct) { expected = expected + 1 } { this.read(take) }
	}

	read { |take|
		if(action.isNil) { ^this };
		if(server.serverRunning.not) {
			^timbred.warn("the server isn't running, so % isn't read; boot it: s.boot".format(take.path))
		};
		take.read(server, { |buffer|
			buffers = buffers.add(buffer);
			action.value(buffer, take)
		})
	}

	// the server has read the take itself
	handleBuffered { |id, index, number|
		var take = takes.detect { |each| each.index == index };
		var buffer = Buffer(server, (take.seconds * take.rate).round.asInteger, take.channels, number);
		expected = expected - 1;
		buffer.path = take.path;
		buffer.sampleRate = take.rate;
		take.buffer = buffer;
		buffers = buffers.add(buffer);
		action.value(buffer, take);
		if(state == \done) { timbred.requests.removeAt(id.asSymbol) }
	}

	// the message contains the take's file
	handleNotBuffered { |code, message|
		var missed = takes.any { |take| take.buffer.isNil and: { message.asString.contains(take.path) } };
		if(direct and: { missed }) { this.end(\failed, code, message) }
	}

	end { |how, code, message|
		state = how;
		if(how == \failed) {
			error = code;
			expected = 0;
			failAction.value(code, message)
		};
		done.test = true;
		done.signal
	}

	cancel { timbred.send(\cancel, id) }

	// in a Routine: waits for the terminal event and returns the takes
	wait {
		done.wait;
		^takes
	}

	printOn { |stream| stream << "TimbredRequest(" << id << ", " << state << ")" }
}
