#!/usr/bin/env bash
# Renders a prompt and prints the file's path last: first-sound.sh a deep kick drum
# Needs liblo's oscsend and oscdump, and a running daemon: timbred serve
set -euo pipefail

port=${TIMBRED_OSC_PORT:-7770}
answers=${TIMBRED_ANSWERS_PORT:-7779}
prompt=${*:-a deep punchy kick drum}
id=shell-$$-$(date +%s)

exec 3< <(exec oscdump -L "$answers")
dump=$!
trap 'kill "$dump"' EXIT

# oscdump doesn't report when it listens, so pings are sent until an answer arrives
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  oscsend 127.0.0.1 "$port" /timbred/ping si @port "$answers"
  read -r -t 0.2 -u 3 line && break
  if [ "$attempt" = 10 ]; then
    echo "no timbred answers at 127.0.0.1 port $port; start it with: timbred serve" >&2
    exit 1
  fi
done

oscsend 127.0.0.1 "$port" /timbred/generate sssfsi "$id" "$prompt" @seconds 1 @port "$answers"
while read -r -u 3 line; do
  case "$line" in
    *"/timbred/progress "*) echo "${line##*/timbred/}" >&2 ;;
    *"/timbred/fail "*) echo "${line##*/timbred/}" >&2; exit 1 ;;
    *"/timbred/done "*) path=${line%\"}; echo "${path##*\"}"; exit ;;
  esac
done
