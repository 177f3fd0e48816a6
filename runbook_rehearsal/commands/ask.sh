#!/bin/sh
# version, read-config, stopped and assets NODE, and test-rules FILE of the rehearsal network: a stage asks them
# dozens of times, and starting Python for each costs more than everything else. Faults are files:
# <root>/faults/NAME.NODE.
root=$1 verb=$2 node=$3

fail() {
  echo "$node: $1" >&2
  exit "$2"
}

if [ "$verb" = test-rules ]; then
  ls "$root"/faults/promtool-missing.* >/dev/null 2>&1 && fail "promtool: not found" 127
  command -v promtool >/dev/null && exec promtool test rules "$node"
  exec python3 -m runbook_rehearsal.telemetry.rules "$node"
fi

for home in "$root"/clusters/*/"$node"; do
  [ -f "$home/config.toml" ] && break
  fail "expected a node of this network, got an unknown name" 1
done

[ -e "$root/faults/node-cut-off.$node" ] && fail "ssh: no route to host" 255
case $verb in
version)
  [ -f "$home/running.json" ] || fail "the node is not running" 1
  [ -e "$root/faults/candidate-unreadable.$node" ] && fail "ssh: connection reset by peer" 255
  unreadable=$root/faults/version-unreadable.$node
  # Only once the node was restarted: the checks before a deploy read versions as well.
  if [ -e "$unreadable" ] && [ "$home/running.json" -nt "$unreadable" ]; then
    fail "ssh: connection reset by peer" 255
  fi
  cat "$home/running.json"
  ;;
read-config)
  [ -e "$root/faults/config-unreadable.$node" ] && fail "ssh: connection reset by peer" 255
  cat "$home/config.toml"
  ;;
stopped)
  [ -e "$root/faults/stopped-unreadable.$node" ] && fail "ssh: connection reset by peer" 255
  gone=true
  [ -e "$home/running.json" ] && gone=false
  echo "{\"node\": \"$node\", \"stopped\": $gone}"
  ;;
assets)
  [ -e "$root/faults/assets-probe-broken.$node" ] && fail "fetch: permission denied" 13
  cluster=${home%/*} free=64000000000
  fetchable=$(cat "$root/rollback/${cluster##*/}/fetchable")
  [ -e "$root/faults/assets-not-fetchable.$node" ] && fetchable="[]"
  [ -e "$root/faults/assets-no-space.$node" ] && free=8192
  echo "{\"node\": \"$node\", \"fetchable\": $fetchable, \"free_bytes\": $free}"
  ;;
*) fail "expected version, read-config, stopped, assets or test-rules, got $verb" 1 ;;
esac
