# Golden outputs, losses and gradients of the state-space ops, by PyTorch autograd in f64: the convolution by
# torch.nn.functional.conv1d, the selective scan as its recurrence, state-space duality in its quadratic form, a
# semiseparable matrix over the whole sequence, which shares no step with a recurrence or with chunks.
#   pip install torch==2.13.0 safetensors && python tests/oracles/make-state-space.py
# Writes tests/oracles/golden/state-space.safetensors. A name is case/input/x, case/gradient/x, case/output or case/loss.
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.functional import conv1d, silu, softplus

torch.manual_seed(7)
tensors = {}


def normal(*shape):
    return torch.randn(*shape).double().requires_grad_()  # f32 numbers, f64 arithmetic


def rates(*shape):
    return (-torch.exp(0.7 * torch.randn(*shape))).double().requires_grad_()


def record(case, inputs, output):
    seed = torch.randn(output.shape).double()
    loss = (output * seed).sum() / output.numel()
    loss.backward()
    tensors[f"{case}/seed"] = seed.float()
    tensors[f"{case}/output"] = output.detach().float().contiguous()
    tensors[f"{case}/loss"] = loss.detach().float().reshape(1)
    for name, value in inputs.items():
        tensors[f"{case}/input/{name}"] = value.detach().float().contiguous()
        tensors[f"{case}/gradient/{name}"] = value.grad.float().contiguous()
    print(case, float(loss.detach()))


def convolution(x, weight, bias):
    taps = weight.shape[1]
    padded = torch.nn.functional.pad(x.transpose(1, 2), (taps - 1, 0))
    return silu(conv1d(padded, weight[:, None, :], bias, groups=x.shape[2])).transpose(1, 2)


def selective_scan(x, delta, a, b, c, skip, delta_bias):
    d = softplus(delta + delta_bias)
    h = torch.zeros(x.shape[0], *a.shape, dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(d[:, t, :, None] * a) * h + (d * x)[:, t, :, None] * b[:, t, None, :]
        outputs.append((h * c[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1) + skip * x


def duality(x, dt, a, b, c, skip, dt_bias):
    tokens, heads = x.shape[1:3]
    d = softplus(dt + dt_bias)
    share = heads // b.shape[2]
    b, c = b.repeat_interleave(share, 2), c.repeat_interleave(share, 2)
    decays = (d * a).transpose(1, 2)  # (B, H, T)
    # segment[i, j] = the sum over j < k <= i, each column added up by itself
    below = torch.ones(tokens, tokens, dtype=torch.bool).tril(-1)
    segment = decays[..., :, None].expand(*decays.shape, tokens).masked_fill(~below, 0).cumsum(-2)
    mask = torch.exp(segment).masked_fill(~below.logical_or(torch.eye(tokens, dtype=torch.bool)), 0)
    matrix = torch.einsum("bihn,bjhn->bhij", c, b) * mask * d.transpose(1, 2)[:, :, None, :]
    return torch.einsum("bhij,bjhp->bihp", matrix, x) + skip[:, None] * x


inputs = {"x": normal(2, 19, 10), "weight": normal(10, 4), "bias": normal(10)}
record("causalConv1d", inputs, convolution(**inputs))

inputs = {
    "x": normal(1, 134, 5), "delta": normal(1, 134, 5), "a": rates(5, 16), "b": normal(1, 134, 16),
    "c": normal(1, 134, 16), "skip": normal(5), "delta_bias": normal(5),
}
record("selectiveScan", inputs, selective_scan(**inputs))

inputs = {
    "x": normal(1, 134, 4, 3), "dt": normal(1, 134, 4), "a": rates(4), "b": normal(1, 134, 2, 8),
    "c": normal(1, 134, 2, 8), "skip": normal(4), "dt_bias": normal(4),
}
record("ssd", inputs, duality(**inputs))

save_file(tensors, pathlib.Path(__file__).parent / "golden/state-space.safetensors")
