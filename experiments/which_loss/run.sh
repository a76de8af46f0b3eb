#!/usr/bin/env bash
# Which loss finds rare pixels best, on cracks, on air showers, and on four kinds of simulated
# patterns? All losses have the same network, steps, seeds and split by image.
#
#   DENSE_IMB_DATA=DATA bash experiments/which_loss/run.sh runs/which_loss           # an hour of one core
#   FULL=1 DENSE_IMB_DATA=DATA bash experiments/which_loss/run.sh runs/which_loss    # a day; a GPU helps
#
# Finished parts are kept, and stopped ones continue. Names of parts behind the folder (cracks, showers,
# kinds, longer, signs, regions) run only these; OPTIONS has further options of `dense-imb compare`.
set -euo pipefail
out=${1:?"a folder for the results"}
shift
parts=${*:-cracks showers kinds longer signs regions}
here=$(cd "$(dirname "$0")/../.." && pwd)
data=${DENSE_IMB_DATA:-no folder in DENSE_IMB_DATA}
small="--seeds 3 --first-seeds 5 --batch-size 8 --quiet"
full="--seeds 5 --steps 4000 --batch-size 16"
mkdir -p "$out"

compare() { # name, options of the small size, options of both
    local name=$1 of_small=$2
    shift 2
    # shellcheck disable=SC2086
    python -m dense_imb compare "$@" --out "$out/$name" \
        $([ -n "${FULL:-}" ] && echo "$full" || echo "$small $of_small") ${OPTIONS:-}
}

make_kinds() { # frames of four kinds of patterns
    local size="--width 44 --height 64" events=480
    if [ -n "${FULL:-}" ]; then size="" events=4000; fi
    # shellcheck disable=SC2086
    python "$here/data_tools/make.py" "$out/kinds_data" --train $events --validation 0 \
        --test 0 --pattern arc ring line cross --frequency 60 25 10 5 \
        --patterns-per-event 1 3 --signal 60 --noise 100 $size
    if [ ! -e "$out/kinds.h5" ]; then
        python "$here/data_tools/label.py" "$out/kinds.h5" "$out/kinds_data/train_noisy.h5" \
            --kinds arc ring line cross --noise-is-background
    fi
}

for part in $parts; do
    case $part in
        cracks)
            compare cracks "--steps 400 --widths 8 16 32 64 --patch 96 96" \
                "$data/crackforest/images" --masks "$data/crackforest/masks" --labels 0 255
            ;;
        showers)
            compare showers "--steps 300 --widths 8 16 32" \
                "$data/fact_photon_stream/images" --masks "$data/fact_photon_stream/masks" \
                --labels 0 255
            ;;
        kinds)
            make_kinds
            compare kinds "--steps 400 --widths 8 16 32 64" "$out/kinds.h5"
            ;;
        longer) # does the lead last?
            compare longer "--steps 1600 --first-seeds 3 --widths 8 16 32 64 --patch 96 96" \
                "$data/crackforest/images" --masks "$data/crackforest/masks" --labels 0 255 \
                --loss cross-entropy --loss "balanced softmax"
            ;;
        signs) # behind kinds, whose data it takes
            compare signs "--steps 400 --first-seeds 3 --widths 8 16 32 64" "$out/kinds.h5" \
                --loss cross-entropy \
                --loss "CCE minus=ComplementCrossEntropyLoss(balancing_factor=-1.0)" \
                --loss "CCE plus=ComplementCrossEntropyLoss(balancing_factor=1.0)"
            ;;
        regions) # losses of regions, with and without instances, on the three data sets
            regions=(--loss cross-entropy --loss "balanced softmax=BalancedSoftmaxLoss"
                --loss "Dice=DiceLoss" --loss "Dice + CE=DiceLoss + CrossEntropyLoss"
                --loss 'blob + CE=DiceLoss(per="instance") + CrossEntropyLoss')
            make_kinds
            compare regions_cracks "--steps 200 --first-seeds 3 --widths 8 16 32 --patch 96 96" \
                "$data/crackforest/images" --masks "$data/crackforest/masks" --labels 0 255 \
                "${regions[@]}"
            compare regions_showers "--steps 200 --first-seeds 3 --widths 8 16 32" \
                "$data/fact_photon_stream/images" --masks "$data/fact_photon_stream/masks" \
                --labels 0 255 "${regions[@]}"
            compare regions_kinds "--steps 200 --first-seeds 3 --widths 8 16 32" \
                "$out/kinds.h5" "${regions[@]}"
            ;;
        *)
            echo "Expected cracks, showers, kinds, longer, signs or regions, got $part." >&2
            exit 2
            ;;
    esac
done
