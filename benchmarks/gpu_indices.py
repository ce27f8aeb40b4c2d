"""What it costs to derive, at every product, what the kernels need besides the topology (docs/gpu.md).

    python benchmarks/gpu_indices.py --block 16x16

prints a JSON line for each block: microseconds of the block rows in transposed order and of the lists of items (where
there is one), from CUDA graphs.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from evergraft.bench.timing import fastest
from evergraft.settings import parse_block
from evergraft.sparse.products.gpu.gather import _limit
from evergraft.sparse.products.gpu.grouping import by_columns, by_rows
from evergraft.sparse.products.gpu.sample import GATHERED
from evergraft.sparse.products.gpu.work import divide
from evergraft.sparse.topology import BlockTopology


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", action="append", required=True)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--in", dest="in_features", type=int, default=768)
    parser.add_argument("--out", dest="out_features", type=int, default=3072)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    for block in map(parse_block, arguments.block):
        rng = np.random.default_rng(0)
        topology = BlockTopology.random(arguments.out_features, arguments.in_features, block, arguments.density, rng)
        topology = BlockTopology(block, *(tensor.to(arguments.device) for tensor in topology.tensors()))
        rows, columns = by_rows(topology), by_columns(topology)
        tasks = {
            "transposed rows": lambda topology=topology: by_columns(topology),
            "items of an output": lambda rows=rows: divide(rows, _limit(arguments.tokens, rows)),
            "items of an input gradient": lambda columns=columns: divide(columns, _limit(arguments.tokens, columns)),
            "items of a weight gradient": lambda rows=rows: divide(rows, max(1, GATHERED // rows.run)),
        }
        launched = {name: task for name, task in tasks.items() if name == "transposed rows" or task().items is not None}
        seconds = fastest(launched, 20, device=arguments.device, graphs=True)
        figures = {name: round(time * 1e6, 2) for name, time in seconds.items()}
        print(json.dumps({"block": f"{block[0]}x{block[1]}", "microseconds": figures}))


if __name__ == "__main__":
    main()
