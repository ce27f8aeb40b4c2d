"""What configurations are called."""

from __future__ import annotations

import pytest


def test_labels_differ(record, configurations):
    made = configurations(
        [
            *(record(3.0, model=f"/{name}/config.json", density=1) for name in "ab"),
            *(record(3.0, model="/a/config.json", density=1, learning_rate=rate) for rate in (1e-3, 1.0004e-3)),
        ]
    )
    assert [one.label for one in made] == [
        "dense /a/config.json learning rate None",
        "dense /b/config.json",
        "dense /a/config.json learning rate 0.001",
        "dense /a/config.json learning rate 0.0010004",
    ]


@pytest.mark.parametrize(
    ("workload", "told"),
    [({"precision": "bf16"}, "precision {}"), ({"steps": 500}, "steps {}"), ({"batch_size": 64}, "batch size {}")],
)
def test_labels_tell_workloads_apart(record, configurations, workload, told):
    """A dense model in bf16 beside sparse ones in fp32 is not compared with them, and a reader must see why."""
    ((name, value),) = workload.items()
    sparse = record(3.2, density=0.1, updates=0)
    made = configurations([record(3.0, density=1, **workload), sparse])
    assert [one.label for one in made] == [
        f"dense {told.format(value)}",
        f"static d0.1 {told.format(getattr(sparse.recipe, name))}",
    ]
    assert not made[0].trained_like(made[1])
