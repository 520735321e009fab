#!/usr/bin/env bash
# A real SLURM of two nodes on this machine, to try things out and for the tests: slurm/one_host.sh up|down [FOLDER]
#
#   apt-get install -y --no-install-recommends slurm-wlm munge slurmdbd mariadb-server-core
#   slurm/one_host.sh up /tmp/one-host-slurm && export SLURM_CONF=/tmp/one-host-slurm/slurm.conf
#
# Needs root. Nodes n1 and n2 with 16 CPUs and two GPUs each, all of them make-believe; partitions main and high, whose
# jobs take the place of main's after a notice of GRACE seconds (default 20); accounting, so that sacct tells how jobs
# ended. Everything is kept in the folder; ports 26817 to 26822 of this host, nothing else is touched.
set -euo pipefail

action=${1:-}
home=$(realpath -m "${2:-/tmp/one-host-slurm}")
conf=$home/slurm.conf
export SLURM_CONF=$conf

say() { echo "one_host.sh: $*" >&2; }

wait_for() { # SECONDS COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            return 1
        fi
        sleep 0.1
    done
}

alive() { # PID: one that is dead and not yet collected is not
    [[ -n $1 ]] && grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

dead() { ! alive "$1"; }

idle_nodes() { [[ $(timeout 2 sinfo --noheader --partition=main --states=idle --format=%D) == 2 ]]; }

no_jobs() { [[ -z $(timeout 2 squeue --noheader) ]]; }

down() {
    local daemon pid
    [[ -d $home/run ]] || return 0
    if alive "$(cat "$home/run/slurmctld.pid" 2>/dev/null)"; then
        timeout 10 scancel --full --user="$(id -un)" 2>/dev/null || true
        wait_for 15 no_jobs || true # they may save first
    fi
    for daemon in slurmd-n1 slurmd-n2 slurmctld slurmdbd mariadbd munged; do
        pid=$(cat "$home/run/$daemon.pid" 2>/dev/null) || continue # read once: some remove it before they end
        if alive "$pid"; then
            kill "$pid" 2>/dev/null || true
            wait_for 10 dead "$pid" || kill -9 "$pid" 2>/dev/null || true
        fi
        rm -f "$home/run/$daemon.pid"
    done
}

write_configuration() {
    local host memory
    host=$(hostname -s)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    # Without expiry after seconds, a job that is requeued waits for two minutes.
    local munge=socket=$home/run/munge.socket,cred_expire=5
    cat >"$conf" <<CONF
ClusterName=onehost
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=$munge
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool/%n
SlurmctldPidFile=$home/run/slurmctld.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdPidFile=$home/run/slurmd-%n.pid
SlurmdLogFile=$home/log/slurmd-%n.log
# No cgroups: containers seldom let anybody make one.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
TaskProlog=$home/prolog.sh

SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1
# Jobs of main get their own --signal before those of high take their place.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=26820
AccountingStoragePass=$home/run/munge.socket

NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26818 CPUs=16 RealMemory=$memory Gres=gpu:2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26819 CPUs=16 RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=n[1-2] Default=YES DefaultTime=60 PriorityTier=1 GraceTime=${GRACE:-20}
PartitionName=high Nodes=n[1-2] DefaultTime=60 PriorityTier=2 PreemptMode=OFF
CONF
    cat >"$home/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=$munge
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=26820
SlurmUser=root
PidFile=$home/run/slurmdbd.pid
LogFile=$home/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=26821
StorageUser=root
StorageLoc=accounting
CONF
    chmod 600 "$home/slurmdbd.conf"
    # Slurm hands out CUDA_VISIBLE_DEVICES for device nodes alone; these are second names of /dev/null.
    local gpu
    for gpu in 0 1; do
        [[ -c $home/gpu$gpu ]] || mknod "$home/gpu$gpu" c 1 3
    done
    echo "NodeName=n[1-2] Name=gpu File=$home/gpu[0-1]" >"$home/gres.conf"
    # Processes of a run meet at the first node, whose name no resolver knows.
    printf '#!/bin/sh\necho export MASTER_ADDR=127.0.0.1\n' >"$home/prolog.sh"
    chmod +x "$home/prolog.sh"
}

up() {
    local program
    for program in slurmctld slurmd slurmdbd munged mariadbd; do
        command -v "$program" >/dev/null || { say "$program is not installed (see the top of this file)"; exit 3; }
    done
    [[ $(id -u) == 0 ]] || { say "needs root"; exit 3; }
    mkdir -p "$home"/{run,log,state,spool,database}
    chmod 755 "$home" "$home/run"
    write_configuration
    [[ -s $home/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom >"$home/munge.key")
    munged --force --key-file="$home/munge.key" --socket="$home/run/munge.socket" --pid-file="$home/run/munged.pid" \
        --log-file="$home/log/munged.log" --seed-file="$home/run/munge.seed"
    setsid mariadbd --no-defaults --user=root --datadir="$home/database" --skip-grant-tables \
        --bind-address=127.0.0.1 --port=26821 --socket="$home/run/mariadbd.socket" --pid-file="$home/run/mariadbd.pid" \
        --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
        </dev/null >"$home/log/mariadbd.log" 2>&1 &
    wait_for 30 test -S "$home/run/mariadbd.socket" || { say "the database does not start: $home/log"; return 1; }
    slurmdbd
    wait_for 30 timeout 2 sacctmgr --noheader show cluster || { say "no accounting: $home/log"; return 1; }
    sacctmgr --immediate --quiet add cluster onehost >/dev/null 2>&1 || true # it is there if this is not the first time
    slurmctld
    slurmd -N n1
    slurmd -N n2
    wait_for 30 idle_nodes || { say "the nodes do not come up: $home/log"; return 1; }
}

case $action in
up)
    down
    up || { down; exit 1; }
    echo "export SLURM_CONF=$conf"
    ;;
down) down ;;
*)
    say "usage: one_host.sh up|down [FOLDER]"
    exit 2
    ;;
esac
