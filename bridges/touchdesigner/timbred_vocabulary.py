"""The parameters of a sound, as the component shows them.

Written by `write_vocabulary.py` from timbred's own declarations: don't change it here.
"""

# ruff: noqa: E501
# fmt: off

UNSET = -1
"""What stands in a number's place until it is given."""

AS_DECLARED = "default"
"""A menu's first entry: the key isn't sent."""

PARAMETERS = [
    {"key": "model", "name": "Model", "page": "Sound", "style": "StrMenu", "default": "", "help": "a name from `models`: text of at most 200 characters; default `models.default`"},
    {"key": "seconds", "name": "Seconds", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "length in seconds: a number from 0.05 to 600; default the model's"},
    {"key": "bars", "name": "Bars", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 256, "help": "length in bars of the session's tempo: a number from 0.0625 to 256"},
    {"key": "bpm", "name": "Bpm", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 999, "help": "tempo that `bars` are counted in: a number from 20 to 999; default `tempo`"},
    {"key": "beats_per_bar", "name": "Beatsperbar", "page": "Sound", "style": "Float", "default": 4, "low": 1, "high": 32, "help": "meter that `bars` are counted in: a number from 1 to 32; default 4"},
    {"key": "negative", "name": "Negative", "page": "Sound", "style": "Str", "default": "", "help": "what not to hear, in words: text of at most 2000 characters; default the model's"},
    {"key": "steps", "name": "Steps", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 1000, "help": "denoising steps: a whole number from 1 to 1000; default the model's"},
    {"key": "guidance", "name": "Guidance", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 50, "help": "how strictly the prompt rules: a number from 0 to 50; default the model's"},
    {"key": "eta", "name": "Eta", "page": "Sound", "style": "Float", "default": 0, "low": 0, "high": 1, "help": "noise added in `ddim` steps: a number from 0 to 1; default 0"},
    {"key": "scheduler", "name": "Scheduler", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc"], "help": "how noise is taken away: one of ddim, dpm++2m, dpm++2m-karras, euler, euler-a, heun, lms, pndm, unipc; default the model's"},
    {"key": "seed", "name": "Seed", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 2147483647, "help": "same seed, same sound: a whole number from 0 to 2147483647; default random, and reported"},
    {"key": "exact", "name": "Exact", "page": "Sound", "style": "Toggle", "default": 0, "help": "each take made alone with deterministic kernels: 0 or 1; default 0"},
    {"key": "takes", "name": "Takes", "page": "Sound", "style": "Int", "default": 1, "low": 1, "high": 16, "help": "variations from one request: a whole number from 1 to 16; default 1"},
    {"key": "rank", "name": "Rank", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "0", "1"], "help": "best first, by likeness to the prompt: 0 or 1; default 1 where the model can"},
    {"key": "init", "name": "Init", "page": "Sound", "style": "Str", "default": "", "help": "sound to start from: take id or path: text of at most 4096 characters"},
    {"key": "strength", "name": "Strength", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 1, "help": "how far `init` may be changed: a number from 0 to 1"},
    {"key": "start", "name": "Start", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "repaint `init` from here, seconds: a number from 0 to 600"},
    {"key": "end", "name": "End", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "repaint `init` up to here, seconds: a number from 0 to 600"},
    {"key": "low", "name": "Low", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 96000, "help": "repaint `init` above this, Hz: a number from 0 to 96000"},
    {"key": "high", "name": "High", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 96000, "help": "repaint `init` below this, Hz: a number from 0 to 96000"},
    {"key": "extend", "name": "Extend", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "seconds to add after `init`, which stays as it is: a number from 0.05 to 600"},
    {"key": "prompt2", "name": "Prompt2", "page": "Sound", "style": "Str", "default": "", "help": "a second prompt to mix towards: text of at most 2000 characters"},
    {"key": "mix", "name": "Mix", "page": "Sound", "style": "Float", "default": 0.5, "low": 0, "high": 1, "help": "how far towards `prompt2`: a number from 0 to 1; default 0.5"},
    {"key": "weights", "name": "Weights", "page": "Sound", "style": "Str", "default": "", "help": "weights of words, as `word:1.4 word:0.6`: text of at most 2000 characters"},
    {"key": "noise", "name": "Noise", "page": "Sound", "style": "Str", "default": "", "help": "take id whose starting noise is reused: text of at most 64 characters"},
    {"key": "transcription", "name": "Transcription", "page": "Sound", "style": "Str", "default": "", "help": "what is said, for models that speak: text of at most 2000 characters"},
    {"key": "loop", "name": "Loop", "page": "Sound", "style": "Toggle", "default": 0, "help": "the end meets the start without a seam: 0 or 1; default 0"},
    {"key": "rate", "name": "Rate", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 192000, "help": "Hz of the file: a whole number from 8000 to 192000; default `audio.rate`; `init`'s if it stays"},
    {"key": "format", "name": "Format", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "aiff", "flac", "ogg", "wav"], "help": "kind of file: one of aiff, flac, ogg, wav; default wav; `init`'s if it stays"},
    {"key": "bits", "name": "Bits", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "16", "24", "32"], "help": "bits of a sample; 32 is float: one of 16, 24, 32; default 24; `init`'s if it stays"},
    {"key": "channels", "name": "Channels", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "1", "2"], "help": "channels of the file: one of 1, 2; default the model's; `init`'s if it stays"},
    {"key": "loudness", "name": "Loudness", "page": "Sound", "style": "Str", "default": "", "help": "LUFS (BS.1770) to normalise to: a number from -70 to 0 or off; default off"},
    {"key": "peak", "name": "Peak", "page": "Sound", "style": "Str", "default": "", "help": "dBFS to normalise the peak to: a number from -60 to 0 or off; default -1; none where `init` stays"},
    {"key": "trim", "name": "Trim", "page": "Sound", "style": "Toggle", "default": 0, "help": "cut silence at both ends: 0 or 1; default 0"},
    {"key": "fade_in", "name": "Fadein", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "seconds of fade at the start: a number from 0 to 60; default 0.002 at most, against a click; shorter or none where it would soften the attack"},
    {"key": "fade_out", "name": "Fadeout", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "seconds of fade at the end: a number from 0 to 60; default 0.01 at most; shorter where the sound ends with its peak"},
    {"key": "name", "name": "Name", "page": "Sound", "style": "Str", "default": "", "help": "a slug for the file: text of at most 120 characters; default the prompt"},
    {"key": "folder", "name": "Folder", "page": "Sound", "style": "Str", "default": "", "help": "a folder inside the takes folder: text of at most 120 characters"},
    {"key": "priority", "name": "Priority", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "background", "live", "normal"], "help": "who goes first when the engine is busy: one of background, live, normal; default normal"},
    {"key": "preview", "name": "Preview", "page": "Sound", "style": "Toggle", "default": 0, "help": "an early, rough rendering while it is denoising: 0 or 1; default 0"},
    {"key": "by", "name": "By", "page": "Sound", "style": "Str", "default": "", "help": "a deadline, `bar 33` or seconds from now: as many steps as fit: text of at most 40 characters"},
    {"key": "scsynth", "name": "Scsynth", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 65535, "help": "UDP port of the scsynth that reads the take by itself (OSC): a whole number from 1 to 65535"},
    {"key": "buffer", "name": "Buffer", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 1000000, "help": "number of the buffer for the first take, with `scsynth`: a whole number from 0 to 1000000"},
    {"key": "gain", "name": "Gain", "page": "Playing", "style": "Float", "default": 0, "low": -120, "high": 24, "help": "dB: a number from -120 to 24; default 0"},
    {"key": "pan", "name": "Pan", "page": "Playing", "style": "Float", "default": 0, "low": -1, "high": 1, "help": "left -1 to right 1: a number from -1 to 1; default 0"},
    {"key": "speed", "name": "Speed", "page": "Playing", "style": "Float", "default": 1, "low": 0.05, "high": 20, "help": "playback speed, 1 is as recorded: a number from 0.05 to 20; default 1"},
    {"key": "out", "name": "Out", "page": "Playing", "style": "Int", "default": 1, "low": 1, "high": 256, "help": "first output channel: a whole number from 1 to 256; default 1"},
    {"key": "at", "name": "At", "page": "Playing", "style": "Str", "default": "", "help": "`now`, `beat`, `bar` or a number of beats: text of at most 40 characters; default now"},
    {"key": "fade", "name": "Fade", "page": "Playing", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "seconds of fade or crossfade: a number from 0 to 60"},
    {"key": "to", "name": "To", "page": "Playing", "style": "Menu", "default": "default", "choices": ["default", "both", "file", "play"], "help": "where the sound goes: one of both, file, none, play; default file"},
    {"key": "voice", "name": "Voice", "page": "Playing", "style": "Int", "default": -1, "low": -1, "high": 64, "help": "the voice to play on, with `to play` or `both`; else a free one: a whole number from 1 to 64"},
]

