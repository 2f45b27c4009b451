# Runs a command of a compiled pipeline in an image that has sh and no Python, as a step of an Azure ML job.
#
# The step before it decided whether the command runs, and with what (command.sh); the step after it collects what the
# command leaves in this one's folder: outputs/, log.txt, and how it ended. Whatever comes of the command, this step
# succeeds. The pipeline's texts are nothing here but quoted words of command.sh.
#
# POSIX sh with env, kill, mkdir, mkfifo, rm, sleep and tee.

set -u

while IFS= read -r line; do
  case $line in
    @@*@@*)
      line=${line#@@}
      name=${line%%@@*}
      case $name in
        '' | *[!a-z0-9]*)
          echo "penstock: '$name' is no name of an input or output" >&2
          exit 70
          ;;
      esac
      eval "penstock_$name=\${line#*@@}"
      ;;
  esac
done

left=$penstock_control
command_file=$penstock_prepared/command.sh
printf '%s' "$left" >"$left/where"
if [ ! -f "$command_file" ]; then
  echo 'penstock: there is no command to run; the step after this one says why'
  exit 0
fi

work=
for base in "$PWD" "${TMPDIR:-/tmp}"; do
  work=$base/.penstock-$$
  mkdir "$work" 2>/dev/null && break
  work=
done
if [ -z "$work" ]; then
  echo "penstock: neither $PWD nor ${TMPDIR:-/tmp} can be written to" >&2
  exit 70
fi
trap 'rm -rf "$work"' EXIT

. "$command_file"

attempt() {
  rm -rf "$left/outputs" "$left/late" "$work/here" "$work/log"
  mkdir "$left/outputs" "$work/here" && mkfifo "$work/log" || exit 70
  tee "$left/log.txt" <"$work/log" &
  tee=$!
  (
    cd "${penstock_workdir:-$work/here}" || exit 126
    TMPDIR=$work/here
    export TMPDIR
    penstock_command
  ) </dev/null >"$work/log" 2>&1 &
  command=$!
  watch=
  if [ -n "$penstock_timeout" ]; then
    (
      sleep "$penstock_timeout"
      : >"$left/late"
      kill -TERM "$command"
      sleep 5
      kill -KILL "$command"
    ) </dev/null >/dev/null 2>&1 &
    watch=$!
  fi
  wait "$command"
  code=$?
  # What the command has left running may hold the log open.
  (
    sleep 5
    kill "$tee"
  ) </dev/null >/dev/null 2>&1 &
  patience=$!
  wait "$tee"
  kill $watch "$patience" 2>/dev/null
}

for seconds in $penstock_waits; do
  [ "$seconds" = 0 ] || sleep "$seconds"
  attempt
  [ "$code" = 0 ] && break
done
[ "$code" = 0 ] || rm -rf "$left/outputs"
printf '%s' "$code" >"$left/code"
exit 0
