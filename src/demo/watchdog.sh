# shellcheck shell=sh
# Runs a program, and ends it when standard input closes, which happens however the demo ends.
# Arguments: the signals to send one after the other, seconds to wait after each, log file,
# program and its arguments. Ends last of all, with the program's status.
signals=$1 grace=$2 log=$3
shift 3
exec 3<&0 </dev/null >>"$log" 2>&1
"$@" 3<&- &
program=$!
(
    read -r _ <&3
    trap '' TERM
    for signal in $signals; do
        kill -s "$signal" "$program" || exit 0
        tenths=0
        while [ "$tenths" -lt "${grace}0" ]; do
            kill -0 "$program" || exit 0
            sleep 0.1 || sleep 1
            tenths=$((tenths + 1))
        done
    done
) 2>/dev/null &
watchdog=$!
exec 3<&-
wait "$program"
status=$?
kill -s TERM "$watchdog" 2>/dev/null # it still reads, or it sees by itself that all is over
wait "$watchdog" 2>/dev/null
exit "$status"
