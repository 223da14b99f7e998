// Generated from timbred's protocol by: python -m bridges.supercollider.source

// The protocol's requests, key ranges, events and error codes.
TimbredVocabulary {
	// the keys of each request
	*requests {
		^(
			hello: [],
			notify: [],
			generate: ['gain', 'pan', 'speed', 'out', 'at', 'fade', 'model', 'seconds', 'bars', 'bpm', 'beats_per_bar', 'key', 'signature', 'in_words', 'measure', 'fit', 'negative', 'steps', 'guidance', 'eta', 'scheduler', 'seed', 'exact', 'takes', 'rank', 'init', 'strength', 'start', 'end', 'low', 'high', 'extend', 'prompt2', 'mix', 'weights', 'noise', 'embeddings', 'transcription', 'lora', 'loop', 'rate', 'format', 'bits', 'channels', 'loudness', 'peak', 'trim', 'fade_in', 'fade_out', 'to', 'name', 'folder', 'priority', 'preview', 'voice', 'by', 'scsynth', 'buffer'],
			vary: ['gain', 'pan', 'speed', 'out', 'at', 'fade', 'model', 'seconds', 'bars', 'bpm', 'beats_per_bar', 'key', 'signature', 'in_words', 'measure', 'fit', 'negative', 'steps', 'guidance', 'eta', 'scheduler', 'seed', 'exact', 'takes', 'rank', 'init', 'strength', 'start', 'end', 'low', 'high', 'extend', 'prompt2', 'mix', 'weights', 'noise', 'embeddings', 'transcription', 'lora', 'loop', 'rate', 'format', 'bits', 'channels', 'loudness', 'peak', 'trim', 'fade_in', 'fade_out', 'to', 'name', 'folder', 'priority', 'preview', 'voice', 'by', 'scsynth', 'buffer'],
			cancel: [],
			status: [],
			models: [],
			loras: [],
			load: [],
			unload: [],
			takes: ['search', 'like', 'limit'],
			play: ['gain', 'pan', 'speed', 'out', 'at', 'fade', 'loop'],
			stop: ['at', 'fade'],
			set: ['gain', 'pan', 'speed', 'fade'],
			flow: ['gain', 'pan', 'speed', 'out', 'at', 'fade', 'model', 'seconds', 'bars', 'bpm', 'beats_per_bar', 'key', 'signature', 'in_words', 'measure', 'fit', 'negative', 'steps', 'guidance', 'eta', 'scheduler', 'seed', 'exact', 'takes', 'rank', 'init', 'strength', 'start', 'end', 'low', 'high', 'extend', 'prompt2', 'mix', 'weights', 'noise', 'embeddings', 'transcription', 'lora', 'loop', 'rate', 'format', 'bits', 'channels', 'loudness', 'peak', 'trim', 'fade_in', 'fade_out', 'to', 'name', 'folder', 'priority', 'preview', 'by'],
			tempo: [],
			settings: [],
			sync: [],
			ping: [],
		)
	}

	// the allowed values of each key, as text
	*ranges {
		^(
			gain: "a number from -120 to 24",
			pan: "a number from -1 to 1",
			speed: "a number from 0.05 to 20",
			out: "a whole number from 1 to 256",
			at: "text of at most 40 characters",
			fade: "a number from 0 to 60",
			model: "text of at most 200 characters",
			seconds: "a number from 0.05 to 600",
			bars: "a number from 0.0625 to 256",
			bpm: "a number from 20 to 999",
			beats_per_bar: "a number from 1 to 32",
			key: "text of at most 40 characters",
			signature: "text of at most 40 characters",
			in_words: "0 or 1",
			measure: "0 or 1",
			fit: "0 or 1",
			negative: "text of at most 2000 characters",
			steps: "a whole number from 1 to 1000",
			guidance: "a number from 0 to 50",
			eta: "a number from 0 to 1",
			scheduler: "one of cosine-dpm, ddim, dpm++2m, dpm++2m-karras, edm-dpm, edm-euler, euler, euler-a, flow-euler, heun, lms, ping-pong, pndm, unipc",
			seed: "a whole number from 0 to 2147483647",
			exact: "0 or 1",
			takes: "a whole number from 1 to 16",
			rank: "0 or 1",
			init: "text of at most 4096 characters",
			strength: "a number from 0 to 1",
			start: "a number from 0 to 600",
			end: "a number from 0 to 600",
			low: "a number from 0 to 96000",
			high: "a number from 0 to 96000",
			extend: "a number from 0.05 to 600",
			prompt2: "text of at most 2000 characters",
			mix: "a number from 0 to 1",
			weights: "text of at most 2000 characters",
			noise: "text of at most 64 characters",
			embeddings: "text of at most 4096 characters",
			transcription: "text of at most 2000 characters",
			lora: "text of at most 2000 characters",
			loop: "0 or 1",
			rate: "a whole number from 8000 to 192000",
			format: "one of aiff, flac, ogg, wav",
			bits: "one of 16, 24, 32",
			channels: "one of 1, 2",
			loudness: "a number from -70 to 0 or off",
			peak: "a number from -60 to 0 or off",
			trim: "0 or 1",
			fade_in: "a number from 0 to 60",
			fade_out: "a number from 0 to 60",
			to: "one of both, file, none, play",
			name: "text of at most 120 characters",
			folder: "text of at most 120 characters",
			priority: "one of background, live, normal",
			preview: "0 or 1",
			voice: "a whole number from 1 to 64",
			by: "text of at most 40 characters",
			scsynth: "a whole number from 1 to 65535",
			buffer: "a whole number from 0 to 1000000",
			search: "text of at most 2000 characters",
			like: "text of at most 64 characters",
			limit: "a whole number from 1 to 1000",
		)
	}

	*events { ^['queued', 'started', 'warning', 'progress', 'preview', 'take', 'buffered', 'done', 'cancelled', 'fail', 'playing', 'ended', 'flowing', 'welcome', 'status.reply', 'model', 'lora', 'loaded', 'unloaded', 'settings', 'synced', 'pong'] }

	*codes { ^['bad-request', 'unknown-model', 'missing-weights', 'busy', 'out-of-memory', 'model-error', 'forbidden-path', 'bad-audio', 'disk-full', 'no-audio-device', 'worker-lost', 'shutting-down', 'internal'] }
}
