#!/bin/sh
# run.sh ROOT VERB ...: one command of the site, carried out by the network in ROOT (calls.py).
# A stage runs dozens of them, and an interpreter takes longer to start than all of this.
root=$1 call=$1/calls/$$
shift
if ! { read -r pid <"$root/calls/pid" && kill -0 "$pid"; } 2>/dev/null; then
  echo "rehearsal network: expected one at work in $root, got none; is it running?" >&2
  exit 1
fi
printf '%s\0' "$PWD" "$@" >"$call" && mkfifo "$call.answer" && echo $$ >>"$root/calls/asked" || exit 1
{ read -r code printed said && [ "$printed" = none ] || cat; } <"$call.answer"
[ "$said" = none ] || { cat "$call.said" >&2 && rm "$call.said"; }
exit "${code:-1}"
