#!/bin/sh
# gate.sh FOLDER PURPOSE SUBJECT ARGV...: run a changing command of the site, and journal it.
# The run that began it is killed where FOLDER/armed says "WHEN SUBJECT PID": during it, or after it;
# cut: after it as well, with whoever waits for its exit code, as when the machine is lost.
folder=$1 purpose=$2 subject=$3
shift 3
when=
if read -r when whose pid 2>/dev/null <"$folder/armed"; then
  case $whose in
    "$subject" | any) rm "$folder/armed" ;;
    *) when= ;;
  esac
fi
[ "$when" = during ] && kill -9 "$pid"
echo "begin $purpose $subject" >>"$folder/journal"
"$@"
code=$?
echo "end $purpose $subject $code" >>"$folder/journal"
case $when in after | cut) kill -9 "$pid" ;; esac
[ "$when" = cut ] && kill -9 0
exit "$code"
