// A connection to the daemon `timbred serve`. The class methods use the connection Timbred.default.

Timbred {
	classvar <>askEvery = 0.5; // seconds between two status requests
	classvar <>silence = 1.4; // seconds without an answer after which the daemon counts as not running
	classvar default, count = 0, session;

	var <address, <running, <requests, <lastTake;
	var voices, questions, waiting, watch, listener, answeredAt, checkedAt, age;

	*initClass {
		session = "%-%".format(thisProcess.pid, Date.getDate.rawSeconds.asInteger);
	}

	*default {
		if(default.isNil) {
			default = this.new("TIMBRED_HOST".getenv ? "127.0.0.1", ("TIMBRED_OSC_PORT".getenv ? "7770").asInteger)
		};
		^default
	}

	*default_ { |timbred|
		if(default.notNil and: { default !== timbred }) { default.free };
		default = timbred
	}

	*new { |host = "127.0.0.1", port = 7770| ^super.new.init(host, port) }

	*newId {
		count = count + 1;
		^"sc-%-%".format(session, count)
	}

	init { |host, port|
		address = NetAddr(host, port);
		requests = IdentityDictionary.new;
		voices = IdentityDictionary.new;
		questions = IdentityDictionary.new;
		waiting = List.new;
		// nil: unknown
		running = nil;
		answeredAt = checkedAt = Main.elapsedTime;
		listener = { |message, time, from, port|
			if(from.port == address.port and: { from.addr == address.addr }) {
				if(message[0].asString.beginsWith("/timbred/")) { this.handleEvent(message) }
			}
		};
		thisProcess.addOSCRecvFunc(listener);
		// unlike other tasks, a SkipJack continues after Cmd-.
		watch = SkipJack({ this.checkDaemon }, askEvery, name: "timbred", autostart: false);
		watch.start;
		this.checkDaemon
	}

	free {
		watch.stop;
		thisProcess.removeOSCRecvFunc(listener);
		this.loseAll(\timeout, "this connection was closed; use another")
	}

	// detection of the daemon

	checkDaemon {
		var now = Main.elapsedTime;
		// sclang was busy: answers may be waiting to be read
		if(now - checkedAt > (2 * askEvery)) { answeredAt = now };
		checkedAt = now;
		address.sendMsg("/timbred/status");
		if(running != false and: { now - answeredAt > silence }) {
			running = false;
			this.warn("no timbred answers at % port %; start it with: timbred serve. "
				"The connection is then resumed.".format(address.ip, address.port));
			this.loseAll(\timeout, "timbred isn't running, or exited");
			this.changed(\running, false)
		}
	}

	metDaemon { |newAge|
		var restarted = running == true and: { age.notNil and: { newAge < age } };
		age = newAge;
		if(restarted) { this.loseAll(\timeout, "timbred was restarted; send the request again", waiting: false) };
		if(running != true or: { restarted }) {
			running = true;
			address.sendMsg("/timbred/hello", "supercollider");
			waiting.do { |message| address.sendMsg(*message) };
			waiting.clear;
			this.changed(\running, true)
		}
	}

	loseAll { |code, message, waiting = true|
		var lost = requests.values;
		requests.clear;
		voices.clear;
		questions.clear;
		if(waiting) { this.dropWaiting };
		lost.do { |request| request.handleEvent(\fail, [request.id, code, message]) }
	}

	dropWaiting { waiting.clear }

	// requests

	send { |name ... arguments|
		var message = ["/timbred/" ++ name] ++ arguments;
		case
		{ running == true } { address.sendMsg(*message) }
		{ running.isNil } { waiting.add(message) }
		{
			this.warn("% isn't sent: no timbred answers at % port %; start it with: timbred serve".format(
				name, address.ip, address.port));
			^false
		};
		^true
	}

	*withKeys { |arguments, keys|
		keys.keysValuesDo { |key, value|
			if(value.notNil) { arguments = arguments ++ ["@" ++ key, this.plain(value)] }
		};
		^arguments
	}

	*plain { |value|
		^case
		{ value.isKindOf(Boolean) } { value.binaryValue }
		{ value.isKindOf(TimbredTake) } { value.takeId }
		{ value.isNumber or: { value.isString } } { value }
		{ value.asString }
	}

	request { |name, arguments, keys, action, progress, fail, server|
		var request = TimbredRequest(this, this.class.newId, action, progress, fail, server ? Server.default);
		keys = request.withBuffers(keys);
		requests[request.id.asSymbol] = request;
		if(this.send(name, *this.class.withKeys([request.id] ++ arguments, keys)).not) {
			requests.removeAt(request.id.asSymbol);
			request.handleEvent(\fail, [request.id, \timeout, "timbred isn't running"])
		};
		^request
	}

	ask { |name, arguments, keys, action|
		if(action.notNil) { questions[name] = action };
		this.send(name, *this.class.withKeys(arguments, keys))
	}

	forVoice { |name, voice, arguments, keys, action|
		if(action.notNil) { voices[voice.asSymbol] = action };
		this.send(name, *this.class.withKeys([voice ? "*"] ++ arguments, keys))
	}

	takeNamed { |take|
		take = take ? lastTake;
		if(take.isNil) { Error("timbred: there is no take yet; generate one, or pass a take").throw };
		^this.class.plain(take)
	}

	// events

	handleEvent { |message|
		var name = message[0].asString.drop(9).asSymbol, arguments = message.drop(1);
		answeredAt = Main.elapsedTime;
		switch(name,
			'status.reply', { this.metDaemon(arguments[8]) },
			\fail, { this.fail(*arguments) }
		);
		this.changed(name, *arguments);
		if(#[playing, flowing, ended].includes(name)) { ^this.answerVoice(name, arguments) };
		this.answerRequest(name, arguments);
		this.answerQuestion(name, arguments)
	}

	answerRequest { |name, arguments|
		var request = requests[arguments[0].asSymbol];
		if(request.notNil) {
			if(name == \take) { lastTake = TimbredTake(this, *arguments.drop(1)) };
			request.handleEvent(name, arguments);
			if(request.isOver) { requests.removeAt(request.id.asSymbol) }
		}
	}

	answerVoice { |name, arguments|
		voices[arguments[0].asSymbol].value(name, *arguments.drop(1));
		if(name == \ended) { voices.removeAt(arguments[0].asSymbol) }
	}

	answerQuestion { |name, arguments|
		var asked = switch(name, 'status.reply', \status, \model, \models, \loaded, \load, \unloaded, \unload, name);
		if(name == \take and: { arguments[0] == \takes }) {
			^questions[\takes].value(TimbredTake(this, *arguments.drop(1)))
		};
		if(name == \known) { ^questions[\words].value(*arguments) };
		if(name == \done) {
			asked = questions.removeAt(arguments[0]);
			^if(#[takes, words].includes(arguments[0]).not) { asked.value(*arguments.drop(1)) }
		};
		if(asked.asString.beginsWith("settings/")) {
			^questions.removeAt(asked).value(arguments[0])
		};
		questions[asked].value(*arguments);
		if(asked != \models) { questions.removeAt(asked) }
	}

	fail { |place, code, message|
		if(requests[place.asSymbol].isNil) { this.report(code, message) };
		// a failed read has no id; its message contains the take's file
		if(place == \scsynth) {
			requests.values.do { |request|
				request.handleEvent(\notBuffered, [code, message]);
				if(request.isOver) { requests.removeAt(request.id.asSymbol) }
			}
		};
		questions.removeAt(place)
	}

	report { |code, message| "timbred: % (%)".format(message, code).error }

	warn { |message| ("timbred: " ++ message).warn }

	// class methods of the default connection; those of requests are generated from the protocol's declarations

	*host { ^this.default.address.ip }
	*port { ^this.default.address.port }
	*running { ^this.default.running }
	*lastTake { ^this.default.lastTake }
	*connect { |host = "127.0.0.1", port = 7770| ^this.default = this.new(host, port) }
	*cancelAll { this.default.send(\cancel, "*") }
	*stopAll { this.default.send(\stop, "*") }
}
