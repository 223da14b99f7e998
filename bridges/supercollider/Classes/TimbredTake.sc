// A finished take: its file and parameters.

TimbredTake {
	var <timbred, <index, <path, <seconds, <rate, <channels, <seed, <score, <takeId;
	var <>buffer;

	*new { |timbred, index, path, seconds, rate, channels, seed, score, takeId|
		^super.newCopyArgs(timbred, index, path.asString, seconds, rate, channels, seed, score, takeId.asString)
	}

	read { |server, action|
		Buffer.read(server ? Server.default, path, action: { |read|
			buffer = read;
			action.value(read, this)
		})
	}

	printOn { |stream| stream << "TimbredTake(" << takeId << ", " << path << ")" }
}