EVENTS = {
    "/timbred/buffered": ["id", "index", "buffer", "path"],
    "/timbred/cancelled": ["id"],
    "/timbred/done": ["id", "takes", "path"],
    "/timbred/ended": ["voice", "take", "frame", "reason"],
    "/timbred/fail": ["id", "code", "message"],
    "/timbred/flowing": ["voice", "take", "frame", "late"],
    "/timbred/loaded": ["model"],
    "/timbred/model": ["name", "state", "native_rate", "channels", "max_seconds", "licence", "memory_mb"],
    "/timbred/playing": ["voice", "take", "frame", "beat"],
    "/timbred/pong": [],
    "/timbred/preview": ["id", "path"],
    "/timbred/progress": ["id", "fraction", "step", "steps", "eta_s"],
    "/timbred/queued": ["id", "position", "eta_s"],
    "/timbred/started": ["id", "model"],
    "/timbred/status.reply": ["jobs_queued", "jobs_running", "models_resident", "device_memory_used", "device_memory_total", "voices_playing", "sample_rate", "underruns", "uptime_s"],
    "/timbred/synced": ["n"],
    "/timbred/take": ["id", "index", "path", "seconds", "rate", "channels", "seed", "score", "take_id"],
    "/timbred/unloaded": ["model"],
    "/timbred/warning": ["id", "key", "message"],
    "/timbred/welcome": ["client_id", "version", "http_port"],
}
