#!/bin/sh
# Measure what docs/performance.md shows, on a machine with nothing else to do: about an hour on one core.
# Results are appended to benchmarks/results/; then the tables of the page are drawn anew from them.
set -e
cd "$(dirname "$0")/.."
evergraft=${EVERGRAFT:-.venv/bin/evergraft}
results=benchmarks/results

for precision in fp32 bf16; do
    $evergraft bench products --tokens 4096 --in 768 --out 3072 --threads 1 --precision $precision --rivals dense \
        --block 1x1 --block 4x4 --block 8x1 --block 16x1 --block 8x8 --block 16x16 --block 64x64 --output $results
    $evergraft bench products --tokens 4096 --in 768 --out 3072 --threads 1 --precision $precision --rivals dense \
        --block 1x1 --block 16x1 --block 16x16 --plot $results/break-even-$precision.html --rounds 3 \
        --output $results/break-even.json
    for model in mini small base; do
        # A stock step of Base takes most of a minute.
        rivals=all; [ $model = base ] && rivals=dense
        $evergraft bench step --model $model --block 16x16 --precision $precision --threads 1 --rivals $rivals \
            --output $results
        $evergraft bench profile --model $model --block 16x16 --precision $precision --threads 1 --rivals $rivals \
            --output $results
    done
done
$evergraft bench products --block 16x16 --threads 1 --output $results/all-rivals.json
$evergraft bench products --block 16x16 --threads 2 --rivals dense --output $results
.venv/bin/python benchmarks/performance_page.py
