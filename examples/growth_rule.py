"""A growth rule of your own, registered by name and compared with random growth.

The rule draws twice as many candidates as it needs at random, and grows those whose gradient is largest. The toy task
shows what that is good for: a sparse layer has to reproduce another one, of which it knows neither blocks nor values.

    python examples/growth_rule.py
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

import evergraft
from evergraft import GROWTH_RULES, UpdateContext

random = GROWTH_RULES.get("random")


@GROWTH_RULES.register("steepest-candidates")
def steepest_candidates(context: UpdateContext) -> Tensor:
    """Draw `2 * context.count` inactive positions, or all there are, and keep those of the largest gradient norm."""
    inactive = context.topology.blocks - context.topology.active
    candidates = random(replace(context, count=min(2 * context.count, inactive)))
    norms = context.gradient(candidates).flatten(1).norm(dim=1)
    return candidates[norms.topk(context.count).indices]


steepest_candidates.uses_gradients = True  # so that the updater records them


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a growth rule of your own with random growth.")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps")
    parser.add_argument("--seeds", type=int, default=3, help="how often to repeat the comparison")
    options = parser.parse_args()

    print("growth rule          seed    loss  blocks found")
    for seed in range(options.seeds):
        for rule in ("random", "steepest-candidates"):
            loss, found = train(rule, seed, options.steps)
            print(f"{rule:19}  {seed:4}  {loss:6.4f}  {found:12.1%}")


def train(rule: str, seed: int, steps: int) -> tuple[float, float]:
    """Returns the last mean squared error, and the share of the teacher's blocks that the student has at the end."""
    torch.manual_seed(seed)
    teacher = evergraft.SparseLinear.random(256, 256, density=0.1, block=(8, 8), seed=2 * seed + 1)
    teacher.reset_parameters(std=0.2)
    student = nn.Sequential(nn.Linear(256, 256))
    evergraft.sparsify(student, density=0.1, block=(8, 8), include="*", seed=2 * seed)

    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    updater = evergraft.TopologyUpdater(student, optimizer, steps, updates=steps // 6, grow_by=rule, seed=seed)
    for _ in range(steps):
        x = torch.randn(128, 256)
        loss = nn.functional.mse_loss(student(x), teacher(x).detach())
        loss.backward()
        optimizer.step()
        updater.step()
        optimizer.zero_grad()
    found = torch.isin(teacher.topology.positions, student[0].topology.positions)
    return loss.item(), found.float().mean().item()


if __name__ == "__main__":
    main()
