"""Vocabulary head and cross-entropy in one, against torch's two."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evergraft.kernels import vocabulary_loss as module
from evergraft.kernels.vocabulary_loss import vocabulary_loss


def tensors(tokens=13, hidden=8, vocabulary=30, dtype=torch.float64, ignored=()):
    labels = torch.randint(vocabulary, (tokens,))
    labels[list(ignored)] = -100
    shapes = (tokens, hidden), (vocabulary, hidden), (vocabulary,)
    return [*(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes), labels]


def reference(hidden, weight, bias, labels):
    scores = F.linear(hidden, weight, bias)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    nats = F.cross_entropy(scores, labels, ignore_index=-100, reduction="none")
    return nats.sum() / (labels != -100).sum(), nats, (scores.argmax(1) == labels) & (labels != -100)


@pytest.fixture(params=[1, 60, 10**9], ids=["a token at a time", "chunks", "one chunk"])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_cross_entropy(dtype, scale):
    inputs = tensors(dtype=dtype, ignored=(0, 5, 12))
    got, expected = vocabulary_loss(*inputs), reference(*inputs)
    exact = {"rtol": 1e-12, "atol": 1e-14} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **exact)
    gradients = torch.autograd.grad(got.loss * scale, inputs[:3])
    for ours, theirs in zip(gradients, torch.autograd.grad(expected[0] * scale, inputs[:3]), strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


def test_autocast(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7 * 200)
    inputs = tensors(tokens=40, hidden=32, vocabulary=200, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = vocabulary_loss(*inputs), reference(*inputs)
    assert got.loss.dtype == torch.float32
    torch.testing.assert_close(got.nats, expected[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(got.correct, expected[2])
    for ours, theirs in zip(
        torch.autograd.grad(got.loss, inputs[:3]), torch.autograd.grad(expected[0], inputs[:3]), strict=True
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3)


def test_confident_predictions_stay_exact():
    """A probability of exp(-2000) is zero, its logarithm is not."""
    hidden, weight, bias, labels = tensors()
    inputs = hidden.detach().float() * 1000, weight.detach().float(), bias.detach().float(), labels
    got, expected = vocabulary_loss(*inputs), reference(*inputs)
    assert got.nats.max() > 1000
    torch.testing.assert_close(got.nats, expected[1], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("tokens", [0, 3])
def test_nothing_to_predict(tokens):
    *parameters, labels = tensors(tokens=tokens, dtype=torch.float32, ignored=range(tokens))
    loss = vocabulary_loss(*parameters, labels).loss
    assert loss == 0
    loss.backward()
    assert all(parameter.grad.shape == parameter.shape and not parameter.grad.any() for parameter in parameters)


def test_tied_weight():
    embedding, decoder = nn.Embedding(30, 8).double(), nn.Linear(8, 30).double()
    decoder.weight = embedding.weight
    ids, labels = torch.randint(30, (13,)), torch.randint(30, (13,))
    got = vocabulary_loss(embedding(ids), decoder.weight, decoder.bias, labels).loss
    expected = F.cross_entropy(decoder(embedding(ids)), labels)
    ours, theirs = (torch.autograd.grad(loss, embedding.weight)[0] for loss in (got, expected))
    torch.testing.assert_close(ours, theirs)


def test_without_gradients():
    inputs = tensors()
    with torch.no_grad():
        loss = vocabulary_loss(*inputs).loss
    assert not loss.requires_grad
    torch.testing.assert_close(loss, reference(*inputs)[0])


def test_a_frozen_head_trains_what_is_below_it():
    hidden, weight, bias, labels = tensors()
    vocabulary_loss(hidden, weight.detach(), bias.detach(), labels).loss.backward()
    assert hidden.grad is not None


def test_backward_once():
    loss = vocabulary_loss(*tensors()).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_logits_never_exist_all_at_once(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100 * 50)
    biggest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal biggest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and 100 in tensor.shape:
                    biggest = max(biggest, tensor.numel())
            return out

    inputs = tensors(tokens=400, hidden=4, vocabulary=100)
    with Watch():
        vocabulary_loss(*inputs).loss.backward()
    assert biggest == 100 * 50


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_compiled_model_holds_it_whole(precision):
    inputs = tensors(dtype=torch.float32, ignored=(2,))

    def model(hidden, *others):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            got = vocabulary_loss(hidden * 2, *others)
        return 3 * got.loss, got.nats, got.correct

    results = []
    for function in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        outputs = function(*inputs)
        assert [output.requires_grad for output in outputs] == [True, False, False]
        results.append((*outputs, *torch.autograd.grad(outputs[0], inputs[:3])))
    torch.testing.assert_close(results[1], results[0])
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="aot_eager")(*inputs), results[0][:3])


@pytest.mark.parametrize("differentiate", [True, False])
def test_opcheck(differentiate):
    inputs = tensors(dtype=torch.float32)
    inputs = inputs if differentiate else [tensor.detach() for tensor in inputs]
    torch.library.opcheck(torch.ops.evergraft.vocabulary_loss, (*inputs, torch.float32, differentiate))
