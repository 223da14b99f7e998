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
    {"key": "model", "name": "Model", "page": "Sound", "style": "StrMenu", "default": "", "help": "name of a model, as listed by `models` (text of at most 200 characters; default `models.default`)"},
    {"key": "seconds", "name": "Seconds", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "length in seconds (a number from 0.05 to 600; default the model's)"},
    {"key": "bars", "name": "Bars", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 256, "help": "length in bars at the session's tempo (a number from 0.0625 to 256)"},
    {"key": "bpm", "name": "Bpm", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 999, "help": "tempo for `bars`, in beats per minute (a number from 20 to 999; default `tempo`)"},
    {"key": "beats_per_bar", "name": "Beatsperbar", "page": "Sound", "style": "Float", "default": 4, "low": 1, "high": 32, "help": "beats per bar for `bars` (a number from 1 to 32; default 4)"},
    {"key": "negative", "name": "Negative", "page": "Sound", "style": "Str", "default": "", "help": "negative prompt, text that describes what to avoid (text of at most 2000 characters; default the model's)"},
    {"key": "steps", "name": "Steps", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 1000, "help": "number of denoising steps (a whole number from 1 to 1000; default the model's)"},
    {"key": "guidance", "name": "Guidance", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 50, "help": "guidance scale; higher values follow the prompt more closely (a number from 0 to 50; default the model's)"},
    {"key": "eta", "name": "Eta", "page": "Sound", "style": "Float", "default": 0, "low": 0, "high": 1, "help": "amount of noise that each `ddim` step adds (a number from 0 to 1; default 0)"},
    {"key": "scheduler", "name": "Scheduler", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc"], "help": "noise schedule and solver (one of ddim, dpm++2m, dpm++2m-karras, euler, euler-a, heun, lms, pndm, unipc; default the model's)"},
    {"key": "seed", "name": "Seed", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 2147483647, "help": "random seed; the same seed gives the same sound (a whole number from 0 to 2147483647; default random, reported in `take`)"},
    {"key": "exact", "name": "Exact", "page": "Sound", "style": "Toggle", "default": 0, "help": "render each take alone with deterministic kernels (0 or 1; default 0)"},
    {"key": "takes", "name": "Takes", "page": "Sound", "style": "Int", "default": 1, "low": 1, "high": 16, "help": "number of takes (a whole number from 1 to 16; default 1)"},
    {"key": "rank", "name": "Rank", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "0", "1"], "help": "order the takes by similarity to the prompt, best first (0 or 1; default 1 if the model supports it)"},
    {"key": "init", "name": "Init", "page": "Sound", "style": "Str", "default": "", "help": "init audio, a take id or the path of an audio file (text of at most 4096 characters)"},
    {"key": "strength", "name": "Strength", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 1, "help": "how much `init` is changed (a number from 0 to 1)"},
    {"key": "start", "name": "Start", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "start of the region of `init` to regenerate, in seconds (a number from 0 to 600)"},
    {"key": "end", "name": "End", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "end of the region of `init` to regenerate, in seconds (a number from 0 to 600)"},
    {"key": "low", "name": "Low", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 96000, "help": "lower limit of the band of `init` to regenerate, in Hz (a number from 0 to 96000)"},
    {"key": "high", "name": "High", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 96000, "help": "upper limit of the band of `init` to regenerate, in Hz (a number from 0 to 96000)"},
    {"key": "extend", "name": "Extend", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 600, "help": "seconds to append to `init`, which is preserved (a number from 0.05 to 600)"},
    {"key": "prompt2", "name": "Prompt2", "page": "Sound", "style": "Str", "default": "", "help": "second prompt, mixed with the first (text of at most 2000 characters)"},
    {"key": "mix", "name": "Mix", "page": "Sound", "style": "Float", "default": 0.5, "low": 0, "high": 1, "help": "proportion of `prompt2` in the mix (a number from 0 to 1; default 0.5)"},
    {"key": "weights", "name": "Weights", "page": "Sound", "style": "Str", "default": "", "help": "weights of words in the prompt, as `word:1.4 word:0.6` (text of at most 2000 characters)"},
    {"key": "noise", "name": "Noise", "page": "Sound", "style": "Str", "default": "", "help": "id of a take whose initial noise is reused (text of at most 64 characters)"},
    {"key": "transcription", "name": "Transcription", "page": "Sound", "style": "Str", "default": "", "help": "text to speak, for speech models (text of at most 2000 characters)"},
    {"key": "loop", "name": "Loop", "page": "Sound", "style": "Toggle", "default": 0, "help": "render a seamless loop (0 or 1; default 0)"},
    {"key": "rate", "name": "Rate", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 192000, "help": "sample rate of the file in Hz (a whole number from 8000 to 192000; default `audio.rate`; `init`'s where it is preserved)"},
    {"key": "format", "name": "Format", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "aiff", "flac", "ogg", "wav"], "help": "file format (one of aiff, flac, ogg, wav; default wav; `init`'s where it is preserved)"},
    {"key": "bits", "name": "Bits", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "16", "24", "32"], "help": "bits per sample; 32 is float (one of 16, 24, 32; default 24; `init`'s where it is preserved)"},
    {"key": "channels", "name": "Channels", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "1", "2"], "help": "number of channels of the file (one of 1, 2; default the model's; `init`'s where it is preserved)"},
    {"key": "loudness", "name": "Loudness", "page": "Sound", "style": "Str", "default": "", "help": "target loudness in LUFS (BS.1770) (a number from -70 to 0 or off; default off)"},
    {"key": "peak", "name": "Peak", "page": "Sound", "style": "Str", "default": "", "help": "target peak level in dBFS (a number from -60 to 0 or off; default -1; off where `init` is preserved)"},
    {"key": "trim", "name": "Trim", "page": "Sound", "style": "Toggle", "default": 0, "help": "remove silence at both ends (0 or 1; default 0)"},
    {"key": "fade_in", "name": "Fadein", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "fade-in in seconds (a number from 0 to 60; default at most 0.002, to prevent a click; less or 0 if it would soften the attack)"},
    {"key": "fade_out", "name": "Fadeout", "page": "Sound", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "fade-out in seconds (a number from 0 to 60; default at most 0.01; less if the sound ends with its peak)"},
    {"key": "name", "name": "Name", "page": "Sound", "style": "Str", "default": "", "help": "file name (text of at most 120 characters; default from the prompt)"},
    {"key": "folder", "name": "Folder", "page": "Sound", "style": "Str", "default": "", "help": "subfolder of the takes folder (text of at most 120 characters)"},
    {"key": "priority", "name": "Priority", "page": "Sound", "style": "Menu", "default": "default", "choices": ["default", "background", "live", "normal"], "help": "priority in the queue (one of background, live, normal; default normal)"},
    {"key": "preview", "name": "Preview", "page": "Sound", "style": "Toggle", "default": 0, "help": "send a rough rendering during denoising (0 or 1; default 0)"},
    {"key": "by", "name": "By", "page": "Sound", "style": "Str", "default": "", "help": "deadline, `bar 33` or seconds from now; sets the number of steps (text of at most 40 characters)"},
    {"key": "scsynth", "name": "Scsynth", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 65535, "help": "UDP port of an scsynth that reads the takes into its buffers (OSC) (a whole number from 1 to 65535)"},
    {"key": "buffer", "name": "Buffer", "page": "Sound", "style": "Int", "default": -1, "low": -1, "high": 1000000, "help": "buffer number for the first take, with `scsynth` (a whole number from 0 to 1000000)"},
    {"key": "gain", "name": "Gain", "page": "Playing", "style": "Float", "default": 0, "low": -120, "high": 24, "help": "gain in dB (a number from -120 to 24; default 0)"},
    {"key": "pan", "name": "Pan", "page": "Playing", "style": "Float", "default": 0, "low": -1, "high": 1, "help": "-1 left, 0 centre, 1 right (a number from -1 to 1; default 0)"},
    {"key": "speed", "name": "Speed", "page": "Playing", "style": "Float", "default": 1, "low": 0.05, "high": 20, "help": "playback speed; 1 is the original (a number from 0.05 to 20; default 1)"},
    {"key": "out", "name": "Out", "page": "Playing", "style": "Int", "default": 1, "low": 1, "high": 256, "help": "first output channel (a whole number from 1 to 256; default 1)"},
    {"key": "at", "name": "At", "page": "Playing", "style": "Str", "default": "", "help": "when to start: `now`, `beat`, `bar` or the number of a beat (text of at most 40 characters; default now)"},
    {"key": "fade", "name": "Fade", "page": "Playing", "style": "Float", "default": -1, "low": -1, "high": 60, "help": "fade-in or crossfade in seconds (a number from 0 to 60)"},
    {"key": "to", "name": "To", "page": "Playing", "style": "Menu", "default": "default", "choices": ["default", "both", "file", "play"], "help": "destination; `none` for inline samples only (one of both, file, none, play; default file)"},
    {"key": "voice", "name": "Voice", "page": "Playing", "style": "Int", "default": -1, "low": -1, "high": 64, "help": "voice to play on, with `@to play` or `@to both`; default a free one (a whole number from 1 to 64)"},
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
