#!/usr/bin/env bash
# Example requests. Each letter after the address is the type of one argument: s text, i integer, f float.
# Print the answers with: oscdump -L 7779
set -euo pipefail

port=${TIMBRED_OSC_PORT:-7770}
answers=${TIMBRED_ANSWERS_PORT:-7779}
session=$(date +%s)-$$  # a repeated id is treated as the same request, so ids must be unique

# a sound; four takes; a seamless loop of one bar
oscsend 127.0.0.1 "$port" /timbred/generate sssfsi "$session-1" "warm analog pad" @seconds 2 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/generate sssfsisi "$session-2" "wooden hit" @seconds 0.5 @takes 4 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/generate sssisisi "$session-3" "shaker groove" @bars 1 @loop 1 @port "$answers"

# a negative prompt and a fixed seed
oscsend 127.0.0.1 "$port" /timbred/generate sssssisi "$session-4" "bell" @negative "noise" @seed 7 @port "$answers"

# the models, the status, the last five takes
oscsend 127.0.0.1 "$port" /timbred/models si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/status si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/takes sisi @limit 5 @port "$answers"

# set the tempo; read a setting; cancel all requests of this client
oscsend 127.0.0.1 "$port" /timbred/tempo fsi 120 @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/settings/audio.rate si @port "$answers"
oscsend 127.0.0.1 "$port" /timbred/cancel ssi "*" @port "$answers"
