#!/usr/bin/env bash
# Submit a sweep and return to the shell; the runs need nobody to wait for them. From the repository:
#   slurm/sweep.sh experiment=toybox_rules
#   slurm/sweep.sh corpus=DF415 guidance=asd_sd,sds_sd seed=0,1 hydra.launcher.partition=gpu
#   LAUNCHER=slurm_8gpu slurm/sweep.sh trainer=ddp seed=0,1
# A mistake is told at once, and nothing is submitted.

set -euo pipefail

if (($# == 0)); then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
python=${PYTHON:-.venv/bin/python}
mkdir -p multirun
log=$(mktemp multirun/submit.XXXXXX)
nohup "$python" train.py -m "hydra/launcher=${LAUNCHER:-slurm}" "$@" </dev/null >"$log" 2>&1 &
driver=$!

folder=
until [[ -n $folder ]] && compgen -G "$folder/.submitit/*/*_submission.sh" >/dev/null; do
    if ! kill -0 $driver 2>/dev/null; then
        status=0
        wait $driver || status=$?
        cat "$log" >&2
        rm "$log"
        exit $status
    fi
    folder=$(sed -n 's/.*sweep output dir : //p' "$log")
    sleep 0.2
done
mv "$log" "$folder/submit.log"
job=$(basename "$(compgen -G "$folder/.submitit/*/*_submission.sh" | head -n 1)" _submission.sh)
grep -c $'\t#[0-9]' "$folder/submit.log" | xargs -I{} echo "{} runs in job $job: $folder"
echo "  squeue --me           what is waiting and running"
echo "  scancel $job          stop it; every run saves first"
echo "  tail -f $folder/*/slurm-*.out"
