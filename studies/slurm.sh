#!/usr/bin/env bash
# Hand what is left of a study to SLURM, as a job array with a task for each run.
#
# studies/slurm.sh NAME [SBATCH OPTION ...] [-- OPTION ...]
#
# NAME is a list as for studies/run.sh. What stands before -- goes to sbatch, what stands behind it to main.py in every
# run, with --save_path DIR as the place of the study. ATTEMPTS, in the environment, is how often a task is started at
# most (20). docs/clusters.md says more.
set -euo pipefail

if [ $# = 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 2
fi
name=$1 attempts=${ATTEMPTS:-20}
shift
sbatch_options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    sbatch_options+=("$1")
    shift
done
[ $# = 0 ] || shift
[[ $attempts =~ ^[1-9][0-9]*$ ]] || { echo "studies/slurm.sh: error: ATTEMPTS is not a number from 1" >&2 && exit 2; }
command -v sbatch >/dev/null || { echo "studies/slurm.sh: error: there is no sbatch here" >&2 && exit 1; }

# A line for each run: its directory and its command, quoted for a shell.
runs=()
while IFS= read -r line; do runs+=("$line"); done < <("$(dirname "$0")/run.sh" "$name" --commands "$@" || echo failed)
if [ ${#runs[@]} -gt 0 ] && [ "${runs[${#runs[@]} - 1]}" = failed ]; then exit 2; fi
if [ ${#runs[@]} = 0 ]; then
    echo "all runs of $name are finished; studies/run.sh $name reports on them" >&2
    exit 0
fi
declare -a words
eval "words=(${runs[0]})"
study=$(dirname "${words[0]}")
mkdir -p "$study"
place=$(cd "$study" && pwd)

queued=$(squeue --me --noheader --format='%F %k' | awk -v place="$place" '$2 == place { print $1; exit }')
if [ -n "$queued" ]; then
    echo "studies/slurm.sh: error: $study is in the queue already as job $queued: wait for it, or take it out by scancel $queued" >&2
    exit 1
fi

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
mkdir -p "$directory" || exit 1
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
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

said=$(tail -n 1 "$log")
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

# Arrays of at most as many tasks as the cluster allows; indices begin with 0.
size=$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')
for ((start = 0; start < ${#runs[@]}; start += size)); do
    chunk=("${runs[@]:start:size}")
    {
        # shellcheck disable=SC2016 # is expanded by the task
        printf '#!/usr/bin/env bash\nattempts=%s\ncase $SLURM_ARRAY_TASK_ID in\n' "$attempts"
        for i in "${!chunk[@]}"; do printf '%s) set -- %s ;;\n' "$i" "${chunk[i]}"; done
        printf 'esac\n%s\n' "$body"
    } | sbatch --job-name="study-$(basename "$name" .txt)" --array="0-$((${#chunk[@]} - 1))" --requeue --open-mode=append \
        --signal=B:USR1@120 --output="$study/slurm-%A_%a.log" --comment="$place" \
        ${sbatch_options[@]+"${sbatch_options[@]}"}
done
echo "${#runs[@]} runs are in the queue; when they have ended, studies/run.sh $name reports on them" >&2
