// Generated from timbred's protocol by: python -m bridges.supercollider.source

+ Timbred {
	*notify { |on, action|
		^this.default.notify(on, action)
	}

	*generate { |prompt, action, progress, fail, server, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer|
		^this.default.generate(prompt, action, progress, fail, server, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer)
	}

	*vary { |take, action, progress, fail, server, prompt, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer|
		^this.default.vary(take, action, progress, fail, server, prompt, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer)
	}

	*cancel { |id, action|
		^this.default.cancel(id, action)
	}

	*status { |action|
		^this.default.status(action)
	}

	*models { |action|
		^this.default.models(action)
	}

	*words { |model, action|
		^this.default.words(model, action)
	}

	*loras { |action|
		^this.default.loras(action)
	}

	*engines { |action|
		^this.default.engines(action)
	}

	*load { |model, action|
		^this.default.load(model, action)
	}

	*unload { |model, action|
		^this.default.unload(model, action)
	}

	*takes { |action, search, like, limit|
		^this.default.takes(action, search, like, limit)
	}

	*play { |voice, take, action, gain, pan, speed, out, at, fade, loop|
		^this.default.play(voice, take, action, gain, pan, speed, out, at, fade, loop)
	}

	*stop { |voice, action, at, fade|
		^this.default.stop(voice, action, at, fade)
	}

	*set { |voice, action, gain, pan, speed, fade|
		^this.default.set(voice, action, gain, pan, speed, fade)
	}

	*flow { |voice, prompt, action, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, by|
		^this.default.flow(voice, prompt, action, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, by)
	}

	*tempo { |bpm, action|
		^this.default.tempo(bpm, action)
	}

	*setting { |name, value, action|
		^this.default.setting(name, value, action)
	}

	notify { |on, action|
		^this.ask(\notify, [this.class.plain(on)], (), action)
	}

	generate { |prompt, action, progress, fail, server, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer|
		^this.request(\generate, [prompt], (gain: gain, pan: pan, speed: speed, out: out, at: at, fade: fade, model: model, seconds: seconds, bars: bars, bpm: bpm, beats_per_bar: beats_per_bar, key: key, signature: signature, in_words: in_words, measure: measure, fit: fit, negative: negative, steps: steps, guidance: guidance, eta: eta, scheduler: scheduler, seed: seed, exact: exact, takes: takes, rank: rank, init: init, strength: strength, start: start, end: end, low: low, high: high, regions: regions, extend: extend, prompt2: prompt2, mix: mix, weights: weights, noise: noise, embeddings: embeddings, lyrics: lyrics, language: language, task: task, track: track, reference: reference, transcription: transcription, lora: lora, loop: loop, rate: rate, format: format, bits: bits, channels: channels, loudness: loudness, peak: peak, trim: trim, fade_in: fade_in, fade_out: fade_out, to: to, name: name, folder: folder, priority: priority, preview: preview, voice: voice, by: by, scsynth: scsynth, buffer: buffer), action, progress, fail, server)
	}

	vary { |take, action, progress, fail, server, prompt, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, voice, by, scsynth, buffer|
		^this.request(\vary, [this.takeNamed(take), prompt].reject(_.isNil), (gain: gain, pan: pan, speed: speed, out: out, at: at, fade: fade, model: model, seconds: seconds, bars: bars, bpm: bpm, beats_per_bar: beats_per_bar, key: key, signature: signature, in_words: in_words, measure: measure, fit: fit, negative: negative, steps: steps, guidance: guidance, eta: eta, scheduler: scheduler, seed: seed, exact: exact, takes: takes, rank: rank, init: init, strength: strength, start: start, end: end, low: low, high: high, regions: regions, extend: extend, prompt2: prompt2, mix: mix, weights: weights, noise: noise, embeddings: embeddings, lyrics: lyrics, language: language, task: task, track: track, reference: reference, transcription: transcription, lora: lora, loop: loop, rate: rate, format: format, bits: bits, channels: channels, loudness: loudness, peak: peak, trim: trim, fade_in: fade_in, fade_out: fade_out, to: to, name: name, folder: folder, priority: priority, preview: preview, voice: voice, by: by, scsynth: scsynth, buffer: buffer), action, progress, fail, server)
	}

	cancel { |id, action|
		^this.send(\cancel, if(id.isKindOf(TimbredRequest)) { id.id } { id ? "*" })
	}

	status { |action|
		^this.ask(\status, [], (), action)
	}

	models { |action|
		^this.ask(\models, [], (), action)
	}

	words { |model, action|
		^this.ask(\words, if(model.isNil) { [] } { [this.class.plain(model)] }, (), action)
	}

	loras { |action|
		^this.ask(\loras, [], (), action)
	}

	engines { |action|
		^this.ask(\engines, [], (), action)
	}

	load { |model, action|
		^this.ask(\load, [this.class.plain(model)], (), action)
	}

	unload { |model, action|
		^this.ask(\unload, [this.class.plain(model)], (), action)
	}

	takes { |action, search, like, limit|
		^this.ask(\takes, [], (search: search, like: like, limit: limit), action)
	}

	play { |voice, take, action, gain, pan, speed, out, at, fade, loop|
		^this.forVoice(\play, voice, [this.takeNamed(take)], (gain: gain, pan: pan, speed: speed, out: out, at: at, fade: fade, loop: loop), action)
	}

	stop { |voice, action, at, fade|
		^this.forVoice(\stop, voice, [], (at: at, fade: fade), action)
	}

	set { |voice, action, gain, pan, speed, fade|
		^this.forVoice(\set, voice, [], (gain: gain, pan: pan, speed: speed, fade: fade), action)
	}

	flow { |voice, prompt, action, gain, pan, speed, out, at, fade, model, seconds, bars, bpm, beats_per_bar, key, signature, in_words, measure, fit, negative, steps, guidance, eta, scheduler, seed, exact, takes, rank, init, strength, start, end, low, high, regions, extend, prompt2, mix, weights, noise, embeddings, lyrics, language, task, track, reference, transcription, lora, loop, rate, format, bits, channels, loudness, peak, trim, fade_in, fade_out, to, name, folder, priority, preview, by|
		^this.forVoice(\flow, voice, [this.class.plain(prompt)], (gain: gain, pan: pan, speed: speed, out: out, at: at, fade: fade, model: model, seconds: seconds, bars: bars, bpm: bpm, beats_per_bar: beats_per_bar, key: key, signature: signature, in_words: in_words, measure: measure, fit: fit, negative: negative, steps: steps, guidance: guidance, eta: eta, scheduler: scheduler, seed: seed, exact: exact, takes: takes, rank: rank, init: init, strength: strength, start: start, end: end, low: low, high: high, regions: regions, extend: extend, prompt2: prompt2, mix: mix, weights: weights, noise: noise, embeddings: embeddings, lyrics: lyrics, language: language, task: task, track: track, reference: reference, transcription: transcription, lora: lora, loop: loop, rate: rate, format: format, bits: bits, channels: channels, loudness: loudness, peak: peak, trim: trim, fade_in: fade_in, fade_out: fade_out, to: to, name: name, folder: folder, priority: priority, preview: preview, by: by), action)
	}

	tempo { |bpm, action|
		^this.ask(\tempo, [this.class.plain(bpm)], (), action)
	}

	setting { |name, value, action|
		^this.ask(("settings/" ++ name).asSymbol, [value].reject(_.isNil), (), action)
	}
}
