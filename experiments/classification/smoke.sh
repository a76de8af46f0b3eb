#!/usr/bin/env bash
# Does the whole recipe run? On generated data in the true formats, in a minute of one core.
#   experiments/classification/smoke.sh [FOLDER]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="$here/../../data_tools"
out="${1:-smoke}"
steps="${STEPS:-40}"
python="${PYTHON:-python}"
mkdir -p "$out"

"$python" "$here/small_data.py" "$out/small"

small='{"depth": 8}'
for loss in ce hmld10000000g05a75 BalancedSoftmaxLoss; do
    "$python" -m dense_imb train labels --config "$here/cifar10.yaml" --out "$out/runs/$loss" \
        --labels.train "$out/small/cifar-10-python.tar.gz" --labels.imb_ratio 10 --loss "$loss" \
        --model.options "$small" --steps "$steps" --validate_every "$steps" --batch_size 32 --quiet
done
"$python" -m dense_imb evaluate "$out"/runs/{ce,hmld10000000g05a75,BalancedSoftmaxLoss} \
    --out "$out/cifar_table" --overwrite

"$python" "$tools/prepare_images.py" "$out/small/table/images" "$out/prepared" \
    --grey-world --crop --size 32 --overwrite
"$python" "$tools/table.py" "$out/small/table/train.csv" --classes nevus melanoma \
    --shares train=0.8 validation=0.2 --out "$out/tables" --overwrite
"$python" -m dense_imb train labels --config "$here/melanoma.yaml" --out "$out/runs/melanoma" \
    --labels.train "$out/tables/train.csv" --labels.validation "$out/tables/validation.csv" \
    --labels.images "$out/prepared" --labels.size '[32, 32]' --labels.classes '[nevus, melanoma]' \
    --model.name resnet32 --model.options '{"depth": 8, "head": "cosine"}' --loss LDAM-RW \
    --steps "$steps" --validate_every "$steps" --batch_size 16 --quiet
"$python" -m dense_imb evaluate "$out/runs/melanoma" "$out/tables/validation.csv"
