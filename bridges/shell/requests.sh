#!/usr/bin/env bash
# Lines to take from. Each letter after the address is the kind of one argument: s text, i whole number, f number.
# Answers are heard with: oscdump -L 7779
set -euo pipefail

port=${TIMBRED_OSC_PORT:-7770}
answers=${TIMBRED_ANSWERS_PORT:-7779}
session=$(date +%s)-$$  # an id names one request for ever: the same one again is the same request

# a sound; four of them; one that begins and ends without a seam, two bars long
oscsend 127.0.0.1 "$port" /timbred/generate sssfsi "$session-1" "warm analog pad" @seconds 2 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/generate sssfsisi "$session-2" "wooden hit" @seconds 0.5 @takes 4 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/generate sssisisi "$session-3" "shaker groove" @bars 1 @loop 1 @port "$answers"

# what not to hear, and the same sound again for the same seed
oscsend 127.0.0.1 "$port" /timbred/generate sssssisi "$session-4" "bell" @negative "noise" @seed 7 @port "$answers"

# what is there, how it is, the last five takes
oscsend 127.0.0.1 "$port" /timbred/models si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/status si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/takes sisi @limit 5 @port "$answers"

# tempo; a setting read; all of this client's requests ended
oscsend 127.0.0.1 "$port" /timbred/tempo fsi 120 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/settings/audio.rate si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/cancel ssi "*" @port "$answers"
