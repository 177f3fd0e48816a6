#!/bin/sh
# @TITLE@
# Usage: recover.sh [--nodes NODE,NODE...] [--stall]         README.md says what it does.
# Exit code: 0 every node it was to put back is back, 2 one is not, 3 wrong usage or another run.
set -uf
LC_ALL=C
export LC_ALL
umask 077
unset _ @TOKENS@ # which no command below needs
tab=$(printf '\t')

say() { printf '%s\n' "$*"; }
fail() {
  say "recover.sh: $*" >&2
  exit 3
}

kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 3
journal=$kit/journal.tsv
ours=@OURS@
operators=@OPERATORS@
variants=@VARIANTS@

chosen=$ours
variant=back
while [ $# -gt 0 ]; do
  case $1 in
    --nodes)
      [ $# -ge 2 ] || fail "--nodes: expected names, got none"
      chosen=$(printf '%s' "$2" | tr ',' ' ')
      shift
      ;;
    --stall) variant=stall ;;
    *) fail "expected --nodes NODE,NODE or --stall, got $1" ;;
  esac
  shift
done
case " $variants " in
  *" $variant "*) ;;
  *) fail "--stall: this kit has no such targets" ;;
esac
for node in $chosen; do
  case " $ours " in
    *" $node "*) ;;
    *) fail "$node: expected one of: $ours" ;;
  esac
done
[ -n "$chosen" ] || fail "expected a node of ours, got none"

within() { # SECONDS COMMAND...
  limit=$1
  shift
  if command -v timeout >/dev/null 2>&1; then timeout "$limit" "$@"; else "$@"; fi
}

digest() { # FILE
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum <"$1"
  elif command -v shasum >/dev/null 2>&1; then
    shasum -a 256 <"$1"
  fi | cut -d ' ' -f 1
}

checked() { # FILE SHA256
  if [ ! -f "$1" ] || [ ! -r "$1" ]; then
    say "$1: expected a readable file, got none"
    return 65
  fi
  got=$(digest "$1")
  [ "$got" = "$2" ] && return 0
  say "$1: expected sha256:$2, got ${got:-neither sha256sum nor shasum}"
  return 65
}

act() { # VARIANT/NODE/STEP
  case $1 in
#@ACTS@
    *)
      say "$1: no such step"
      return 64
      ;;
  esac
}

note() { # NODE STEP PHASE CODE
  printf '%s\t%s\t%s\t%s\t%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" "$3" "$4" >>"$journal"
}

last() { # NODE STEP: what its last line says; nothing when the other targets came after it
  found=
  while IFS="$tab" read -r _ at_node at_step phase _; do
    [ "$at_node" = "$1" ] || continue
    case $at_step in
      "$2") found=$phase ;;
      *-"$variant") ;;
      *) found= ;;
    esac
  done <"$journal"
  say "$found"
}

step() { # NODE STEP
  if [ "$(last "$1" "$2-$variant")" = done ]; then
    say "$1: $2: done already"
    return 0
  fi
  if ! note "$1" "$2-$variant" intent -; then
    say "$1: $2: expected room for the journal, got none"
    return 1
  fi
  act "$variant/$1/$2" </dev/null >"$kit/last.log" 2>&1
  code=$?
  cat "$kit/last.log" >>"$kit/output.log"
  if [ "$code" -eq 0 ]; then
    note "$1" "$2-$variant" done 0
    say "$1: $2: done"
    return 0
  fi
  note "$1" "$2-$variant" failed "$code"
  say "$1: $2: failed, exit $code: $(tail -n 1 "$kit/last.log" | tr -d '[:cntrl:]')"
  return 1
}

held() { # OWNER HINT
  fail "another run is at work (process ${1:-unknown}), or a delivery that it began${2:-}"
}

hold() { # until we end: by flock, which dies with its process, else by a folder
  if command -v flock >/dev/null 2>&1 && (: >>"$kit/lock") 2>/dev/null; then
    exec 9>>"$kit/lock"
    flock -n 9 9>&9 2>/dev/null
    case $? in
      0) say "$$ $(uname -n)" >"$kit/lock" && return ;;
      1) held "$(cat "$kit/lock")" ;;
    esac # any other: no locks in this file system
  fi
  mkdir "$kit/lock.d" 2>/dev/null || held '' ". If it is gone: rmdir '$kit/lock.d'"
  trap 'rmdir "$kit/lock.d"' EXIT
}

back() { step "$1" deliver && step "$1" restart; }

if ! printf '' >>"$journal"; then
  fail "$kit: expected a folder that can be written, got another; copy the kit"
fi
trap 'exit 3' HUP INT TERM
hold
# What a power cut left of a line must not become part of the next.
[ -z "$(tail -c 1 "$journal")" ] || printf '\n' >>"$journal"
cd -- @PROJECT@ 2>/dev/null || say "warning: the folder that relative commands start in is gone"

failed=
for node in $chosen; do
  back "$node" || failed="$failed $node"
done
if [ -n "$failed" ]; then
  say "once more:$failed"
  again=$failed
  failed=
  for node in $again; do
    back "$node" || failed="$failed $node"
  done
fi

for node in $chosen; do
  case " $failed " in
    *" $node "*) say "NOT BACK  $node" ;;
    *) say "back      $node" ;;
  esac
done
for file in $operators; do
  say "not ours  send $kit/operators/$file"
done
[ -z "$failed" ] || exit 2
