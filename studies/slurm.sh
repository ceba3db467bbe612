#!/usr/bin/env bash
# Hand what is left of a study to SLURM, as a job array with a task for each run.
#
# studies/slurm.sh NAME [SBATCH OPTION ...] [-- OPTION ...]
#
# NAME is a list as for studies/run.sh. What stands before -- goes to sbatch, what stands behind it to main.py in every
# run, with --save_path DIR as the place of the study. ATTEMPTS, in the environment, is how often a task is started at
# most (20), and PYTHON starts the program as for studies/run.sh. docs/clusters.md says more.
set -euo pipefail

say() { echo "$*" >&2 || true; }

fail() {
    say "studies/slurm.sh: error: $2"
    exit "$1"
}

script=$0
[ -e "$script" ] || script=$(command -v -- "$script") # as bash has found it on the PATH
script=$(readlink -f -- "$script")                    # where there is SLURM, readlink has -f

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$script"; }
case ${1:-} in
'') usage >&2 && exit 2 ;;
-h | --help) usage && exit 0 || exit 1 ;;
esac
name=$1 attempts=${ATTEMPTS:-20}
shift
sbatch_options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    sbatch_options+=("$1")
    shift
done
[ $# = 0 ] || shift
case $attempts in
0* | *[!0123456789]* | ???????*) fail 2 "ATTEMPTS is a whole number from 1 to 999999, not $attempts" ;;
esac
command -v sbatch >/dev/null || fail 1 "there is no sbatch here"

# A line for each run: its directory and its command, quoted for a shell.
commands=$("$(dirname "$script")/run.sh" "$name" --commands "$@") || exit $?
if [ -z "$commands" ]; then
    say "all runs of $name are finished; studies/run.sh $name reports on them"
    exit 0
fi
runs=()
while IFS= read -r line; do runs+=("$line"); done <<<"$commands"
declare -a words
eval "words=(${runs[0]})"
study=$(dirname -- "${words[0]}")
mkdir -p -- "$study"
place=$(CDPATH='' cd -- "$study" && pwd -P && echo .) # a line break at the end would get lost
place=${place%$'\n.'}
if [[ $place == *\\* || $name$place == *$'\n'* ]]; then
    fail 2 "sbatch takes no path with a backslash or a line break, as ${place//$'\n'/ } has: give another --save_path"
fi

queue=$(squeue --me --noheader --format='%F %k') || fail 1 "squeue does not tell what is in the queue"
while IFS= read -r line; do
    if [ "${line#* }" = "$place" ]; then
        fail 1 "$study is in the queue already as job ${line%% *}: wait for it, or take it out by scancel ${line%% *}"
    fi
done <<<"$queue"

# Arrays of at most as many tasks as the cluster allows; indices begin with 0.
size=$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')
case $size in
'' | 0* | *[!0123456789]*) fail 1 "this SLURM allows no job arrays (MaxArraySize is '$size')" ;;
esac

# What a task does. It starts the program itself, not as a step (srun), so that signals come here and the exit code of
# the program can decide what becomes of the task.
read -r -d '' body <<'EOT' || true
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # SLURM_JOB_ID of the last task means the whole array
directory=$1 log=$1/log.txt starts=$((${SLURM_RESTART_COUNT:-0} + 1))
shift

say() { echo "$(date '+%F %T') $task, start $starts, $directory: $*"; }

pid='' signal=''
forward() {
    signal=$1
    [ -z "$pid" ] || kill -s "$signal" "$pid" 2>/dev/null
}
trap 'forward USR1' USR1 # comes ahead of the time limit, see --signal
trap 'forward TERM' TERM # time limit, preemption, scancel

if [ "$starts" -gt "$attempts" ]; then # which counts those after a failure of the node as well
    say "given up after $attempts starts; studies/slurm.sh once more goes on from here"
    exit 1
fi
mkdir -p -- "$directory" || exit 1
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export MKL_NUM_THREADS=$OMP_NUM_THREADS
unset OMP_PROC_BIND OMP_PLACES GOMP_CPU_AFFINITY KMP_AFFINITY # would bind tasks side by side to the same cores
say "begins on $(hostname) with $OMP_NUM_THREADS threads"
echo "\$ $*" >>"$log"
"$@" </dev/null >>"$log" 2>&1 &
pid=$!
[ -z "$signal" ] || kill -s "$signal" "$pid"
while :; do # a trapped signal ends `wait` before the program has ended
    signal=''
    wait "$pid"
    code=$?
    [ -n "$signal" ] || break
done

said=$(tail -n 1 -- "$log")
if [ "$code" -gt 128 ] && [[ $said != *'stopped '* ]]; then
    said="killed by SIG$(kill -l "$code")"
    [ "$code" != 137 ] || said+=', most often because memory ran out: give more by --mem'
fi
say "exit code $code: $said"
case $code in
138 | 143) ;;
# After a failure of the node the program may live on for a moment, while this is its next start.
1) [[ $said == *'another training is writing to'* ]] || exit 1 ;;
*) exit "$code" ;;
esac

# Stopped, and saved. While the task counts as running, the signal came ahead of its end; where that end is the time
# limit, it has to be put back as well. SLURM itself puts back what it preempts, and what was cancelled stays out.
state=$(scontrol --oneliner show job "$task" 2>/dev/null)
case $state in
*JobState=RUNNING* | *JobState=SIGNALING* | *Reason=TimeLimit*)
    if [ "$starts" -ge "$attempts" ]; then
        say "given up after $attempts starts; studies/slurm.sh once more goes on from here"
    elif scontrol requeue "$task"; then
        say "put back into the queue"
    fi
    ;;
*) say "left as it is: $(grep -o 'JobState=[A-Z_]*' <<<"$state")" ;;
esac
exit "$code"
EOT

for ((start = 0; start < ${#runs[@]}; start += size)); do
    chunk=("${runs[@]:start:size}")
    {
        # shellcheck disable=SC2016 # is expanded by the task
        printf '#!/usr/bin/env bash\nattempts=%s\ncase $SLURM_ARRAY_TASK_ID in\n' "$attempts"
        for i in "${!chunk[@]}"; do printf '%s) set -- %s ;;\n' "$i" "${chunk[i]}"; done
        printf 'esac\n%s\n' "$body"
    } | sbatch --job-name="study-$(basename -- "$name" .txt)" --array="0-$((${#chunk[@]} - 1))" --requeue --open-mode=append \
        --signal=B:USR1@120 --output="${place//%/%%}/slurm-%A_%a.log" --comment="$place" \
        ${sbatch_options[@]+"${sbatch_options[@]}"}
done
say "${#runs[@]} runs are in the queue; when they have ended, studies/run.sh $name reports on them"
