#!/usr/bin/env bash
# Try studies/slurm.sh on a real SLURM: one node on the loopback, in a temporary folder that is gone afterwards.
#
# By hand and as root, in the environment of the program: apt-get install slurm-wlm munge; tests/slurm.sh
# It takes about a quarter of an hour on two cores. Each test ends with the weights and the history of a run that was
# never disturbed, bit for bit. Exit code 0: all as it should be.
set -euo pipefail

top=$(CDPATH='' cd "$(dirname "$0")/.." && pwd)
cd "$top"
folder=$(mktemp -d "${TMPDIR:-/tmp}/slurm-test.XXXXXX")
export SLURM_CONF=$folder/slurm.conf

say() { echo "$(date +%T) $*"; }

pid_of() { cat "$folder/$1.pid" 2>/dev/null || true; }

take_down() {
    code=$?
    [ $code = 0 ] || { tail -n 20 "$folder"/slurm*.log "$folder/output" 2>/dev/null || true; }
    for name in slurmctld slurmd munged; do
        pid=$(pid_of $name)
        [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    done
    for pid in $(stepds) $(in_folder); do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
    exit $code
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The processes whose command line names the temporary folder: what this script has started, and what those have.
in_folder() {
    for path in /proc/[0-9]*; do
        pid=${path#/proc/}
        if [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] && tr '\0' ' ' 2>/dev/null <"$path/cmdline" | grep -qF "$folder"; then
            echo "$pid"
        fi
    done
}

# The daemons of running tasks of this SLURM.
stepds() {
    for pid in $(pgrep -x slurmstepd || true); do
        if grep -qzF "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ" 2>/dev/null; then echo "$pid"; fi
    done
}

# Wait until a command succeeds, at most so many seconds.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -gt $deadline ]; then
            say "FAILED: waited in vain for: $*"
            squeue || true
            return 1
        fi
        sleep 0.5
    done
}

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start_slurmd() { slurmd -f "$SLURM_CONF"; }

set_up() {
    host=$(hostname -s)
    mkdir "$folder"/{state,spool,munge}
    chmod 755 "$folder"
    chmod 711 "$folder/munge"
    head -c 1024 /dev/urandom >"$folder/munge/key"
    chmod 400 "$folder/munge/key"
    cat >"$SLURM_CONF" <<EOC
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/ended
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
SlurmdTimeout=10
MaxArraySize=1001
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes=$host Default=YES PriorityTier=1 MaxTime=60
PartitionName=grace Nodes=$host PriorityTier=1 GraceTime=5
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF
EOC
    munged --force --key-file "$folder/munge/key" --socket "$folder/munge/socket" --pid-file "$folder/munged.pid" \
        --log-file "$folder/munged.log" --seed-file "$folder/munge/seed"
    slurmctld -f "$SLURM_CONF"
    start_slurmd
    until_true 60 node_is idle
    say "SLURM $(sbatch --version | cut -d ' ' -f 2), one node: $(sinfo --noheader --format='%n, %c CPUs, %T' | sort -u)"
}

node_is() { sinfo --noheader --format=%T | grep -qx "$1"; }

# A task by the name of its study's job: its state as squeue has it; nothing when it is no longer there.
state_of() { squeue --noheader --array --states=all --name="study-$1" --format=%T; }

is_in_state() { state_of "$1" | grep -qx "$2"; }

num_epochs() { grep -c '"epoch": [0-9]*,$' "$folder/$1/history.json"; }

has_trained() { [ "$(num_epochs "$1")" -gt "$(($2 + 1))" ]; } # the entry of a session has an "epoch", too

both_ended() { [ "$(state_of "$1" | grep -c 'COMPLETED\|FAILED')" = 2 ]; }

# How the job of a study has ended, and how often it was started.
ending_of() { scontrol --oneliner show job "$1" | grep -o ' \(JobState\|Restarts\|ExitCode\)=[^ ]*' | tr -d '\n'; }

write_list() { printf '%s %s\n' "$2" "$3" >"$folder/$1.txt"; }

submit() {
    local list=$1
    shift
    studies/slurm.sh "$folder/$list.txt" "$@" -- --save_path "$folder/$list" 2>&1 | sed 's/^/    /'
}

job_of() { squeue --noheader --states=all --name="study-$1" --format=%F | sort -n | tail -n 1; }

# The run of a study ended like the undisturbed one, after at least so many sessions.
check_same() {
    python - "$folder/$1/run" "$folder/$2" "$3" <<'EOP'
import json
import sys
from pathlib import Path

import torch


def result(path: Path) -> tuple:
    history = json.loads((path / "history.json").read_text())
    sessions = history.pop("sessions")
    del history["options"]["save_path"]
    for epoch in history["epochs"]:
        del epoch["seconds"], epoch["images_per_second"], epoch["evaluation_seconds"]
    model = torch.load(path / "model.pt", weights_only=True)["model"]
    return {name: tensor.numpy().tobytes() for name, tensor in model.items()}, history, sessions


weights, history, sessions = result(Path(sys.argv[1]))
expected_weights, expected_history, _ = result(Path(sys.argv[2]))
assert history["finished"], "unfinished"
assert weights == expected_weights, "other weights"
assert history == expected_history, "another history"
assert len(sessions) >= int(sys.argv[3]), f"{len(sessions)} sessions"
places = [(session["epoch"], session["step"]) for session in sessions]
print(f"    the bits of the undisturbed run; it went on from (epoch, step) {places}")
EOP
}

log_of() { sed 's/^/    /' "$folder/$1"/slurm-*.log; }

# Wait for the only task of a study to end well, and compare.
check() {
    local study=$1 expected=$2 sessions=$3
    until_true 600 is_in_state "$study" 'COMPLETED\|FAILED\|TIMEOUT\|CANCELLED\|NODE_FAIL\|PREEMPTED'
    say "$study:$(ending_of "$(job_of "$study")")"
    log_of "$study"
    is_in_state "$study" COMPLETED || { say "FAILED: $study is $(state_of "$study")" && return 1; }
    check_same "$study" "$expected" "$sessions"
}

set_up

say "an undisturbed run, and how long one has to be"
options="--setting 0 --data 0 --synthetic --image_size 8"
mkdir "$folder/probe"
# shellcheck disable=SC2086
train() { OMP_NUM_THREADS=1 python main.py --train $options --resume --save_history "$@" 2>"$folder/output"; }
train --epochs 10 --save_path "$folder/probe" >"$folder/output"
# By the quickest epoch, and with room: the machine may be busy now and idle later.
epochs_in() {
    python -c "
import json
epochs = json.load(open('$folder/probe/history.json'))['epochs'][1:]
print(1 + int($1 / min(e['seconds'] + e['evaluation_seconds'] for e in epochs)))"
}
epochs=$(epochs_in 45) long_epochs=$(epochs_in 100)
say "$epochs epochs, and $long_epochs where a time limit is to be met"
short="$options --epochs $epochs" long="$options --epochs $long_epochs"

if [ $# -gt 0 ]; then wanted=" $* "; else wanted=''; fi
asked() {
    for name in "$@"; do
        if [ -z "$wanted" ] || [[ $wanted == *" $name "* ]]; then return 0; fi
    done
    return 1
}
train --epochs "$epochs" --save_path "$folder/short" >"$folder/output"
if asked limit term away crash; then train --epochs "$long_epochs" --save_path "$folder/long" >"$folder/output"; fi

if asked limit; then
    say "time limit, with USR1 ahead of it"
    write_list limit run "$long"
    submit limit --time=1 --signal=B:USR1@20
    check limit long 2
fi

if asked term; then
    say "time limit, without a signal ahead of it"
    write_list term run "$long"
    submit term --time=1 --signal=B:CONT@1 # which means nothing to anybody
    check term long 2
fi

preempt() {
    write_list "$1" run "$short"
    submit "$1" --partition="$2"
    until_true 300 has_trained "$1/run" 3
    say "a job in the partition above it"
    sbatch --parsable --partition=high --exclusive --job-name=above --output=/dev/null --wrap='sleep 5' >/dev/null
    check "$1" short 2
}
if asked preempted; then
    say "preemption, at once"
    preempt preempted low
fi
if asked graced; then
    say "preemption, with a time of grace"
    preempt graced grace
fi
if asked warned; then
    say "preemption, with a time of grace and the signal at its beginning"
    echo SlurmctldParameters=preempt_send_user_signal >>"$SLURM_CONF"
    scontrol reconfigure
    preempt warned grace
fi

if asked cancelled; then
    say "scancel"
    write_list cancelled run "$short"
    submit cancelled
    until_true 300 has_trained cancelled/run 3
    ! submit cancelled || { say "FAILED: handed in twice" && exit 1; }
    scancel "$(job_of cancelled)"
    until_true 60 is_in_state cancelled CANCELLED
    say "cancelled:$(ending_of "$(job_of cancelled)")"
    sleep 10 # time to come back, which it must not
    is_in_state cancelled CANCELLED
    say "and handed in again"
    submit cancelled
    until_true 60 is_in_state cancelled 'PENDING\|RUNNING'
    until_true 600 is_in_state cancelled COMPLETED
    log_of cancelled
    check_same cancelled short 2
fi

if asked daemon; then
    say "the node's daemon killed, and started again at once"
    write_list daemon run "$short"
    submit daemon
    until_true 300 has_trained daemon/run 3
    kill -9 "$(pid_of slurmd)"
    start_slurmd
    check daemon short 1
fi

# A node is lost once the run has saved its model, which it does every minute.
if asked away; then
    say "the node's daemon killed, and started again when it was missed"
    write_list away run "$long"
    submit away
    until_true 300 test -e "$folder/away/run/model.pt"
    kill -9 "$(pid_of slurmd)"
    until_true 120 node_is 'down.*'
    start_slurmd
    check away long 2
fi

if asked crash; then
    say "the whole node killed: its daemon, the task and the run"
    write_list crash run "$long"
    submit crash
    until_true 300 test -e "$folder/crash/run/model.pt"
    kill -9 "$(pid_of slurmd)"
    for pid in $(stepds) $(in_folder); do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in slurmctld | munged) ;; *) kill -9 "$pid" 2>/dev/null || true ;; esac
    done
    start_slurmd
    check crash long 2
fi

if asked failing; then
    say "a run that fails beside one that does not"
    write_list failing run "$short --epochs 2"
    echo "wrong --setting 3 --data 1 --data_path /dev/null" >>"$folder/failing.txt"
    submit failing
    until_true 300 both_ended failing
    squeue --noheader --array --states=all --name=study-failing --format='    %K %T'
    log_of failing
    [ "$(state_of failing | sort | tr '\n' ' ')" = 'COMPLETED FAILED ' ]
    scontrol show job "$(job_of failing)_1" | grep -o 'ExitCode=.*'
fi

if asked paths; then
    say "a path with blanks, quotes and what SLURM takes for a pattern"
    write_list paths run "$short --epochs 2"
    study="$folder/my runs/50%a '%%' "
    hand_in() { studies/slurm.sh "$folder/paths.txt" -- --save_path "$study" 2>&1 | sed 's/^/    /'; }
    hand_in
    ! hand_in || { say "FAILED: handed in twice" && exit 1; }
    until_true 300 is_in_state paths COMPLETED
    sed 's/^/    /' "$study/slurm-$(job_of paths)_0.log"
fi

if asked attempts; then
    say "a run that is never given enough time"
    write_list attempts run "$long"
    ATTEMPTS=2 submit attempts --time=1 --signal=B:USR1@50
    until_true 600 is_in_state attempts FAILED
    log_of attempts
    say "attempts:$(ending_of "$(job_of attempts)")"
    say "what is finished already is not handed in"
    write_list finished run "$short"
    mkdir -p "$folder/finished"
    cp -r "$folder/short" "$folder/finished/run"
    submit finished
    [ -z "$(job_of finished)" ]
fi

say "all as it should be"
