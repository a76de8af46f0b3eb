#!/bin/bash
# One training on two nodes with four GPUs each. Two minutes before its time limit it saves, queues
# itself again, and later continues:
#     sbatch experiments/slurm.sh
#SBATCH --job-name=dense-imb
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=29500 WORLD_SIZE="$SLURM_NTASKS"
# a process for each GPU; srun ends them all when one dies (torchrun works, too, but turns the
# exit code 75 into 1)
srun --kill-on-bad-exit bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID \
    .venv/bin/dense-imb train hits --config experiments/arc/full.yaml --out runs/arc/full \
    --precision bf16 --resume'
if [ $? -eq 75 ]; then # stopped by the signal, and saved
    scontrol requeue "$SLURM_JOB_ID"
fi
